"""Commands on their way to an engine's process.

Who has one writes it himself, with those that others have put there meanwhile: a thread for that alone would have to be
woken for each command, and then wait for the GIL. A thread writes only what a full pipe does not take, so that a
process that does not read keeps nobody waiting. Knows nothing of what commands ask for.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from collections import deque
from contextlib import suppress
from typing import IO

from openvino_llama_text.engine.frames import Command, framed

__all__ = ["Outbox"]

_NEVER_WAITS = hasattr(select, "poll")
"""Whether pipes can be written to without waiting. On Windows not: there, all is left to the thread."""


class Outbox:
    """The commands for one process. Every method may be called from any thread, and only ``join`` waits."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """From now on nobody else writes to the pipe, or closes it."""
        self._pipe = pipe
        self._frames: deque[memoryview] = deque()
        self._turn = threading.Lock()
        """Of the one who writes."""
        self._is_left = False
        """Whether the thread is to write what there is."""
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """For the thread, that there is something to do; False is the end."""
        if _NEVER_WAITS:
            os.set_blocking(pipe.fileno(), False)
        self._thread = threading.Thread(target=self._write_rest, name="outbox", daemon=True)
        self._thread.start()

    def put(self, command: Command) -> None:
        """One more, behind the others. It is not written before somebody calls ``send``."""
        self._frames.append(memoryview(framed(command)))

    def send(self) -> None:
        """Write what there is, or leave it to who is writing already; of a process that is gone, nobody is told."""
        while self._frames and not self._is_left and self._turn.acquire(blocking=False):
            try:
                self._is_left = not (_NEVER_WAITS and self._write())
            finally:
                self._turn.release()
            if self._is_left:
                self._calls.put(True)

    def close(self) -> None:
        """Write what there still is, if the process reads it, and close the pipe."""
        self._calls.put(False)

    def join(self) -> None:
        """Wait until that is done; if the process does not read, that is when it is gone."""
        self._thread.join()

    def _write_rest(self) -> None:
        while self._calls.get():
            while self._is_left:
                _await_room(self._pipe)
                with self._turn:
                    self._is_left = not self._write()
            self.send()  # what came just now, when the thread was still to write it
        self._turn.acquire()  # for ever: nobody writes to what will be another file
        with suppress(OSError):
            self._pipe.close()

    def _write(self) -> bool:
        """Whether that was all: the pipe may be full."""
        try:
            while self._frames:
                count = os.write(self._pipe.fileno(), self._frames[0])
                rest = self._frames.popleft()[count:]
                if rest:
                    self._frames.appendleft(rest)
        except BlockingIOError:
            return False
        except OSError:  # the process is gone, which who listens to it sees too
            self._frames.clear()
        return True


def _await_room(pipe: IO[bytes]) -> None:
    """Wait until a pipe takes something, or its other end is gone."""
    if _NEVER_WAITS:
        room = select.poll()
        room.register(pipe, select.POLLOUT)
        room.poll()
