"""Encoder-decoders through the backend's contexts, against transformers."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.plugins.text.engine.runs import together, wait_until

from openvino_llama import InferenceError, InvalidInputError, InvalidTensorError, Step, UnsupportedTargetError
from openvino_llama_multimodal.config import Fusion
from openvino_llama_multimodal.encoder_decoder.backend import EncoderDecoderBackend
from openvino_llama_multimodal.encoder_decoder.contexts import EncoderDecoderGraph

from .captioners import (
    CAPTIONER,
    DECODER,
    ENCODER,
    END,
    POSITIONS,
    READER,
    START,
    VOCABULARY,
    changed,
    config,
    context,
    generate,
    give,
    golden,
    opened,
    pixels,
    pull,
    slowed,
)


@pytest.fixture(scope="module", params=[CAPTIONER, READER], ids=["captioner", "reader"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[EncoderDecoderGraph]:
    made = opened(folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def captioner() -> Iterator[EncoderDecoderGraph]:
    made = opened(CAPTIONER)
    yield made
    made.close()


def test_it_serves_cross_attention_only() -> None:
    """The other fusions have engines of their own, or are ordinary graphs."""
    backend, model = EncoderDecoderBackend(), config(CAPTIONER)
    early = msgspec.structs.replace(model, config=msgspec.structs.replace(model.config, fusion=Fusion.EARLY))
    assert backend.serves(model)
    assert not backend.serves(early)
    assert not backend.serves(msgspec.structs.replace(model, type="text"))


def test_it_gives_what_transformers_gives(graph: EncoderDecoderGraph, folder: Path) -> None:
    """Greedy tokens and their log-probabilities: a picture of the model's size, a photograph, and after a prompt."""
    for expected in golden(folder):
        tokens, logprobs, step = generate(graph, expected.picture, expected.prompt)
        assert tokens == expected.tokens
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert step is Step.END_OF_SEQUENCE


def test_eight_at_once_give_the_same(graph: EncoderDecoderGraph, folder: Path) -> None:
    """Contexts share the graphs, and nothing else."""
    expected = golden(folder) * 2
    found = together([partial(generate, graph, each.picture, each.prompt) for each in expected])
    assert [tokens for tokens, _, _ in found] == [each.tokens for each in expected]
    for (_, logprobs, _), each in zip(found, expected, strict=True):
        assert logprobs == pytest.approx(each.logprobs, abs=1e-4)


def test_a_context_serves_sequence_after_sequence(graph: EncoderDecoderGraph, folder: Path) -> None:
    """Nothing of one is left for the next, also if it was dropped halfway."""
    made = graph.create_context()
    for expected in [*golden(folder), *reversed(golden(folder))]:
        give(made, pixels(graph, expected.picture), expected.prompt)
        for _ in range(3):
            assert made.compute_single() is Step.OUTPUT
        made.finish()
        with pytest.raises(InferenceError, match="no output"):
            made.output(0)
        assert pull(made)[0] == expected.tokens
    made.close()


def test_a_grown_cache_is_what_was_read(captioner: EncoderDecoderGraph) -> None:
    """What follows a prompt is what follows the same tokens where they were generated."""
    whole = golden(CAPTIONER)[0].tokens
    tokens, _, _ = generate(captioner, "exact", [START, *whole[:12]], max_tokens=8)
    assert tokens == whole[12:]


def test_a_stop_token_ends_a_sequence(captioner: EncoderDecoderGraph) -> None:
    """It is its last token, unless it comes too early, and it is told again and again that it has ended."""
    whole = golden(CAPTIONER)[0].tokens
    stop = whole[4]
    first = whole.index(stop)
    made = context(captioner, stop_token_ids=[stop])
    tokens = [made.output(0).item() for _ in range(first + 1) if made.compute_single() is Step.OUTPUT]
    assert tokens == whole[: first + 1]
    assert [made.compute_single() for _ in range(3)] == [Step.END_OF_SEQUENCE] * 3
    with pytest.raises(InferenceError, match="no output"):
        made.output(0)
    made.close()
    tokens, _, _ = generate(captioner, stop_token_ids=[stop], min_tokens=first + 4)
    assert stop not in tokens[: first + 4]
    assert generate(captioner, stop_token_ids=[stop], ignore_eos=True)[0] == whole


