"""Objects are described in pixels of the picture that was sent, whatever the model's input made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openvino_llama import DataType, ModelConfig, TensorSpec
from openvino_llama_vision.config import Preprocessing, ResizeMode, VisionConfig, VisionParameters
from openvino_llama_vision.detection import detect
from openvino_llama_vision.placement import Placement, place

CONFIG = ModelConfig(
    name="test",
    type="vision",
    task="detection",
    files={"model": Path("m")},
    config=VisionConfig(),
    inputs=(TensorSpec("pixels", (1, 100, 100, 3), DataType.U8),),
    outputs=(TensorSpec("boxes", (1, 1, 10, 7), DataType.F32),),
)


def boxes(placement: Placement, *corners: tuple[float, float, float, float]) -> list[dict[str, float]]:
    rows = np.array([(0, 0, 0.9, *each) for each in corners], np.float32).reshape(1, 1, -1, 7)
    found = detect(CONFIG, {"boxes": rows}, VisionParameters(), placement)
    return [{side: getattr(each.box, side) for side in ("x", "y", "width", "height")} for each in found]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (ResizeMode.STRETCH, (100, 50, 200, 100)),
        (ResizeMode.LETTERBOX, (100, 0, 200, 200)),
        (ResizeMode.CROP, (150, 50, 100, 100)),
    ],
)
def test_the_middle_of_the_input(mode: ResizeMode, expected: tuple[float, ...]) -> None:
    """A picture of 400 x 200 in an input of 100 x 100."""
    placement = place((400, 200), (100, 100), Preprocessing(mode=mode))
    ((found),) = boxes(placement, (0.25, 0.25, 0.75, 0.75))
    assert tuple(found.values()) == pytest.approx(expected)


def test_boxes_are_clipped_and_those_outside_dropped() -> None:
    placement = place((400, 200), (100, 100), Preprocessing(mode=ResizeMode.LETTERBOX))
    (found,) = boxes(placement, (0.9, 0.5, 1.5, 2.0), (0.1, 0.0, 0.3, 0.2), (-0.5, 0.3, -0.1, 0.6))
    assert found == {"x": 360, "y": 100, "width": 40, "height": 100}


def test_nothing_found() -> None:
    assert boxes(place((400, 200), (100, 100), Preprocessing())) == []
