"""Masks keep their pixels on every way in and out."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from openvino_llama_vision.config import Preprocessing, ResizeMode
from openvino_llama_vision.labels import Labels
from openvino_llama_vision.masks import as_png, as_run_lengths, run_lengths, to_picture_pixels
from openvino_llama_vision.placement import place

from .runs import runs_to_mask

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@given(MASKS)
def test_run_lengths_round_trip(mask: NDArray[np.bool_]) -> None:
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert sum(counts[1::2]) == mask.sum()
    assert all(count > 0 for count in counts[1:])
    assert np.array_equal(runs_to_mask(counts, (mask.shape[0], mask.shape[1])), mask)


def test_run_lengths_go_down_the_columns_as_in_coco() -> None:
    assert run_lengths(np.array([[False, True], [True, True]])) == [1, 3]
    assert run_lengths(np.array([[True, False], [False, False]])) == [0, 1, 3]


def test_each_class_has_its_runs() -> None:
    mask = as_run_lengths(np.array([[0, 2], [1, 2]], np.uint8), Labels(("nothing", "cat", "dog")), background=0)
    assert mask.size == (2, 2)
    assert [(each.label, each.counts) for each in mask.classes or []] == [("cat", [1, 1, 2]), ("dog", [2, 2])]


@pytest.mark.parametrize("highest", [255, 300])
def test_a_png_holds_the_class_ids(highest: int) -> None:
    classes = np.array([[0, 1, highest]], np.int32)
    mask = as_png(classes)
    assert mask.data is not None
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(mask.data)))).tolist() == classes.tolist()


SIDES = st.integers(1, 40)


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.sampled_from(ResizeMode))
def test_the_whole_picture_has_classes(picture: tuple[int, int], canvas: tuple[int, int], mode: ResizeMode) -> None:
    """Padding never shows; only what a crop has cut off is outside."""
    placement = place(picture, canvas, Preprocessing(mode=mode))
    left, top, right, bottom = placement.visible
    classes = np.full((canvas[1], canvas[0]), 7, np.uint8)
    classes[top:bottom, left:right] = 1
    found = to_picture_pixels(classes, placement, outside=0)
    assert found.shape == (picture[1], picture[0])
    assert set(np.unique(found)) <= ({0, 1} if mode is ResizeMode.CROP else {1})


def test_maps_smaller_than_the_input_are_enlarged() -> None:
    placement = place((8, 4), (16, 8), Preprocessing())
    found = to_picture_pixels(np.array([[1, 2]], np.uint8), placement, outside=0)
    assert found.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]] * 4