def test_the_models_own_end_ends_a_sequence(captioner: EncoderDecoderGraph) -> None:
    """Where a request states none; high temperatures come to it sooner or later."""
    found = [generate(captioner, temperature=100, seed=seed, max_tokens=63) for seed in range(30)]
    ended = [tokens for tokens, _, step in found if step is Step.END_OF_SEQUENCE and len(tokens) < POSITIONS - 1]
    assert ended
    assert all(tokens.index(END) == len(tokens) - 1 for tokens in ended)
    free = [generate(captioner, temperature=100, seed=seed, max_tokens=63, ignore_eos=True) for seed in range(30)]
    assert {len(tokens) for tokens, _, _ in free} == {POSITIONS - 1}


def test_the_last_position_ends_a_sequence(graph: EncoderDecoderGraph) -> None:
    """Prompt and tokens together are at most as many as the decoder has positions; a prompt that fills them is not
    begun.
    """
    tokens, _, step = generate(graph, prompt=[5] * 50, max_tokens=1000, ignore_eos=True)
    assert (len(tokens), step) == (POSITIONS - 50, Step.CONTEXT_FULL)
    tokens, _, step = generate(graph, prompt=[5] * (POSITIONS - 1), max_tokens=1000)
    assert (len(tokens), step) == (1, Step.CONTEXT_FULL)
    assert generate(graph, prompt=[5] * POSITIONS) == ([], [], Step.PROMPT_TOO_LONG)


def test_a_stated_context_window_is_the_last_position() -> None:
    """The registry may state fewer positions than the decoder has; more there are not."""
    for stated, positions in ((16, 16), (1000, POSITIONS)):
        graph = opened(CAPTIONER, context_window=stated)
        assert graph.limits.positions == positions
        assert len(generate(graph, max_tokens=1000, ignore_eos=True)[0]) == positions - 1
        graph.close()


def test_a_seed_repeats_a_sample(captioner: EncoderDecoderGraph) -> None:
    """The same seed gives the same tokens, also beside others; another one others; none is different each time."""
    draw: dict[str, Any] = {"temperature": 1.5, "ignore_eos": True}
    alone = [generate(captioner, **draw, seed=seed)[0] for seed in range(8)]
    at_once = together([partial(generate, captioner, **draw, seed=seed) for seed in range(8)])
    assert [tokens for tokens, _, _ in at_once] == alone
    assert len({tuple(tokens) for tokens in alone}) == 8
    assert generate(captioner, **draw) != generate(captioner, **draw)


def test_a_repetition_penalty_keeps_tokens_from_coming_again(captioner: EncoderDecoderGraph) -> None:
    """Greedy tokens of the captioner repeat themselves otherwise."""
    plain, penalised = (generate(captioner, repetition_penalty=each)[0] for each in (1, 100))
    assert len(set(plain)) < 20
    assert len(set(penalised)) == 20


@pytest.mark.parametrize("tokens", [[-1], [VOCABULARY], [1, 2, 1 << 40], [-(1 << 63)]])
def test_unknown_tokens_are_refused(graph: EncoderDecoderGraph, tokens: list[int]) -> None:
    """Their rows would be read from beyond the embedding table."""
    with pytest.raises(InvalidTensorError, match="tensor 'input_ids': tokens are 0 to 299"):
        context(graph, prompt=tokens)


@pytest.mark.parametrize(
    ("index", "tensor", "told"),
    [
        (0, np.zeros((1, 32, 31, 3), np.uint8), "'pixels': expected shape"),
        (0, np.zeros((2, 32, 32, 3), np.uint8), "'pixels': expected shape"),
        (0, np.zeros((1, 3, 32, 32), np.uint8), "'pixels': expected shape"),
        (0, np.zeros((1, 32, 32, 3), np.float32), "'pixels': expected elements of type u8"),
        (1, np.zeros((1, 0), np.int64), "'input_ids': there is no token"),
        (1, np.zeros((2, 1), np.int64), "'input_ids': expected shape"),
        (1, np.zeros((1, 1), np.int32), "'input_ids': expected elements of type i64"),
        (3, np.zeros((1, 1), np.int64), "input index 3 is out of range"),
        (-1, np.zeros((1, 1), np.int64), "input index -1 is out of range"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    captioner: EncoderDecoderGraph, index: int, tensor: Any, told: str
) -> None:
    """And the context goes on with those that it had."""
    made = context(captioner)
    with pytest.raises(InvalidTensorError, match=told):
        made.set_input(index, tensor, borrow=False)
    assert pull(made)[0] == golden(CAPTIONER)[0].tokens
    made.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "generation parameters"),
        (b'{"max_tokens": 0}', "max_tokens"),
        (b'{"max_tokens": 5, "beams": 4}', "beams"),
        (b'{"max_tokens": 5, "json_schema": "{}"}', "json_schema: this model"),
        (b'{"max_tokens": 5, "regex": "a+"}', "regex: this model"),
        (b'{"max_tokens": 5, "grammar": "root ::= \\"a\\""}', "grammar: this model"),
    ],
)
def test_parameters_that_are_wrong_are_refused(captioner: EncoderDecoderGraph, text: bytes, told: str) -> None:
    """By name; and so are those that say what the answer has to look like."""
    made = captioner.create_context()
    with pytest.raises(InvalidInputError, match=told):
        made.set_input(2, np.frombuffer(text, np.uint8), borrow=False)
    made.close()


