"""Deadlines and the thread that enforces them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from openvino_llama.sandbox.deadline import TICK_SECONDS, Deadline, Watchdog


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog(lambda: None)
    yield watchdog
    watchdog.close()


def test_a_deadline_comes() -> None:
    """What remains becomes less, and then 0."""
    deadline = Deadline(0.05)
    assert 0 < deadline.remaining() <= 0.05
    assert not deadline.is_over()
    time.sleep(0.06)
    assert deadline.remaining() == 0
    assert deadline.is_over()


def test_a_cancelled_deadline_is_over() -> None:
    """At once, and it says that it was cancelled."""
    deadline = Deadline(60)
    deadline.cancel()
    assert deadline.is_over()
    assert deadline.cancelled


def test_it_ticks() -> None:
    """As often as it promises, more or less."""
    ticked = threading.Event()
    watchdog = Watchdog(ticked.set)
    assert ticked.wait(100 * TICK_SECONDS)
    watchdog.close()


def test_it_sleeps_while_nothing_runs() -> None:
    """An idle process does not wake up a hundred times a second; whatever begins or is watched wakes it."""
    ticks: list[float] = []
    watchdog = Watchdog(lambda: ticks.append(time.monotonic()))
    time.sleep(1.5)
    for _ in range(3):
        slept = len(ticks)
        time.sleep(20 * TICK_SECONDS)
        assert len(ticks) == slept
        watchdog.begin()
        time.sleep(20 * TICK_SECONDS)
        assert slept + 10 <= len(ticks) <= slept + 21  # none for the time that was slept
        watchdog.end()
        time.sleep(1.5)
    cancelled = threading.Event()
    with watchdog.watching(cancelled.set, Deadline(0.05)):
        assert cancelled.wait(5)
    watchdog.close()


def test_it_ticks_on_while_any_guest_runs() -> None:
    """Many begin and end; as long as one has not ended, there are ticks."""
    ticks: list[float] = []
    watchdog = Watchdog(lambda: ticks.append(time.monotonic()))
    watchdog.begin()
    for _ in range(20):
        watchdog.begin()
        watchdog.end()
    time.sleep(1.5)
    seen = len(ticks)
    time.sleep(20 * TICK_SECONDS)
    assert len(ticks) >= seen + 10
    watchdog.end()
    watchdog.close()


def test_it_catches_up() -> None:
    """Ticks that a busy process has made late come together: they say what time it is."""
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) % 5 == 0:
            time.sleep(5 * TICK_SECONDS)

    started = time.monotonic()
    watchdog = Watchdog(tick)
    time.sleep(50 * TICK_SECONDS)
    watchdog.close()
    assert len(ticks) > 0.75 * (time.monotonic() - started) / TICK_SECONDS


def test_what_overruns_is_cancelled_again_and_again(watchdog: Watchdog) -> None:
    """Until it has ended: a cancel that came too early is not the last."""
    cancelled = threading.Semaphore(0)
    with watchdog.watching(cancelled.release, Deadline(0.02)):
        for _ in range(3):
            assert cancelled.acquire(timeout=5)
    while cancelled.acquire(blocking=False):
        pass
    assert not cancelled.acquire(timeout=5 * TICK_SECONDS)


def test_what_ends_in_time_is_left_alone(watchdog: Watchdog) -> None:
    """And so is what has no deadline."""
    cancelled = threading.Event()
    for deadline in (Deadline(60), None):
        with watchdog.watching(cancelled.set, deadline):
            assert not cancelled.wait(5 * TICK_SECONDS)


def test_a_cancel_that_fails_does_not_end_the_watch(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    """A backend's error is logged; every other deadline still holds."""

    def fail() -> None:
        raise RuntimeError("no")

    cancelled = threading.Event()

    def other() -> None:
        with watchdog.watching(cancelled.set, Deadline(0.05)):
            cancelled.wait(5)

    with caplog.at_level(logging.ERROR), watchdog.watching(fail, Deadline(0)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert cancelled.is_set()
    assert "could not cancel" in caplog.text
