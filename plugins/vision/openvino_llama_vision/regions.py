"""From a class map to connected regions with area, box and outline.

All work is done at the size of the model's map; only the results are brought to the picture's pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama_vision.config import Segmentation

__all__ = ["RawRegion", "find_regions"]

_OUTLINE_TOLERANCE = 0.75
"""Pixels of the map that an outline may be off the exact one; less for small regions, whose shape it would change."""


class RawRegion(msgspec.Struct, frozen=True):
    """A region in pixels of the model's map."""

    class_id: int
    area: int
    box: NDArray[np.float64]
    """(2, 2): upper left and lower right corner, as x and y."""
    outline: NDArray[np.float64]
    """(corners, 2), as x and y."""
    confidence: float | None


def find_regions(
    class_map: NDArray[Any], probabilities: NDArray[Any] | None, options: Segmentation, limit: int
) -> Iterator[RawRegion]:
    """The largest regions, largest first.

    ``class_map``: (height, width) of ids; ``probabilities``: of the same shape in 255ths, or None.
    """
    background = -1 if options.background is None else options.background
    numbered = _skimage("measure").label(class_map.astype(np.int32), background=background, connectivity=2)
    numbered = _largest_only(numbered, options.min_area, limit)
    for found in _skimage("measure").regionprops(numbered):
        rows, columns = found.slice
        mask = found.image
        seen = None if probabilities is None else float(probabilities[rows, columns][mask].mean()) / 255
        if seen is not None and seen < options.min_confidence:
            continue
        class_id = int(class_map[rows, columns][mask][0])
        corner = (columns.start, rows.start)
        if options.unclip_ratio is not None:
            mask, corner = _grown(mask, corner, options.unclip_ratio)
        yield _described(mask, corner, class_id, seen)


def _largest_only(numbered: NDArray[Any], min_area: int, limit: int) -> NDArray[Any]:
    """The map with the regions that are large enough, numbered anew from 1 by falling area; 0 is everything else."""
    areas = np.bincount(numbered.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")[:limit]
    kept = order[areas[order] >= max(min_area, 1)]
    numbers = np.zeros(len(areas), np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    renumbered: NDArray[Any] = numbers[numbered]
    return renumbered


def _extent(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _described(mask: NDArray[np.bool_], corner: tuple[int, int], class_id: int, confidence: float | None) -> RawRegion:
    origin = np.array(corner, np.float64)
    box = np.array([origin, origin + mask.shape[::-1]])
    return RawRegion(class_id, int(mask.sum()), box, _outline(mask) + origin, confidence)


def _grown(mask: NDArray[np.bool_], corner: tuple[int, int], ratio: float) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The region with a margin of area * ratio / perimeter all around."""
    distance = mask.sum() * ratio / max(_skimage("measure").perimeter(mask, 8), 1.0)
    margin = int(np.ceil(distance))
    grown = _skimage("segmentation").expand_labels(np.pad(mask, margin).astype(np.uint8), distance) > 0
    rows, columns = _extent(grown)
    return grown[rows, columns], (corner[0] - margin + columns.start, corner[1] - margin + rows.start)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Corners of the outer outline, as x and y, along the edges of pixels."""
    # "high": pixels that only touch at a corner belong together, as they do in the numbering
    contours = _skimage("measure").find_contours(np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="high")
    outer = max(contours, key=_spanned)
    tolerance = min(_OUTLINE_TOLERANCE, _spanned(outer) ** 0.5 / 50)
    simple = _skimage("measure").approximate_polygon(outer, tolerance)
    corners = (simple if len(simple) > 3 else outer)[:-1]  # the last corner repeats the first
    return np.asarray(corners[:, ::-1] - 0.5)  # -1 for the padding, +0.5 from a pixel's centre to its edge


def _spanned(contour: NDArray[np.float64]) -> float:
    """Area of the contour's box: a hole's is always smaller than that of what is around it."""
    return float(np.prod(np.ptp(contour, axis=0)))


def _skimage(part: str) -> Any:
    """A module of scikit-image: slow to import, and without types."""
    return importlib.import_module(f"skimage.{part}")
