"""Which threads run first where there are more of them than processors. Only Linux can be told; elsewhere, nothing is.

Knows nothing of what the threads do.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["let_others_finish", "make_way"]

_NICE = 10


def make_way() -> None:
    """Have this thread run when others do not need the processor: for those who pass on what another process computes.

    There is no way back, and what the thread starts from then on makes way as well.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # not everybody may
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def let_others_finish() -> None:
    """Have the threads of this process, and all that they start, not interrupt others when they wake up (SCHED_BATCH).

    Who runs may hold the GIL, or be the last that the others of an inference wait for: interrupting it holds them all
    up. A thread that wakes up waits for a processor some milliseconds at most. See sched(7).
    """
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").glob("*"):  # libraries that were imported may have started some
            with suppress(OSError):
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))
