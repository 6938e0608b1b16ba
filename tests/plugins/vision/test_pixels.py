"""The input tensor: u8 pixels of the model's size, ready to be copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from openvino_llama_vision.config import Interpolation, Preprocessing, ResizeMode
from openvino_llama_vision.pixels import InputPlan

SIDES = st.integers(1, 300)


def plan(colours: str = "RGB", width: int = 32, height: int = 24, **options: Any) -> InputPlan:
    return InputPlan("pixels", colours, width, height, Preprocessing(**options), 10**6)


@given(st.tuples(SIDES, SIDES), st.sampled_from(ResizeMode), st.sampled_from(Interpolation), st.booleans())
def test_any_picture_becomes_the_models_size(
    size: tuple[int, int], mode: ResizeMode, interpolation: Interpolation, antialias: bool
) -> None:
    """A picture of one colour stays of that colour, up to its edges."""
    options = Preprocessing(mode=mode, interpolation=interpolation, antialias=antialias, pad=200)
    wanted = InputPlan("pixels", "RGB", 32, 24, options, 10**6)
    placement = wanted.place(size)
    tensor = wanted.render(Image.new("RGB", size, (200, 200, 200)), placement)
    assert tensor.shape == (1, 24, 32, 3)
    assert tensor.dtype == np.dtype(np.uint8)
    assert tensor.flags.c_contiguous
    assert np.unique(tensor).tolist() == [200]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_colour_models_take_grey_and_colour_pictures(mode: str) -> None:
    for picture in ("L", "RGB"):
        image = Image.new("L", (50, 40), 77).convert(picture)
        tensor = plan(mode).render(image, plan(mode).place(image.size))
        assert tensor.shape == (1, 24, 32, 1 if mode == "L" else 3)
        assert np.unique(tensor).tolist() == [77]


@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("interpolation", list(Interpolation))
@pytest.mark.parametrize("antialias", [True, False])
def test_a_grey_picture_gives_the_pixels_of_the_same_picture_in_colour(
    mode: ResizeMode, interpolation: Interpolation, antialias: bool
) -> None:
    wanted = plan(mode=mode, interpolation=interpolation, antialias=antialias)
    grey = Image.fromarray(np.random.default_rng(5).integers(0, 256, (70, 90), np.uint8))
    placement = wanted.place(grey.size)
    assert np.array_equal(wanted.render(grey, placement), wanted.render(grey.convert("RGB"), placement))


def test_letterboxed_pixels_lie_where_the_placement_says() -> None:
    wanted = plan(mode=ResizeMode.LETTERBOX, pad=9)
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (30, 90, 3), np.uint8))
    expected = Image.new("RGB", (32, 24), (9, 9, 9))
    placement = wanted.place(picture.size)
    expected.paste(picture.resize(placement.resized, Image.Resampling.BILINEAR), placement.offset)
    assert np.array_equal(wanted.render(picture, placement)[0], np.asarray(expected))


def test_one_side_may_be_fixed_and_the_other_follow() -> None:
    assert plan(width=-1, height=48, multiple_of=8).place((200, 100)).canvas == (200, 48)


def test_a_picture_that_was_decoded_smaller_fills_the_same_place() -> None:
    wanted = plan()
    placement = wanted.place((1000, 800))
    large = Image.linear_gradient("L").resize((1000, 800)).convert("RGB")
    small = large.resize((250, 200), Image.Resampling.BOX)
    difference = wanted.render(large, placement).astype(int) - wanted.render(small, placement)
    assert np.abs(difference).max() <= 1
