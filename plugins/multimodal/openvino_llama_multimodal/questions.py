"""What a client asks: pictures, texts and parameters, from the parts of a multipart body.

Knows nothing of models, nor of what is in a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from openvino_llama import InferenceRequest, InvalidInputError, Part

__all__ = ["MULTIPART", "Picture", "Question", "read_question"]

MULTIPART = "multipart/form-data"

_IMAGE, _TEXT = "image", "text"


class Picture(msgspec.Struct, frozen=True):
    """A picture as it was sent."""

    name: str
    """What the client called it: ``image``, or ``image[1]`` if there are several."""
    media_type: str
    """As stated; ``application/octet-stream`` and empty say nothing."""
    body: bytes


class Question(msgspec.Struct, frozen=True):
    """One request."""

    pictures: tuple[Picture, ...]
    texts: tuple[str, ...]
    fields: dict[str, Any] = {}
    """The other parts, by name; those of one name that come several times are a list."""


def read_question(request: InferenceRequest) -> Question:
    """The parts of a body, sorted by what they are; InvalidInputError for an ``image`` that is no file, or the like."""
    pictures = [part for part in request.parts if part.name == _IMAGE]
    texts = [part for part in request.parts if part.name == _TEXT]
    others = [part for part in request.parts if part.name not in (_IMAGE, _TEXT)]
    return Question(tuple(_pictures(pictures)), tuple(_string(part) for part in texts), _fields(others))


def _pictures(parts: Sequence[Part]) -> list[Picture]:
    names = [_IMAGE] if len(parts) == 1 else [f"{_IMAGE}[{index}]" for index in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        if part.filename is None and part.media_type == "text/plain":
            raise InvalidInputError(f"{name}: expected a picture as a file, got a text")
    return [Picture(name, part.media_type, part.body) for name, part in zip(names, parts, strict=True)]


def _fields(parts: Sequence[Part]) -> dict[str, Any]:
    values: dict[str, list[str]] = {}
    for part in parts:
        values.setdefault(part.name, []).append(_string(part))
    return {name: given[0] if len(given) == 1 else given for name, given in values.items()}


def _string(part: Part) -> str:
    """A part that is a text, also if it came as a file."""
    try:
        return part.body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{part.name}: expected a text in UTF-8") from error
