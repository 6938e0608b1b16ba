"""The server with one plugin, with another, and with all: what is installed serves, what is not is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tests.plugins.text.encoders import encoder, save_tokenizer

from .conftest import PIXEL, ROOT, Environment

pytestmark = pytest.mark.slow

INSTALLED = ("vision", "text", "all")
CAPTIONER = ROOT / "plugins" / "multimodal" / "openvino_llama_multimodal" / "drawn_scenes"
MODELS: dict[str, dict[str, Any]] = {
    "vision": {
        "type": "vision",
        "task": "classification",
        "files": {"model": "colours.xml", "weights": "colours.bin"},
        "config": {"labels": ["red", "green", "blue"], "preprocessing": {"normalize": {}}},
    },
    "text": {
        "type": "text",
        "task": "embedding",
        "files": {"model": "words.xml", "weights": "words.bin", "tokenizer": "tokenizer.json"},
    },
    "multimodal": {
        "type": "multimodal",
        "task": "vision_language",
        "files": {"model": f"{CAPTIONER.name}/openvino_language_model.xml"},
    },
}
"""A model of each type, called as the type."""


@pytest.fixture(params=INSTALLED)
def installed(request: pytest.FixtureRequest) -> tuple[Environment, set[str]]:
    """An environment, and the plugins that it has."""
    environment: Environment = request.getfixturevalue(f"{request.param}_environment")
    return environment, set(MODELS) if request.param == "all" else {request.param}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a model of each type."""
    folder = tmp_path_factory.mktemp("served") / "models"
    folder.mkdir()
    pixels = ops.parameter([-1, 3, 8, 8], np.float32, name="pixels")
    means = ops.softmax(ops.reduce_mean(pixels, np.array([2, 3])), 1)
    ov.save_model(ov.Model([means], [pixels], "colours"), folder / "colours.xml")
    ov.save_model(encoder("last_hidden_state"), folder / "words.xml")
    save_tokenizer(folder)
    shutil.copytree(CAPTIONER, folder / CAPTIONER.name)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    path = folder / "registry.json"
    path.write_text(json.dumps({"models": MODELS}))
    return path


def ask(client: httpx.Client, kind: str) -> httpx.Response:
    """An inference of a model of this type."""
    if kind == "vision":
        return client.post("/infer/image", content=PIXEL, headers={"Content-Type": "image/bmp"})
    if kind == "multimodal":
        picture = {"image": ("pixel.bmp", PIXEL, "image/bmp")}
        return client.post("/infer/multimodal", files=picture, data={"text": "Describe the scene."})
    return client.post("/infer/text", json={"input": ["the cat runs", "a red car"]})


def test_every_combination_serves_what_it_has(installed: tuple[Environment, set[str]], registry: Path) -> None:
    """Models of installed types answer; of each other one the server says which package would serve it."""
    environment, plugins = installed
    with environment.serving(registry) as client:
        assert {each["name"] for each in client.get("/plugins").json()["plugins"]} == plugins
        models = {each["id"]: each for each in client.get("/models").json()["models"]}
        assert models.keys() == MODELS.keys()
        for kind, model in models.items():
            answer = ask(client, kind)
            if kind in plugins:
                assert model["state"] == "ready", model
                assert answer.status_code == 200, answer.text
            else:
                assert model["state"] == "failed"
                assert f"is the package openvino-llama-{kind} installed?" in model["reason"]
                assert answer.status_code == 404
        paths = client.get("/schema/openapi.json").json()["paths"]
        assert ("/v1/embeddings" in paths) == ("text" in plugins)
        if "multimodal" in plugins:
            form = paths["/infer/multimodal"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
            assert form["properties"].keys() == {"image", "text"}


def test_the_command_line_says_the_same(installed: tuple[Environment, set[str]]) -> None:
    """``ovllama plugins``, and ``pull`` without a name, know of what is installed."""
    environment, plugins = installed
    listed, indexed = environment.run("ovllama", "plugins"), environment.run("ovllama", "pull")
    assert ("openvino-llama-vision" in listed, "face_detection" in indexed) == ("vision" in plugins,) * 2
    assert ("openvino-llama-text" in listed, "smollm2_135m_instruct" in indexed) == ("text" in plugins,) * 2
    assert ("openvino-llama-multimodal" in listed, "drawn_scenes" in indexed) == ("multimodal" in plugins,) * 2
    assert ("  chat " in environment.run("ovllama", "--help")) == ("text" in plugins)


def test_a_model_that_comes_with_the_plugin(all_environment: Environment) -> None:
    """It is pulled out of the installed package, with nothing fetched from anywhere."""
    registry = all_environment.folder / "pulled" / "registry.json"
    all_environment.run("ovllama", "pull", CAPTIONER.name, "--registry", str(registry))
    assert {path.name for path in (registry.parent / CAPTIONER.name).iterdir()} >= {"openvino_language_model.xml"}
    with all_environment.serving(registry) as client:
        assert ask(client, "multimodal").json()["model_type"] == "multimodal"


@pytest.mark.parametrize(
    ("plugin", "modules"), [("text", ("plugin", "engine.child")), ("multimodal", ("plugin", "engine", "dual_encoder"))]
)
def test_a_plugins_requirements_are_complete(
    plugin: str, modules: Sequence[str], request: pytest.FixtureRequest
) -> None:
    """Every module can be imported with what its wheel asks for; the processes' own and optimum's are not modules."""
    environment: Environment = request.getfixturevalue(f"{'text' if plugin == 'text' else 'all'}_environment")
    package = f"openvino_llama_{plugin}"
    code = f"""
import importlib, pkgutil, {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""
    imported = environment.run("python", "-c", code).split()
    assert {f"{package}.{module}" for module in modules} <= set(imported)
    assert "No broken requirements" in environment.run("pip", "check")
