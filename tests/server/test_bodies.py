"""What is read of a request before and of its body, under whatever ASGI server: uvicorn refuses the worst itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from litestar import Request
from litestar.types import HTTPScope

from openvino_llama.errors import InputTooLargeError, InvalidInputError, RequestCancelledError
from openvino_llama.server.bodies import BodyRoom, header, read_body, stated_size

LIMIT = 10


def request(*messages: dict[str, Any], headers: Sequence[tuple[bytes, bytes]] = ()) -> Request[Any, Any, Any]:
    """A POST with these headers whose body comes in these messages."""
    left = list(messages)

    async def receive() -> Any:
        return left.pop(0)

    return Request(cast("HTTPScope", {"type": "http", "method": "POST", "headers": list(headers)}), receive)


def piece(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def read(asked: Request[Any, Any, Any]) -> bytes:
    return asyncio.run(read_body(asked, LIMIT))


def test_a_body_in_pieces() -> None:
    """However many there are; a message need not say what is nothing."""
    assert read(request(piece(b"whole"))) == b"whole"
    assert read(request(piece(b"in ", more=True), piece(b"", more=True), piece(b"parts"))) == b"in parts"
    assert read(request({"type": "http.request", "more_body": True}, {"type": "http.request"})) == b""


def test_a_body_that_is_too_large() -> None:
    """By what it says before any of it is read, and by what it is."""
    with pytest.raises(InputTooLargeError):
        read(request(headers=[(b"content-length", b"11")]))
    with pytest.raises(InputTooLargeError):
        read(request(piece(b"123456", more=True), piece(b"78901", more=True)))


def test_a_client_that_leaves() -> None:
    with pytest.raises(RequestCancelledError):
        read(request(piece(b"half", more=True), {"type": "http.disconnect"}))


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1e3", b"0x10", b" ", b"9" * 5000, b"1, 1", b"\xb2"])
def test_no_content_length(length: bytes) -> None:
    """Nor is room kept for it."""
    room = BodyRoom(100, 100)
    asked = request(headers=[(b"content-length", length)])
    for use in (stated_size, room.keep):
        with pytest.raises(InvalidInputError, match="Content-Length: expected a number of bytes, got "):
            use(asked)
    assert room.keep(request(headers=[(b"content-length", b"100")])) == 100


def test_the_first_header_counts() -> None:
    """As Litestar's own look-up has it."""
    asked = request(headers=[(b"accept", b"a/b"), (b"accept", b"c/d"), (b"x", b"\xe9")])
    assert header(asked, b"accept") == asked.headers["accept"] == "a/b"
    assert header(asked, b"x") == asked.headers["x"] == "\xe9"
    assert header(asked, b"content-type", "none") == "none"
