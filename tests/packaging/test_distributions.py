"""The distributions as they are built, and the server as it runs when it was installed from them."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from .conftest import PIXEL, ROOT, SOURCES, Environment, build

pytestmark = pytest.mark.slow

MODEL = ROOT / "plugins" / "multimodal" / "openvino_llama_multimodal" / "drawn_scenes"
DATA = {
    "openvino_llama": {"py.typed", "sandbox/inferencer.wasm"},
    "openvino_llama_multimodal": {
        *("py.typed", "index.json", "scene.png"),
        *(f"drawn_scenes/{path.name}" for path in MODEL.iterdir()),
    },
    "openvino_llama_text": {"py.typed", "index.json"},
    "openvino_llama_vision": {"py.typed", "index.json"},
    "openvino_llama_anomaly": {"anomaly.wasm", "index.json", "neighbours.bin", "neighbours.xml", "sample.csv"},
}
"""Distribution -> the files of its package that are no modules."""


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_has_the_package_and_nothing_else(name: str, wheels: dict[str, Path]) -> None:
    """Its modules, its data files, its metadata with the licence; no tests, no sources of guests."""
    found = members(wheels[name])
    files = {path.partition("/")[2] for path in found if path.startswith(f"{name}/")}
    assert {path for path in files if not path.endswith(".py")} == DATA[name]
    metadata = {path for path in found if path.partition("/")[0].endswith(".dist-info")}
    assert {path.partition("/")[2] for path in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert found == metadata | {f"{name}/{path}" for path in files}


def test_every_distribution_has_the_same_licence() -> None:
    """A wheel can only take a file of its own folder: these are copies."""
    texts = {(source / "LICENSE").read_bytes() for source in SOURCES.values()}
    assert len(texts) == 1


@pytest.mark.parametrize("name", SOURCES)
def test_an_sdist_builds_the_same_wheel(name: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    """Whoever packages it for a system starts from there."""
    sdist = build(SOURCES[name], tmp_path / "sdist", "--sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    source = next((tmp_path / "unpacked").iterdir())
    folders = {path.name for path in source.iterdir() if path.is_dir()}
    assert not folders & {".git", ".venv", "models", "plugins", "examples"}
    assert members(build(source, tmp_path / "wheel", "--wheel")) == members(wheels[name])


def test_the_command_is_installed(vision_environment: Environment) -> None:
    """With help, version and plugin, far from the checkout."""
    version = vision_environment.run("python", "-c", "import openvino_llama; print(openvino_llama.__version__)").strip()
    assert "Usage: ovllama" in vision_environment.run("ovllama", "--help")
    assert version in vision_environment.run("ovllama", "--version")
    assert f"openvino-llama-vision {version}  loaded  vision" in vision_environment.run("ovllama", "plugins")
    assert "face_detection" in vision_environment.run("ovllama", "pull")


def test_nothing_of_the_checkout_is_used(vision_environment: Environment) -> None:
    """Both packages come from the clean environment."""
    code = "import openvino_llama as a, openvino_llama_vision as b; print(a.__file__); print(b.__file__)"
    for path in vision_environment.run("python", "-c", code).split():
        assert Path(path).is_relative_to(vision_environment.folder)
        assert not Path(path).is_relative_to(ROOT)


def test_requirements_are_complete(vision_environment: Environment) -> None:
    """Every module of both packages can be imported with what the wheels ask for."""
    code = """
import importlib, pkgutil, openvino_llama, openvino_llama_vision
for package in (openvino_llama, openvino_llama_vision):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""
    imported = vision_environment.run("python", "-W", "error", "-c", code).split()
    assert {"openvino_llama.server.app", "openvino_llama_vision.plugin"} <= set(imported)
    assert "No broken requirements" in vision_environment.run("pip", "check")


def test_a_model_is_served(vision_environment: Environment) -> None:
    """A picture over HTTP, through the packaged guest, to an answer."""
    folder = vision_environment.folder / "models"
    folder.mkdir()
    pixels = ops.parameter([-1, 3, 8, 8], np.float32, name="pixels")
    means = ops.softmax(ops.reduce_mean(pixels, np.array([2, 3])), 1)
    ov.save_model(ov.Model([means], [pixels], "colours"), folder / "colours.xml")
    entry = {
        "type": "vision",
        "task": "classification",
        "files": {"model": "colours.xml", "weights": "colours.bin"},
        "config": {"labels": ["red", "green", "blue"], "preprocessing": {"normalize": {}}},
    }
    registry = folder / "registry.json"
    registry.write_text(json.dumps({"models": {"colours": entry}}))
    with vision_environment.serving(registry) as client:
        answer = client.post("/infer/image", content=PIXEL, headers={"Content-Type": "image/bmp"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["label"] == "red"
        assert client.get("/health/ready").status_code == 200
        assert client.get("/schema/swagger").status_code == 200
        assert client.get("/schema-page/swagger_bundle.js").status_code == 200
