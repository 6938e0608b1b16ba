"""Contents of messages: texts and pictures, and nothing that has to be fetched from somewhere."""

from __future__ import annotations

import base64
import tracemalloc
from typing import Any

import pytest

from openvino_llama import InvalidInputError
from openvino_llama_text.openai.contents import picture_of, read_content, read_item
from openvino_llama_text.requests import PICTURE, Attachment

WHERE = "messages[0].content"
BYTES = bytes(range(256))
BASE64 = base64.b64encode(BYTES).decode()


def image(url: Any = f"data:image/png;base64,{BASE64}", **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(("content", "said"), [(None, ""), ("", ""), ("hello", "hello"), ([], "")])
def test_plain_texts(content: Any, said: str) -> None:
    """Are what they are; nothing is an empty text."""
    assert read_content(content, WHERE) == (said, [])


def test_parts_in_their_order() -> None:
    """A mark stands where a picture was; the pictures' names say where."""
    said, pictures = read_content([text("a"), image(), text("b"), text("c"), image(detail="high")], WHERE)
    assert said == f"a{PICTURE}bc{PICTURE}"
    assert [each.name for each in pictures] == [f"{WHERE}[{index}].image_url.url" for index in (1, 4)]
    assert [each.body() for each in pictures] == [BYTES, BYTES]


def test_what_looks_like_our_own_mark_is_none() -> None:
    """U+FDD1 in a client's text is replaced, as a text and as a part: nobody gets a picture into somebody's mouth."""
    assert PICTURE == "\ufdd1"
    assert read_content("a\ufdd1b", WHERE) == ("a\ufffdb", [])
    assert read_content([text("\ufdd1"), image()], WHERE)[0] == f"\ufffd{PICTURE}"


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        ("data:image/png;base64,", "image/png"),
        ("data:image/jpeg;charset=utf-8;base64,", "image/jpeg"),
        ("DATA:IMAGE/PNG;BASE64,", "image/png"),
        ("data:image/svg+xml;base64,", "image/svg+xml"),
        ("data:;base64,", ""),
        ("data:;name=a.png;base64,", ""),
    ],
)
def test_media_types(head: str, media_type: str) -> None:
    """As they are stated; none is none."""
    assert picture_of(head + BASE64, WHERE) == Attachment(WHERE, media_type, BASE64)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9/cat.png",
        "https://example.org/cat.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://example.org/cat.png",
        " data:image/png;base64,AA==",
        "data:image/png,AA",
        "data:image/png;base64",
        "data:image/png;base64;AA==",
        "data:imagepng;base64,AA==",
        "data:image/p\u0430ng;base64,AA==",
        "",
        None,
        5,
        ["data:image/png;base64,AA=="],
    ],
)
def test_other_addresses_are_refused(uri: Any) -> None:
    """By name, without going there, and without repeating them."""
    with pytest.raises(InvalidInputError, match=r"\[0\]\.image_url\.url: expected .* fetches nothing") as caught:
        read_content([image(uri)], WHERE)
    assert not uri or str(uri) not in str(caught.value)


@pytest.mark.parametrize(
    "head", ["data:" + ";a=" * 5_000_000, "data:image/png" + ";a=b" * 5_000_000, "data:" + "a" * 20_000_000]
)
def test_a_head_without_end_costs_nothing(head: str) -> None:
    """An expression that is let loose on millions of parameters takes gigabytes, and seconds of everybody's."""
    uri = head + ";base64,AA=="
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match="fetches nothing"):
            picture_of(uri, WHERE)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damaged", ["A", "AA=A", "AA", "A A=", "AA==\n", "-_8=", "ä", "%2B"])
def test_damaged_base64(damaged: str) -> None:
    """Is told where the picture is decoded, with its place."""
    attachment = picture_of(f"data:image/png;base64,{damaged}", "input[3].image")
    with pytest.raises(InvalidInputError, match=r"^input\[3\]\.image: what follows 'base64,' is not base64$"):
        attachment.body()


@pytest.mark.parametrize("detail", [None, "auto", "high"])
def test_details(detail: str | None) -> None:
    """Pictures are taken as they are, which is what these ask for."""
    assert len(read_content([image(detail=detail)], WHERE)[1]) == 1


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (image(detail="low"), r"\.image_url\.detail: expected 'auto' or 'high', got 'low'"),
        (image(detail=1), "detail"),
        (image(surprise=1), "an object with 'url'"),
        ({"type": "image_url"}, "an object with 'url'"),
        ({"type": "image_url", "image_url": "data:image/png;base64,AA=="}, "an object with 'url'"),
        ({"type": "image_url", "image_url": {"url": "x"}, "more": 1}, "an object with 'url'"),
        ({"type": "image_url", "image_url": {}}, "fetches nothing"),
        ({"type": "text"}, "'text', a string"),
        ({"type": "text", "text": None}, "'text', a string"),
        ({"type": "text", "text": "a", "more": 1}, "'text', a string; got \\['more', 'text', 'type'\\]"),
        ({"type": "input_audio", "input_audio": {}}, "type 'input_audio' are not supported"),
        ({"type": "image", "image": "x"}, "type 'image' are not supported"),
        ({"type": ["text"]}, "not supported"),
        ({}, "type None are not supported"),
    ],
)
def test_parts_that_are_none(part: dict[str, Any], said: str) -> None:
    """Are refused with their place."""
    with pytest.raises(InvalidInputError, match=rf"^messages\[0\]\.content\[0\].*{said}"):
        read_content([part], WHERE)


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    "part", [{"type": LONG}, {"type": "text", LONG: 1}, image(detail=LONG), {"type": [[LONG]]}, image(LONG), {LONG: 1}]
)
def test_nothing_long_is_repeated(part: dict[str, Any]) -> None:
    """An answer is no larger for a request that is."""
    with pytest.raises(InvalidInputError) as caught:
        read_content([part], WHERE)
    assert len(str(caught.value)) < 300


def test_items_to_embed() -> None:
    """A text or a picture, plain or named."""
    assert read_item("a", "input[0]") == read_item({"text": "a"}, "input[0]") == "a"
    assert read_item({"image": f"data:;base64,{BASE64}"}, "input[1]") == Attachment("input[1].image", "", BASE64)


@pytest.mark.parametrize(
    "item", [{}, {"text": 5}, {"text": "a", "image": "data:;base64,AA=="}, {"url": "x"}, {LONG: 1}, {"text": None}]
)
def test_items_that_are_none(item: dict[str, Any]) -> None:
    """Are refused with their place."""
    with pytest.raises(InvalidInputError, match=r"^input\[2\]: expected a text, or an object") as caught:
        read_item(item, "input[2]")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("image", ["https://example.org/cat.png", "iVBORw0KGgo=", None, {"url": "data:;base64,AA=="}])
def test_pictures_to_embed_that_are_none(image: Any) -> None:
    """Are refused with their place: no addresses, no bare base64."""
    with pytest.raises(InvalidInputError, match=r"^input\[2\]\.image: .* fetches nothing"):
        read_item({"image": image}, "input[2]")
