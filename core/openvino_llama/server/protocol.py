"""HTTP as uvicorn parses it, with what it leaves open closed: how large, and how late, a request's head may be.

httptools collects a head of any size, and waits for its end for ever. Knows nothing of the app.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD_BYTES", "Protocol"]

MAX_HEAD_BYTES = 64 << 10
"""Request line and headers together."""
_HEAD_SECONDS = 20.0
"""From the opening of a connection, or the first byte of a request, to the end of its head."""
_TOO_LARGE = f"the request line and the headers have more than {MAX_HEAD_BYTES} bytes"


class Protocol(HttpToolsProtocol):
    """Answers 431 to heads that are too large; hangs up on those that do not end."""

    _reading_head = True
    _head_has_begun = False
    _heads = 0
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is awaited."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_awaiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless it has been fed too much of a head already."""
        in_head, heads = self._reading_head, self._heads
        super().data_received(data)
        is_rest = in_head and heads == self._heads  # all of it belongs to a head, or are line breaks before one
        if is_rest or self._head_has_begun:  # most heads come in one piece, and nobody has to wait for their end
            self._await_head()
        if is_rest:
            self._count(len(data))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind a chunked body: these are read by nobody."""
        if self._reading_head:
            super().on_header(name, value)
        else:
            self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """A head is there; it may have come in one piece."""
        self._reading_head = self._head_has_begun = False
        self._heads += 1
        self._head_bytes = 0
        self._stop_awaiting()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self.app, self.url = _head_too_large, b"/"  # which could not even be parsed
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes are the next head's."""
        super().on_message_complete()
        self._reading_head = True

    def on_response_complete(self) -> None:
        """An answer that came before the end of its request leaves the client some time to read it."""
        super().on_response_complete()
        if not self._reading_head:
            self._await_head()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """As every other problem is answered."""
        self._refuse(HTTPStatus.BAD_REQUEST, "that is not HTTP/1.1")

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        body = _problem(status, detail)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write((head + length).encode() + body)
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._hang_up)

    def _stop_awaiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hang_up(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def _problem(status: HTTPStatus, detail: str) -> bytes:
    return msgspec.json.encode(
        {"status": status.value, "title": status.phrase, "detail": detail, "type": "about:blank"}
    )


async def _head_too_large(_scope: Any, _receive: Any, send: Any) -> None:
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": _problem(status, _TOO_LARGE)})
