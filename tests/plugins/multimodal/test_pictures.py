"""Pictures are decoded by the vision plugin; what goes wrong is told with the picture's name."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image

from openvino_llama import InputTooLargeError, InvalidInputError
from openvino_llama_multimodal.pictures import decode, render
from openvino_llama_multimodal.questions import Picture
from openvino_llama_vision.config import Preprocessing
from openvino_llama_vision.pixels import InputPlan

from .llava import file_of

RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)
PNG = file_of(RED)
PLAN = InputPlan("pixels", "RGB", 8, 8, Preprocessing(), 10**6)


def picture(body: bytes, media_type: str = "", name: str = "image[1]") -> Picture:
    return Picture(name, media_type, body)


@pytest.mark.parametrize("media_type", ["", "application/octet-stream", "image/png"])
def test_a_media_type_may_say_nothing(media_type: str) -> None:
    """What the first bytes say counts then."""
    assert decode(picture(PNG, media_type)).size == (6, 4)
    assert render(PLAN, picture(PNG, media_type)).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/jpg"])
def test_jpegs(media_type: str) -> None:
    """Under the name that many clients give them, too."""
    assert decode(picture(file_of(RED, "JPEG"), media_type)).size == (6, 4)


def test_another_media_type() -> None:
    """Is believed: a body of another one is refused."""
    with pytest.raises(
        InvalidInputError, match=r"^image\[1\]: the Content-Type says image/jpeg, the body is image/png"
    ):
        decode(picture(PNG, "image/jpeg"))


@pytest.mark.parametrize("media_type", ["", "application/octet-stream", "image/png", "text/plain"])
@pytest.mark.parametrize("body", [b"hello", b"<svg/>", b"\0" * 100])
def test_what_is_no_picture(body: bytes, media_type: str) -> None:
    """Is told what was expected, whatever it claims to be."""
    with pytest.raises(InvalidInputError, match=r"^image\[1\]: .*no picture of a known format.*image/jpeg, image/png"):
        decode(picture(body, media_type))


def test_nothing() -> None:
    """Is told as nothing."""
    with pytest.raises(InvalidInputError, match=r"^image\[1\]: the body is empty"):
        decode(picture(b""))


def test_formats_that_are_known_but_not_decoded() -> None:
    """Are named."""
    with pytest.raises(InvalidInputError, match=r"^image\[1\]: pictures of type image/gif are not supported"):
        decode(picture(file_of(RED, "GIF")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_damaged_pictures(kind: str, part: float) -> None:
    """Are told as such, with nothing of a library's own words."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    body = file_of(noise, kind)
    broken = picture(body[: int(len(body) * part)])
    for read in (decode, partial(render, PLAN)):
        with pytest.raises(InvalidInputError, match=r"^image\[1\]: the image/\w+ picture is damaged or incomplete$"):
            read(broken)


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are too large by their header alone; the limit is the vision plugin's."""
    monkeypatch.setenv("OVLLAMA_MAX_IMAGE_PIXELS", "23")
    with pytest.raises(InputTooLargeError, match=r"^image\[1\]: the picture has 6 x 4 pixels; at most 23 pixels are"):
        decode(picture(PNG))


def test_pictures_stand_upright() -> None:
    """As their EXIF data says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(picture(file_of(RED, "JPEG", exif=exif))).size == (4, 6)


def test_large_jpegs_are_decoded_smaller() -> None:
    """But no smaller than twice of what is wanted."""
    large = file_of(np.zeros((1600, 2400, 3), np.uint8), "JPEG")
    width, height = decode(picture(large), (200, 200)).size
    assert 400 <= height < 1600
    assert width * 2 == height * 3
