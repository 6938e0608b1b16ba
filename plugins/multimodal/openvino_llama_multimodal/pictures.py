"""Pictures as they were sent -> decoded pictures, by the vision plugin; errors say which picture it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import InputTooLargeError, InvalidInputError, RequestError
from openvino_llama_multimodal.questions import Picture
from openvino_llama_vision.images import MEDIA_TYPES, OpenedPicture, max_pixels_allowed, open_picture, recognized
from openvino_llama_vision.pixels import InputPlan

__all__ = ["decode", "render"]

_UNSTATED = ("", "application/octet-stream")
_ALSO_WRITTEN = {"image/jpg": "image/jpeg"}


def decode(picture: Picture, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The upright picture in RGB, or in L if it has no colours.

    A JPEG may come out smaller, but with at least twice that width and height. InvalidInputError or
    InputTooLargeError, with the picture's name, for one that cannot be decoded.
    """
    with _named(picture):
        return _open(picture).decode(at_least)


def render(plan: InputPlan, picture: Picture) -> NDArray[np.uint8]:
    """The picture as a model's input, (1, height, width, channels); errors as of ``decode``."""
    with _named(picture):
        found = _open(picture)
        placement = plan.place(found.size)
        return plan.render(found.decode(placement.resized), placement)


def _open(picture: Picture) -> OpenedPicture:
    found = recognized(picture.body)
    if picture.body and found is None:
        raise InvalidInputError(f"it is no picture of a known format; expected one of {', '.join(MEDIA_TYPES)}")
    stated = _ALSO_WRITTEN.get(picture.media_type, picture.media_type)
    media_type = found if found and stated in _UNSTATED else stated
    return open_picture(picture.body, media_type, max_pixels_allowed())


@contextmanager
def _named(picture: Picture) -> Iterator[None]:
    try:
        yield
    except InputTooLargeError as error:
        raise InputTooLargeError(f"{picture.name}: {error}") from error
    except RequestError as error:
        raise InvalidInputError(f"{picture.name}: {error}") from error
