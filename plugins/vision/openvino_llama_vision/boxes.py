"""Boxes as arrays: overlap and suppression. A box is (x0, y0, x1, y1); the unit is the caller's."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTHING", "Candidates", "blend", "iou", "suppress"]

Floats = NDArray[np.floating[Any]]

_MOST_CANDIDATES = 3000
"""Of more, only the best are looked at: a model that finds an object everywhere must not cost seconds."""


class Candidates(msgspec.Struct, frozen=True):
    """Objects that a decoder has found, in one order."""

    boxes: Floats
    """(n, 4)"""
    scores: Floats
    """(n,) in 0..1"""
    class_ids: NDArray[np.int64]
    """(n,)"""
    keypoints: Floats | None = None
    """(n, keypoints, 2) as x and y"""

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, indices: NDArray[np.intp] | slice) -> Candidates:
        """Those, in that order."""
        keypoints = None if self.keypoints is None else self.keypoints[indices]
        return Candidates(self.boxes[indices], self.scores[indices], self.class_ids[indices], keypoints)

    def best_first(self) -> Candidates:
        """By falling score; equal ones keep their order."""
        return self.take(np.argsort(-self.scores, kind="stable")[:_MOST_CANDIDATES])


NOTHING = Candidates(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
"""What a decoder finds where there is nothing to be found."""


def iou(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of one box (4,) with each of several (n, 4); 0 where both are empty."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = _areas(np.maximum(sides, 0))
    areas = _areas(boxes[:, 2:] - boxes[:, :2])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - intersection
    ratios: Floats = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return ratios


def _areas(sides: Floats) -> Floats:
    """Width times height, (n, 2) -> (n,)."""
    areas: Floats = sides[:, 0] * sides[:, 1]
    return areas


def suppress(candidates: Candidates, iou_threshold: float, limit: int) -> Candidates:
    """Greedy non-maximum suppression within each class: at most ``limit``, best first."""
    rest = candidates.best_first()
    kept: list[Candidates] = []
    while len(rest) and len(kept) < limit:
        kept.append(rest.take(slice(0, 1)))
        overlaps = iou(rest.boxes[0], rest.boxes) > iou_threshold
        overlaps &= rest.class_ids == rest.class_ids[0]
        overlaps[0] = True
        rest = rest.take((~overlaps).nonzero()[0])
    return _joined(kept) if kept else rest


def blend(candidates: Candidates, iou_threshold: float, limit: int) -> Candidates:
    """Weighted suppression of candidates of one class, as in MediaPipe.

    Boxes and keypoints that overlap the best one are averaged by their scores; the score is that of the best.
    """
    rest = candidates.best_first()
    kept: list[Candidates] = []
    while len(rest) and len(kept) < limit:
        overlaps = iou(rest.boxes[0], rest.boxes) > iou_threshold
        overlaps[0] = True
        kept.append(_average(rest.take(overlaps.nonzero()[0])))
        rest = rest.take((~overlaps).nonzero()[0])
    return _joined(kept) if kept else rest


def _average(group: Candidates) -> Candidates:
    if len(group) == 1:
        return group
    weights = group.scores / group.scores.sum()
    keypoints = None
    if group.keypoints is not None:
        keypoints = (weights @ group.keypoints.reshape(len(group), -1)).reshape(1, -1, 2)
    return Candidates((weights @ group.boxes)[None], group.scores[:1], group.class_ids[:1], keypoints)


def _joined(parts: list[Candidates]) -> Candidates:
    if len(parts) == 1:
        return parts[0]
    keypoints = [each.keypoints for each in parts if each.keypoints is not None]
    return Candidates(
        np.concatenate([each.boxes for each in parts]),
        np.concatenate([each.scores for each in parts]),
        np.concatenate([each.class_ids for each in parts]),
        np.concatenate(keypoints) if keypoints else None,
    )
