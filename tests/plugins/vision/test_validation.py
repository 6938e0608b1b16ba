"""A model that a request could not be answered with is not loaded at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from openvino_llama import ConfigError, DataType, ModelConfig, TensorSpec
from openvino_llama_vision.config import VisionConfig
from openvino_llama_vision.validation import validate

from .graphs import named
from .served import Served

PIXELS = TensorSpec("pixels", (-1, 128, 128, 3), DataType.U8)


def model(task: str, *outputs: tuple[tuple[int, ...], DataType], **config: Any) -> ModelConfig:
    return ModelConfig(
        name="test",
        type="vision",
        task=task,
        files={"model": Path("m")},
        config=msgspec.convert(config, VisionConfig),
        inputs=(PIXELS,),
        outputs=tuple(TensorSpec(f"out{each}", *output) for each, output in enumerate(outputs)),
    )


F32, U8 = DataType.F32, DataType.U8
FACES = (((1, 896, 16), F32), ((1, 896, 1), F32))


@pytest.mark.parametrize(
    "config",
    [
        model("classification", ((-1, 10), F32), output_classes=10),
        model("classification", ((-1, 10, 1, 1), F32), output_classes=10),
        model("classification", ((-1, -1), F32), output_classes=10),
        model("detection", *FACES),
        model("detection", ((1, 1, 100, 7), F32)),
        model("segmentation", ((1, 128, 128), U8)),
        model("segmentation", ((-1, 1, -1, -1), U8)),
    ],
)
def test_models_that_fit(config: ModelConfig) -> None:
    validate(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model("classification", ((1, 10), F32), output_classes=9), "the model has 10 classes, not 9"),
        (
            model("classification", ((10,), F32), output_classes=10),
            r"expected an output \(batch, classes\), got one of",
        ),
        (model("detection", ((1, 1, 100, 6), F32)), "fit none of ssd, yolo, yolo_nms and blazeface"),
        (model("detection", *FACES, decoder={"type": "yolo"}), "fit no decoder of type yolo"),
        (model("detection", ((1, 84, 100), F32), decoder={"type": "ssd"}), "fit no decoder of type ssd"),
        (model("detection", *FACES, decoder={"type": "blazeface", "strides": [8]}), "make 512 anchors"),
        (model("segmentation", ((1, 100), F32)), "expected a map of classes"),
    ],
)
def test_models_that_do_not(config: ModelConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_a_wrong_limit_of_pixels_is_found_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVLLAMA_MAX_IMAGE_PIXELS", "lots")
    with pytest.raises(ConfigError, match="OVLLAMA_MAX_IMAGE_PIXELS"):
        validate(model("detection", *FACES))


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_inputs_of_other_integers_are_refused(kind: type) -> None:
    """What such a model expects for a pixel cannot be known."""
    pixels = named(ops.parameter([1, 8, 8, 3], kind, name="pixels"), "pixels")
    scores = ops.reduce_mean(ops.convert(pixels, "f32"), np.array([1, 2]), keep_dims=False)
    with pytest.raises(ConfigError, match="pixels are u8 or floating point"):
        Served(ov.Model([ops.result(named(scores, "scores"))], [pixels]), "classification", {})


@pytest.mark.parametrize("decoder", ["ssd", "yolo", "yolo_nms", "blazeface"])
def test_a_decoder_that_does_not_fit_is_refused_before_the_graph_is_changed(decoder: str) -> None:
    pixels = named(ops.parameter([1, 8, 8, 3], np.float32, name="pixels"), "pixels")
    scores = named(ops.reduce_mean(pixels, np.array([1, 2]), keep_dims=False), "scores")
    with pytest.raises(ConfigError, match=f"outputs \\[\\[1, 3\\]\\] fit no decoder of type {decoder}"):
        Served(ov.Model([ops.result(scores)], [pixels]), "detection", {"decoder": {"type": decoder}})
