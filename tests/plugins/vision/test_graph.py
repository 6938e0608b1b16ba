"""What is fused into the graph gives the numbers of the same preprocessing in NumPy and Pillow."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import ConfigError, DataType

from .conftest import Encode
from .graphs import echo, identity, scores
from .pictures import coffee
from .served import Served

COFFEE = Image.fromarray(coffee())  # 600 x 400
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_resize_fixes_an_open_size(mode: str, encode: Encode) -> None:
    preprocessing = {"mode": mode, "resize": [320, 256]}
    served = Served(scores([-1, 3, -1, -1]), "classification", {"preprocessing": preprocessing})
    assert served.config.inputs[0].shape == (-1, 320, 256, 3)
    assert served.tensor(encode(COFFEE)).shape == (1, 320, 256, 3)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (lambda: identity([1, 5, 8, 8]), {}, "no dimension of 1 or 3 channels"),
        (lambda: identity([1, 3, 8, 8]), {"layout": "NHWC"}, "no dimension of 1 or 3 channels where NHWC has it"),
        (lambda: identity([3, 8]), {}, "expected one input of four dimensions"),
        (lambda: identity([1, 3, 8, 8]), {"input_shape": [1, 3, 8, 9]}, "input_shape': expected 8 as W.*got 9"),
        (lambda: identity([1, 3, 8, 8]), {"preprocessing": {"resize": [8, 9]}}, "resize': expected 8 as W.*got 9"),
        (
            lambda: scores([-1, 3, -1, -1]),
            {"input_shape": [-1, 3, 8, 8], "preprocessing": {"resize": [9, 8]}},
            "resize': expected 8 as H.*got 9",
        ),
        (lambda: identity([1, 3, 8, 8]), {"preprocessing": {"normalize": {"mean": [1, 2]}}}, "expected 1 or 3 values"),
        (lambda: scores([1, 3, 8, 8]), {"output_classes": 4}, "the model has 3 classes, not 4"),
        (lambda: scores([1, 3, 8, 8]), {"output_classes": 3, "labels": ["a"]}, "1 labels for 3 classes"),
    ],
)
def test_a_configuration_that_does_not_fit_is_an_error(model: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Served(model(), "classification", config)
