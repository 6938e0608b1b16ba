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

from openvino_llama.errors import OpenVINOLlamaError

__all__ = ["TICK_SECONDS", "Deadline", "Watchdog"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.01
"""How exact deadlines are: the time between two ticks."""
_LINGER_SECONDS = 1.0
"""How long ticks go on after the last guest, so that not every request has to wake the thread."""


class Deadline:
    """A moment that may be brought forward to now, from any thread, or put off."""

    __slots__ = ("_at", "_seconds", "cancelled", "reason")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds
        self.cancelled = False
        self.reason: OpenVINOLlamaError | None = None
        """Why it was cancelled, if somebody still waits."""

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

    def cancel(self, reason: OpenVINOLlamaError | None = None) -> None:
        """What runs until this deadline ends now: nobody waits any more, or whoever does is told the reason."""
        self.reason = self.reason or reason
        self.cancelled = True


_Watched = tuple[Callable[[], None], Deadline]
_UNWATCHED = nullcontext()


class Watchdog:
    """One thread that ticks, and that cancels what runs past its deadline."""

    def __init__(self, tick: Callable[[], None]) -> None:
        """``tick`` is called once for each TICK_SECONDS that have passed, several times in a row if this is late.

        When nothing has run for a while, there are no ticks, and the thread sleeps.
        """
        self._tick = tick
        self._watched: dict[object, _Watched] = {}
        self._lock = threading.Lock()
        self._running: list[None] = []
        """One for each guest that runs: a list, because appending and popping need no lock."""
        self._asleep = False
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovllama-watchdog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ticked = needed = time.monotonic()
        while not self._stop.wait(TICK_SECONDS):
            now = time.monotonic()
            # Threads that hold the GIL make this one late, and no deadline may become longer by that.
            due = int((now - ticked) / TICK_SECONDS)
            for _ in range(due):
                self._tick()
            ticked += due * TICK_SECONDS
            if self._watched:
                self._cancel_overdue()
            if self._running or self._watched:
                needed = now
            elif now > needed + _LINGER_SECONDS:
                self._sleep()
                ticked = needed = time.monotonic()

    def _sleep(self) -> None:
        """An idle server must not keep a processor awake."""
        self._awake.clear()
        self._asleep = True
        if not (self._running or self._watched or self._stop.is_set()):  # who comes from now on sees that this sleeps
            self._awake.wait()
        self._asleep = False

    def begin(self) -> None:
        """A guest runs from now on: there are ticks until as many have ended as have begun, and a while longer."""
        self._running.append(None)
        self._wake()

    def end(self) -> None:
        """One of those that have begun has ended."""
        self._running.pop()

    def _wake(self) -> None:
        if self._asleep:
            self._awake.set()

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
        return _UNWATCHED if deadline is None else _Watching(self, (cancel, deadline))

    def watch(self, key: object, watched: _Watched) -> None:
        """Call the function, again and again, from the deadline on."""
        with self._lock:
            self._watched[key] = watched
        self._wake()

    def unwatch(self, key: object) -> None:
        """No more: when this returns, nothing is being cancelled any more."""
        with self._lock:
            del self._watched[key]

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._awake.set()
        self._thread.join()


class _Watching:
    """While its body runs, the watchdog watches. No generator: this is entered for each token of a stream."""

    __slots__ = ("_watchdog", "_watched")

    def __init__(self, watchdog: Watchdog, watched: _Watched) -> None:
        self._watchdog = watchdog
        self._watched = watched

    def __enter__(self) -> None:
        self._watchdog.watch(self, self._watched)

    def __exit__(self, *_: object) -> None:
        self._watchdog.unwatch(self)
