"""Captioners as a server serves them: a form in, words out, through the sandbox."""

from __future__ import annotations

import base64
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openvino_llama import InferenceRequest, Part, RequestError
from openvino_llama.config import Limits
from openvino_llama.errors import RequestCancelledError
from openvino_llama.jobs import Job
from openvino_llama.models import Model
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama_multimodal.captioner import preprocess
from openvino_llama_multimodal.encoder_decoder.facts import text_of
from openvino_llama_text.requests import PICTURE, Attachment, IllustratedRequest, Message
from openvino_llama_text.tokenizers import find_tokenizer

from .captioners import CAPTIONER, DECODER, END, POSITIONS, READER, Bench, Golden, changed, form, golden, slowed


@pytest.fixture(scope="module", params=[CAPTIONER, READER], ids=["captioner", "reader"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[Bench]:
    made = Bench(folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def model(bench: Bench) -> Model:
    return bench.load()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bench]:
    """A place with a model whose files a test may change."""
    made = Bench(shutil.copytree(CAPTIONER, tmp_path / "model"))
    yield made
    made.close()


def words(model: Model, tokens: list[int]) -> str:
    config = model.config
    assert config
    return find_tokenizer(text_of(config)).decode([token for token in tokens if token != END])


def asked(expected: Golden) -> list[Part]:
    """The form that gives a golden answer: its prompt is the start, or the start and a text."""
    return form(expected.picture, **({"text": "a cat"} if len(expected.prompt) > 1 else {}))


def test_it_says_what_transformers_says(bench: Bench, model: Model, folder: Path) -> None:
    """Of a picture of the model's size, of a photograph, and as the continuation of a text.

    The confidence is the geometric mean of the tokens' probabilities.
    """
    for expected in golden(folder):
        results = bench.ask(model, *asked(expected))
        mean = math.exp(sum(expected.logprobs) / len(expected.logprobs))
        count = len(expected.prompt)
        assert results == {
            "description": words(model, expected.tokens),
            "confidence": pytest.approx(mean, abs=1e-5),
            "tokens_generated": 20,
            "finish_reason": "length",
            "usage": {"prompt_tokens": count, "completion_tokens": 20, "total_tokens": count + 20},
        }


def test_eight_at_once_are_told_the_same(bench: Bench, model: Model, folder: Path) -> None:
    """Some of them as streams, whose pieces are the whole."""
    expected = golden(folder) * 2
    chunks: list[list[Any] | None] = [[] if place % 2 else None for place in range(len(expected))]
    jobs = [bench.submit(model, *asked(each), chunks=pieces) for each, pieces in zip(expected, chunks, strict=True)]
    for job, each, pieces in zip(jobs, expected, chunks, strict=True):
        description = job.future.result(60).description
        assert description == words(model, each.tokens)
        if pieces is not None:
            assert "".join(piece.text for piece in pieces) == description
            assert len(pieces) > 5


def test_log_probabilities_and_tokens_come_if_they_are_asked_for(bench: Bench, model: Model, folder: Path) -> None:
    """In the answer, and piece by piece in a stream."""
    expected = golden(folder)[2]
    chunks: list[Any] = []
    results = bench.ask(model, *form(expected.picture, logprobs="true", return_token_ids="true"), chunks=chunks)
    assert results["token_ids"] == expected.tokens
    assert results["logprobs"] == pytest.approx(expected.logprobs, abs=1e-4)
    assert [token for piece in chunks for token in piece.token_ids] == expected.tokens


def test_sampling_is_the_requests(bench: Bench, model: Model) -> None:
    """A seed repeats a description; lengths, stop strings and stop tokens end it."""
    draw = {"temperature": "1.5", "seed": "7"}
    first, second, other = (
        bench.ask(model, *form("exact", **draw | more))["description"] for more in ({}, {}, {"seed": "8"})
    )
    assert first == second != other
    assert bench.ask(model, *form("exact", max_tokens="3"))["tokens_generated"] == 3
    assert bench.ask(model, *form("exact", max_tokens="60", ignore_eos="true"))["tokens_generated"] == 60
    whole = bench.ask(model, *form("astronaut", return_token_ids="true"))
    stop = whole["token_ids"][3]
    several = [*fields(stop_token_ids=str(stop)), *fields(stop_token_ids="1")]
    stopped = bench.ask(model, *form("astronaut"), *several)
    assert stopped["finish_reason"] == "stop"
    assert whole["description"].startswith(stopped["description"])
    assert stopped["tokens_generated"] == whole["token_ids"].index(stop) + 1


def fields(**given: str) -> list[Part]:
    return [Part(name, text.encode()) for name, text in given.items()]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "image: expected at least one"),
        ([*form("exact"), *form("exact")], "image: the model takes one picture, got 2"),
        (form("exact", text="a" * 5000), "tokens"),
        (form("exact", max_tokens="1000"), "max_tokens"),
        (form("exact", max_tokens="0"), "max_tokens"),
        (form("exact", regex="a+"), "regex: this model"),
        (form("exact", beams="4"), "beams"),
        ([*form("exact", text="a"), *fields(text="b")], "text: expected one"),
        ([Part("image", b"no picture", "image/png", "picture.png")], "image"),
    ],
)
def test_what_it_cannot_answer_is_said(bench: Bench, model: Model, parts: list[Part], told: str) -> None:
    """By the name of the part; and the next request is answered."""
    with pytest.raises(RequestError, match=told):
        bench.ask(model, *parts)
    assert bench.ask(model, *form("exact", max_tokens="2"))["tokens_generated"] == 2


