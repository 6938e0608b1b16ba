"""Answers are drawn where they belong, on pictures of any size."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from openvino_llama_vision.drawing import draw_classes, draw_detections, draw_regions, png
from openvino_llama_vision.results import Box, Classification, Detection, Keypoint, Region

SIZES = [(1, 1), (1, 3000), (3000, 1), (40, 30), (640, 480), (4000, 3000)]


def changed(before: Image.Image, after: Image.Image) -> NDArray[np.bool_]:
    resized = before.convert("RGB").resize(after.size, Image.Resampling.NEAREST)
    return np.asarray((np.asarray(resized) != np.asarray(after)).any(axis=2))


def face(box: Box, **more: Any) -> Detection:
    return Detection("face", 0.9, 0, box, **more)


def test_a_box_is_drawn_along_its_edges_only() -> None:
    picture = Image.new("RGB", (640, 480), "grey")
    drawn = draw_detections(picture, [face(Box(100, 200, 300, 150))])
    touched = changed(picture, drawn)
    assert touched[275, 100]
    assert touched[275, 400]
    assert touched[350, 250]
    assert not touched[210:340, 110:390].any()  # the inside
    assert not touched[:, 410:].any()
    assert touched[170:199, 100:150].any()  # the label above


def test_a_box_at_the_upper_edge_has_its_label_inside() -> None:
    picture = Image.new("RGB", (640, 480))
    touched = changed(picture, draw_detections(picture, [face(Box(100, 0, 300, 150))]))
    assert touched[5:15, 105:150].any()


def test_keypoints_are_dots() -> None:
    picture = Image.new("RGB", (640, 480))
    drawn = draw_detections(picture, [face(Box(10, 100, 300, 300), keypoints=(Keypoint("eye", 150, 250),))])
    assert changed(picture, drawn)[250, 150]


def test_the_picture_itself_stays_as_it_was() -> None:
    picture = Image.new("RGB", (640, 480), "grey")
    draw_detections(picture, [face(Box(0, 0, 640, 480))])
    draw_classes(picture, [Classification("cat", 0.5, 3)])
    assert picture.getcolors() == [(640 * 480, (128, 128, 128))]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_can_be_drawn_on(size: tuple[int, int]) -> None:
    picture = Image.new("L", size, 90)
    whole = Box(0, 0, *size)
    long_label = "a name that is longer than most pictures are wide, 名前 included " * 3
    classes = np.ones((size[1], size[0]), np.uint8)
    region = Region(long_label, 1, 5.0, whole, [(0, 0), (size[0], 0), (size[0], size[1])])
    for drawn in (
        draw_detections(picture, [Detection(long_label, 1.0, 7, whole)]),
        draw_classes(picture, [Classification(long_label, 0.1, each) for each in range(5)]),
        draw_regions(picture, classes, [region], background=0),
    ):
        assert drawn.mode == "RGB"
        assert drawn.width % size[0] == drawn.height % size[1] == 0
        assert max(drawn.size) >= min(320 // 16, max(size))
        assert Image.open(io.BytesIO(png(drawn))).size == drawn.size


def test_small_pictures_are_enlarged_until_labels_can_be_read() -> None:
    assert draw_classes(Image.new("RGB", (40, 30)), []).size == (320, 240)
    assert draw_classes(Image.new("RGB", (400, 300)), []).size == (400, 300)


def test_the_mask_shines_through() -> None:
    picture = Image.new("RGB", (400, 300), "grey")
    classes = np.zeros((300, 400), np.uint8)
    classes[100:200, 100:300] = 5
    region = Region("sheep", 5, 20000.0, Box(100, 100, 200, 100), [(100, 100), (300, 100), (300, 200), (100, 200)])
    touched = changed(picture, draw_regions(picture, classes, [region], background=0))
    assert touched[101:199, 101:299].all()
    assert not touched[205:].any()
    assert touched[75:95, 100:140].any()  # its name
