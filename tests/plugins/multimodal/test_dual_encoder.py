"""Dual encoders through the sandbox: scores and vectors, compared with those of transformers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.plugins.vision.pictures import sample

from openvino_llama import Batching, ContextLengthError, InvalidInputError, Limits, Part, RequestError
from openvino_llama_text.embedding import EmbeddingRequest, IllustratedEmbeddingRequest
from openvino_llama_text.requests import Attachment

from .dual_bench import TINY_CLIP, TINY_SIGLIP, Bench, close, file_of, form, golden

EXACT = (TINY_CLIP / "exact.png").read_bytes()
CLIP = golden(TINY_CLIP)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(TINY_CLIP, tmp_path / "model")
    yield made
    made.close()


@pytest.fixture
def model(bench: Bench) -> Any:
    return bench.load()


@pytest.fixture(params=[TINY_CLIP, TINY_SIGLIP], ids=["clip", "siglip"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Bench, Path]]:
    """CLIP: cropped pictures, masks, softmax. SigLIP: stretched pictures, full padding, sigmoid."""
    made = Bench(request.param, tmp_path / "model")
    yield made, request.param
    made.close()


def picture(name: str) -> bytes:
    """One of the golden ones, as a file."""
    return EXACT if name == "exact" else file_of(sample(name))


def item(body: bytes, name: str = "input[0].image") -> Attachment:
    return Attachment(name, "image/png", base64.b64encode(body).decode())


def embedding(*inputs: str | Attachment, **options: Any) -> IllustratedEmbeddingRequest:
    return IllustratedEmbeddingRequest(inputs, **options)


@pytest.mark.parametrize("name", ["exact", "chelsea", "astronaut"])
def test_answers_are_those_of_transformers(kind: tuple[Bench, Path], name: str) -> None:
    """Scores and vectors to 1e-5, photographs too: they are resized and cropped to the same pixels."""
    bench, source = kind
    expected = golden(source)
    found = bench.match(bench.load(), picture(name), expected.texts, embeddings="true")
    scores = {score.text: score.confidence for score in found.scores}
    assert close([scores[text] for text in expected.texts], expected.pictures[name].scores, 1e-5)
    assert close(found.embeddings.image, expected.pictures[name].embedding, 1e-5)
    assert close(found.embeddings.texts, expected.text_embeds, 1e-5)
    assert np.ptp(expected.pictures[name].scores) > 0.01  # there is something to tell apart


def test_the_best_text_is_the_description(bench: Bench, model: Any) -> None:
    """The others follow in their order; texts that were cut are named by their places."""
    found = bench.match(model, EXACT, CLIP.texts)
    confidences = [score.confidence for score in found.scores]
    assert (found.description, found.confidence) == (found.scores[0].text, max(CLIP.pictures["exact"].scores))
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1, abs=1e-5)
    assert found.truncated == [4]
    assert found.embeddings is None


def test_of_equal_texts_the_first_comes_first(bench: Bench, model: Any) -> None:
    """Case is no difference to CLIP's tokenizer."""
    found = bench.match(model, EXACT, ["RED", "red", "Red"])
    assert [score.text for score in found.scores] == ["RED", "red", "Red"]


def test_a_text_alone_is_sure_for_clip_and_not_for_siglip(kind: tuple[Bench, Path]) -> None:
    """Softmax compares the texts with each other; sigmoid asks each on its own."""
    bench, source = kind
    found = bench.match(bench.load(), EXACT, ["red"])
    expected = golden(source)
    alone = 1.0 if source == TINY_CLIP else expected.pictures["exact"].scores[expected.texts.index("red")]
    assert found.confidence == pytest.approx(alone, abs=1e-5)


def test_vectors_of_pictures_and_texts_come_in_the_order_of_the_request(kind: tuple[Bench, Path]) -> None:
    """Whatever is put together for the inferences."""
    bench, source = kind
    expected = golden(source)
    asked = embedding(expected.texts[4], item(picture("astronaut")), expected.texts[0], item(EXACT))
    found = bench.ask(bench.load(), asked)
    pictures = expected.pictures
    assert close(found.vectors[[0, 2]], [expected.text_embeds[4], expected.text_embeds[0]], 1e-5)
    assert close(found.vectors[[1, 3]], [pictures["astronaut"].embedding, pictures["exact"].embedding], 1e-5)
    assert found.tokens == expected.tokens[4] + expected.tokens[0]
    assert found.truncated == [0]


def test_the_text_plugins_requests_are_answered_too(bench: Bench, model: Any) -> None:
    """A route that knows texts alone needs to know nothing of this plugin."""
    found = bench.ask(model, EmbeddingRequest(CLIP.texts))
    assert close(found.vectors, CLIP.text_embeds, 1e-5)
    assert found.tokens == sum(CLIP.tokens)
    with pytest.raises(ContextLengthError, match=r"input\[4\]: the text has more than the 77 tokens"):
        bench.ask(model, EmbeddingRequest(CLIP.texts, truncate=False))


def test_vectors_may_be_cut(bench: Bench, model: Any) -> None:
    """To the first numbers, which are then brought to length 1; not to more than there are."""
    found = bench.ask(model, embedding(item(EXACT), dimensions=4)).vectors[0]
    begin = np.array(CLIP.pictures["exact"].embedding[:4])
    assert close(found, begin / np.linalg.norm(begin), 1e-5)
    with pytest.raises(InvalidInputError, match="dimensions: the model's vectors have 16, not 17"):
        bench.ask(model, EmbeddingRequest("red", dimensions=17))


