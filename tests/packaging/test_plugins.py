"""The server with one plugin, with the other, and with both: what is installed serves, what is not is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tests.plugins.text.encoders import encoder, save_tokenizer

from .conftest import PIXEL, Environment

pytestmark = pytest.mark.slow

INSTALLED = ("vision", "text", "both")
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
}
"""A model of each type, called as the type."""


@pytest.fixture(params=INSTALLED)
def installed(request: pytest.FixtureRequest) -> tuple[Environment, set[str]]:
    """An environment, and the plugins that it has."""
    environment: Environment = request.getfixturevalue(f"{request.param}_environment")
    return environment, set(MODELS) if request.param == "both" else {request.param}


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
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    path = folder / "registry.json"
    path.write_text(json.dumps({"models": MODELS}))
    return path


def ask(client: httpx.Client, kind: str) -> httpx.Response:
    """An inference of a model of this type."""
    if kind == "vision":
        return client.post("/infer/image", content=PIXEL, headers={"Content-Type": "image/bmp"})
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


def test_the_command_line_says_the_same(installed: tuple[Environment, set[str]]) -> None:
    """``ovllama plugins``, and ``pull`` without a name, know of what is installed."""
    environment, plugins = installed
    listed, indexed = environment.run("ovllama", "plugins"), environment.run("ovllama", "pull")
    assert ("openvino-llama-vision" in listed, "face_detection" in indexed) == ("vision" in plugins,) * 2
    assert ("openvino-llama-text" in listed, "smollm2_135m_instruct" in indexed) == ("text" in plugins,) * 2
    assert ("  chat " in environment.run("ovllama", "--help")) == ("text" in plugins)


def test_the_text_plugins_requirements_are_complete(text_environment: Environment) -> None:
    """Every module can be imported with what its wheel asks for; the processes' own and optimum's are not modules."""
    code = """
import importlib, pkgutil, openvino_llama_text
for module in pkgutil.walk_packages(openvino_llama_text.__path__, "openvino_llama_text."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""
    imported = text_environment.run("python", "-c", code).split()
    assert {"openvino_llama_text.plugin", "openvino_llama_text.engine.child"} <= set(imported)
    assert "No broken requirements" in text_environment.run("pip", "check")
