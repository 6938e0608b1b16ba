"""What comes in and what is wanted back: media types, content codings, bodies within their limit, Accept.

Knows nothing of models.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from litestar import Request
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException

from openvino_llama.errors import (
    InputTooLargeError,
    InvalidInputError,
    NotAcceptableError,
    UnsupportedMediaTypeError,
)
from openvino_llama.hookspecs import Part

__all__ = ["MULTIPART", "media_type_of", "preferred", "read_body", "read_parts"]

MULTIPART = "multipart/form-data"
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_CODINGS = ("gzip", "deflate")


def media_type_of(request: Request[Any, Any, Any], accepts: Sequence[str]) -> str:
    """The body's media type without parameters; UnsupportedMediaTypeError if it is not accepted."""
    stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated not in accepts:
        expected = ", ".join(accepts)
        came = f"got {stated[:80]!r}" if stated else "the request states none"
        raise UnsupportedMediaTypeError(f"Content-Type: expected one of {expected}; {came}", tuple(accepts))
    return stated


async def read_body(request: Request[Any, Any, Any], limit: int) -> bytes:
    """The body with its content coding undone; InputTooLargeError if either form is over the limit."""
    try:
        body = await request.body()
    except HTTPException as error:
        if error.status_code == 413:
            raise InputTooLargeError(f"the body is larger than the limit of {limit} bytes") from None
        raise
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    return body if coding == "identity" else _inflate(body, coding, limit)


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    if coding not in _WINDOW_BITS:
        expected = ", ".join(_CODINGS)
        message = f"Content-Encoding: expected one of {expected}; got {coding[:40]!r}"
        raise UnsupportedMediaTypeError(message, codings=_CODINGS)
    inflater = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidInputError(f"the body is not valid {coding}") from None
    if len(content) > limit:
        raise InputTooLargeError(f"the body inflates to more than the limit of {limit} bytes")
    if not inflater.eof:
        raise InvalidInputError(f"the {coding} body ends before its end")
    return content


async def read_parts(request: Request[Any, Any, Any]) -> tuple[Part, ...]:
    """The parts of a multipart body, in their order."""
    parts = []
    for name, value in (await request.form()).multi_items():
        if isinstance(value, UploadFile):
            body = await value.read()
            parts.append(Part(name, body, value.content_type.lower(), value.filename))
        else:
            parts.append(Part(name, str(value).encode()))
    return tuple(parts)


def preferred(accept: str | None, produces: Sequence[str]) -> str:
    """The media type that Accept (RFC 9110, 12.5.1) prefers; NotAcceptableError if it takes none of them."""
    if not accept or accept == "*/*":
        return produces[0]
    ranges = [_quality(part) for part in accept.split(",")]
    weighed = [(_weight(each, ranges), -position, each) for position, each in enumerate(produces)]
    weight, _, best = max(weighed)
    if weight <= 0:
        raise NotAcceptableError(f"Accept: this route produces {', '.join(produces)}; got {accept[:200]!r}")
    return best


def _quality(part: str) -> tuple[str, float]:
    media_range, *parameters = (each.strip().lower() for each in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "q":
            try:
                return media_range, min(1.0, max(0.0, float(value)))
            except ValueError:
                return media_range, 0.0
    return media_range, 1.0


def _weight(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that covers the type."""
    kind = media_type.partition("/")[0]
    for wanted in (media_type, f"{kind}/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == wanted:
                return quality
    return 0.0
