"""How workers reach the event loop: calls that it makes for them, several at a time when there are many.

Waking the loop is a system call that the worker makes with the GIL, and the loop then wants it, too. So while many
requests are in progress, the loop has a pause after each time that it was woken, and then looks by itself. Knows
nothing of what is called.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Mailbox"]

_MANY = 6
"""With so few requests in progress, none of them waits long for another one: each answer is passed on at once."""
_PAUSE_SECONDS = 0.002


class Mailbox:
    """The calls for one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.expecting = 0
        """How many requests are in progress. Of the loop's own."""
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._will_look = False

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call a function soon; RuntimeError if it has been closed. From any thread."""
        self._calls.append((function, arguments))
        if not self._will_look:
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._will_look:  # two workers have woken the loop at the same time
            self._make_calls()
        else:
            self._look()

    def _look(self) -> None:
        self._will_look = self._make_calls() and self.expecting > _MANY
        if self._will_look:
            self.loop.call_later(_PAUSE_SECONDS, self._look)
        else:
            self._make_calls()  # those of who came just now, and saw that the loop would look

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
