"""Anchors are those of MediaPipe, in its order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openvino_llama import ConfigError
from openvino_llama_vision.anchors import anchors_of, generate_anchors

from .conftest import INDEX
from .served import Served, read


def written_out(size: int, strides: list[int]) -> list[list[float]]:
    """As in ssd_anchors_calculator.cc: layers of equal stride go together, each gives a cell two anchors."""
    anchors = []
    layer = 0
    while layer < len(strides):
        last = layer
        while last < len(strides) and strides[last] == strides[layer]:
            last += 1
        cells = size // strides[layer]
        for y in range(cells):
            for x in range(cells):
                anchors += [[(x + 0.5) / cells, (y + 0.5) / cells]] * (2 * (last - layer))
        layer = last
    return anchors


@pytest.mark.parametrize(("size", "strides"), [(128, [8, 16, 16, 16]), (256, [16, 32, 32, 32])])
def test_there_are_896_in_mediapipes_order(size: int, strides: list[int]) -> None:
    anchors = generate_anchors((size, size), strides, 2, (0.5, 0.5))
    assert anchors.shape == (896, 2)
    np.testing.assert_allclose(anchors, written_out(size, strides), atol=1e-6)


def test_one_anchor_a_cell_in_the_full_range_model() -> None:
    assert generate_anchors((192, 192), [4], 1, (0.5, 0.5)).shape == (2304, 2)


def test_they_are_those_of_the_models_size(faces: Served, faces_short: Served) -> None:
    assert len(anchors_of(faces.config)) == len(anchors_of(faces_short.config)) == 896


def test_strides_that_do_not_fit_are_an_error(starter_files: Path) -> None:
    path = next(starter_files.rglob("face_detection_back.tflite"))
    config = INDEX["face_detection"]["entry"]["config"] | {"decoder": {"type": "blazeface", "strides": [16, 32]}}
    with pytest.raises(ConfigError, match=r"\[16, 32\] make 640 anchors, the model has 896"):
        Served(read(path), "detection", config)
