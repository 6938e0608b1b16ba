"""The memory of texts' vectors."""

from __future__ import annotations

import numpy as np
import pytest

from openvino_llama_multimodal.dual_memory import Memory

ROWS = np.arange(12.0).reshape(4, 3)


def test_what_was_kept_is_recalled() -> None:
    """As it was, whatever becomes of the array that it came in; what was not kept is left out."""
    rows = ROWS.copy()
    memory = Memory()
    memory.keep({(1, 2): rows[0], (3,): rows[1]})
    rows[:] = 0
    found = memory.recall([(3,), (4,), (1, 2)])
    assert {text: row.tolist() for text, row in found.items()} == {(3,): [3, 4, 5], (1, 2): [0, 1, 2]}


@pytest.mark.parametrize("by", ["recall", "keep"])
def test_the_least_recently_used_is_dropped(by: str) -> None:
    """Being asked for counts, as does being kept once more."""
    memory = Memory(most=2)
    memory.keep({(1,): ROWS[0], (2,): ROWS[1]})
    if by == "recall":
        memory.recall([(1,)])
    else:
        memory.keep({(1,): ROWS[0]})
    memory.keep({(3,): ROWS[2]})
    assert set(memory.recall([(1,), (2,), (3,)])) == {(1,), (3,)}


def test_more_than_it_holds_at_once_is_no_trouble() -> None:
    """The last ones remain."""
    memory = Memory(most=2)
    memory.keep({(index,): row for index, row in enumerate(ROWS)})
    assert set(memory.recall([(index,) for index in range(4)])) == {(2,), (3,)}
