"""Generation from pictures, through the contexts of the engine's backend."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import mirrored
from tests.plugins.text.engine.runs import together, wait_until

from openvino_llama import (
    ConfigError,
    InferenceError,
    InvalidInputError,
    InvalidTensorError,
    ModelConfig,
    Step,
)
from openvino_llama_multimodal.config import Fusion
from openvino_llama_multimodal.engine import VisionLanguageBackend, lay_out
from openvino_llama_text.engine.backend import EngineContext, EngineGraph

from .llava import PICTURE_TOKENS, POSITIONS, PROMPT, cat_pixels, context, copied, generate, give, golden, llava, pull

LONG: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}


@pytest.fixture(scope="module")
def graph() -> Iterator[EngineGraph]:
    made = VisionLanguageBackend().open(llava(), None)
    yield made
    made.close()


def opened(config: ModelConfig) -> EngineGraph:
    return VisionLanguageBackend().open(config, None)


def marks(count: int) -> str:
    return "".join(f"<ov_genai_image_{number}>" for number in range(count))


def square(shade: int, side: int = 20) -> Any:
    return np.full((side, side, 3), shade, np.uint8)


def test_it_serves_early_fusion_only(tmp_path: Path) -> None:
    """The other fusions are other backends' models, and texts the text plugin's."""
    config = llava(tmp_path)
    assert VisionLanguageBackend().serves(config)
    for fusion in (Fusion.CROSS_ATTENTION, Fusion.EARLY):
        stated = llava(tmp_path, fusion=fusion)
        assert VisionLanguageBackend().serves(stated) == (fusion is Fusion.EARLY)
    text = ModelConfig(name="t", type="text", task="generation", files=config.files, config=config.config)
    assert not VisionLanguageBackend().serves(text)


def test_the_golden_tokens(graph: EngineGraph) -> None:
    """What transformers gives in float32; the prompt's length is told, 16 tokens for the picture in it."""
    expected = golden()
    assert generate(graph, PROMPT, [cat_pixels()]) == (expected.tokens, Step.END_OF_SEQUENCE, expected.prompt_tokens)


def test_eight_at_once(graph: EngineGraph) -> None:
    """Each has the tokens that it has alone."""
    calls = [partial(generate, graph, PROMPT, [cat_pixels()]) for _ in range(8)]
    expected = golden()
    assert together(calls) == [(expected.tokens, Step.END_OF_SEQUENCE, expected.prompt_tokens)] * 8


def test_log_probabilities(graph: EngineGraph) -> None:
    """One for each token, and none if they are not asked for."""
    for wanted in (True, False):
        made = context(graph, PROMPT, [cat_pixels()], logprobs=wanted)
        found: list[float] = []
        while made.compute_single() is Step.OUTPUT:
            found += made.output(1).tolist()
        made.close()
        assert len(found) == 20 * wanted
        assert all(value < 0 for value in found)


def test_a_text_alone(graph: EngineGraph) -> None:
    """Is continued, too; and differs from the same text with a picture."""
    tokens, step, length = generate(graph, PROMPT.replace("<ov_genai_image_0>", ""), [])
    assert (len(tokens), step) == (20, Step.END_OF_SEQUENCE)
    assert length < golden().prompt_tokens - PICTURE_TOKENS + 1
    assert tokens != golden().tokens


def test_a_context_serves_sequence_after_sequence(graph: EngineGraph) -> None:
    """Each with inputs of its own, of which nothing is kept: pictures are large."""
    made = context(graph, PROMPT, [cat_pixels()])
    first = pull(made)
    with pytest.raises(InferenceError, match="input 'prompt' has not been set"):
        made.compute_single()
    give(made, PROMPT, [cat_pixels()])
    assert made.compute_single() is Step.OUTPUT
    made.finish()
    give(made, PROMPT, [np.zeros((30, 30, 3), np.uint8)])
    assert pull(made)[0] != first[0]
    give(made, PROMPT, [cat_pixels()])
    assert pull(made) == first
    made.close()


