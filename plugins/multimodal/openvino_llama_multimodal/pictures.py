"""Pictures as they were sent -> decoded pictures, by the vision plugin; errors say which picture it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from openvino_llama import InputTooLargeError, InvalidInputError, RequestError
from openvino_llama_multimodal.questions import Picture
from openvino_llama_vision.images import OpenedPicture, max_pixels_allowed, open_picture, recognized

__all__ = ["decode", "opened"]

_UNSTATED = ("", "application/octet-stream")


def decode(picture: Picture, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The upright picture in RGB, or in L if it has no colours.

    A JPEG may come out smaller, but with at least twice that width and height. InvalidInputError or
    InputTooLargeError, with the picture's name, for one that cannot be decoded.
    """
    with _named(picture):
        return _open(picture).decode(at_least)


@contextmanager
def opened(picture: Picture) -> Iterator[OpenedPicture]:
    """A picture whose header has been read; what goes wrong in the body is told with its name, too."""
    with _named(picture):
        yield _open(picture)


def _open(picture: Picture) -> OpenedPicture:
    media_type = picture.media_type
    if media_type in _UNSTATED:
        media_type = recognized(picture.body) or media_type
    return open_picture(picture.body, media_type, max_pixels_allowed())


@contextmanager
def _named(picture: Picture) -> Iterator[None]:
    try:
        yield
    except InputTooLargeError as error:
        raise InputTooLargeError(f"{picture.name}: {error}") from error
    except RequestError as error:
        raise InvalidInputError(f"{picture.name}: {error}") from error
