"""Fixtures of the vision plugin's tests: real models, loaded once, and pictures as files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from PIL import Image

from openvino_llama_vision import plugin

from .served import Served, read

INDEX: dict[str, Any] = json.loads(plugin.model_index().read_text("utf-8"))["models"]

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Write an array or image as a file of a format."""

    def write(picture: NDArray[Any] | Image.Image, form: str = "PNG", **options: Any) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    return write


def from_index(name: str, folder: Path) -> Served:
    """The model of that name as the index states it, its files being anywhere below the folder."""
    stated = INDEX[name]
    files = {role: next(folder.rglob(Path(file["path"]).name)) for role, file in stated["files"].items()}
    return Served(read(files["model"]), stated["entry"]["task"], stated["entry"]["config"], files.get("labels"))


@pytest.fixture(scope="session")
def mobilenet(mobilenet_dir: Path) -> Served:
    return from_index("mobilenet_v2", mobilenet_dir)


@pytest.fixture(scope="session")
def deeplab(deeplab_dir: Path) -> Served:
    return from_index("deeplabv3", deeplab_dir)


@pytest.fixture(scope="session")
def orientation(starter_files: Path) -> Served:
    return from_index("document_orientation", starter_files)


@pytest.fixture(scope="session")
def faces(starter_files: Path) -> Served:
    return from_index("face_detection", starter_files)


@pytest.fixture(scope="session")
def faces_short(starter_files: Path) -> Served:
    return from_index("face_detection_short", starter_files)


@pytest.fixture(scope="session")
def text_regions(starter_files: Path) -> Served:
    return from_index("text_regions", starter_files)


@pytest.fixture(scope="session")
def colours() -> Served:
    """A small classifier of red, green and blue: its scores are the means of the channels, as probabilities."""
    from openvino import opset13 as ops

    pixels = ops.parameter([-1, 3, 8, 8], np.float32, name="pixels")
    means = ops.reduce_mean(pixels, np.array([2, 3]), keep_dims=False)
    return Served(
        ov.Model([ops.result(named(ops.softmax(means, axis=1), "scores"))], [named(pixels, "pixels")]),
        "classification",
        {"labels": ["red", "green", "blue"], "preprocessing": {"normalize": {}}},
    )


def named(node: Any, name: str) -> Any:
    """The node with a name for its output tensor."""
    node.output(0).set_names({name})
    return node