def test_other_pictures_give_other_answers(graph: EngineGraph) -> None:
    """Although prompts of the same text share what they can of the cache, in one step and one after the other."""
    assert graph.process.load.prefix_caching
    pictures = [square(0), square(255), square(90), cat_pixels()[:200, :200]]
    prompt = PROMPT + " and say it at length" * 4
    alone = [generate(graph, prompt, [each], logprobs=True)[0] for each in pictures]
    assert len({tuple(each) for each in alone}) > 2
    assert [generate(graph, prompt, [each])[0] for each in reversed(pictures)] == alone[::-1]
    assert [each[0] for each in together([partial(generate, graph, prompt, [each]) for each in pictures])] == alone


def test_two_pictures_of_different_sizes(graph: EngineGraph) -> None:
    """Only what each size says is looked at, and their order matters."""
    small, large = cat_pixels()[:50, :80], cat_pixels()
    prompt = f"USER: {marks(2)}compare ASSISTANT:"
    tokens, step, length = generate(graph, prompt, [small, large])
    assert (len(tokens), step) == (20, Step.END_OF_SEQUENCE)
    assert length > 2 * PICTURE_TOKENS
    made = context(graph, prompt, [small, large])
    pixels = np.zeros((2, *large.shape), np.uint8)  # other padding
    pixels[0, :50, :80], pixels[1] = small, large
    made.set_input(1, pixels, borrow=False)
    assert pull(made)[0] == tokens
    made.close()
    assert generate(graph, prompt, [large, small])[0] != tokens


@pytest.mark.parametrize("side", [1, 2, 57])
def test_tiny_and_odd_pictures(graph: EngineGraph, side: int) -> None:
    """Are scaled to what the model wants."""
    assert generate(graph, PROMPT, [square(100, side)])[2] == golden().prompt_tokens


@pytest.mark.parametrize(
    "sizes",
    [
        [[300, 451], [300, 451]],
        np.zeros((0, 2)),
        [[0, 451]],
        [[300, -1]],
        [[301, 451]],
        [[300, 452]],
        [[1 << 62, 1 << 62]],
    ],
    ids=str,
)
def test_sizes_that_do_not_fit(graph: EngineGraph, sizes: Any) -> None:
    """Are refused before the engine sees them: it would read what is not there."""
    made = context(graph, PROMPT, [cat_pixels()])
    made.set_input(2, np.asarray(sizes, np.int64), borrow=False)
    with pytest.raises(InvalidTensorError, match=r"^tensor 'sizes': expected a height and width for each"):
        made.compute_single()
    made.close()


def test_a_prompt_that_is_no_text(graph: EngineGraph) -> None:
    """Is refused."""
    made = context(graph, b"USER: \xff\xfe", [])
    with pytest.raises(InvalidTensorError, match=r"^tensor 'prompt': expected UTF-8$"):
        made.compute_single()
    made.close()


def test_inputs_are_checked(graph: EngineGraph) -> None:
    """Shape, type, index, and that all are there."""
    made = graph.create_context()
    for index, wrong in (
        (0, np.zeros((1, 3), np.uint8)),
        (1, np.zeros((1, 3, 3, 4), np.uint8)),
        (1, np.zeros((1, 3, 3, 3), np.float32)),
        (2, np.zeros((1, 3), np.int64)),
        (2, np.zeros((1, 2), np.int32)),
        (4, np.zeros(1, np.uint8)),
        (-1, np.zeros(1, np.uint8)),
    ):
        with pytest.raises(InvalidTensorError):
            made.set_input(index, wrong, borrow=False)
    with pytest.raises(InvalidInputError, match="max_tokens"):
        made.set_input(3, np.frombuffer(b'{"max_tokens": 0}', np.uint8), borrow=False)
    given = (np.zeros(1, np.uint8), np.zeros((0, 0, 0, 3), np.uint8), np.zeros((0, 2), np.int64))
    for index, name in enumerate(("prompt", "pixels", "sizes", "parameters")):
        with pytest.raises(InferenceError, match=f"input '{name}' has not been set"):
            made.compute_single()
        if index < len(given):
            made.set_input(index, given[index], borrow=False)
    made.close()


