"""Suppression is what its textbook definition says, only without a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llama_vision.boxes import Candidates, blend, iou, suppress


def candidates(rows: list[tuple[float, float, float, float, float, int]]) -> Candidates:
    """Each row: x0, y0, x1, y1, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Candidates(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def naive_iou(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - common
    return common / union if union > 0 else 0.0


def naive_suppression(found: Candidates, threshold: float) -> list[int]:
    """Indices that stay: each one is compared with all better ones that stayed."""
    kept: list[int] = []
    for index in sorted(range(len(found)), key=lambda each: -found.scores[each]):
        rivals = [each for each in kept if found.class_ids[each] == found.class_ids[index]]
        if all(naive_iou(found.boxes[each].tolist(), found.boxes[index].tolist()) <= threshold for each in rivals):
            kept.append(index)
    return kept


# Whole numbers, so that both ways compute exactly the same overlaps.
SIDE = st.integers(0, 12)
ROWS = st.lists(
    st.tuples(SIDE, SIDE, st.integers(1, 8), st.integers(1, 8), st.integers(1, 100), st.integers(0, 2)), max_size=30
)


@given(ROWS, st.sampled_from([0.2, 0.45, 0.7]))
def test_suppression_equals_the_naive_one(rows: list[tuple[int, ...]], threshold: float) -> None:
    found = candidates([(x, y, x + w, y + h, score / 100, kind) for x, y, w, h, score, kind in rows])
    expected = found.take(np.array(naive_suppression(found, threshold), np.intp))
    kept = suppress(found, threshold, 100)
    assert kept.boxes.tolist() == expected.boxes.tolist()
    assert kept.scores.tolist() == expected.scores.tolist()
    assert kept.class_ids.tolist() == expected.class_ids.tolist()
    assert suppress(found, threshold, 3).scores.tolist() == expected.scores.tolist()[:3]


def test_overlap_of_boxes() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 0, 0]], np.float32)
    assert iou(boxes[0], boxes) == pytest.approx([1, 1 / 7, 0, 0])
    assert iou(boxes[3], boxes[3:]) == pytest.approx([0])


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    found = candidates([(0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 1), (0, 0, 10, 11, 0.7, 0)])
    assert suppress(found, 0.5, 10).class_ids.tolist() == [0, 1]


def test_blending_averages_by_score() -> None:
    found = candidates([(0, 0, 10, 10, 0.75, 0), (4, 0, 14, 10, 0.25, 0), (50, 50, 60, 60, 0.6, 0)])
    kept = blend(found, 0.3, 10)
    assert kept.boxes.tolist() == [[1, 0, 11, 10], [50, 50, 60, 60]]
    assert kept.scores.tolist() == pytest.approx([0.75, 0.6])


def test_nothing_found_stays_nothing() -> None:
    assert len(suppress(candidates([]), 0.5, 10)) == len(blend(candidates([]), 0.5, 10)) == 0


def test_a_model_that_sees_objects_everywhere_costs_no_seconds() -> None:
    table = np.random.default_rng(1).random((100_000, 4)).astype(np.float32)
    boxes = np.concatenate([table[:, :2], table[:, :2] + 0.01], axis=1)
    found = Candidates(boxes, table[:, 2], np.zeros(len(boxes), np.int64))
    assert len(suppress(found, 0.5, 100)) == 100
