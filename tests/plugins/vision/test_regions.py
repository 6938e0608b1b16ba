"""Connected regions of a class map: numbers, boxes and outlines along the edges of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from openvino_llama_vision.config import Segmentation
from openvino_llama_vision.regions import RawRegion, find_regions

SMALL = Segmentation(min_area=0)


def regions(classes: NDArray[np.uint8], options: Segmentation = SMALL, limit: int = 100) -> list[RawRegion]:
    return list(find_regions(classes, None, options, limit))


def polygon_area(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def test_touching_classes_are_regions_of_their_own_and_the_largest_comes_first() -> None:
    classes = np.zeros((20, 30), np.uint8)
    classes[2:6, 3:9] = 1
    classes[6:16, 3:13] = 2
    classes[2:4, 20:22] = 1
    first, second, third = regions(classes)
    assert (first.class_id, first.area, first.box.tolist()) == (2, 100, [[3, 6], [13, 16]])
    assert (second.class_id, second.area, second.box.tolist()) == (1, 24, [[3, 2], [9, 6]])
    assert third.area == 4
    assert len(regions(classes, Segmentation(min_area=5))) == 2
    assert len(regions(classes, limit=1)) == 1


def test_the_outline_of_a_rectangle_is_the_rectangle() -> None:
    classes = np.zeros((30, 40), np.uint8)
    classes[5:25, 10:30] = 1
    (region,) = regions(classes)
    assert polygon_area(region.outline) == pytest.approx(400, rel=0.01)
    assert region.outline.min(axis=0) == pytest.approx([10, 5])
    assert region.outline.max(axis=0) == pytest.approx([30, 25])


def test_holes_are_not_in_the_outline() -> None:
    classes = np.zeros((30, 30), np.uint8)
    classes[5:25, 5:25] = 1
    classes[8:22, 8:22] = 0
    (region,) = regions(classes)
    assert region.area == 400 - 196
    assert polygon_area(region.outline) == pytest.approx(400, rel=0.01)


def test_every_class_counts_where_there_is_no_background() -> None:
    assert len(regions(np.zeros((4, 4), np.uint8))) == 0
    assert len(regions(np.zeros((4, 4), np.uint8), Segmentation(min_area=0, background=None))) == 1


def test_unlikely_regions_are_dropped() -> None:
    classes = np.zeros((10, 20), np.uint8)
    classes[2:8, 2:8] = classes[2:8, 12:18] = 1
    levels = np.where(classes, 255, 0).astype(np.uint8)
    levels[:, 10:] //= 2
    options = Segmentation(min_area=0, min_confidence=0.6)
    (region,) = find_regions(classes, levels, options, 10)
    assert region.confidence == 1
    assert region.box[0].tolist() == [2, 2]


def test_cores_of_text_grow_on_all_sides() -> None:
    classes = np.zeros((60, 120), np.uint8)
    classes[25:35, 20:100] = 1
    (region,) = regions(classes, Segmentation(unclip_ratio=1.6))
    margin = 800 * 1.6 / 176  # area * ratio / perimeter of 10 x 80
    assert region.box == pytest.approx(np.array([[20 - margin, 25 - margin], [100 + margin, 35 + margin]]), abs=1.5)


@given(arrays.arrays(np.uint8, (9, 9), elements=st.integers(0, 2)))
def test_any_map_is_described(classes: NDArray[np.uint8]) -> None:
    found = regions(classes)
    assert sum(each.area for each in found) == np.count_nonzero(classes)
    for each in found:
        assert len(each.outline) >= 3
        assert (each.outline >= each.box[0] - 1e-9).all()
        assert (each.outline <= each.box[1] + 1e-9).all()
