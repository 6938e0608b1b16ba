"""Regions and masks are in pixels of the picture; what was only padding is never found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openvino_llama import ModelConfig
from openvino_llama_vision.config import Preprocessing, ResizeMode, Segmentation, VisionConfig, VisionParameters
from openvino_llama_vision.placement import place
from openvino_llama_vision.results import SegmentationResult
from openvino_llama_vision.segmentation import segment

from .runs import runs_to_mask


def answer(output: Any, mode: ResizeMode, **parameters: Any) -> SegmentationResult:
    """Of a picture of 40 x 20 pixels in an input of 20 x 20."""
    config = ModelConfig(
        name="test",
        type="vision",
        task="segmentation",
        files={"model": Path("m")},
        config=VisionConfig(segmentation=Segmentation(min_area=0)),
    )
    placement = place((40, 20), (20, 20), Preprocessing(mode=mode))
    return segment(config, output, VisionParameters(**parameters), placement)


@pytest.mark.parametrize(
    ("mode", "box", "area"),
    [
        (ResizeMode.STRETCH, (20, 0, 20, 20), 400),
        (ResizeMode.LETTERBOX, (20, 0, 20, 20), 400),
        (ResizeMode.CROP, (20, 0, 10, 20), 200),
    ],
)
def test_the_right_half_of_the_input(mode: ResizeMode, box: tuple[float, ...], area: float) -> None:
    classes = np.zeros((1, 20, 20), np.uint8)
    classes[:, :, 10:] = 4
    found = answer(classes, mode, mask="rle")
    (region,) = found.regions
    assert (region.class_id, region.area) == (4, area)
    assert (region.box.x, region.box.y, region.box.width, region.box.height) == box
    assert found.mask is not None
    assert found.mask.classes is not None
    mask = runs_to_mask(found.mask.classes[0].counts, found.mask.size)
    assert mask.sum() == area
    assert mask[:, 20:30].all()


def test_maps_of_another_size_than_the_input() -> None:
    classes = np.zeros((1, 5, 5), np.uint8)
    classes[0, 2, 2] = 1
    (region,) = answer(classes, ResizeMode.STRETCH).regions
    assert (region.box.x, region.box.y, region.area) == (16, 8, 32)


def test_the_threshold_of_a_request_decides_on_probabilities() -> None:
    levels = np.full((1, 1, 20, 20), 51, np.uint8)  # 0.2
    levels[0, 0, :5] = 204  # 0.8
    assert answer(levels, ResizeMode.STRETCH).regions[0].area == 200
    assert answer(levels, ResizeMode.STRETCH, threshold=0.2).regions[0].area == 800
    assert answer(levels, ResizeMode.STRETCH, threshold=0.81).regions == []
    assert answer(levels * 0, ResizeMode.STRETCH, threshold=0.0).regions == []


def test_without_a_mask_there_is_none() -> None:
    assert answer(np.zeros((1, 20, 20), np.uint8), ResizeMode.STRETCH).mask is None
