"""How workers reach the event loop: calls that it makes for them, several at a time when there are many.

A call alone is expensive in two ways. Waking the loop is a system call that the worker makes with the GIL, and the loop
then wants it, too. And an inference leaves nothing of the loop's code in the processor's caches: an answer takes
several times as long as in a loop that does nothing else. So while many requests are in progress, answers wait for each
other, as a network card's interrupts do. Knows nothing of what is called.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Mailbox"]

_MANY = 8
"""With fewer requests in progress, each answer is passed on at once."""
_SHARE = 4
"""A quarter of the requests in progress is answered together: none waits for longer than a quarter of its time."""
_PAUSE_SECONDS = 0.016
"""No answer waits for longer than this for others."""
_STREAM_PAUSE_SECONDS = 0.002
"""While there are streams, nothing does: their outputs come together anyhow, and somebody reads along."""


class Mailbox:
    """The calls for one event loop, of workers whose requests take alike long."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._in_progress = 0
        self._streams = 0
        """Of those in progress. Like them and the timer, of the loop's own."""
        self._timer: asyncio.TimerHandle | None = None
        """Where the loop will look by itself."""
        self._enough = 1
        """As many calls are worth waking the loop."""
        self._woken = False

    def begin(self, *, stream: bool = False) -> None:
        """A request is in progress from now on. On the loop's thread."""
        self._in_progress += 1
        self._streams += stream
        if stream and self._timer:  # its outputs must not wait as answers do
            self._look()

    def end(self, *, stream: bool = False) -> None:
        """One that has begun is no more. On the loop's thread."""
        self._in_progress -= 1
        self._streams -= stream

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call a function soon; RuntimeError if it has been closed. From any thread."""
        self._calls.append((function, arguments))
        if (len(self._calls) >= self._enough and not self._woken) or self.loop.is_closed():
            self._wake()

    def _wake(self) -> None:
        self._woken = True
        try:
            self.loop.call_soon_threadsafe(self._look)
        except RuntimeError:
            self._woken = False  # everybody who posts is to be told
            raise

    def _look(self) -> None:
        self._woken = False  # first: who still saw it has posted before
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._make_calls() and self._in_progress >= _MANY:
            pause, self._enough = self._patience()
            self._timer = self.loop.call_later(pause, self._look)
        else:
            self._enough = 1
            self._make_calls()  # those of who came just now, and saw that more was needed

    def _patience(self) -> tuple[float, int]:
        """How long to wait for further calls, and for how many."""
        if self._streams:
            return _STREAM_PAUSE_SECONDS, sys.maxsize
        return _PAUSE_SECONDS, self._in_progress // _SHARE

    def _make_calls(self) -> bool:
        """Whether there were some."""
        calls = self._calls
        found = bool(calls)
        while calls:
            function, arguments = calls.popleft()
            try:
                function(*arguments)
            except Exception as error:  # of the others' calls, none must be lost
                self.loop.call_exception_handler({"message": "a worker's call failed", "exception": error})
        return found
