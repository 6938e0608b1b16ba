"""Deadlines, and the thread that enforces them.

A guest that spins is stopped by wasmtime's epochs; a host call in progress is not, so a running inference is
cancelled by its own function. One thread does both. Knows nothing of guests or of OpenVINO.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from openvino_llama.errors import OpenVINOLlamaError

__all__ = ["TICK_SECONDS", "Deadline", "Watchdog"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.01
"""How often what is overdue is told so, until it has ended."""
_LINGER_SECONDS = 1.0
"""How long regular ticks go on after the last guest, so that not every request has to wake the thread."""


class Deadline:
    """A moment that may be brought forward to now, from any thread, or put off."""

    __slots__ = ("_at", "_notify", "_seconds", "cancelled", "reason")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds
        self._notify: Callable[[], None] | None = None
        self.cancelled = False
        self.reason: OpenVINOLlamaError | None = None
        """Why it was cancelled, if somebody still waits."""

    @property
    def at(self) -> float:
        """The moment, as monotonic time; cancelled, it is long over."""
        return -math.inf if self.cancelled else self._at

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
        if self._notify:
            self._notify()

    def on_cancel(self, notify: Callable[[], None]) -> None:
        """Have that called from now on when this is cancelled, instead of what was to be called before."""
        self._notify = notify


_UNWATCHED = nullcontext()


class Watchdog:
    """One thread that sleeps until a deadline is over or cancelled, and then ends what ran until it.

    It wakes up for what is overdue only (but see ``regular``): a thread that looks a hundred times a second finds none
    of its code in the processor's caches, and takes a hundredth of a processor. All that watch one deadline do so
    through one of these.
    """

    def __init__(self, tick: Callable[[], None], *, regular: bool = False) -> None:
        """``tick`` is called when something is overdue, and again each TICK_SECONDS until it has ended.

        With ``regular``, for those who count ticks, it is called once for each TICK_SECONDS that have passed for as
        long as anything is watched, and a while longer; several times in a row if this is late.
        """
        self._tick = tick
        self._regular = regular
        self._watched: dict[_Watching, None] = {}
        self._lock = threading.Lock()
        """Held while something is cancelled."""
        self._next_look = math.inf
        self._asked_for = -math.inf
        """The deadline that has woken the thread."""
        self._awake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ovllama-watchdog", daemon=True)
        self._thread.start()

    def watching(
        self, deadline: Deadline | None, cancel: Callable[[], None] | None = None
    ) -> AbstractContextManager[object]:
        """Tick, and call ``cancel``, again and again, while the body runs past its deadline."""
        return _UNWATCHED if deadline is None else _Watching(self, deadline, cancel)

    def close(self) -> None:
        """End the thread."""
        self._stopping = True
        self._awake.set()
        self._thread.join()

    def _watch(self, watching: _Watching) -> None:
        deadline = watching.deadline
        deadline.on_cancel(self._awake.set)
        self._watched[watching] = None
        # Deadlines are equally long as a rule: the next look was planned for one that began earlier.
        at = deadline.at
        if at < self._next_look:
            self._asked_for = at
            self._awake.set()

    def _unwatch(self, watching: _Watching) -> None:
        """When this returns, nothing is being cancelled any more."""
        with self._lock:
            del self._watched[watching]

    # ---- on the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        ticked = needed = time.monotonic()
        while not self._stopping:
            self._next_look = math.inf  # who comes while this looks wakes it once more
            watched, now = list(self._watched), time.monotonic()
            overdue = [each for each in watched if each.deadline.is_over(now)]
            needed = now if watched else needed
            if self._regular:
                ticked += self._catch_up(now - ticked)
            elif overdue:
                self._tick()
            for each in overdue:
                self._cancel(each)
            if overdue or (self._regular and now < needed + _LINGER_SECONDS):
                self._next_look = now + TICK_SECONDS
            elif watched:
                self._next_look = min(each.deadline.at for each in watched)
            elif (
                not self._regular and self._asked_for > now
            ):  # it has ended already, but those who come after it need not wake this again
                self._next_look = self._asked_for
            self._sleep()
            if self._next_look == math.inf:
                ticked = needed = time.monotonic()  # no ticks for the time that was slept

    def _sleep(self) -> None:
        seconds = self._next_look - time.monotonic()
        self._awake.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))
        self._awake.clear()  # before it looks: who sets it from now on may have come too late for that

    def _catch_up(self, seconds: float) -> float:
        """Tick for the seconds that have passed; for how many of them, since the last tick may not be due.

        Threads that hold the GIL make this one late, and no deadline may become longer by that.
        """
        due = int(seconds / TICK_SECONDS)
        for _ in range(due):
            self._tick()
        return due * TICK_SECONDS

    def _cancel(self, overdue: _Watching) -> None:
        with self._lock:
            if overdue.cancel is None or overdue not in self._watched:
                return
            try:
                overdue.cancel()
            # A backend may be a plugin's; without this thread no deadline of the process would hold.
            except Exception:
                logger.exception("a backend could not cancel its inference")


class _Watching:
    """While its body runs, the watchdog watches. No generator: this is entered for each token of a stream."""

    __slots__ = ("_watchdog", "cancel", "deadline")

    def __init__(self, watchdog: Watchdog, deadline: Deadline, cancel: Callable[[], None] | None) -> None:
        self._watchdog = watchdog
        self.deadline = deadline
        self.cancel = cancel

    def __enter__(self) -> None:
        self._watchdog._watch(self)  # noqa: SLF001 - the two are one

    def __exit__(self, *_: object) -> None:
        self._watchdog._unwatch(self)  # noqa: SLF001
