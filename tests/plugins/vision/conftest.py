"""Fixtures of the vision plugin's tests: real models, loaded once, and pictures as files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from PIL import Image

from openvino_llama_vision import plugin

from .graphs import scores
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
    """A small classifier of red, green and blue: its logits are the means of the channels."""
    return Served(
        scores([-1, 3, 8, 8]),
        "classification",
        {"labels": ["red", "green", "blue"], "preprocessing": {}},
    )
