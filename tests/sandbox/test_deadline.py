"""Deadlines and the thread that enforces them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from openvino_llama.jobs import LastOf
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


class TestRegularTicks:
    """For those who count them."""

    def test_they_come(self) -> None:
        """As often as promised, more or less."""
        ticked = threading.Event()
        watchdog = Watchdog(ticked.set, regular=True)
        assert ticked.wait(100 * TICK_SECONDS)
        watchdog.close()

    def test_there_are_none_while_nothing_runs(self) -> None:
        """An idle process does not wake up a hundred times a second; whatever is watched wakes it."""
        ticks: list[float] = []
        watchdog = Watchdog(lambda: ticks.append(time.monotonic()), regular=True)
        time.sleep(1.5)
        for _ in range(3):
            slept = len(ticks)
            time.sleep(20 * TICK_SECONDS)
            assert len(ticks) == slept
            with watchdog.watching(Deadline(60)):
                time.sleep(20 * TICK_SECONDS)
                assert slept + 10 <= len(ticks) <= slept + 21  # none for the time that was slept
            time.sleep(1.5)
        watchdog.close()

    def test_they_go_on_while_anything_runs(self) -> None:
        """Many begin and end; as long as one has not ended, there are ticks."""
        ticks: list[float] = []
        watchdog = Watchdog(lambda: ticks.append(time.monotonic()), regular=True)
        with watchdog.watching(Deadline(60)):
            for _ in range(20):
                with watchdog.watching(Deadline(60)):
                    pass
            time.sleep(1.5)
            seen = len(ticks)
            time.sleep(20 * TICK_SECONDS)
            assert len(ticks) >= seen + 10
        watchdog.close()

    def test_they_catch_up(self) -> None:
        """Those that a busy process has made late come together: they say what time it is."""
        ticks: list[float] = []

        def tick() -> None:
            ticks.append(time.monotonic())
            if len(ticks) % 5 == 0:
                time.sleep(5 * TICK_SECONDS)

        started = time.monotonic()
        watchdog = Watchdog(tick, regular=True)
        time.sleep(50 * TICK_SECONDS)
        watchdog.close()
        assert len(ticks) > 0.75 * (time.monotonic() - started) / TICK_SECONDS


def test_it_sleeps_until_something_is_overdue() -> None:
    """Then it ticks, for whoever is asked at each tick whether to go on, until that has ended."""
    ticked = threading.Semaphore(0)
    watchdog = Watchdog(ticked.release)
    with watchdog.watching(Deadline(60)):
        assert not ticked.acquire(timeout=0.3)
        with watchdog.watching(Deadline(0.1)):  # it comes after the other, and is over before
            for _ in range(3):
                assert ticked.acquire(timeout=5)
        time.sleep(0.1)  # it may be about to tick
        while ticked.acquire(blocking=False):
            pass
        assert not ticked.acquire(timeout=10 * TICK_SECONDS)
    watchdog.close()


def test_a_cancelled_deadline_is_noticed(watchdog: Watchdog) -> None:
    """At once, and not when its time would have come; before it is watched, too."""
    deadline, cancelled = Deadline(60), threading.Event()
    for _ in range(2):
        with watchdog.watching(deadline, cancelled.set):
            deadline.cancel()
            assert cancelled.wait(5)
        cancelled.clear()
    with watchdog.watching(deadline, cancelled.set):
        assert cancelled.wait(5)


def test_the_last_of_several_cancelled_deadlines_is_noticed(watchdog: Watchdog) -> None:
    """An inference for several requests ends when nobody waits for any of them."""
    deadlines, cancelled = [Deadline(60), Deadline(60)], threading.Event()
    with watchdog.watching(LastOf(deadlines), cancelled.set):
        deadlines[1].cancel()
        assert not cancelled.wait(5 * TICK_SECONDS)
        deadlines[0].cancel()
        assert cancelled.wait(5)


def test_one_of_several_deadlines_that_is_cancelled_does_not_count(watchdog: Watchdog) -> None:
    """The inference ends with the others' time: nobody waits for that one."""
    deadlines, cancelled = [Deadline(0.2), Deadline(60)], threading.Event()
    with watchdog.watching(LastOf(deadlines), cancelled.set):
        deadlines[1].cancel()
        assert cancelled.wait(5)


@pytest.mark.parametrize("regular", [False, True])
def test_short_calls_do_not_wake_it_one_by_one(regular: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that have ended before it looks."""
    watchdog = Watchdog(lambda: None, regular=regular)
    time.sleep(1.5)
    wakes: list[float] = []
    wake = watchdog._awake.set

    def counted() -> None:
        wakes.append(time.monotonic())
        wake()

    monkeypatch.setattr(watchdog._awake, "set", counted)
    for _ in range(50):
        with watchdog.watching(Deadline(60)):
            pass
        time.sleep(0.01)
    assert len(wakes) <= 5
    watchdog.close()


def test_a_deadline_that_is_put_off_is_not_over(watchdog: Watchdog) -> None:
    """Though the watchdog planned to look at it."""
    deadline, cancelled = Deadline(0.2), threading.Event()
    with watchdog.watching(deadline, cancelled.set):
        for _ in range(10):
            deadline.renew()
            assert not cancelled.wait(0.05)
        assert cancelled.wait(5)  # nothing puts it off any more


def test_it_ends_at_once() -> None:
    """Whenever it is closed: nothing that it waits for keeps it."""
    for pause in (0.0, 0.0001, 0.001):
        for _ in range(200):
            watchdog = Watchdog(lambda: None)
            time.sleep(pause)
            watchdog.close()


def test_many_threads_at_once(watchdog: Watchdog) -> None:
    """Each deadline that ends early is noticed, however many begin and end beside it."""
    missed = []

    def work(number: int) -> None:
        for turn in range(200):
            cancelled = threading.Event()
            deadline = Deadline(0.005 if (turn + number) % 3 else 60)
            with watchdog.watching(deadline, cancelled.set):
                if deadline.remaining() > 1:
                    deadline.cancel()
                if not cancelled.wait(5):
                    missed.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not missed


def test_what_overruns_is_cancelled_again_and_again(watchdog: Watchdog) -> None:
    """Until it has ended: a cancel that came too early is not the last."""
    cancelled = threading.Semaphore(0)
    with watchdog.watching(Deadline(0.02), cancelled.release):
        for _ in range(3):
            assert cancelled.acquire(timeout=5)
    while cancelled.acquire(blocking=False):
        pass
    assert not cancelled.acquire(timeout=5 * TICK_SECONDS)


def test_what_ends_in_time_is_left_alone(watchdog: Watchdog) -> None:
    """And so is what has no deadline."""
    cancelled = threading.Event()
    for deadline in (Deadline(60), None):
        with watchdog.watching(deadline, cancelled.set):
            assert not cancelled.wait(5 * TICK_SECONDS)


def test_a_cancel_that_fails_does_not_end_the_watch(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    """A backend's error is logged; every other deadline still holds."""

    def fail() -> None:
        raise RuntimeError("no")

    cancelled = threading.Event()

    def other() -> None:
        with watchdog.watching(Deadline(0.05), cancelled.set):
            cancelled.wait(5)

    with caplog.at_level(logging.ERROR), watchdog.watching(Deadline(0), fail):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert cancelled.is_set()
    assert "could not cancel" in caplog.text
