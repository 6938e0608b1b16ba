"""A child process of the server: its pipes, and that it never outlives the server. Knows nothing of models.

The end of the command pipe is what says that the server is gone. A call into C++ that does not come back would hide
it, since it holds the GIL: on Linux the kernel therefore ends the child with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import IO

__all__ = ["bind_to_parent", "take_pipes"]

_PR_SET_PDEATHSIG = 1


def take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The command and event pipes: what were stdin and stdout. Whatever is printed from now on goes to stderr."""
    commands, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return commands, events


def bind_to_parent(parent: int) -> None:
    """Die when the thread that started this process dies; at once if ``parent`` is not the parent any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which drains first
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
