"""The captioner that comes with the plugin, as it is pulled and served."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.text.support import Served, serving

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[3] / "examples" / "train-captioner"
NAME = "drawn_scenes"
QUESTION = "Describe the scene."


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, str]]:
    """The 500 scenes of the evaluation: a PNG file and what is right to say of it."""
    folder = tmp_path_factory.mktemp("scenes")
    subprocess.run([sys.executable, "scenes.py", "--write", str(folder)], cwd=EXAMPLE, check=True)
    entries = json.loads((folder / "captions.json").read_text())
    return [((folder / each["file"]).read_bytes(), each["caption"]) for each in entries]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the model, pulled without any index of packages."""
    folder = tmp_path_factory.mktemp("pulled")
    registry = folder / "registry.json"
    command = [sys.executable, "-m", "openvino_llama", "pull", NAME, "--registry", str(registry)]
    subprocess.run(command, check=True, capture_output=True)
    with serving(folder, json.loads(registry.read_text())["models"]) as served:
        yield served


def describe(captioner: Served, picture: bytes) -> dict[str, Any]:
    files = {"image": ("scene.png", picture, "image/png")}
    answer = captioner.http.post("/infer/multimodal", files=files, data={"text": QUESTION, "max_tokens": "32"})
    assert answer.status_code == 200, answer.text
    results: dict[str, Any] = answer.json()["results"]
    return results


def test_it_is_as_good_over_http_as_in_its_evaluation(captioner: Served, scenes: list[tuple[bytes, str]]) -> None:
    """Of the 500 scenes the same ones fail as with openvino-genai alone, in the same words: at most one in ten.

    One after another, as there: in a batch the sums are others, and a near tie falls otherwise.
    """
    report = json.loads((EXAMPLE / "evaluation.json").read_text())
    answers = [describe(captioner, picture) for picture, _ in scenes]
    failed = {
        index: answer["description"]
        for index, (answer, (_, caption)) in enumerate(zip(answers, scenes, strict=True))
        if answer["description"] != caption
    }
    assert failed == {each["index"]: each["answered"] for each in report["failures"]}
    assert len(failed) <= len(scenes) // 10
    assert report["figures"]["all"] == f"{len(scenes) - len(failed)}/{len(scenes)}"


def test_it_ends_by_itself_and_is_sure(captioner: Served, scenes: list[tuple[bytes, str]]) -> None:
    """A caption ends with the model's own end, and one that is right mostly has a high confidence."""
    answers = [describe(captioner, picture) for picture, _ in scenes[::50]]
    assert {each["finish_reason"] for each in answers} == {"stop"}
    assert all(0 < each["confidence"] <= 1 for each in answers)
