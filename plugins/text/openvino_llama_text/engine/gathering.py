"""Which commands an engine obeys before its next step: those that are there, and those that come with them.

A first step for one prompt alone would keep all that come right after it waiting, and takes longer than they to come.
A step that is full waits for nobody. Knows nothing of what the commands ask for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from openvino_llama_text.engine.frames import Add, Command

__all__ = ["Gathering"]

_GAP_SECONDS, _GATHER_SECONDS = 0.006, 0.040
"""An idle engine waits for others while they come at such intervals, and so long at most."""


class _Commands(Protocol):
    def wait(self) -> Command: ...

    def poll(self, seconds: float = 0.0) -> Command | None: ...


class Gathering:
    """What has come before each step. Where the last prompt that found an engine idle came alone, nobody is awaited."""

    def __init__(self, commands: _Commands) -> None:
        self._commands = commands
        self._expects_company = True
        """Whether others came with, or right after, the last one that found the engine idle."""
        self._is_first_step = False
        """Whether the last step was the first after a rest."""

    def before_step(self, *, busy: bool, is_full: Callable[[], bool]) -> Iterator[Command]:
        """The commands to obey now; a busy engine has work besides, an idle one waits for the first.

        ``is_full`` is asked while an idle one waits for more: whether the step has all the work that it can take.
        """
        command = self._commands.poll() if busy else self._commands.wait()
        until = 0.0 if busy or not self._expects_company else time.monotonic() + _GATHER_SECONDS
        came = 0
        while command is not None:
            came += isinstance(command, Add)
            yield command
            left = until - time.monotonic() if until and not is_full() else 0.0
            command = self._commands.poll(min(_GAP_SECONDS, left))
        if came and (not busy or self._is_first_step):
            self._expects_company = came > 1 or busy
        self._is_first_step = not busy