def test_pictures_and_texts_are_put_together(bench: Bench) -> None:
    """As many as the registry allows: five pictures are two inferences, four texts of a length are one."""
    model = bench.load(batching=Batching(max_batch_size=4))
    assert bench.ask(model, embedding(*[item(EXACT)] * 5, *"abcd")).vectors.shape == (9, 16)
    assert len(bench.observer.batches) == 3


def test_texts_that_were_compared_before_are_not_computed_again(bench: Bench, model: Any) -> None:
    """The second request is one inference, of the picture alone; a text more, and it is two."""
    first = bench.match(model, EXACT, CLIP.texts, embeddings="1")
    bench.observer.batches.clear()
    assert bench.match(model, EXACT, CLIP.texts, embeddings="1") == first
    assert len(bench.observer.batches) == 1
    found = bench.match(model, EXACT, [*reversed(CLIP.texts), "dog", "dog"], embeddings="1")
    assert found.embeddings.texts[:5] == first.embeddings.texts[::-1]
    assert found.embeddings.texts[5] == found.embeddings.texts[6]
    assert len(bench.observer.batches) == 3


def test_requests_at_the_same_time_do_not_mix(bench: Bench) -> None:
    """One worker has them all before it at once, and as many pictures as texts in each: none is put beside another."""
    model = bench.load(limits=Limits(workers=1))
    shades = [file_of(Image.new("RGB", (32, 32), (shade, 255 - shade, 90))) for shade in range(0, 250, 25)]
    asked = [form([shade], [f"number {place}"], {"embeddings": "1"}) for place, shade in enumerate(shades)]
    alone = [bench.ask(model, each) for each in asked]
    model = bench.load(limits=Limits(workers=1))  # another one: it remembers none of the texts
    together = [job.future.result(60) for job in [bench.submit(model, each) for each in asked]]
    assert together == alone
    assert len({tuple(each.embeddings.image) for each in alone}) == len(shades)
    assert set(bench.observer.batches) == {1}


def test_one_request_that_fails_leaves_the_others(bench: Bench) -> None:
    """A picture that is none is its sender's trouble alone."""
    model = bench.load(limits=Limits(workers=1))
    jobs = [bench.submit(model, form([each], ["red"])) for each in (EXACT, b"none", EXACT)]
    with pytest.raises(InvalidInputError, match=r"^image: .*picture"):
        jobs[1].future.result(60)
    assert jobs[0].future.result(60) == jobs[2].future.result(60)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (form([], ["red"]), "image: expected one part of this name, got none"),
        (form([EXACT, EXACT], ["red"]), "image: expected one part of this name, got 2"),
        (form([EXACT], []), "text: expected 1 to 2048 parts of this name to choose from, got none"),
        (form([EXACT], ["red"] * 2049), "text: expected 1 to 2048 parts of this name to choose from, got 2049"),
        (form([EXACT], ["red", "a\0"]), r"text\[1\]: a NUL character stands at character 1"),
        (form([EXACT], ["a\0"]), "text: a NUL character"),
        (form([EXACT], ["red", ""]), r"^text\[1\]: expected some text, got none$"),
        (form([EXACT], ["red"], {"embeddings": "maybe"}), r"^field 'embeddings': expected bool, got 'maybe'"),
        (form([EXACT], ["red"], {"max_tokens": "5"}), "^field 'max_tokens': there is no such field"),
        (form([EXACT], ["red", CLIP.texts[4]], {"truncate": "false"}), r"text\[1\]: the text has more than the 77"),
        ([Part("image", b"cat"), Part("text", b"red")], "image: expected a picture as a file, got a text"),
        (form([EXACT[:-200]], ["red"]), "image: the image/png picture is damaged"),
    ],
)
def test_what_is_wrong_is_named(bench: Bench, model: Any, parts: list[Part], message: str) -> None:
    """Which part, what was expected and what came."""
    with pytest.raises(RequestError, match=message):
        bench.ask(model, parts)


def test_a_picture_among_several_is_named(bench: Bench, model: Any) -> None:
    """By what the route called it."""
    with pytest.raises(InvalidInputError, match=r"input\[1\].image: pictures of type image/gif are not supported"):
        bench.ask(model, embedding("red", item(b"GIF89a", "input[1].image")))
    with pytest.raises(InvalidInputError, match=r"input\[1\]: a NUL character"):
        bench.ask(model, embedding(item(EXACT), "a\0"))


def test_grey_and_transparent_pictures_are_seen_as_colours(bench: Bench, model: Any) -> None:
    """As the vision plugin reads them: grey has equal channels, what is transparent lies on white."""
    grey = Image.new("L", (40, 50), 200)
    clear = Image.new("RGBA", (50, 40), (0, 0, 0, 0))
    white = Image.new("RGB", (50, 40), "white")
    pictures = [item(file_of(each)) for each in (grey, grey.convert("RGB"), clear, white)]
    vectors = bench.ask(model, embedding(*pictures)).vectors
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[2], vectors[3])
    assert not close(vectors[0], vectors[2], 1e-3)
