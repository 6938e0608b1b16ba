"""A vision-language model's folder, as optimum exports it, pulled from where it lies and served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import mirrored
from tests.end_to_end.text.support import serving
from tests.plugins.multimodal.llava import EXACT

from .support import ask, check_golden


def ovllama(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openvino_llama", *arguments]
    environment = os.environ | {"OVLLAMA_CACHE_DIR": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_a_folder_of_an_export(tmp_path: Path) -> None:
    """Becomes an entry of the registry, with all that lies beside its graphs, and gives the golden tokens."""
    registry = tmp_path / "registry.json"
    source = mirrored("tiny-llava")
    kind = ("--type", "multimodal", "--task", "vision_language")
    done = ovllama("pull", str(source), "--name", "llava", *kind, "--registry", str(registry))
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(registry.read_text())["models"].values()
    assert (entry["type"], entry["task"]) == ("multimodal", "vision_language")
    model = tmp_path / entry["files"]["model"]
    assert model.name == "openvino_language_model.xml"
    for name in ("openvino_vision_embeddings_model.bin", "processor_config.json", "chat_template.jinja"):
        assert (model.parent / name).read_bytes() == (source / name).read_bytes()
    with serving(tmp_path, {"llava": entry | {"properties": EXACT}}) as served:
        check_golden(ask(served).json()["results"])
