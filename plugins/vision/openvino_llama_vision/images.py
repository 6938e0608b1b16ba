"""From the bytes of a picture to upright pixels. Knows nothing of models.

The first bytes decide on the format, the header on whether the picture is decoded at all, and one decoder is called
by name: nothing is guessed, no global setting of Pillow is used, and none of its messages is shown. What Pillow decodes
runs without the GIL.
"""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from openvino_llama import ConfigError, InputTooLargeError, InvalidInputError, UnsupportedMediaTypeError

__all__ = ["MEDIA_TYPES", "OpenedPicture", "max_pixels_allowed", "open_picture", "recognized"]

_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "image/jpeg": JpegImageFile,
    "image/png": PngImageFile,
    "image/webp": WebPImageFile,
    "image/bmp": BmpImageFile,
    "image/tiff": TiffImageFile,
}
MEDIA_TYPES = tuple(_DECODERS)

_MAX_PIXELS = 64_000_000
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODED_AT_LEAST = 2
"""A JPEG is decoded smaller only down to this many times the size that is asked for: the rest is left to the
antialiased resize, so that results are those of the full picture."""


def max_pixels_allowed() -> int:
    """Pixels that a picture may have: ``OVLLAMA_MAX_IMAGE_PIXELS``, 64 million by default."""
    stated = os.environ.get("OVLLAMA_MAX_IMAGE_PIXELS", "")
    if not stated:
        return _MAX_PIXELS
    if not stated.isascii() or not stated.isdigit() or int(stated) == 0:
        raise ConfigError(f"OVLLAMA_MAX_IMAGE_PIXELS must be a positive number of pixels, not {stated!r}")
    return int(stated)


def open_picture(body: bytes, media_type: str, max_pixels: int) -> OpenedPicture:
    """Read the header of a picture.

    Raises InvalidInputError if there is none, UnsupportedMediaTypeError if it is of another format than the media type
    says, InputTooLargeError if it has more than ``max_pixels``.
    """
    _check_format(body, media_type)
    try:
        image = _DECODERS[media_type](io.BytesIO(body))
    except Exception as error:
        raise _unreadable(media_type) from error
    width, height = image.size
    if width * height > max_pixels:
        raise InputTooLargeError(f"the picture has {width} x {height} pixels; at most {max_pixels} pixels are decoded")
    if width < 1 or height < 1:
        raise InvalidInputError("the picture has no pixels")
    return OpenedPicture(image, media_type)


class OpenedPicture:
    """A picture whose header has been read."""

    def __init__(self, image: ImageFile.ImageFile, media_type: str) -> None:
        self._image = image
        self._media_type = media_type
        if media_type != "image/jpeg":  # only a JPEG's header is sure to hold its orientation
            self._load()
        self._orientation = _orientation(image)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the picture is displayed, in pixels."""
        return self._upright(self._image.size)

    def decode(self, at_least: tuple[int, int] | None = None) -> Image.Image:
        """The upright picture in RGB or, if it has no colours, in L (8-bit grey).

        A JPEG may come out smaller, in its proportions, but with at least twice that width and height. Raises
        InvalidInputError if the data is damaged. To be called once.
        """
        if at_least is not None and isinstance(self._image, JpegImageFile):
            width, height = self._upright(at_least)
            self._image.draft(None, (width * _DECODED_AT_LEAST, height * _DECODED_AT_LEAST))
        self._load()
        try:
            image = _eight_bit(self._image)
        except (ValueError, OSError) as error:
            raise InvalidInputError(f"the picture's pixel format {self._image.mode} is not supported") from error
        turn = _TURNED.get(self._orientation)
        return image if turn is None else image.transpose(turn)

    def _upright(self, size: tuple[int, int]) -> tuple[int, int]:
        return (size[1], size[0]) if self._orientation >= 5 else size

    def _load(self) -> None:
        try:
            self._image.load()
        except Exception as error:
            raise _unreadable(self._media_type) from error


def _check_format(body: bytes, media_type: str) -> None:
    if not body:
        raise InvalidInputError("the body is empty; expected a picture")
    found = recognized(body)
    if found is None:
        raise InvalidInputError(f"the body is not a picture of a known format; expected {media_type}")
    if found not in _DECODERS:
        raise UnsupportedMediaTypeError(f"pictures of type {found} are not supported", MEDIA_TYPES)
    if found != media_type:
        raise UnsupportedMediaTypeError(f"the Content-Type says {media_type}, the body is {found}", MEDIA_TYPES)


def recognized(body: bytes) -> str | None:
    """The media type by the first bytes; None if they are no picture's that is known."""
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "image/webp"
    if body[4:8] == b"ftyp":
        return "image/avif" if body[8:12] in (b"avif", b"avis") else "image/heic"
    return next((media_type for magic, media_type in _MAGIC if body.startswith(magic)), None)


_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"GIF8", "image/gif"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"%PDF", "application/pdf"),
)


def _unreadable(media_type: str) -> InvalidInputError:
    # Pillow's own message may hold addresses and offsets: it stays in __cause__.
    return InvalidInputError(f"the {media_type} picture is damaged or incomplete")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1, upright, if there is none, or none that can be read. Pillow turns TIFF by itself."""
    if isinstance(image, TiffImageFile) or not ({"exif", "Raw profile type exif"} & image.info.keys()):
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in _TURNED else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """The same picture in RGB or L, what is transparent in it laid on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    if image.mode in ("L", "1"):
        return image.convert("L")
    if image.mode in ("I", "F"):
        raise ValueError("samples of 32 bits have no known range")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's convert() clips at 255.
    samples = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((samples * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image.getchannel("A"))
    return paper
