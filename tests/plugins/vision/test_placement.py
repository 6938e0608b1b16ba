"""Where pictures go in the model's input, and that the way back leads to where they came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llama_vision.config import Preprocessing, ResizeMode
from openvino_llama_vision.placement import Placement, dynamic_size, place

SIDES = st.integers(1, 5000)
SIZES = st.tuples(SIDES, SIDES)
LETTERBOX = Preprocessing(mode=ResizeMode.LETTERBOX)
CROP = Preprocessing(mode=ResizeMode.CROP)


def test_stretch_covers_the_canvas() -> None:
    assert place((300, 200), (64, 64), Preprocessing()) == Placement((300, 200), (64, 64), (64, 64), (0, 0))


def test_letterbox_keeps_the_proportions_and_centres() -> None:
    placed = place((400, 200), (100, 100), LETTERBOX)
    assert (placed.resized, placed.offset) == ((100, 50), (0, 25))
    assert placed.visible == (0, 25, 100, 75)


def test_crop_takes_the_centre() -> None:
    placed = place((400, 200), (100, 100), CROP)
    assert (placed.resized, placed.offset) == ((200, 100), (-50, 0))
    assert placed.visible == (0, 0, 100, 100)


def test_crop_after_a_larger_short_side() -> None:
    preprocessing = Preprocessing(mode=ResizeMode.CROP, resize=(256, 256))
    placed = place((384, 191), (224, 224), preprocessing)
    assert (placed.resized, placed.offset) == ((514, 256), (-145, -16))  # 514.7 is rounded down, as torchvision does


def test_points_come_back_in_pixels_of_the_picture() -> None:
    placed = place((400, 200), (100, 100), LETTERBOX)
    points = np.array([[0, 25], [100, 75], [50, 50]])
    assert placed.to_picture(points).tolist() == [[0, 0], [400, 200], [200, 100]]
    assert placed.to_picture(points / 100, (1, 1)).tolist() == [[0, 0], [400, 200], [200, 100]]
    assert placed.clipped(np.array([[-5.0, 300.0]])).tolist() == [[0, 200]]


@given(SIZES, SIZES, st.sampled_from(ResizeMode))
def test_the_way_back_is_the_way_there(picture: tuple[int, int], canvas: tuple[int, int], mode: ResizeMode) -> None:
    placed = place(picture, canvas, Preprocessing(mode=mode))
    corners = np.array([[0, 0], [1, 1]]) * placed.resized + placed.offset
    assert placed.to_picture(corners) == pytest.approx(np.array([[0, 0], picture]), abs=1e-6)
    left, top, right, bottom = placed.visible
    assert 0 <= left < right <= canvas[0]
    assert 0 <= top < bottom <= canvas[1]
    if mode is not ResizeMode.LETTERBOX:
        assert placed.visible == (0, 0, *canvas)


@given(SIZES)
def test_dynamic_sizes_stay_in_their_limits(picture: tuple[int, int]) -> None:
    size = dynamic_size(picture, Preprocessing(multiple_of=32, min_side=480, max_side=1280))
    assert all(side % 32 == 0 and 32 <= side <= 1280 for side in size)


def test_dynamic_sizes_follow_the_picture() -> None:
    options = Preprocessing(multiple_of=32, min_side=480, max_side=1280)
    assert dynamic_size((384, 191), options) == (960, 480)
    assert dynamic_size((6000, 4000), options) == (1280, 864)
    assert dynamic_size((700, 600), options) == (704, 608)
