"""What breaks other servers of vision-language models: each is refused clearly, or answered, and harms nobody."""

from __future__ import annotations

import base64
import io
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tests.end_to_end.text.support import Served, await_true
from tests.plugins.multimodal.llava import cat_file, cat_pixels, file_of, golden
from tests.server.support import SECRETS

from .conftest import MAX_PIXELS
from .support import ROUTE, ask, cat, check_golden

ROUTES = (ROUTE, f"{ROUTE}/stream")
CHAT = "/v1/chat/completions"
DATA, DATA_JPEG = "data:image/png;base64,", "data:image/jpeg;base64,"
DOT = file_of(np.full((1, 1, 3), 7, np.uint8))
TEXT: tuple[str, Any] = ("text", (None, "what?"))


@pytest.fixture(autouse=True)
def _the_next_one_is_answered(served: Served) -> Iterator[None]:
    """After each of them the golden request has its tokens, no sequence is left, and no engine has ended."""
    engines = served.engines()
    yield
    check_golden(ask(served).json()["results"])
    served.await_idle("llava")
    assert served.engines() == engines


def refused(answer: httpx.Response, status: int, said: str) -> None:
    """The status, the message, and nothing that is not for clients."""
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 2000
    for secret in (*SECRETS, "PIL", "genai", "<ov_"):
        assert secret not in answer.text
    body = answer.json()
    message = body["error"]["message"] if "error" in body else body["detail"]
    assert said in message, message


def post(served: Served, parts: list[tuple[str, Any]], route: str = ROUTE) -> httpx.Response:
    return served.http.post(route, files=parts)