def test_other_routes_have_it_answer_a_message(bench: Bench, model: Model, folder: Path) -> None:
    """One with a picture in it, whose text is gone on from; it holds no conversations."""
    expected = golden(folder)[1]
    picture = Attachment("image_url", "image/png", base64.b64encode(form(expected.picture)[0].body).decode())
    message = Message("user", f"{PICTURE}a cat")
    for messages in ([message], [Message("system", "Be brief."), message]):
        asked = IllustratedRequest(messages=messages, pictures=(picture,))
        job = Job(InferenceRequest(b"", "application/json", asked), Deadline(60))
        answer = model.serving.runner.submit(job).future
        if len(messages) == 1:
            assert answer.result(60).generated_text == words(model, expected.tokens)
        else:
            assert "messages: the model takes one" in str(answer.exception(60))


def test_who_leaves_frees_the_model(tmp_path: Path) -> None:
    """One worker, one context: a description that nobody waits for is dropped, and the next one has its place."""
    bench = Bench(changed(CAPTIONER, tmp_path / "slow", DECODER, slowed))
    try:
        model = bench.load(limits=Limits(workers=1))
        chunks: list[Any] = []
        job = bench.submit(model, *form("exact", ignore_eos="true", max_tokens="60"), chunks=chunks)
        while not chunks:
            time.sleep(0.01)
        model.serving.runner.cancel(job)
        with pytest.raises(RequestCancelledError):
            job.future.result(60)
        assert len(chunks) < 10
        expected = golden(CAPTIONER)[0].tokens[:2]
        assert bench.ask(model, *form("exact", max_tokens="2"))["description"] == words(model, expected)
    finally:
        bench.close()


def test_defaults_are_the_files_and_the_registrys(own: Bench) -> None:
    """``generation_config.json`` says how long a description is; over it the registry; no temperature means none."""
    for stated, config, count in (
        ({}, {}, POSITIONS - 1),
        ({"max_length": 11}, {}, 10),
        ({"max_length": 11, "max_new_tokens": 5}, {}, 5),
        ({"max_new_tokens": 5}, {"text": {"generation": {"max_tokens": 7}}}, 7),
        ({}, {"text": {"context_window": 30}}, 29),
    ):
        change(own, "generation_config.json", {"decoder_start_token_id": 0, "eos_token_id": END} | stated)
        model = own.load(config=config)
        found = [own.ask(model, *form("exact", ignore_eos="true")) for _ in range(2)]
        assert [each["tokens_generated"] for each in found] == [count] * 2
        assert found[0] == found[1]


def test_a_model_that_was_made_for_chance_is_sampled(own: Bench) -> None:
    """``do_sample`` says so."""
    change(own, "generation_config.json", {"decoder_start_token_id": 0, "eos_token_id": END, "do_sample": True})
    model = own.load()
    assert len({own.ask(model, *form("exact"))["description"] for _ in range(5)}) > 1


@pytest.mark.parametrize(
    ("encoder", "forced", "text", "prompt"),
    [
        ("vit", None, "", [0]),
        ("vit", None, "a", [0, 67]),
        ("vit", None, "<s>a", [0, 67]),
        ("vit", 5, "", [0, 5]),
        ("vit", 5, "a", [0, 5, 67]),
        ("donut-swin", None, "", [0]),
        ("donut-swin", None, "</s>a", [2, 67]),
    ],
)
def test_what_a_text_begins_with(own: Bench, encoder: str, forced: int | None, text: str, prompt: list[int]) -> None:
    """The start, a token that is forced, and the client's text; Donut's prompts begin with tokens of their own."""
    stated = json.loads((own.folder / "config.json").read_text())
    stated["encoder"]["model_type"] = encoder
    change(own, "config.json", stated)
    ids = {"decoder_start_token_id": 0, "eos_token_id": END, "forced_bos_token_id": forced}
    change(own, "generation_config.json", ids)
    config = own.load().config
    assert config
    request = InferenceRequest(b"", "multipart/form-data", parts=tuple(form("exact", text=text)))
    assert preprocess(config, request).tensors["input_ids"].tolist() == [prompt]


def change(bench: Bench, name: str, content: Any) -> None:
    (bench.folder / name).write_text(json.dumps(content), "utf-8")
