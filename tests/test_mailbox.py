"""What workers post is called, all of it and in order, whether the loop is woken or looks by itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openvino_llama.mailbox import Mailbox

THREADS, TURNS = 8, 2000


class Woken(asyncio.SelectorEventLoop):
    """A loop that counts how often others have woken it."""

    count = 0

    def call_soon_threadsafe(self, callback: Any, *arguments: Any, **more: Any) -> asyncio.Handle:  # type: ignore[override]
        self.count += 1
        return super().call_soon_threadsafe(callback, *arguments, **more)


async def await_true(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.001)


def mailbox_of(answers: int = 0, streams: int = 0) -> Mailbox:
    """One with so many requests in progress, for the running loop."""
    mailbox = Mailbox(asyncio.get_running_loop())
    for stream in [False] * answers + [True] * streams:
        mailbox.begin(stream=stream)
    return mailbox


IN_PROGRESS = [(1, 0), (16, 0), (100, 0), (0, 100), (50, 50)]


@pytest.mark.parametrize(("answers", "streams"), IN_PROGRESS)
def test_nothing_is_lost(answers: int, streams: int) -> None:
    """However the posts of several threads meet the loop's looks; those of one thread are called in their order."""

    async def receive() -> None:
        mailbox = mailbox_of(answers, streams)
        last: Counter[int] = Counter()

        def take(thread: int, turn: int) -> None:
            assert last[thread] == turn
            last[thread] += 1

        def send(thread: int) -> None:
            for turn in range(TURNS):
                mailbox.post(take, thread, turn)
                if turn % 7 == 0:
                    time.sleep(0.0005)

        with ThreadPoolExecutor(THREADS) as threads:
            sent = [threads.submit(send, number) for number in range(THREADS)]
            await await_true(lambda: last.total() == THREADS * TURNS)
        for each in sent:
            each.result()

    asyncio.run(receive())


@pytest.mark.parametrize(("answers", "streams"), IN_PROGRESS)
def test_the_loop_is_not_woken_while_it_looks(answers: int, streams: int) -> None:
    """With few requests in progress, every call wakes it."""
    few = answers + streams == 1

    async def receive() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Woken)
        mailbox = mailbox_of(answers, streams)
        called: list[int] = []

        def send() -> None:
            for number in range(50):
                mailbox.post(called.append, number)
                if few or number == 0:
                    await_called(number)

        def await_called(number: int) -> None:
            end = time.monotonic() + 20
            while number not in called and time.monotonic() < end:
                time.sleep(0.0001)

        before = loop.count
        sending = threading.Thread(target=send)
        sending.start()
        await await_true(lambda: len(called) == 50)
        sending.join()
        assert called == list(range(50))
        woken = loop.count - before
        assert woken == 50 if few else woken < 25

    with asyncio.Runner(loop_factory=Woken) as runner:
        runner.run(receive())


def test_answers_wait_for_a_quarter_of_them() -> None:
    """One that comes to a quiet loop is passed on at once; then so many together, or as many as come in a while."""

    async def receive() -> None:
        mailbox, called = mailbox_of(16), list[int]()
        mailbox.post(called.append, 0)
        await asyncio.sleep(0)
        assert called == [0]
        for number in (1, 2, 3):
            mailbox.post(called.append, number)
            await asyncio.sleep(0)
            assert called == [0]
        mailbox.post(called.append, 4)
        await asyncio.sleep(0)
        assert called == [0, 1, 2, 3, 4]
        mailbox.post(called.append, 5)
        await await_true(lambda: called == [0, 1, 2, 3, 4, 5])

    asyncio.run(receive())


def test_a_stream_does_not_wait_for_answers() -> None:
    """What waits when it begins is passed on at once, and nothing waits for long from then on."""

    async def receive() -> None:
        mailbox, called = mailbox_of(100), list[float]()
        mailbox.post(called.append, 0)
        await asyncio.sleep(0)
        mailbox.post(called.append, 1)
        mailbox.begin(stream=True)
        assert called == [0, 1]
        assert mailbox._patience()[0] < 0.005

    asyncio.run(receive())


def test_one_that_fails_takes_no_other_with_it() -> None:
    """The loop's handler is told of it."""

    async def receive() -> None:
        loop, failures, called = asyncio.get_running_loop(), list[dict[str, Any]](), list[int]()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        mailbox = Mailbox(loop)
        mailbox.post([].pop)
        mailbox.post(called.append, 1)
        await await_true(lambda: called == [1])
        assert isinstance(failures[0]["exception"], IndexError)

    asyncio.run(receive())


def test_a_closed_loop() -> None:
    """Who posts is told, each time, also where others would have been waited for."""
    loop = asyncio.new_event_loop()

    async def begin() -> Mailbox:
        mailbox = mailbox_of(100)
        mailbox.post([].sort)
        await asyncio.sleep(0)
        return mailbox

    mailbox = loop.run_until_complete(begin())
    loop.close()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            mailbox.post(print)