@pytest.mark.parametrize(
    ("prompt", "pictures"),
    [
        ("", 0),
        ("<image>", 0),
        ("<image><image><image>", 1),
        ("<ov_genai_image_0><image>", 1),
        ("<ov_genai_image_0>", 0),
        ("<ov_genai_image_1>", 1),
        ("<ov_genai_image_99999999999999999999>", 0),
        ("<ov_genai_image_0><ov_genai_image_99999999999999999999>", 1),
        ("<ov_genai_image_0><ov_genai_image_4294967295>", 1),
    ],
)
def test_marks_that_stand_for_nothing(graph: EngineGraph, prompt: str, pictures: int) -> None:
    """Guests may write what they like: it is refused, and the engine lives on, whatever exception that was in it."""
    with pytest.raises(InvalidInputError, match="does not take the pictures, the text or the parameters"):
        generate(graph, prompt, [cat_pixels()] * pictures)
    assert generate(graph, PROMPT, [cat_pixels()])[0] == golden().tokens
    assert graph.gauges()["restarts"] == 0


def begun(graph: EngineGraph) -> EngineContext:
    """In the middle of a sequence. On a busy machine all of it may have come at the first look: then of another one."""
    for _ in range(20):
        made = context(graph, PROMPT, [cat_pixels()], **LONG)
        assert made.compute_single() is Step.OUTPUT
        if made._end is None:
            return made
        made.close()
    raise AssertionError("every sequence was at its end at the first look")


def test_cancel_wakes_who_waits(graph: EngineGraph) -> None:
    """From another thread, in the middle of a sequence; the engine forgets it, and goes on with others."""
    made = begun(graph)
    made.cancel()
    with pytest.raises(InferenceError, match="cancelled"):
        pull(made)
    made.close()
    wait_until(lambda: graph.gauges()["running_sequences"] + graph.gauges()["waiting_sequences"] == 0)
    assert generate(graph, PROMPT, [cat_pixels()])[0] == golden().tokens


def test_cancelling_while_pictures_are_encoded(graph: EngineGraph) -> None:
    """At any moment between submitting and the first token: nothing is left, nobody else is harmed."""

    def cancelled(pause: float) -> None:
        made = context(graph, marks(8), [np.zeros((900, 900, 3), np.uint8)] * 8, **LONG)
        gone = threading.Event()

        def leave() -> None:
            gone.wait(pause)
            while not gone.wait(0.005):  # what has not been submitted yet cannot be cancelled
                made.cancel()

        thread = threading.Thread(target=leave)
        thread.start()
        try:
            with pytest.raises(InferenceError, match="cancelled"):
                pull(made)
        finally:
            gone.set()
            thread.join()
            made.close()

    good = partial(generate, graph, PROMPT, [cat_pixels()])
    results = together([partial(cancelled, pause / 100) for pause in range(4)] + [good, good])
    assert [each[0] for each in results[4:]] == [golden().tokens] * 2
    assert results[:4] == [None] * 4
    wait_until(lambda: graph.gauges()["running_sequences"] + graph.gauges()["waiting_sequences"] == 0)


def test_the_context_window_ends_a_sequence(graph: EngineGraph) -> None:
    """Prompt, pictures and tokens together are at most the model's positions, once the pictures' size is known."""
    pictures = [square(9, 33)] * 20
    first = generate(graph, marks(20), pictures, max_tokens=1)
    assert first[1] is Step.END_OF_SEQUENCE
    tokens, step, length = generate(graph, marks(20), pictures, max_tokens=500, ignore_eos=True)
    assert (step, length) == (Step.CONTEXT_FULL, first[2])
    assert 0 <= POSITIONS - length - len(tokens) < 20  # what is rounded up for each picture


def test_pictures_that_are_longer_than_the_context(graph: EngineGraph) -> None:
    """Before one of their size has been seen it ends somehow, clearly; after that it is not begun."""
    pictures = [square(9, 34)] * 40
    tokens, step, length = generate(graph, marks(40), pictures, max_tokens=5, ignore_eos=True)
    assert (len(tokens), step) == (5, Step.END_OF_SEQUENCE)
    assert length > POSITIONS
    assert generate(graph, marks(40), pictures) == ([], Step.PROMPT_TOO_LONG, 0)
    assert generate(graph, marks(1), pictures[:1])[1] is Step.END_OF_SEQUENCE


def test_pictures_that_are_longer_than_the_cache() -> None:
    """A prompt that fills it is refused, before and after its pictures' size is known; others are answered."""
    graph = opened(llava(text={"kv_cache_mib": 1, "context_window": 256}))
    try:
        for _ in range(2):
            tokens, step, _ = generate(graph, marks(200), [square(9)] * 200, ignore_eos=True)
            assert step in (Step.PROMPT_TOO_LONG, Step.CONTEXT_FULL, Step.END_OF_SEQUENCE)
        assert (tokens, step) == ([], Step.PROMPT_TOO_LONG)
        assert generate(graph, PROMPT, [cat_pixels()])[0] == golden().tokens
    finally:
        graph.close()