def answered(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()["results"]


def form(*parts: tuple[str, Any]) -> list[tuple[str, Any]]:
    return list(parts)


FORMS: dict[str, tuple[list[tuple[str, Any]], str]] = {
    "no picture": (form(TEXT), "image: expected at least one part of this name, a file; got none"),
    "no text": (form(cat(DOT, "image/png")), "text: expected one part of this name, got none"),
    "two texts": (form(cat(DOT, ""), TEXT, TEXT), "text: expected one part of this name, got 2"),
    "a text for a picture": (form(("image", (None, "a cat")), TEXT), "image: expected a picture as a file, got a text"),
    "a text as a file": (form(cat(b"a cat", "text/plain"), TEXT), "image: it is no picture of a known format"),
    "two values": (
        form(cat(DOT, "image/png"), TEXT, ("max_tokens", (None, "5")), ("max_tokens", (None, "6"))),
        "field 'max_tokens': expected int, got array",
    ),
    "no number": (form(cat(DOT, ""), TEXT, ("max_tokens", (None, "x"))), "field 'max_tokens': expected int, got 'x'"),
    "not a number": (form(cat(DOT, ""), TEXT, ("temperature", (None, "nan"))), "field 'temperature': expected float"),
    "nobody's": (form(cat(DOT, ""), TEXT, ("surprise", (None, "5"))), "field 'surprise': there is no such field"),
    "no UTF-8": (form(cat(DOT, ""), ("text", ("a.txt", b"\xff\xfe", "text/plain"))), "text: expected a text in UTF-8"),
    "an empty picture": (form(cat(b"", "image/png"), TEXT), "image: the body is empty"),
    "another format": (
        form(cat(DOT, "image/jpeg"), TEXT),
        "image: the Content-Type says image/jpeg, the body is image",
    ),
    "messages": (form(cat(DOT, ""), TEXT, ("messages", (None, "[]"))), "messages: there is no such parameter"),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_wrong(served: Served, name: str, route: str) -> None:
    """What is missing, twice there, or something else: told by name, for a stream with a status, too."""
    parts, said = FORMS[name]
    refused(post(served, parts, route), 400, said)


def test_nothing_at_all(served: Served) -> None:
    """A multipart body without a part."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(served.http.post(ROUTE, content=b"--x--\r\n", headers=headers), 400, "image: expected at least one part")


BOUNDARY = "multipart/form-data; boundary=frontier"
HALF = b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + DOT
BODIES: dict[str, tuple[str, bytes]] = {
    "truncated in a part": (BOUNDARY, HALF),
    "truncated in a head": (BOUNDARY, HALF[:40]),
    "without an end": (BOUNDARY, HALF + b"\r\n--frontier\r\n"),
    "without a boundary": ("multipart/form-data", HALF),
    "an empty boundary": ("multipart/form-data; boundary=", HALF),
    "another boundary": ("multipart/form-data; boundary=other", HALF),
    "no multipart": (BOUNDARY, b'{"image": "a"}'),
    "nothing": (BOUNDARY, b""),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_multipart(served: Served, name: str) -> None:
    """Are refused as such; nothing of them is taken for a request."""
    kind, content = BODIES[name]
    answer = served.http.post(ROUTE, content=content, headers={"Content-Type": kind})
    said = "image: expected" if name == "nothing" else "multipart/form-data"
    refused(answer, 400, said)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "kind", ["application/json", "image/jpeg", "text/plain", "application/x-www-form-urlencoded", ""]
)
def test_other_media_types(served: Served, route: str, kind: str) -> None:
    """Only multipart bodies have pictures and texts in them."""
    answer = served.http.post(route, content=b'{"text": "what?"}', headers={"Content-Type": kind})
    refused(answer, 415, "Content-Type: expected one of multipart/form-data")


@pytest.mark.parametrize("route", ROUTES)
def test_other_methods(served: Served, route: str) -> None:
    """No query has a place for a picture, so there is no stream by GET."""
    answer = served.http.get(f"{route}?text=what")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


# ---- pictures -------------------------------------------------------------------------------------------------------


def huge_png(width: int, height: int) -> bytes:
    """One of so many pixels that weighs next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeezed = zlib.compressobj(9)
    row = bytes((width + 7) // 8 + 1)
    data = b"".join(squeezed.compress(row) for _ in range(height)) + squeezed.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_picture_of_gigabytes(served: Served) -> None:
    """30,000 x 30,000 pixels in some KiB are not decoded."""
    picture = huge_png(30_000, 30_000)
    assert len(picture) < 1 << 20
    said = f"image: the picture has 30000 x 30000 pixels; at most {MAX_PIXELS} pixels are decoded"
    refused(ask(served, None, cat(picture, "image/png")), 413, said)
    url = {"url": "data:image/png;base64," + base64.b64encode(picture).decode()}
    content = [{"type": "image_url", "image_url": url}]
    answer = served.http.post(CHAT, json={"model": "llava", "messages": [{"role": "user", "content": content}]})
    refused(answer, 413, f"messages[0].content[0].image_url.url: {said.removeprefix('image: ')}")


def test_pixels_as_the_operator_allows(served: Served) -> None:
    """As many as ``OVLLAMA_MAX_IMAGE_PIXELS`` says, and none more."""
    answered(ask(served, None, cat(huge_png(3000, 3000), "image/png")))
    refused(ask(served, None, cat(huge_png(3000, 3001), "image/png")), 413, "image: the picture has 3000 x 3001 pixels")


def test_a_body_beyond_the_limit(served: Served) -> None:
    """Is refused, whatever is in it."""
    refused(ask(served, None, cat(cat_file() + bytes(33 << 20))), 413, "the body is larger than the limit of 33554432")


def test_a_text_of_ten_megabytes(served: Served) -> None:
    """Is too long for the context, and told so by its tokens."""
    refused(ask(served, "word " * 2_000_000), 400, "tokens, the model takes at most 511")


def test_a_picture_that_does_not_fit(served: Served) -> None:
    """Where the text alone would: told once the engine has counted, and with the numbers if they are known."""
    answered(ask(served))  # from here on it is known how much a picture of this size is
    refused(ask(served, "describe " * 490, max_tokens="1"), 400, "the prompt has more tokens than the model can take")
    answer = chatted(served, DATA_JPEG + base64.b64encode(cat_file()).decode(), text="describe " * 490, max_tokens=1)
    refused(answer, 400, "the prompt has more tokens than the model can take")
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    refused(ask(served, "describe " * 490), 400, "20 more are asked for; the model's context has 512")


def test_one_pixel(served: Served) -> None:
    """Is a picture."""
    assert answered(ask(served, None, cat(DOT, "image/png")))["tokens_generated"] == 20


def test_too_many_pictures(served: Served) -> None:
    """As many as the registry says, and none more."""
    dot = cat(DOT, "image/png")
    assert answered(ask(served, None, dot, dot, route=f"{ROUTE}?model=few"))["tokens_generated"] == 20
    answer = ask(served, None, dot, dot, dot, route=f"{ROUTE}?model=few")
    refused(answer, 400, "image: the model takes at most 2 pictures, got 3")
    refused(ask(served, None, *[dot] * 9), 400, "at most 8 pictures, got 9")
    refused(ask(served, None, *[dot] * 2000), 400, "")


def test_which_of_several_is_wrong(served: Served) -> None:
    """By its number."""
    answer = ask(served, None, cat(), cat(cat_file()[:5000]), cat())
    refused(answer, 400, "image[1]: the image/jpeg picture is damaged or incomplete")


@pytest.mark.parametrize("length", [3, 20, 200, 5000, 34_000])
def test_damaged_jpegs(served: Served, length: int) -> None:
    """Cut off anywhere, in the header or in the pixels."""
    refused(ask(served, None, cat(cat_file()[:length])), 400, "image: the image/jpeg picture is damaged or incomplete")


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_lines(served: Served, size: tuple[int, int]) -> None:
    """Would be scaled up to something endless."""
    refused(ask(served, None, cat(file_of(Image.new("RGB", size)), "image/png")), 400, "100 times as long as the other")


def test_orientation(served: Served) -> None:
    """A picture that is stored turned, and says so, is the picture as it is seen."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = file_of(Image.fromarray(cat_pixels()), "JPEG", exif=exif, quality=100, subsampling=0)
    plain = file_of(Image.fromarray(cat_pixels()), "JPEG", quality=100, subsampling=0)
    decoded = Image.open(io.BytesIO(plain)).convert("RGB")
    upright = file_of(decoded.transpose(Image.Transpose.ROTATE_270))
    expected = answered(ask(served, None, cat(upright, "image/png"), logprobs="true"))
    assert answered(ask(served, None, cat(turned), logprobs="true")) == expected
    assert answered(ask(served, None, cat(plain), logprobs="true")) != expected


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGBA", "WEBP"),
    ],
)
def test_any_kind_of_pixels(served: Served, mode: str, kind: str) -> None:
    """Grey, transparent, with a palette, for printers: all are answered."""
    image = Image.fromarray(cat_pixels()).convert(mode)
    results = answered(ask(served, None, cat(file_of(image, kind), f"image/{kind.lower()}")))
    assert (results["tokens_generated"], results["usage"]["prompt_tokens"]) == (20, golden().prompt_tokens)


# ---- by the route of OpenAI's clients -------------------------------------------------------------------------------


def chatted(served: Served, url: Any, model: str = "llava", text: str = "what?", **stated: Any) -> httpx.Response:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    return served.http.post(CHAT, json={"model": model, "messages": messages} | stated)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/cat.png", "expected the picture itself"),
        ("http://127.0.0.1:9/cat.png", "expected the picture itself"),
        ("http://169.254.169.254/latest/meta-data", "expected the picture itself"),
        ("file:///etc/passwd", "expected the picture itself"),
        ("/etc/passwd", "expected the picture itself"),
        ("data:" + ";a=" * 5_000_000, "expected the picture itself"),
        (None, "expected the picture itself"),
        (DATA, "the body is empty"),
        (DATA + "AAAA", "it is no picture of a known format"),
        (DATA + "!!!!", "what follows 'base64,' is not base64"),
        (DATA + base64.b64encode(cat_file()).decode(), "the Content-Type says image/png, the body is image/jpeg"),
    ],
    ids=range(11),
)
def test_addresses(served: Served, url: Any, said: str) -> None:
    """Nothing is fetched from anywhere; what is wrong is told with its place, and with the parameter."""
    answer = chatted(served, url)
    refused(answer, 400, f"messages[0].content[0].image_url.url: {said}")
    assert answer.json()["error"]["param"] == "messages"


def test_a_picture_for_a_model_of_texts(served: Served) -> None:
    """Is not overlooked."""
    if served.http.get("/models/smol").status_code == 404:
        pytest.skip("SmolLM2 is not here")
    refused(chatted(served, DATA + base64.b64encode(DOT).decode(), "smol"), 400, "model: 'smol'")


def test_models_that_are_not_there(served: Served) -> None:
    """By either route."""
    refused(chatted(served, DATA + base64.b64encode(DOT).decode(), "nobody"), 404, "nobody")
    refused(ask(served, route=f"{ROUTE}?model=nobody"), 404, "nobody")


# ---- clients that leave ---------------------------------------------------------------------------------------------


def multipart(*pictures: bytes, **fields: str) -> bytes:
    """A request as it goes over the wire."""
    files = [("image", ("a.png", each, "image/png")) for each in pictures]
    parts = [*files, TEXT, *((name, (None, value)) for name, value in fields.items())]
    request = httpx.Request("POST", f"http://localhost{ROUTE}/stream", files=parts)
    body = request.read()
    head = f"POST {ROUTE}/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['content-type']}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("pause", [0, 1, 3, 10, 30, 100])
def test_leaving_while_pictures_are_encoded(served: Served, pause: int) -> None:
    """Right behind the body, or some milliseconds later: the engine has forgotten the sequence soon."""
    noise = np.random.default_rng(pause).integers(0, 256, (600, 600, 3), np.uint8)
    body = multipart(*[file_of(noise)] * 8, max_tokens="300", ignore_eos="true")
    with closing(socket.create_connection(served.place, timeout=20)) as connection:
        connection.sendall(body)
        threading.Event().wait(pause / 1000)
    await_true(lambda: served.running("llava") == 0, 5)


def test_leaving_once_the_engine_has_it(served: Served) -> None:
    """Eight of them at once, none of which comes to its end."""
    before = _left(served)
    body = multipart(*[file_of(np.zeros((900, 900, 3), np.uint8))] * 8, max_tokens="300", ignore_eos="true")
    with ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(closing(socket.create_connection(served.place, timeout=20)))
            connection.sendall(body)
        await_true(lambda: served.running("llava") > 0)
    served.await_idle("llava")
    await_true(lambda: _left(served) >= before + 8)


def _left(served: Served) -> float:
    """Requests whose clients have left before their answer."""
    families = text_string_to_metric_families(served.http.get("/metrics").text)
    samples = (each for family in families for each in family.samples if each.name == "ovllama_requests_total")
    return sum(each.value for each in samples if each.labels["status"] == "499")
