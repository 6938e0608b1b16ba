"""Outputs of detection models with known answers, through real graphs where the graph is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops
from PIL import Image

from openvino_llama import ConfigError
from openvino_llama_vision.config import BlazeFace, Ssd, Yolo, YoloNms
from openvino_llama_vision.decoders import Cut, deduced_decoder, find_faces, find_ssd

from .conftest import Encode
from .graphs import named
from .served import Served


def model_saying(answer: NDArray[Any], batch: int = 1) -> ov.Model:
    """A model of 64 x 64 pixels that gives the same output for every picture."""
    pixels = named(ops.parameter([batch, 3, 64, 64], np.float32, name="pixels"), "pixels")
    nothing = ops.multiply(ops.reduce_mean(pixels, np.array([0, 1, 2, 3]), keep_dims=False), np.float32(0))
    return ov.Model([ops.result(named(ops.add(ops.constant(answer.astype(np.float32)), nothing), "boxes"))], [pixels])


def ssd_rows(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(1, 1, -1, 7)


def yolo_rows(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    """(1, 4 + classes, boxes) of boxes one by one, as YOLOv8 gives them."""
    return np.array(rows, np.float32).T[None]


@pytest.fixture(scope="module")
def picture(encode: Encode) -> bytes:
    return encode(Image.new("RGB", (640, 320)))


SSD_ANSWER = ssd_rows(
    (0, 1, 0.6, 0.5, 0.5, 0.75, 1.5),  # below the picture: clipped
    (0, 2, 0.9, 0.0, 0.25, 0.5, 0.75),
    (0, 1, 0.3, 0.0, 0.0, 1.0, 1.0),  # below the threshold
    (-1, 0, 0, 0, 0, 0, 0),  # the end
    (0, 2, 0.99, 0.0, 0.0, 1.0, 1.0),  # left over from an earlier picture
)


def test_ssd(picture: bytes) -> None:
    served = Served(model_saying(SSD_ANSWER), "detection", {"labels": ["background", "cat", "dog"]})
    dog, cat = served.request(picture)
    assert dog == {
        "label": "dog",
        "confidence": pytest.approx(0.9),
        "class_id": 2,
        "box": {"x": 0, "y": 80, "width": 320, "height": 160},
    }
    assert cat["box"] == {"x": 320, "y": 160, "width": 160, "height": 160}
    assert len(served.request(picture, threshold=0.2)) == 3
    assert served.request(picture, max_results=1) == [dog]
    assert served.request(picture, threshold=0.95) == []


def test_ssd_answers_for_one_picture_at_a_time() -> None:
    assert Served(model_saying(SSD_ANSWER, batch=-1), "detection", {}).config.inputs[0].shape[0] == 1


YOLO_ANSWER = yolo_rows(
    (32, 32, 16, 8, 0.1, 0.8, 0.0),
    (33, 32, 16, 8, 0.1, 0.7, 0.0),  # the same object again
    (33, 32, 16, 8, 0.6, 0.1, 0.0),  # another class at the same place
    (8, 8, 4, 4, 0.2, 0.1, 0.1),  # below the threshold
    *[(50, 50, 2, 2, 0.0, 0.0, 0.0)] * 20,
)


@pytest.mark.parametrize("transposed", [False, True])
def test_yolo(transposed: bool, picture: bytes) -> None:
    answer = YOLO_ANSWER.transpose(0, 2, 1) if transposed else YOLO_ANSWER
    config = {"output_classes": 3, "labels": ["a", "b", "c"], "preprocessing": {"mode": "letterbox"}}
    served = Served(model_saying(answer), "detection", config)
    assert served.config.outputs[0].shape == (1, 6, 24)
    first, second = served.request(picture)
    # 640 x 320 lies in rows 16 to 48 of 64 x 64, ten times smaller.
    assert (first["label"], first["confidence"]) == ("b", pytest.approx(0.8))
    assert first["box"] == {"x": 240, "y": 120, "width": 160, "height": 80}
    assert (second["label"], second["box"]["x"]) == ("a", 250)


def test_yolo_without_stated_classes_is_read_by_its_longer_side(picture: bytes) -> None:
    for answer in (YOLO_ANSWER, YOLO_ANSWER.transpose(0, 2, 1)):
        assert [each["class_id"] for each in Served(model_saying(answer), "detection", {}).request(picture)] == [1, 0]


def test_yolo_with_objectness_and_boxes_of_0_to_1(picture: bytes) -> None:
    answer = yolo_rows((0.5, 0.5, 0.25, 0.25, 0.5, 0.0, 0.9), *[(0.1, 0.1, 0.1, 0.1, 0.0, 1.0, 1.0)] * 10)
    config = {"decoder": {"type": "yolo", "objectness": True, "normalized": True}, "output_classes": 2}
    (found,) = Served(model_saying(answer), "detection", config).request(picture)
    assert (found["class_id"], found["confidence"]) == (1, pytest.approx(0.45))
    assert found["box"] == {"x": 240, "y": 120, "width": 160, "height": 80}


def test_what_lies_outside_of_the_picture_is_no_result(encode: Encode) -> None:
    answer = yolo_rows((32, 4, 8, 4, 0.9, 0.0), (32, 32, 8, 8, 0.8, 0.0), *[(0, 0, 0, 0, 0, 0)] * 8)
    served = Served(model_saying(answer), "detection", {"preprocessing": {"mode": "letterbox"}})
    (found,) = served.request(encode(Image.new("RGB", (640, 320))))
    assert found["confidence"] == pytest.approx(0.8)


def test_classes_that_do_not_fit_the_output() -> None:
    with pytest.raises(ConfigError, match="5 classes need 9 rows for each box, the model has 7"):
        Served(model_saying(YOLO_ANSWER), "detection", {"output_classes": 5})


def test_outputs_of_no_known_decoder() -> None:
    with pytest.raises(ConfigError, match="fit none of ssd, yolo, yolo_nms and blazeface"):
        Served(model_saying(np.zeros((1, 5, 5, 5))), "detection", {})


def test_decoders_are_deduced_from_shapes() -> None:
    assert deduced_decoder([(1, 896, 16), (1, 896, 1)], 1) == BlazeFace()
    assert deduced_decoder([(1, 1, 200, 7)], None) == Ssd()
    assert deduced_decoder([(1, 84, 8400)], 80) == Yolo()
    assert deduced_decoder([(1, 300, 6)], 80) == deduced_decoder([(1, -1, 6)], None) == YoloNms()
    assert deduced_decoder([(1, 8400, 6)], 2) == Yolo()
    assert deduced_decoder([(1, 6, 8400)], None) == Yolo()
    assert deduced_decoder([(1, 4)], None) is None


NMS_ANSWER = np.array(
    [[(24, 28, 40, 36, 0.8, 1), (25, 28, 41, 36, 0.9, 7), (8, 8, 12, 12, 0.2, 0), *[(0,) * 6] * 17]], np.float32
)


@pytest.mark.parametrize("scale", [1, 64])
def test_yolo_with_its_own_suppression(scale: int, picture: bytes) -> None:
    """Corners and not centres, in the order of their scores, and nothing is suppressed a second time."""
    config: dict[str, Any] = {"output_classes": 80, "preprocessing": {"mode": "letterbox"}}
    if scale != 1:
        config["decoder"] = {"type": "yolo_nms", "normalized": True}
    answer = NMS_ANSWER / np.array([*[scale] * 4, 1, 1], np.float32)
    first, second = Served(model_saying(answer), "detection", config).request(picture)
    assert (first["class_id"], first["confidence"]) == (7, pytest.approx(0.9))
    assert second["box"] == {"x": 240, "y": 120, "width": 160, "height": 80}


def test_six_numbers_with_two_classes_are_plain_yolo(picture: bytes) -> None:
    answer = yolo_rows((32, 32, 16, 8, 0.1, 0.8), *[(50, 50, 2, 2, 0.0, 0.0)] * 20).transpose(0, 2, 1)
    for config in ({"output_classes": 2}, {"labels": ["a", "b"]}):
        (found,) = Served(model_saying(answer), "detection", config).request(picture)
        assert (found["class_id"], found["box"]["x"]) == (1, 240)


def model_of_open_number(answer: NDArray[Any], kind: str) -> ov.Model:
    """The same answer, in a type, of a number of boxes that is not known beforehand: (1, -1, 4 + classes)."""
    pixels = named(ops.parameter([1, 3, 64, 64], np.float32, name="pixels"), "pixels")
    brightest = ops.reduce_max(pixels, np.array([0, 1, 2, 3]), keep_dims=False)
    count = ops.add(ops.convert(brightest, "i64"), np.int64(answer.shape[1]))
    last = ops.reshape(count, np.array([1]), special_zero=False)
    rows = ops.slice(ops.constant(answer.astype(np.float32)), np.array([0]), last, np.array([1]), np.array([1]))
    return ov.Model([ops.result(named(ops.convert(rows, kind), "boxes"))], [pixels])


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_yolo_of_an_open_number_of_boxes(kind: str, picture: bytes) -> None:
    model = model_of_open_number(YOLO_ANSWER.transpose(0, 2, 1), kind)
    config = {"preprocessing": {"mode": "letterbox"}}
    first, second = Served(model, "detection", config).request(picture)
    assert (first["class_id"], second["class_id"]) == (1, 0)
    assert first["box"] == {"x": 240, "y": 120, "width": 160, "height": 80}


@pytest.mark.parametrize("shape", [(1, 4, 30), (1, 30, 4)])
def test_boxes_without_scores_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"config\.decoder': expected more than 4 rows for each box, got 4"):
        Served(model_saying(np.zeros(shape)), "detection", {})


def test_faces_are_decoded_relative_to_their_anchors() -> None:
    """Two anchors see one face, a third sees another one."""
    anchors = np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.1], [0.9, 0.9]], np.float32)
    regressors = np.zeros((1, 4, 16), np.float32)
    regressors[0, :3, 2:4] = 32  # width and height
    regressors[0, 1, 0] = 4  # centre x
    regressors[0, :, 4:6] = (-8, -16)  # the first keypoint
    logits = np.array([[[np.log(3)], [0], [1], [-5]]], np.float32)
    outputs = {"classificators": logits, "regressors": regressors}
    found = find_faces(BlazeFace(), anchors, outputs, Cut(0.5, 10, (128, 128)))
    assert found.scores.tolist() == pytest.approx([0.75, 1 / (1 + np.exp(-1))])
    shift = 4 / 128 * 0.5 / 1.25  # the second box weighs 0.5 of 1.25
    assert found.boxes[0] == pytest.approx([0.375 + shift, 0.375, 0.625 + shift, 0.625])
    assert found.keypoints is not None
    assert found.keypoints[1, 0] == pytest.approx([0.1 - 8 / 128, 0.1 - 16 / 128])
    plain = find_faces(BlazeFace(weighted=False), anchors, outputs, Cut(0.5, 10, (128, 128)))
    assert plain.boxes[0] == pytest.approx([0.375, 0.375, 0.625, 0.625])


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_thresholds_at_the_ends(threshold: float) -> None:
    outputs = {"a": np.zeros((1, 4, 16), np.float32), "b": np.zeros((1, 4, 1), np.float32)}
    found = find_faces(BlazeFace(), np.zeros((4, 2), np.float32), outputs, Cut(threshold, 10, (128, 128)))
    assert len(found) == (4 if threshold == 0 else 0)


def test_an_empty_list_of_ssd() -> None:
    assert len(find_ssd({"boxes": ssd_rows((-1, 0, 0, 0, 0, 0, 0))}, Cut(0.5, 10, (64, 64)))) == 0
