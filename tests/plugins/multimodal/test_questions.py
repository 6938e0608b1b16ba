"""What is asked in the parts of a multipart body."""

from __future__ import annotations

import pytest

from openvino_llama import InferenceRequest, InvalidInputError, Part
from openvino_llama_multimodal.questions import MULTIPART, Picture, Question, read_question


def read(*parts: Part) -> Question:
    return read_question(InferenceRequest(b"", MULTIPART, parts=parts))


def image(body: bytes = b"a", media_type: str = "image/png", filename: str | None = "a.png") -> Part:
    return Part("image", body, media_type, filename)


def test_parts_by_what_they_are() -> None:
    """Pictures, texts and everything else, whatever their order."""
    question = read(Part("seed", b"5"), Part("text", b"what?"), image(), Part("max_tokens", b"7"))
    assert question == Question((Picture("image", "image/png", b"a"),), ("what?",), {"seed": "5", "max_tokens": "7"})


def test_several_of_one_name() -> None:
    """Pictures have numbers then, other parts are lists; both keep their order."""
    question = read(
        image(b"a"), Part("stop", b"x"), Part("text", b"1"), image(b"b"), Part("stop", b"y"), Part("text", b"")
    )
    assert [(each.name, each.body) for each in question.pictures] == [("image[0]", b"a"), ("image[1]", b"b")]
    assert question.texts == ("1", "")
    assert question.fields == {"stop": ["x", "y"]}


def test_nothing_at_all() -> None:
    """Is a question without anything in it: what has to be there is the models' business."""
    assert read() == Question((), ())


def test_a_text_may_be_a_file() -> None:
    """As ``curl -F text=@question.txt`` sends it."""
    assert read(Part("text", "wär?".encode(), "text/plain", "question.txt")).texts == ("wär?",)


@pytest.mark.parametrize("filename", [None, "a.png"])
def test_a_picture_is_a_file_or_says_what_it_is(filename: str | None) -> None:
    """One of the two is enough."""
    assert read(image(filename=filename)).pictures[0].body == b"a"
    assert read(image(media_type="text/plain", filename="a.png")).pictures[0].media_type == "text/plain"


def test_a_text_in_place_of_a_picture() -> None:
    """Is refused with the name of the part, by number if there are several."""
    with pytest.raises(InvalidInputError, match=r"^image: expected a picture as a file, got a text$"):
        read(Part("image", b"a cat"))
    with pytest.raises(InvalidInputError, match=r"^image\[1\]: expected a picture as a file, got a text$"):
        read(image(), Part("image", b"a cat"))


@pytest.mark.parametrize("name", ["text", "max_tokens", "surprise"])
def test_what_is_no_text(name: str) -> None:
    """Is refused with the name of the part."""
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected a text in UTF-8$"):
        read(Part(name, b"\xff\xfe\x00"))
