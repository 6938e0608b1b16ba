"""The commands that have come to a child process, when it asks for them. The end of their pipe ends the process.

Knows nothing of what they ask for.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from contextlib import suppress
from typing import IO, NoReturn, Protocol

from openvino_llama_text.engine.frames import Command, Frames

if sys.platform == "linux":
    import fcntl

__all__ = ["PIPE_BYTES", "Commands", "PolledCommands", "ThreadedCommands", "open_commands", "widen"]

PIPE_BYTES = 1 << 20
"""Linux gives no more to everybody."""


def widen(pipe: IO[bytes]) -> None:
    """Have a pipe hold a picture or two, where the system can and grants it."""
    if sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Commands(Protocol):
    """Both kinds."""

    def wait(self) -> Command:
        """The next command, when there is one."""

    def poll(self, seconds: float = 0.0) -> Command | None:
        """The next command, if one begins to come within that time, which may be over."""


def open_commands(pipe: IO[bytes]) -> Commands:
    """The commands of a pipe, from which nothing else is read."""
    return PolledCommands(pipe) if hasattr(select, "poll") else ThreadedCommands(pipe)


class PolledCommands:
    """Reads commands when it is asked for them.

    A thread would need the GIL for each piece of a picture, and wait a step each time: the engine holds it throughout.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._unread = _Unread(pipe)
        self._frames: Frames[Command] = Frames(self._unread, Command)

    def wait(self) -> Command:
        """As Commands has it."""
        return self._frames.read() or _leave()

    def poll(self, seconds: float = 0.0) -> Command | None:
        """As Commands has it."""
        return self.wait() if self._unread.is_there(seconds) else None


class _Unread:
    """The bytes of a pipe, taken out of it in as large pieces as there are."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._taken = bytearray()
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)

    def is_there(self, seconds: float) -> bool:
        """Whether something comes, or the pipe ends, within that time; at once, if it is negative."""
        return bool(self._taken or self._poll.poll(max(0.0, seconds) * 1000))

    def read(self, count: int) -> bytes:
        """So many bytes; less at the end of the pipe."""
        taken = self._taken
        while len(taken) < count and (piece := os.read(self._pipe.fileno(), PIPE_BYTES)):
            taken += piece
        with memoryview(taken) as view:
            read = bytes(view[:count])
        del taken[:count]
        return read


class ThreadedCommands:
    """Reads commands on a thread, which gets its turn whenever a step has let go of the GIL: Windows cannot poll."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._frames: Frames[Command] = Frames(pipe, Command)
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def wait(self) -> Command:
        """As Commands has it."""
        return self._queue.get()

    def poll(self, seconds: float = 0.0) -> Command | None:
        """As Commands has it."""
        try:
            return self._queue.get(seconds > 0, seconds)
        except queue.Empty:
            return None

    def _read(self) -> None:
        try:
            while (command := self._frames.read()) is not None:
                self._queue.put(command)
        finally:
            _leave()


def _leave() -> NoReturn:
    os._exit(0)  # the server is gone: nobody is left to tell anything
