"""Prompts that come together begin together; who comes alone is not kept waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import pytest

from openvino_llama_text.engine import gathering
from openvino_llama_text.engine.frames import Add, Cancel, Command
from openvino_llama_text.engine.parameters import EngineParameters

LONGER, SHORTER = 5.0, 0.3
"""Seconds: what the engine would wait, and what the others take to come."""


class Sent:
    """Commands, as the engine takes them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def wait(self) -> Command:
        return self._queue.get(timeout=30)

    def poll(self, seconds: float = 0.0) -> Command | None:
        try:
            return self._queue.get(seconds > 0, seconds)
        except queue.Empty:
            return None

    def send(self, *commands: Command) -> None:
        for each in commands:
            self._queue.put(each)

    def send_later(self, *commands: Command) -> None:
        threading.Timer(SHORTER, self.send, commands).start()


def prompt(number: int) -> Add:
    return Add(number, b"", EngineParameters(max_tokens=1))


def obeyed(found: gathering.Gathering, *, busy: bool, room: int = 100) -> Sequence[int]:
    """Numbers of the commands before a step that has room for so many prompts."""
    come: list[int] = []
    for each in found.before_step(busy=busy, is_full=lambda: len(come) >= room):
        assert isinstance(each, Add | Cancel)
        come.append(each.id)
    return come


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def found(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> gathering.Gathering:
    monkeypatch.setattr(gathering, "_GAP_SECONDS", 2 * SHORTER)
    monkeypatch.setattr(gathering, "_GATHER_SECONDS", LONGER)
    return gathering.Gathering(sent)


def test_those_that_come_together_begin_together(sent: Sent, found: gathering.Gathering) -> None:
    """One after the other, as a server passes them on."""
    sent.send(prompt(1))
    sent.send_later(prompt(2), prompt(3))
    assert obeyed(found, busy=False) == [1, 2, 3]


def test_a_busy_engine_waits_for_nobody(sent: Sent, found: gathering.Gathering) -> None:
    """It takes what is there."""
    assert obeyed(found, busy=True) == []
    sent.send(prompt(1), Cancel(1))
    sent.send_later(prompt(2))
    assert obeyed(found, busy=True) == [1, 1]


def test_where_the_last_came_alone_nobody_is_awaited(sent: Sent, found: gathering.Gathering) -> None:
    """Until somebody comes right after one again."""
    sent.send(prompt(1))
    assert obeyed(found, busy=False) == [1]
    sent.send(prompt(2))
    sent.send_later(prompt(3))
    assert obeyed(found, busy=False) == [2]  # it was not awaited
    threading.Event().wait(2 * SHORTER)
    assert obeyed(found, busy=True) == [3]  # but it came during the first step
    sent.send(prompt(4))
    sent.send_later(prompt(5))
    assert obeyed(found, busy=False) == [4, 5]


def test_a_full_step_waits_for_nobody(sent: Sent, found: gathering.Gathering) -> None:
    """Those that are there already are taken along."""
    sent.send(prompt(1), prompt(2), prompt(3))
    sent.send_later(prompt(4))
    assert obeyed(found, busy=False, room=2) == [1, 2, 3]


def test_a_stream_of_others_is_not_awaited_for_ever(
    sent: Sent, found: gathering.Gathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However closely they come."""
    monkeypatch.setattr(gathering, "_GATHER_SECONDS", SHORTER / 2)
    sent.send(prompt(1))
    sent.send_later(prompt(2))
    assert obeyed(found, busy=False) == [1]