def test_nothing_is_generated_of_nothing(captioner: EncoderDecoderGraph) -> None:
    """Each input has to be set; there is no computing in one piece, nor output that there is not."""
    made = captioner.create_context()
    for index, name in enumerate(("pixels", "input_ids", "parameters")):
        with pytest.raises(InferenceError, match=f"'{name}' has not been set"):
            made.compute_single()
        given = (pixels(captioner), np.array([[START]]), np.frombuffer(b'{"max_tokens": 2}', np.uint8))[index]
        made.set_input(index, given, borrow=False)
    assert made.compute_single() is Step.OUTPUT
    with pytest.raises(InvalidTensorError, match="output index 2"):
        made.output(2)
    with pytest.raises(UnsupportedTargetError):
        made.compute()
    made.close()
    with pytest.raises(InferenceError, match="closed"):
        made.compute_single()


def test_inputs_are_copied(captioner: EncoderDecoderGraph) -> None:
    """What a guest does to its memory afterwards is no matter: a sequence takes many calls."""
    picture, made = pixels(captioner).copy(), captioner.create_context()
    give(made, picture, [START])
    picture[:] = 0
    assert pull(made)[0] == golden(CAPTIONER)[0].tokens
    made.close()


@pytest.mark.parametrize(("name", "steps"), [(ENCODER, 0), (DECODER, 1)])
def test_a_running_inference_is_cancelled(name: str, steps: int, tmp_path: Path) -> None:
    """At the picture as well as at a token, from another thread; the context then serves the next sequence."""
    graph = opened(changed(CAPTIONER, tmp_path / "slow", name, slowed))
    made = context(graph, max_tokens=2)
    for _ in range(steps):
        assert made.compute_single() is Step.OUTPUT
    begun = time.monotonic()
    assert made.compute_single() is Step.OUTPUT
    whole = time.monotonic() - begun
    made.finish()
    for _ in range(steps):
        assert made.compute_single() is Step.OUTPUT
    ended = threading.Event()

    def cancel() -> None:
        while not ended.wait(whole / 20):
            made.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(InferenceError, match="could not run"):
        made.compute_single()
    ended.set()
    thread.join()
    assert pull(made)[0] == golden(CAPTIONER)[0].tokens[:2]
    made.close()
    made.cancel()  # of one that is closed, nothing
    graph.close()


def test_requests_are_used_again(captioner: EncoderDecoderGraph) -> None:
    """Contexts that come one after the other take the same infer requests, not one each."""
    first = context(captioner)
    requests = first._requests
    first.close()
    second = context(captioner)
    assert second._requests is requests
    second.close()


def resident() -> int:
    """Resident memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def test_a_growing_cache_takes_no_more_than_itself(folder: Path) -> None:
    """Written out, TrOCR's attention has code compiled for each length, and kept: a megabyte for each token."""
    graph = opened(folder)
    generate(graph, max_tokens=3)
    before = resident()
    generate(graph, max_tokens=1000, ignore_eos=True)
    assert resident() - before < 16_000
    graph.close()


def test_memory_stays_where_it_was(captioner: EncoderDecoderGraph) -> None:
    """After many sequences, and after the model has been opened and closed several times."""
    generate(captioner, "astronaut", max_tokens=1000, ignore_eos=True)
    before = resident()
    for _ in range(100):
        generate(captioner, "astronaut", max_tokens=1000, ignore_eos=True)
    assert resident() - before < 8_000
    for _ in range(2):
        opened(CAPTIONER).close()
    gc.collect()
    before = resident()
    for _ in range(5):
        opened(CAPTIONER).close()
    wait_until(lambda: gc.collect() >= 0 and resident() - before < 20_000)
