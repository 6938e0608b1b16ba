"""What becomes of a server's memory: what is kept for the next request or given back, what the collector passes over.

Only glibc's malloc is told anything. Knows nothing of what the memory is for.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable

__all__ = ["give_memory_back", "keep_freed_memory", "spare_what_is_there"]

# Of glibc's malloc.h; see mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT = 32 << 20
"""Free bytes that an arena keeps at its end. What is larger is asked of the system and given back at once."""


def keep_freed_memory() -> None:
    """Have threads share few arenas, which keep what they freed for the next request.

    Each request needs memory for its pixels. What is given back between two of them has to be asked of the system
    again, page by page, by a thread that may hold the GIL. Few arenas, because each keeps a part of what has gone.
    """
    mallopt = _libc("mallopt")
    if mallopt:
        mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 2))
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def spare_what_is_there() -> None:
    """Have the garbage collector pass over what is there now: modules, which stay for as long as the process.

    It holds the GIL. Looking through all of them takes forty milliseconds, each time that a model is unloaded.
    """
    gc.collect()
    gc.freeze()


def give_memory_back() -> None:
    """Return freed memory to the operating system: a model has gone."""
    gc.collect()
    trim = _libc("malloc_trim")
    if trim:
        trim(0)


def _libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
