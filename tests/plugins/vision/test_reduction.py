"""Outputs leave the graph as small as the answer needs, and say the same."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from PIL import Image

from openvino_llama import DataType

from .conftest import Encode
from .graphs import named, scores
from .served import Served


def confidences(model: ov.Model, config: dict[str, Any], body: bytes) -> list[float]:
    results = Served(model, "classification", config).request(body)
    return [each["confidence"] for each in sorted(results, key=lambda each: each["class_id"])]


def test_softmax_only_where_there_are_logits(encode: Encode) -> None:
    body = encode(Image.new("RGB", (8, 8), (100, 50, 25)))
    logits = np.array([4, 2, 1])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert confidences(scores([1, 3, 8, 8]), {}, body) == pytest.approx(expected, abs=1e-5)
    assert confidences(scores([1, 3, 8, 8]), {"logits": False}, body) == pytest.approx(logits)
    finished = scores([1, 3, 8, 8])
    last = finished.output(0).get_node().input_value(0)
    last.set_names(set())
    probabilities = named(ops.reshape(ops.softmax(last, axis=1), np.array([1, 3]), special_zero=False), "out")
    model = ov.Model([ops.result(probabilities)], finished.get_parameters())
    assert confidences(model, {}, body) == pytest.approx(expected, abs=1e-5)


def score_map(shape: list[int], axis: int) -> ov.Model:
    """Scores of three classes for each pixel: its channels."""
    pixels = named(ops.parameter([1, 3, *shape], np.float32, name="pixels"), "pixels")
    order = [0, 1, 2, 3] if axis == 1 else [0, 2, 3, 1]
    return ov.Model([ops.result(named(ops.transpose(pixels, np.array(order)), "map"))], [pixels])


@pytest.mark.parametrize("axis", [1, 3])
def test_scores_of_classes_become_a_map_of_classes(axis: int, encode: Encode) -> None:
    picture = Image.new("RGB", (20, 10), "red")
    picture.paste("blue", (10, 0, 20, 10))
    config = {"output_classes": 3, "labels": ["red", "green", "blue"]}
    served = Served(score_map([10, 20], axis), "segmentation", config)
    assert served.config.outputs[0].shape == (1, 10, 20)
    assert served.config.outputs[0].data_type is DataType.U8
    (region,) = served.request(encode(picture))["regions"]
    assert (region["label"], region["area"]) == ("blue", 100)
    assert region["box"] == {"x": 10, "y": 0, "width": 10, "height": 10}


def brightness(end: Any) -> ov.Model:
    """One map: what ``end`` makes of the first channel, as (batch, 1, height, width)."""
    pixels = named(ops.parameter([1, 3, 16, 16], np.float32, name="pixels"), "pixels")
    first = ops.slice(pixels, np.array([0]), np.array([1]), np.array([1]), np.array([1]))
    return ov.Model([ops.result(named(end(first), "map"))], [pixels])


@pytest.mark.parametrize(
    ("end", "config"),
    [
        (lambda each: ops.divide(each, np.float32(255)), {"logits": False}),
        (lambda each: ops.subtract(ops.divide(each, np.float32(25)), np.float32(5)), {}),
        (lambda each: ops.sigmoid(ops.subtract(ops.divide(each, np.float32(25)), np.float32(5))), {}),
    ],
)
def test_one_map_becomes_probabilities(end: Any, config: dict[str, Any], encode: Encode) -> None:
    picture = Image.new("RGB", (16, 16))
    picture.paste("white", (4, 4, 12, 10))
    served = Served(brightness(end), "segmentation", config | {"labels": ["none", "light"]})
    (region,) = served.request(encode(picture))["regions"]
    assert (region["label"], region["class_id"], region["area"]) == ("light", 1, 48)
    assert region["confidence"] > 0.99


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_maps_of_class_ids_keep_them(kind: type, encode: Encode) -> None:
    pixels = named(ops.parameter([1, 3, 8, 8], np.float32, name="pixels"), "pixels")
    best = ops.topk(pixels, np.int64(1), 1, "max", "none", index_element_type="i64")
    ids = ops.convert(
        ops.squeeze(best.output(1), np.array([1])), np.dtype(kind).name.replace("uint", "u").replace("int", "i")
    )
    served = Served(ov.Model([ops.result(named(ids, "ids"))], [pixels]), "segmentation", {})
    (region,) = served.request(encode(Image.new("RGB", (8, 8), "lime")))["regions"]
    assert (region["class_id"], region["label"], region["area"]) == (1, "1", 64)


def test_outputs_that_nobody_reads_are_dropped() -> None:
    pixels = named(ops.parameter([1, 8, 8, 3], np.float32, name="pixels"), "pixels")
    scores = named(ops.softmax(ops.reduce_mean(pixels, np.array([1, 2]), keep_dims=False), 1), "scores")
    features = named(ops.relu(pixels), "features")
    model = ov.Model([ops.result(scores), ops.result(features)], [pixels])
    assert [each.name for each in Served(model, "classification", {}).config.outputs] == ["scores"]


@pytest.mark.parametrize("config", [{}, {"output_classes": 3, "labels": ["red", "green", "blue"]}])
@pytest.mark.parametrize("batch", [1, -1])
def test_scores_without_a_batch_are_of_one_picture(batch: int, config: dict[str, Any], encode: Encode) -> None:
    def model() -> ov.Model:
        pixels = named(ops.parameter([batch, 3, 8, 8], np.float32, name="pixels"), "pixels")
        means = ops.divide(ops.reduce_mean(pixels, np.array([0, 2, 3]), keep_dims=False), np.float32(25))
        return ov.Model([ops.result(named(means, "scores"))], [pixels])

    logits = np.array([4, 2, 1])
    found = confidences(model(), config, encode(Image.new("RGB", (8, 8), (100, 50, 25))))
    assert found == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-5)
    served = Served(model(), "classification", config | {"logits": False})
    assert (served.config.inputs[0].shape[0], served.config.outputs[0].shape) == (1, (1, 3))


def test_more_than_256_channels_need_a_wider_type(encode: Encode) -> None:
    """The last of 360 channels is the highest."""
    pixels = named(ops.parameter([1, 3, 4, 400], np.float32, name="pixels"), "pixels")
    grey = ops.slice(pixels, np.array([0]), np.array([1]), np.array([1]), np.array([1]))
    ramp = np.arange(1, 361, dtype=np.float32).reshape(1, 360, 1, 1)
    model = ov.Model([ops.result(named(ops.multiply(grey, ramp), "scores"))], [pixels])
    served = Served(model, "segmentation", {})
    assert served.config.outputs[0].data_type is DataType.I32
    (region,) = served.request(encode(Image.new("RGB", (400, 4), "white")))["regions"]
    assert region["class_id"] == 359


def shifted_ids(by: int, kind: str) -> ov.Model:
    """A map of class ids, (1, height, width): the first channel and a number."""
    pixels = named(ops.parameter([1, 3, 8, 8], np.float32, name="pixels"), "pixels")
    first = ops.slice(pixels, np.array([0]), np.array([1]), np.array([1]), np.array([1]))
    number = ops.constant(np.array(by, kind.replace("i", "int")))
    ids = ops.add(ops.convert(ops.squeeze(first, np.array([1])), kind), number)
    return ov.Model([ops.result(named(ids, "ids"))], [pixels])


def half(left: int, right: int) -> Image.Image:
    picture = Image.new("RGB", (8, 8), (left, 0, 0))
    picture.paste((right, 0, 0), (4, 0, 8, 8))
    return picture


@pytest.mark.parametrize("kind", ["i64", "i32"])
def test_ids_above_255_do_not_wrap(kind: str, encode: Encode) -> None:
    served = Served(shifted_ids(200, kind), "segmentation", {})
    found = served.request(encode(half(0, 100)), mask="rle")
    assert {each["class_id"] for each in found["regions"]} == {200, 300}
    assert {each["class_id"] for each in found["mask"]["classes"]} == {200, 300}


@pytest.mark.parametrize(
    "config", [{}, {"output_classes": 9}, {"output_classes": 9, "segmentation": {"background": 5}}]
)
def test_negative_ids_are_background(config: dict[str, Any], encode: Encode) -> None:
    found = Served(shifted_ids(-2, "i64"), "segmentation", config).request(encode(half(0, 8)), mask="rle")
    assert [each["class_id"] for each in found["regions"]] == [6]
    assert [each["class_id"] for each in found["mask"]["classes"]] == [6]


def test_without_a_background_negative_ids_are_of_no_class(encode: Encode) -> None:
    config = {"output_classes": 9, "segmentation": {"background": None}}
    served = Served(shifted_ids(-2, "i64"), "segmentation", config)
    found = served.request(encode(half(0, 2)), mask="rle")
    assert [each["class_id"] for each in found["regions"]] == [0]
    assert [each["class_id"] for each in found["mask"]["classes"]] == [0]
    data = served.request(encode(half(0, 2)), mask="png")["mask"]["data"]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[0].tolist() == [255] * 4 + [0] * 4
    assert served.request(encode(half(0, 2)), produces="image/png").media_type == "image/png"
