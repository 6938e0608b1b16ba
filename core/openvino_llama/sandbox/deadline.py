"""Deadlines, and the thread that enforces them.

A guest that spins is stopped by wasmtime's epochs; a host call in progress is not, so a running inference is
cancelled by its own function. One thread does both. Knows nothing of guests or of OpenVINO.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["TICK_SECONDS", "Deadline", "Watchdog"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.01
"""How exact deadlines are: the time between two ticks."""


class Deadline:
    """A moment that may be brought forward to now, from any thread, or put off."""

    __slots__ = ("_at", "_seconds", "cancelled")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds
        self.cancelled = False

    def renew(self) -> None:
        """Begin anew: something has come, and as much time again may pass until the next."""
        self._at = time.monotonic() + self._seconds

    def again(self) -> Deadline:
        """Another one for the same moment, which may be put off and cancelled without this one."""
        other = Deadline(self._seconds)
        other._at = self._at
        return other

    def remaining(self) -> float:
        """Seconds until the moment; 0 when it is over or was cancelled."""
        return 0.0 if self.cancelled else max(0.0, self._at - time.monotonic())

    def is_over(self, now: float | None = None) -> bool:
        """Whether the moment has come. ``now`` is the monotonic time, if the caller knows it."""
        return self.cancelled or (time.monotonic() if now is None else now) >= self._at

    def seconds_over(self) -> float:
        """Seconds since the moment; negative before it."""
        return time.monotonic() - self._at

    def cancel(self) -> None:
        """Nobody waits any more: what runs until this deadline ends now."""
        self.cancelled = True


_Watched = tuple[Callable[[], None], Deadline]
_UNWATCHED = nullcontext()


class _Watching:
    """While its body runs, the watchdog sees the deadline. No generator: this is entered for each token of a stream."""

    __slots__ = ("_lock", "_own", "_watched")

    def __init__(self, watched: dict[object, _Watched], lock: threading.Lock, own: _Watched) -> None:
        self._watched = watched
        self._lock = lock
        self._own = own

    def __enter__(self) -> None:
        with self._lock:
            self._watched[self] = self._own

    def __exit__(self, *_: object) -> None:
        with self._lock:  # when this returns, nothing is being cancelled any more
            del self._watched[self]


class Watchdog:
    """One thread that ticks, and that cancels what runs past its deadline."""

    def __init__(self, tick: Callable[[], None]) -> None:
        """``tick`` is called once for each TICK_SECONDS that have passed, several times in a row if this is late."""
        self._tick = tick
        self._watched: dict[object, _Watched] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovllama-watchdog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ticked = time.monotonic()
        while not self._stop.wait(TICK_SECONDS):
            # Threads that hold the GIL make this one late, and no deadline may become longer by that.
            due = int((time.monotonic() - ticked) / TICK_SECONDS)
            for _ in range(due):
                self._tick()
            ticked += due * TICK_SECONDS
            if self._watched:
                self._cancel_overdue()

    def _cancel_overdue(self) -> None:
        now = time.monotonic()  # once for all of them: this is done a hundred times a second
        with self._lock:
            for cancel, deadline in self._watched.values():
                if deadline.is_over(now):
                    self._cancel(cancel)

    def _cancel(self, cancel: Callable[[], None]) -> None:
        try:
            cancel()
        # A backend may be a plugin's; without this thread no deadline of the process would hold.
        except Exception:
            logger.exception("a backend could not cancel its inference")

    def watching(self, cancel: Callable[[], None], deadline: Deadline | None) -> AbstractContextManager[None]:
        """Call ``cancel``, again and again, while the body runs past its deadline."""
        return _UNWATCHED if deadline is None else _Watching(self._watched, self._lock, (cancel, deadline))

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
