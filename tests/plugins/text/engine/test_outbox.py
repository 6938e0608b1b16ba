"""Commands on their way: in order, all of them, and without keeping anybody waiting."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import pytest
from tests.plugins.text.engine.runs import together

from openvino_llama_text.engine import outbox
from openvino_llama_text.engine.frames import Add, Cancel, Command, Frames, Illustrated, Picture
from openvino_llama_text.engine.outbox import Outbox
from openvino_llama_text.engine.parameters import EngineParameters


class Ends(NamedTuple):
    """Of one pipe."""

    out: Outbox
    pipe: IO[bytes]

    def read(self) -> list[Command]:
        """All commands, to the end."""
        frames: Frames[Command] = Frames(self.pipe, Command)
        return list(iter(frames.read, None))


@pytest.fixture(params=[True, False])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """Where the system can write without waiting, and where it cannot."""
    if request.param and not outbox._NEVER_WAITS:
        pytest.skip("this system cannot")
    monkeypatch.setattr(outbox, "_NEVER_WAITS", request.param)
    reading, writing = os.pipe()
    made = Ends(Outbox(os.fdopen(writing, "wb")), os.fdopen(reading, "rb"))
    yield made
    made.pipe.close()
    made.out.close()
    made.out.join()


def _large(number: int) -> Add:
    """More than any pipe holds."""
    pixels = bytes([number]) * (3 << 20)
    return Add(number, Illustrated("a", [Picture(1024, 1024, pixels)]), EngineParameters(max_tokens=1))


def test_nobody_waits_for_a_process_that_does_not_read(ends: Ends) -> None:
    """And all comes in its order as soon as it reads."""
    sent: list[Command] = [Cancel(1), _large(2), Cancel(3), _large(4), *map(Cancel, range(5, 500))]
    for each in sent:
        ends.out.put(each)
        ends.out.send()
    ends.out.close()
    assert ends.read() == sent


def test_what_is_put_is_written_with_what_is_sent(ends: Ends) -> None:
    ends.out.put(Cancel(1))
    ends.out.put(Cancel(2))
    ends.out.send()
    frames: Frames[Command] = Frames(ends.pipe, Command)
    assert [frames.read(), frames.read()] == [Cancel(1), Cancel(2)]


def test_many_threads(ends: Ends) -> None:
    """Nothing is lost or mixed, full pipe or not, and each one's commands stay in order."""

    def sender(first: int) -> Callable[[], None]:
        def send() -> None:
            for number in range(first, first + 500):
                ends.out.put(_large(0) if number % 250 == 100 else Cancel(number))
                ends.out.send()

        return send

    def close() -> None:
        together([sender(1000 * thread) for thread in range(8)])
        ends.out.close()

    closing = threading.Thread(target=close)
    closing.start()
    came = ends.read()
    closing.join()
    numbers = [each.id for each in came if isinstance(each, Cancel)]
    assert came.count(_large(0)) == 16
    for thread in range(8):
        expected = [number for number in range(1000 * thread, 1000 * thread + 500) if number % 250 != 100]
        assert [number for number in numbers if number // 1000 == thread] == expected


def test_a_process_that_is_gone(ends: Ends) -> None:
    """Nobody is told: who listens to it sees it, too. What a full pipe has left to the thread ends as well."""
    ends.out.put(_large(1))
    ends.out.send()
    ends.pipe.close()
    for number in range(3):
        ends.out.put(Cancel(number))
        ends.out.send()
    ends.out.close()
    ends.out.join()
    ends.out.put(Cancel(4))
    ends.out.send()
