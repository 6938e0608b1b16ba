"""The content of a message, or an item to embed: texts, and pictures as data URIs. Nothing is fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from openvino_llama import InvalidInputError
from openvino_llama_text.requests import PICTURE, Attachment

__all__ = ["picture_of", "read_content", "read_item"]

_DATA = re.compile(r"data:(?P<media_type>[\w.+-]+/[\w.+-]+)?(;[\w.+-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)
"""RFC 2397; only base64, which is what pictures come in."""
_LONGEST_HEAD = 256
"""Of a data URI, in characters: millions of parameters would take the expression seconds and gigabytes."""
_LONGEST_TOLD = 80
_DETAILS = (None, "auto", "high")
"""Pictures are always taken as they are."""


def read_content(content: str | Sequence[dict[str, Any]] | None, where: str) -> tuple[str, list[Attachment]]:
    """The text, with PICTURE where one stands, and the pictures; ``where`` is what the content is called."""
    if content is None or isinstance(content, str):
        return _without_marks(content or ""), []
    pictures: list[Attachment] = []
    texts = [_part(part, f"{where}[{index}]", pictures) for index, part in enumerate(content)]
    return "".join(texts), pictures


def read_item(item: str | dict[str, Any], where: str) -> str | Attachment:
    """A text or a picture, stated as such or as ``{"text": ...}`` or ``{"image": "data:..."}``."""
    if isinstance(item, str):
        return item
    if item.keys() == {"text"} and isinstance(item["text"], str):
        return item["text"]
    if item.keys() == {"image"}:
        return picture_of(item["image"], f"{where}.image")
    raise InvalidInputError(
        f"{where}: expected a text, or an object with 'text' or 'image' alone; got {_told(sorted(item))}"
    )


def picture_of(uri: Any, where: str) -> Attachment:
    """The picture of a ``data:`` URI; InvalidInputError for any other, since the server fetches nothing."""
    match = _DATA.match(uri[:_LONGEST_HEAD]) if isinstance(uri, str) else None
    if match is None:
        raise InvalidInputError(
            f"{where}: expected the picture itself, data:image/jpeg;base64,...; this server fetches nothing"
        )
    return Attachment(where, (match["media_type"] or "").lower(), uri[match.end() :])


def _part(part: dict[str, Any], where: str, pictures: list[Attachment]) -> str:
    kind = part.get("type")
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str) or len(part) > 2:
            raise InvalidInputError(f"{where}: expected 'type' and 'text', a string; got {_told(sorted(part))}")
        return _without_marks(text)
    if kind == "image_url":
        pictures.append(_picture(part, where))
        return PICTURE
    raise InvalidInputError(
        f"{where}: parts of the type {_told(kind)} are not supported; expected 'text' or 'image_url'"
    )


def _picture(part: dict[str, Any], where: str) -> Attachment:
    stated = part.get("image_url")
    if not isinstance(stated, dict) or not stated.keys() <= {"url", "detail"} or len(part) > 2:
        raise InvalidInputError(f"{where}: expected 'type' and 'image_url', an object with 'url'")
    if stated.get("detail") not in _DETAILS:
        raise InvalidInputError(f"{where}.image_url.detail: expected 'auto' or 'high', got {_told(stated['detail'])}")
    return picture_of(stated.get("url"), f"{where}.image_url.url")


def _told(given: Any) -> str:
    """What a client has stated, as far as an answer repeats it."""
    return f"{given!r:.{_LONGEST_TOLD}}"


def _without_marks(text: str) -> str:
    return text.replace(PICTURE, "\ufffd")
