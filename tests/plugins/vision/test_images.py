"""Every kind of picture comes out upright and in the right colours, every bad one as a clear error."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import ConfigError, InputTooLargeError, InvalidInputError, RequestError, UnsupportedMediaTypeError
from openvino_llama_vision.images import max_pixels_allowed, open_picture

from .conftest import Encode
from .pictures import astronaut
from .served import Served

LIMIT = 64_000_000
ASTRONAUT = Image.fromarray(astronaut()).resize((96, 64))


def rgb(body: bytes, media_type: str = "image/png") -> NDArray[np.uint8]:
    """The decoded picture."""
    return np.asarray(open_picture(body, media_type, LIMIT).decode().convert("RGB"))


def test_a_colour_picture_is_unchanged(encode: Encode) -> None:
    for form in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(rgb(encode(ASTRONAUT, form), f"image/{form.lower()}"), np.asarray(ASTRONAUT))
    assert np.array_equal(rgb(encode(ASTRONAUT, "WEBP", lossless=True), "image/webp"), np.asarray(ASTRONAUT))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_followed(orientation: int, form: str, encode: Encode) -> None:
    """The left upper part is red, the rest blue, as the picture is displayed."""
    upright = Image.new("RGB", (64, 32), "blue")
    upright.paste("red", (0, 0, 32, 16))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_picture(encode(stored, form, exif=exif), f"image/{form.lower()}", LIMIT)
    assert opened.size == (64, 32)
    pixels = np.asarray(opened.decode()).astype(int)
    assert pixels[:14, :30, 0].min() > 180
    assert pixels[18:, :, 2].min() > 180
    assert pixels[:, 34:, 2].min() > 180


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_is_no_reason_to_refuse(encode: Encode) -> None:
    body = encode(ASTRONAUT, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x01")
    assert rgb(body, "image/jpeg").shape == (64, 96, 3)


def ramp(dtype: Any) -> NDArray[Any]:
    return np.linspace(0, np.iinfo(dtype).max, 256).reshape(16, 16).astype(dtype)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(form: str, encode: Encode) -> None:
    pixels = rgb(encode(ramp(np.uint16), form), f"image/{form.lower()}")
    assert np.abs(pixels[..., 0].astype(int) - ramp(np.uint8)).max() <= 1


def test_16_bit_grey_with_the_high_byte_first(encode: Encode) -> None:
    body = encode(Image.fromarray(ramp(np.uint16).astype(">u2")), "TIFF")
    assert body[:2] == b"MM"
    assert np.abs(rgb(body, "image/tiff")[..., 0].astype(int) - ramp(np.uint8)).max() <= 1


def test_16_bit_colour_is_scaled() -> None:
    samples = np.stack([ramp(np.uint16), np.zeros((16, 16), np.uint16), np.full((16, 16), 65535, np.uint16)], axis=-1)
    pixels = rgb(png_of(samples))
    assert np.abs(pixels[..., 0].astype(int) - ramp(np.uint8)).max() <= 1
    assert pixels[..., 1].max() == 0
    assert pixels[..., 2].min() == 255


def png_of(samples: NDArray[np.uint16]) -> bytes:
    """A PNG with 16 bits for each of three channels, which Pillow cannot write."""
    height, width, _ = samples.shape
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return png_file((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def png_file(*chunks: tuple[bytes, bytes]) -> bytes:
    def packed(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + b"".join(packed(*chunk) for chunk in chunks)


def test_grey_and_one_bit_pictures(encode: Encode) -> None:
    grey = ASTRONAUT.convert("L")
    assert np.array_equal(rgb(encode(grey))[..., 1], np.asarray(grey))
    assert np.abs(rgb(encode(grey, "JPEG", quality=95), "image/jpeg")[..., 1].astype(int) - np.asarray(grey)).max() < 25
    black_and_white = ASTRONAUT.convert("1")
    assert np.array_equal(rgb(encode(black_and_white))[..., 2], np.asarray(black_and_white.convert("L")))
    assert rgb(encode(black_and_white, "TIFF"), "image/tiff").max() == 255


def test_what_is_transparent_lies_on_white(encode: Encode) -> None:
    red = Image.new("RGBA", (4, 1), (255, 0, 0, 255))
    red.putalpha(Image.fromarray(np.array([[255, 128, 1, 0]], np.uint8)))
    assert rgb(encode(red))[0].tolist() == [[255, 0, 0], [255, 127, 127], [255, 254, 254], [255, 255, 255]]
    grey = Image.new("LA", (2, 1), (100, 0))
    grey.putpixel((0, 0), (100, 255))
    assert rgb(encode(grey))[0].tolist() == [[100] * 3, [255] * 3]


def test_palettes_with_and_without_transparency(encode: Encode) -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        palette.putpixel((x, 0), x)
    assert rgb(encode(palette))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert rgb(encode(palette, transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    assert rgb(encode(palette, transparency=bytes([255, 0, 255])))[0, 1].tolist() == [255, 255, 255]


def test_one_colour_may_be_the_transparent_one(encode: Encode) -> None:
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((0, 0), (9, 9, 9))
    assert rgb(encode(picture, transparency=(1, 2, 3)))[0].tolist() == [[9, 9, 9], [255, 255, 255]]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_has_its_colours(form: str, encode: Encode) -> None:
    """Pillow writes CMYK JPEGs as Adobe does, with inverted inks; TIFFs have them as they are."""
    body = encode(Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK"), form)
    red, green, blue = rgb(body, f"image/{form.lower()}")[8, 8].astype(int)
    assert red > 240
    assert max(green, blue) < 35


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(form: str, encode: Encode) -> None:
    first, second = Image.new("RGB", (20, 10), (255, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 255))
    body = encode(first, form, save_all=True, append_images=[second])
    red, _, blue = rgb(body, f"image/{form.lower()}")[5, 5]
    assert red > 240
    assert blue < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_tiny_and_thin_pictures_are_served(size: tuple[int, int], colours: Served, encode: Encode) -> None:
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        body = encode(Image.new("RGB", size, (0, 200, 0)), form)
        (best, *_) = colours.request(body, f"image/{form.lower()}")
        assert best["label"] == "green"
        drawn = colours.request(body, f"image/{form.lower()}", "image/png")
        assert Image.open(io.BytesIO(drawn.body)).size >= size


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_picture_is_the_clients_error(form: str, encode: Encode) -> None:
    body = encode(ASTRONAUT, form)
    for length in (len(body) // 2, len(body) * 9 // 10, 30):
        with pytest.raises(InvalidInputError, match="damaged or incomplete"):
            open_picture(body[:length], f"image/{form.lower()}", LIMIT).decode()


def test_no_bytes_at_all() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        open_picture(b"", "image/png", LIMIT)


@pytest.mark.parametrize(
    "body", [b"hello", b"\x00" * 100, b'{"image": 1}', b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_picture(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not a picture of a known format"):
        open_picture(body, "image/png", LIMIT)


def test_the_content_type_must_be_true(encode: Encode) -> None:
    with pytest.raises(
        UnsupportedMediaTypeError, match="Content-Type says image/jpeg, the body is image/png"
    ) as raised:
        open_picture(encode(ASTRONAUT), "image/jpeg", LIMIT)
    assert "image/webp" in raised.value.accepts
    with pytest.raises(UnsupportedMediaTypeError, match="image/gif are not supported"):
        open_picture(encode(ASTRONAUT, "GIF"), "image/png", LIMIT)


def test_a_picture_that_unpacks_to_gigabytes_is_refused_by_its_header() -> None:
    """A few kilobytes that would become 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = png_file((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b""))
    start = time.perf_counter()
    with pytest.raises(InputTooLargeError, match="30000 x 30000"):
        open_picture(bomb, "image/png", LIMIT)
    assert time.perf_counter() - start < 0.5