def test_a_small_cache_is_shared() -> None:
    """Many that do not fit together all come to their end, with the tokens that they have alone."""
    graph = opened(llava(text={"kv_cache_mib": 1, "max_num_batched_tokens": 64}))
    try:
        ready = graph.process.ready
        assert ready
        assert ready.capacity
        pictures = [square(shade, 20 + shade % 3) for shade in range(0, 240, 20)]
        prompts = [f"USER: {marks(1)}{'look ' * (number * 2)} ASSISTANT:" for number in range(12)]
        calls = [
            partial(generate, graph, prompt, [picture], max_tokens=30, ignore_eos=True)
            for prompt, picture in zip(prompts, pictures, strict=True)
        ]
        results = together(calls)
        assert [len(each[0]) for each in results] == [30] * 12
        assert [call() for call in calls] == results
        assert graph.gauges()["restarts"] == 0
    finally:
        graph.close()


# ---- files ----------------------------------------------------------------------------------------------------------


def laid(folder: Path, target: Path) -> Path:
    return lay_out({"model": folder / "openvino_language_model.xml"}, target)


def answers(folder: Path, files: dict[str, Path] | None = None) -> list[int]:
    """The tokens of a model in that folder."""
    config = llava(folder)
    config.files.update(files or {})
    graph = opened(config)
    try:
        return generate(graph, PROMPT, [cat_pixels()])[0]
    finally:
        graph.close()


def test_a_folder_as_it_should_be(tmp_path: Path) -> None:
    """Is used where it is."""
    folder = mirrored("tiny-llava")
    assert laid(folder, tmp_path / "target") == folder
    assert not (tmp_path / "target").exists()


def test_without_processor_config(tmp_path: Path) -> None:
    """The older file is enough."""
    folder = copied(tmp_path, "processor_config.json")
    assert laid(folder, tmp_path / "target") == folder
    assert answers(folder) == golden().tokens


def test_without_preprocessor_config(tmp_path: Path) -> None:
    """The newer file has it inside; the model's own folder stays as it was."""
    folder = copied(tmp_path, "preprocessor_config.json")
    before = sorted(path.name for path in folder.iterdir())
    target = laid(folder, tmp_path / "target")
    assert target == tmp_path / "target"
    made = json.loads((target / "preprocessor_config.json").read_text())
    assert made == json.loads((folder / "processor_config.json").read_text())["image_processor"]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert answers(folder) == golden().tokens


def test_without_either(tmp_path: Path) -> None:
    """Pictures would come to the model in the wrong size: that is an error at once."""
    folder = copied(tmp_path, "preprocessor_config.json", "processor_config.json")
    with pytest.raises(ConfigError, match=r"expected preprocessor_config\.json or processor_config\.json") as caught:
        opened(llava(folder))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b"\xff", b'{"image_processor"'])
def test_a_processor_config_that_is_none(tmp_path: Path, content: bytes) -> None:
    """Is told by name."""
    folder = copied(tmp_path, "preprocessor_config.json", "processor_config.json")
    (folder / "processor_config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^file processor_config\.json: expected a JSON object with 'image_proc"):
        laid(folder, tmp_path / "target")


def test_files_under_other_names(tmp_path: Path) -> None:
    """Are linked to the names that openvino-genai looks for; hidden ones are left where they are."""
    folder = copied(tmp_path)
    (folder / "openvino_language_model.xml").rename(folder / "mine.xml")
    (folder / "openvino_language_model.bin").rename(folder / "its.weights")
    (folder / ".hidden").write_bytes(b"")
    files = {"model": folder / "mine.xml", "weights": folder / "its.weights"}
    target = lay_out(files, tmp_path / "target")
    assert (target / "openvino_language_model.xml").read_bytes() == (folder / "mine.xml").read_bytes()
    assert not (target / ".hidden").exists()
    config = llava(folder, fusion=Fusion.EARLY)
    config.files.update(files)
    graph = opened(config)
    try:
        assert generate(graph, PROMPT, [cat_pixels()])[0] == golden().tokens
    finally:
        graph.close()
