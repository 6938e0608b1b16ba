"""Server-Sent Events (WHATWG HTML, section 9.2): a stream of events as an ASGI response.

Knows nothing of what the events say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ["HEARTBEAT_SECONDS", "event", "open_events"]

HEARTBEAT_SECONDS = 15.0
"""After so long without an event, a comment is sent, so that proxies do not take the connection for dead."""

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
)
_HEARTBEAT = b": still here\n\n"


def event(data: bytes, *, number: int | None = None, kind: bytes = b"") -> bytes:
    """One event; ``data`` is one line."""
    head = b"" if number is None else b"id: %d\n" % number
    return b"%b%bdata: %b\n\n" % (head, b"event: %b\n" % kind if kind else b"", data)


async def open_events(
    events: AsyncIterator[list[bytes]],
    on_error: Callable[[Exception], bytes],
    headers: tuple[tuple[bytes, bytes], ...] = (),
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> ASGIApp:
    """The response, once the first events are there, or after the time of a heartbeat.

    What goes wrong until then is raised, and can become an answer with a status of its own; after that, ``on_error``
    makes the last event of it, and it is raised when the response is complete: the exchange counts it.
    """
    first = asyncio.ensure_future(_next(events))
    try:
        await asyncio.wait((first,), timeout=heartbeat_seconds)
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        await _close(events, first)
        raise
    return _EventStream(events, first, on_error, headers, heartbeat_seconds)


class _EventStream:
    def __init__(
        self,
        events: AsyncIterator[list[bytes]],
        first: asyncio.Future[list[bytes]],
        on_error: Callable[[Exception], bytes],
        headers: tuple[tuple[bytes, bytes], ...],
        heartbeat_seconds: float,
    ) -> None:
        self._events = events
        self._first = first
        self._on_error = on_error
        self._headers = headers
        self._heartbeat_seconds = heartbeat_seconds
        self._quiet = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events as they come."""
        beating = asyncio.create_task(self._beat(send))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *self._headers]})
            failure = await self._send_all(send)
        finally:
            beating.cancel()
            self._first.cancel()
            await _close(self._events, self._first)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if failure:
            raise failure

    async def _send_all(self, send: Send) -> Exception | None:
        try:
            await self._send(send, b"".join(await self._first))
            async for events in self._events:
                await self._send(send, b"".join(events))
        except Exception as error:
            await self._send(send, self._on_error(error))
            return error
        return None

    async def _send(self, send: Send, content: bytes) -> None:
        self._quiet = False
        await send({"type": "http.response.body", "body": content, "more_body": True})

    async def _beat(self, send: Send) -> None:
        while True:
            self._quiet = True
            await asyncio.sleep(self._heartbeat_seconds)
            if self._quiet:
                await self._send(send, _HEARTBEAT)


async def _next(events: AsyncIterator[list[bytes]]) -> list[bytes]:
    return await anext(events, [])


async def _close(events: Any, running: asyncio.Future[Any]) -> None:
    """Close an iterator, which may still be in a step that has been cancelled."""
    await asyncio.wait((running,))
    await events.aclose()