def test_a_webp_of_the_largest_size_is_refused_by_its_header() -> None:
    canvas = struct.pack("<I", 16_382)[:3] * 2
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00" + canvas
    with pytest.raises(RequestError):
        open_picture(b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended, "image/webp", LIMIT)


def test_the_limit_of_pixels_is_a_setting(monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    assert max_pixels_allowed() == LIMIT
    monkeypatch.setenv("OVLLAMA_MAX_IMAGE_PIXELS", "6000")
    with pytest.raises(InputTooLargeError, match="at most 6000 pixels"):
        open_picture(encode(ASTRONAUT), "image/png", max_pixels_allowed())
    for wrong in ("0", "-1", "many", "1e6", "²"):
        monkeypatch.setenv("OVLLAMA_MAX_IMAGE_PIXELS", wrong)
        with pytest.raises(ConfigError, match="OVLLAMA_MAX_IMAGE_PIXELS"):
            max_pixels_allowed()


def test_samples_without_a_known_range_are_refused(encode: Encode) -> None:
    with pytest.raises(InvalidInputError, match="pixel format F is not supported"):
        rgb(encode(Image.new("F", (8, 8)), "TIFF"), "image/tiff")


def test_a_jpeg_is_decoded_smaller_but_never_below_twice_what_is_needed(encode: Encode) -> None:
    body = encode(Image.fromarray(astronaut()).resize((1600, 1200)), "JPEG")
    assert open_picture(body, "image/jpeg", LIMIT).decode((224, 224)).size == (800, 600)
    assert open_picture(body, "image/jpeg", LIMIT).decode((640, 480)).size == (1600, 1200)
    assert open_picture(body, "image/jpeg", LIMIT).decode((32, 24)).size == (200, 150)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]), st.data())
def test_damage_never_raises_anything_but_request_errors(form: str, drawn: st.DataObject) -> None:
    """And no message holds anything of a library's."""
    file = io.BytesIO()
    ASTRONAUT.resize((24, 16)).save(file, form)
    body = bytearray(file.getvalue())
    for _ in range(drawn.draw(st.integers(1, 8))):
        body[drawn.draw(st.integers(0, len(body) - 1))] = drawn.draw(st.integers(0, 255))
    message = ""
    try:
        open_picture(bytes(body), f"image/{form.lower()}", LIMIT).decode()
    except RequestError as error:
        message = str(error)
    assert "0x" not in message
    assert "PIL" not in message
