"""What comes in and what is wanted back: media types, content codings, bodies within their limit, Accept.

Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from litestar import Request
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException
from litestar.types import Receive
from multipart import MultipartError

from openvino_llama.errors import (
    InputTooLargeError,
    InvalidInputError,
    NotAcceptableError,
    RequestCancelledError,
    UnavailableError,
    UnsupportedMediaTypeError,
)
from openvino_llama.hookspecs import Part

__all__ = [
    "FORM",
    "MULTIPART",
    "BodyRoom",
    "header",
    "media_type_of",
    "preferred",
    "read_body",
    "read_parts",
    "reading",
]

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_CODINGS = ("gzip", "deflate")
_MOST_DIGITS = 20
"""Of a Content-Length that could be anything's."""


def header(request: Request[Any, Any, Any], name: bytes, default: str = "") -> str:
    """The first header of a name in lower case. Litestar makes a dictionary of all of them each time it is asked."""
    for each, value in request.scope["headers"]:
        if each == name:
            return value.decode("latin-1")
    return default


def media_type_of(request: Request[Any, Any, Any], accepts: Sequence[str]) -> str:
    """The body's media type without parameters; UnsupportedMediaTypeError if it is not accepted."""
    stated = header(request, b"content-type").partition(";")[0].strip().lower()
    if stated not in accepts:
        expected = ", ".join(accepts)
        came = f"got {stated[:80]!r}" if stated else "the request states none"
        raise UnsupportedMediaTypeError(f"Content-Type: expected one of {expected}; {came}", tuple(accepts))
    return stated


async def read_body(request: Request[Any, Any, Any], limit: int) -> bytes:
    """The body with its content coding undone; InputTooLargeError if either form is over the limit."""
    coding = header(request, b"content-encoding", "identity").strip().lower()
    if coding != "identity" and coding not in _WINDOW_BITS:
        expected = ", ".join(_CODINGS)
        message = f"Content-Encoding: expected one of {expected}; got {coding[:40]!r}"
        raise UnsupportedMediaTypeError(message, codings=_CODINGS)
    if (stated_size(request) or 0) > limit:
        raise _too_large(limit)
    content = await _received(request.receive, limit)
    return content if coding == "identity" else await asyncio.to_thread(_inflate, content, coding, limit)


async def _received(receive: Receive, limit: int) -> bytes:
    """The body as it comes. Most come whole: no generator, and no joining, stands between them and who reads."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise RequestCancelledError("the client has left before the end of its body")
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def stated_size(request: Request[Any, Any, Any]) -> int | None:
    """Content-Length; None if the body is sent in chunks. InvalidInputError if it is no number."""
    stated = header(request, b"content-length")
    if stated and not (stated.isdecimal() and len(stated) < _MOST_DIGITS):  # a minus is no digit
        raise InvalidInputError(f"Content-Length: expected a number of bytes, got {stated[:40]!r}")
    return int(stated) if stated else None


class BodyRoom:
    """How many bytes of bodies a server holds at a time: bounded queues bound nothing if bodies wait beside them."""

    def __init__(self, total: int, largest: int) -> None:
        self._free = total
        self._largest = largest

    def keep(self, request: Request[Any, Any, Any]) -> int:
        """Keep room for a request's body, so many bytes; UnavailableError if there is none."""
        size = self._expected(request)
        if size > self._free:
            raise UnavailableError("the bodies of the requests in progress take all the memory that they may")
        self._free -= size
        return size

    def give(self, size: int) -> None:
        """Give so many bytes of room back; less than nothing takes more, which a body that has come may need."""
        self._free += size

    def _expected(self, request: Request[Any, Any, Any]) -> int:
        """Bytes that a body may have at most; one that is sent in chunks does not say."""
        if request.method in ("GET", "HEAD"):
            return 0
        stated = stated_size(request)
        return self._largest if stated is None else min(stated, self._largest)


@contextmanager
def reading(limit: int) -> Iterator[None]:
    """Turn what Litestar says of a body that it reads into our own errors."""
    try:
        yield
    except HTTPException as error:
        if error.status_code == 413:
            raise _too_large(limit) from None
        if error.status_code >= 500:
            raise RequestCancelledError("the client has left before the end of its body") from None
        raise InvalidInputError(f"the body is not valid {MULTIPART}, or has too many parts") from None
    except (MultipartError, UnicodeError, LookupError):  # the last two: of a part that says what its text is coded in
        raise InvalidInputError(f"the body is not valid {MULTIPART}") from None


def _too_large(limit: int) -> InputTooLargeError:
    return InputTooLargeError(f"the body is larger than the limit of {limit} bytes")


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    inflater = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidInputError(f"the body is not valid {coding}") from None
    if len(content) > limit:
        raise InputTooLargeError(f"the body inflates to more than the limit of {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise InvalidInputError(f"the {coding} body is not exactly one stream of {coding}")
    return content


async def read_parts(request: Request[Any, Any, Any], limit: int) -> tuple[Part, ...]:
    """The parts of a multipart body; those of one name are in their order."""
    if header(request, b"content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaTypeError(f"Content-Encoding: none is undone for {MULTIPART}", codings=("identity",))
    with reading(limit):
        form = await request.form()
    parts = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            body = await value.read()
            parts.append(Part(name, body, value.content_type.lower(), value.filename))
        else:
            parts.append(Part(name, str(value).encode()))
    return tuple(parts)


def preferred(accept: str, produces: Sequence[str]) -> str:
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
