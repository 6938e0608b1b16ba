"""What is fused into the graph gives the numbers of the same preprocessing in NumPy and Pillow."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops
from PIL import Image

from openvino_llama import ConfigError, DataType

from .conftest import Encode, named
from .pictures import coffee
from .served import Served

COFFEE = Image.fromarray(coffee())  # 600 x 400
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def echo(shape: list[int], kind: type = np.float32) -> ov.Model:
    """A model whose output is what arrives at its input."""
    pixels = named(ops.parameter(shape, kind, name="pixels"), "pixels")
    return ov.Model([ops.result(named(ops.relu(pixels) if kind is np.uint8 else ops.abs(pixels), "seen"))], [pixels])


def identity(shape: list[int]) -> ov.Model:
    """The same, negative values included."""
    pixels = named(ops.parameter(shape, np.float32, name="pixels"), "pixels")
    return ov.Model([ops.result(named(ops.multiply(pixels, np.float32(1)), "seen"))], [pixels])


def seen(model: ov.Model, config: dict[str, Any], body: bytes) -> NDArray[Any]:
    """What the model itself sees of a picture."""
    served = Served(model, "classification", config | {"logits": False})
    outputs = served.infer({"pixels": served.tensor(body)})
    return next(iter(outputs.values()))


def reference(picture: Image.Image) -> NDArray[Any]:
    """Customary ImageNet normalisation, (height, width, 3)."""
    pixels = np.asarray(picture).astype(np.float32) / 255
    return (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)


NORMALIZE = {"normalize": {"mean": MEAN, "std": STD}}


def test_stretched_and_normalised_like_the_specification(encode: Encode) -> None:
    config = {"input_shape": [1, 3, 224, 224], "preprocessing": {"resize": [224, 224], **NORMALIZE}}
    found = seen(identity([1, 3, 224, 224]), config, encode(COFFEE))
    expected = reference(COFFEE.resize((224, 224), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_channels_last_and_bicubic(encode: Encode) -> None:
    config = {"preprocessing": {"interpolation": "bicubic", **NORMALIZE}}
    found = seen(identity([1, 100, 160, 3]), config, encode(COFFEE))
    np.testing.assert_allclose(found[0], reference(COFFEE.resize((160, 100), Image.Resampling.BICUBIC)), atol=2e-5)


def test_centre_crop_after_the_short_side(encode: Encode) -> None:
    config = {"preprocessing": {"mode": "crop", "resize": [256, 256], **NORMALIZE}}
    found = seen(identity([1, 224, 224, 3]), config, encode(COFFEE))
    resized = COFFEE.resize((384, 256), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found[0], reference(resized.crop((80, 16, 304, 240))), atol=0.03)
    assert np.abs(found[0] - reference(resized.crop((80, 16, 304, 240)))).mean() < 1e-3


def test_letterbox_pads_with_its_grey(encode: Encode) -> None:
    found = seen(identity([1, 90, 90, 3]), {"preprocessing": {"mode": "letterbox", "pad": 114}}, encode(COFFEE))
    expected = np.full((90, 90, 3), 114, np.float32)
    expected[15:75] = np.asarray(COFFEE.resize((90, 60), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_without_antialias_only_the_nearest_pixels_count(encode: Encode) -> None:
    found = seen(identity([1, 100, 150, 3]), {"preprocessing": {"antialias": False}}, encode(COFFEE))[0]
    pixels = np.asarray(COFFEE).astype(np.float32)
    # A quarter of the size: the centre of each new pixel is the corner of four old ones.
    corners = (pixels[1::4, 1::4] + pixels[1::4, 2::4] + pixels[2::4, 1::4] + pixels[2::4, 2::4]) / 4
    np.testing.assert_allclose(found, corners, atol=1.01)


def test_bgr_swaps_the_channels_before_the_mean(encode: Encode) -> None:
    picture = Image.new("RGB", (4, 4), (10, 20, 30))
    config = {"preprocessing": {"channel_order": "BGR", "normalize": {"mean": [1, 2, 3], "std": [1], "scale": 1}}}
    assert seen(identity([1, 3, 4, 4]), config, encode(picture))[0, :, 0, 0].tolist() == [29, 18, 7]


def test_one_channel_gets_grey(encode: Encode) -> None:
    grey = COFFEE.convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    found = seen(identity([1, 1, 32, 32]), {}, encode(COFFEE))
    np.testing.assert_allclose(found[0, 0], np.asarray(grey), atol=1e-4)


def test_a_model_of_u8_gets_pixels_and_no_mean(encode: Encode, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = seen(echo([1, 32, 32, 3], np.uint8), {"preprocessing": NORMALIZE}, encode(COFFEE))
    assert np.array_equal(found[0], np.asarray(COFFEE.resize((32, 32), Image.Resampling.BILINEAR)))
    assert "normalize is not applied" in caplog.text


def test_the_input_is_u8_pixels_and_the_batch_stays_dynamic() -> None:
    served = Served(scores([-1, 3, -1, -1]), "classification", {"input_shape": [1, 3, 16, 24]})
    (spec,) = served.config.inputs
    assert (spec.shape, spec.data_type) == ((-1, 16, 24, 3), DataType.U8)


def test_an_open_size_follows_the_picture(encode: Encode) -> None:
    served = Served(scores([-1, 3, -1, -1]), "classification", {"preprocessing": {"multiple_of": 16}})
    assert served.tensor(encode(COFFEE)).shape == (1, 400, 608, 3)


def scores(shape: list[int]) -> ov.Model:
    """Logits of three classes: the mean of each channel, divided by 25."""
    pixels = named(ops.parameter(shape, np.float32, name="pixels"), "pixels")
    means = ops.reduce_mean(pixels, np.array([2, 3]), keep_dims=True)
    return ov.Model([ops.result(named(ops.divide(means, np.float32(25)), "scores"))], [pixels])


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


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (lambda: identity([1, 5, 8, 8]), {}, "no dimension of 1 or 3 channels"),
        (lambda: identity([1, 3, 8, 8]), {"layout": "NHWC"}, "no dimension of 1 or 3 channels where NHWC has it"),
        (lambda: identity([3, 8]), {}, "expected one input of four dimensions"),
        (lambda: identity([1, 3, 8, 8]), {"input_shape": [1, 3, 8, 9]}, "W is 8 in the model, not 9"),
        (lambda: identity([1, 3, 8, 8]), {"preprocessing": {"normalize": {"mean": [1, 2]}}}, "expected 1 or 3 values"),
        (lambda: scores([1, 3, 8, 8]), {"output_classes": 4}, "the model has 3 classes, not 4"),
        (lambda: scores([1, 3, 8, 8]), {"output_classes": 3, "labels": ["a"]}, "1 labels for 3 classes"),
    ],
)
def test_a_configuration_that_does_not_fit_is_an_error(model: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Served(model(), "classification", config)


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
