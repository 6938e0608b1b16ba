"""Who may enter the pipeline, and who waits."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from openvino_llama_text.engine.admission import Admission


class Entry(NamedTuple):
    id: int


@pytest.fixture
def admission() -> Admission[Entry]:
    """Ten blocks of four tokens."""
    return Admission(10, 4)


def admitted(admission: Admission[Entry]) -> list[int]:
    found = []
    while entry := admission.admit():
        found.append(entry.id)
    return found


def test_as_many_as_fit(admission: Admission[Entry]) -> None:
    """A block that is begun is a block; who does not fit waits."""
    for number, tokens in enumerate((13, 24, 1)):
        admission.enter(Entry(number), tokens)
    assert admitted(admission) == [0, 1]
    assert admission.waiting == 1


def test_first_come_first_served(admission: Admission[Entry]) -> None:
    """A small one does not overtake a large one that waits, which would wait for ever."""
    for number, tokens in enumerate((36, 8, 4)):
        admission.enter(Entry(number), tokens)
    assert admitted(admission) == [0]
    admission.leave(0)
    admission.after_step()
    assert admitted(admission) == [1, 2]


def test_blocks_are_free_after_the_next_step(admission: Admission[Entry]) -> None:
    """Not before: the pipeline still holds them."""
    admission.enter(Entry(0), 40)
    admission.enter(Entry(1), 40)
    assert admitted(admission) == [0]
    admission.leave(0)
    assert admitted(admission) == []
    admission.after_step()
    assert admitted(admission) == [1]


def test_who_is_refused_frees_its_own_blocks_only(admission: Admission[Entry]) -> None:
    """At once, since it never began; those of one that was cancelled are still in use."""
    admission.enter(Entry(0), 20)
    admission.enter(Entry(1), 20)
    admission.enter(Entry(2), 40)
    assert admitted(admission) == [0, 1]
    admission.leave(0)
    admission.refuse(1)
    assert admitted(admission) == []
    admission.after_step()
    assert admitted(admission) == [2]


def test_who_waits_may_leave(admission: Admission[Entry]) -> None:
    """Without anything being given back that was never taken."""
    for number in range(3):
        admission.enter(Entry(number), 40)
    assert admitted(admission) == [0]
    admission.leave(1)
    admission.after_step()
    assert (admission.waiting, admitted(admission)) == (1, [])
    admission.leave(0)
    admission.leave(0)
    admission.after_step()
    assert admitted(admission) == [2]
    assert (admission.waiting, admitted(admission)) == (0, [])


def test_a_cache_without_end() -> None:
    """Lets everybody in at once."""
    admission: Admission[Entry] = Admission(0, 32)
    for number in range(100):
        admission.enter(Entry(number), 1 << 40)
    assert admitted(admission) == list(range(100))
