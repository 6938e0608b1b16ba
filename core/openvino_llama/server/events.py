"""Server-Sent Events (WHATWG HTML, section 9.2): a stream of events as an ASGI response.

Knows nothing of what the events say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

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


def open_events(
    events: AsyncGenerator[list[bytes]],
    on_error: Callable[[Exception], bytes],
    headers: tuple[tuple[bytes, bytes], ...] = (),
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> ASGIApp:
    """The response. It begins with the first events, or with a heartbeat.

    What goes wrong until then is raised, and can become an answer with a status of its own; after that, ``on_error``
    makes the last event of it, and it is raised when the response is complete: the exchange counts it.
    """
    return _EventStream(events, on_error, headers, heartbeat_seconds)


class _EventStream:
    def __init__(
        self,
        events: AsyncGenerator[list[bytes]],
        on_error: Callable[[Exception], bytes],
        headers: tuple[tuple[bytes, bytes], ...],
        heartbeat_seconds: float,
    ) -> None:
        self._events = events
        self._on_error = on_error
        self._headers = headers
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events as they come."""
        body = _Body(send, [*_HEADERS, *self._headers])
        async with aclosing(self._events), _Heart(self._heartbeat_seconds, body) as heart:
            failure = None
            try:
                async for events in self._events:
                    await heart.rest()
                    await body(b"".join(events))
            except Exception as error:
                await heart.rest()
                if not body.has_begun:
                    raise
                failure = error
                await body(self._on_error(error))
        await body(b"", more=False)
        if failure:
            raise failure


class _Body:
    """Passes pieces of a body on; the response begins with the first one."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.has_begun = False

    async def __call__(self, content: bytes, *, more: bool = True) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._send({"type": "http.response.body", "body": content, "more_body": more})


class _Heart:
    """Sends a heartbeat when nothing else has been sent for a while. A timer: there is a task only while it beats."""

    def __init__(self, seconds: float, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._seconds = seconds
        self._send = send
        self._is_quiet = True
        self._beat: asyncio.Future[None] | None = None

    async def __aenter__(self) -> _Heart:
        self._loop = asyncio.get_running_loop()
        self._wait()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._beat:
            if kind:  # else what follows must not overtake it: it may be the response's beginning
                self._beat.cancel()
            await asyncio.gather(self._beat, return_exceptions=True)

    async def rest(self) -> None:
        """Something is about to be sent. Raises what went wrong with the last heartbeat."""
        self._is_quiet = False
        if self._beat:
            await self._beat

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        if self._is_quiet and (self._beat is None or self._beat.done()):
            self._beat = asyncio.ensure_future(self._send(_HEARTBEAT))
        self._is_quiet = True
        self._wait()
