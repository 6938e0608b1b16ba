"""Configurations and parameters: the specification's own entry is read, wrong values are refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openvino_llama_vision.config import BlazeFace, ResizeMode, VisionConfig, VisionParameters, Yolo

SPECIFIED = {
    "input_shape": [1, 3, 224, 224],
    "output_classes": 1001,
    "preprocessing": {
        "resize": [224, 224],
        "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    },
}


def test_the_specifications_entry() -> None:
    config = msgspec.convert(SPECIFIED, VisionConfig)
    assert config.input_shape == (1, 3, 224, 224)
    assert config.preprocessing.mode is ResizeMode.STRETCH
    assert config.preprocessing.normalize is not None
    assert config.preprocessing.normalize.scale == 255  # mean and std are those of pixels in 0..1


def test_decoders_are_told_apart_by_their_type() -> None:
    yolo = msgspec.convert({"decoder": {"type": "yolo", "iou_threshold": 0.6}}, VisionConfig)
    assert yolo.decoder == Yolo(iou_threshold=0.6)
    face = msgspec.convert({"decoder": {"type": "blazeface", "strides": [8, 16, 16, 16]}}, VisionConfig)
    assert face.decoder == BlazeFace(strides=(8, 16, 16, 16))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"imput_shape": [1, 3, 2, 2]}, "unknown field `imput_shape`"),
        ({"input_shape": [3, 224, 224]}, "length 4"),
        ({"input_shape": [1, 3, 0, 224]}, "positive, not 0"),
        ({"output_classes": 0}, "output_classes"),
        ({"preprocessing": {"mode": "squash"}}, "squash"),
        ({"preprocessing": {"resize": [224]}}, "length 2"),
        ({"preprocessing": {"pad": 256}}, "<= 255"),
        ({"preprocessing": {"normalize": {"std": [1, 0, 1]}}}, "neither scale nor std may be 0"),
        ({"decoder": {"type": "rcnn"}}, "rcnn"),
        ({"decoder": {"type": "yolo", "score_threshold": 2}}, "<= 1"),
        ({"segmentation": {"unclip_ratio": 0}}, "unclip_ratio"),
    ],
)
def test_what_is_wrong_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(config, VisionConfig)


def test_parameters_come_as_text() -> None:
    asked = {"top_k": "3", "threshold": "0.25", "max_results": "7", "mask": "rle"}
    found = msgspec.convert(asked, VisionParameters, strict=False)
    assert found == VisionParameters(top_k=3, threshold=0.25, max_results=7, mask="rle")


@pytest.mark.parametrize(
    "asked",
    [
        *[{"top_k": each} for each in ("0", "-1", "1001", "1e18", "many", "")],
        *[{"threshold": each} for each in ("nan", "inf", "-0.1", "1.1")],
        *[{"max_results": each} for each in ("0", "100000000")],
        {"mask": "jpeg"},
        {"topk": "1"},
    ],
)
def test_parameters_out_of_their_range_are_refused(asked: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(asked, VisionParameters, strict=False)
