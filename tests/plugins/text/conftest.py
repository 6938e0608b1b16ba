"""Fixtures of the text plugin's tests: where real models are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as OpenVINO IR: openvino_model.xml, openvino_tokenizer.xml, openvino_detokenizer.xml."""
    folder = Path(os.environ.get("OVLLAMA_TEST_SMOLLM2", ""))
    if not (folder / "openvino_model.xml").is_file():
        pytest.skip("OVLLAMA_TEST_SMOLLM2 is not the folder of a converted SmolLM2")
    return folder
