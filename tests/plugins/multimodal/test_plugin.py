"""The plugin as the core sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openvino_llama import ConfigError, InferenceRequest, InvalidInputError
from openvino_llama.errors import PluginError
from openvino_llama.plugins import load_plugins
from openvino_llama.sources import read_index
from openvino_llama_multimodal import plugin
from openvino_llama_multimodal.config import DESCRIBE, MATCH, Fusion, MultimodalConfig
from openvino_llama_text.embedding import EmbeddingRequest, IllustratedEmbeddingRequest
from openvino_llama_text.requests import GenerationRequest, IllustratedRequest, Message

from .llava import cat_file, copied, form, llava

GRAPH = ("openvino_tokenizer.xml", "openvino_tokenizer.bin")
"""The tokenizer as a graph, which knows the chat template and the end of a text, too."""


def test_the_model_type() -> None:
    """One endpoint, multipart bodies, and as a stream only what is said in words."""
    (kind,) = plugin.model_types()
    assert (kind.name, kind.endpoint, kind.accepts) == ("multimodal", "multimodal", ("multipart/form-data",))
    assert (kind.config, kind.tasks, kind.streaming) == (MultimodalConfig, (DESCRIBE, MATCH), (DESCRIBE,))
    assert kind.parts == {"image": "file", "text": "text"}


def test_what_other_routes_may_ask() -> None:
    """Answers in words of models of words, vectors of the others."""
    (kind,) = plugin.model_types()
    assert kind.answers[GenerationRequest] == kind.answers[IllustratedRequest] == (DESCRIBE,)
    assert kind.answers[EmbeddingRequest] == kind.answers[IllustratedEmbeddingRequest] == (MATCH,)


def test_it_is_found() -> None:
    """By its entry point, without a fault; without it, its type is unknown and its package named."""
    plugins = load_plugins()
    (report,) = [each for each in plugins.reports if each.name == "multimodal"]
    assert (report.status, report.distribution) == ("loaded", "openvino-llama-multimodal")
    with pytest.raises(PluginError, match="openvino-llama-multimodal"):
        load_plugins(["multimodal"]).model_type("multimodal")


def test_its_index_can_be_read() -> None:
    """Each model in it is a multimodal one."""
    found = read_index([plugin.model_index()])
    assert all(model.entry["type"] == "multimodal" for model in found.values())


def test_every_fusion_is_somebodys() -> None:
    """One backend for each of the two that generate, each with a name of its own; the third is an ordinary graph."""
    backends = plugin.backends()
    for fusion in Fusion:
        config = llava(Path("/models"), fusion=fusion)
        serving = [each.name for each in backends if fusion is not Fusion.LATE and each.serves(config)]
        assert len(serving) == (fusion is not Fusion.LATE)
    assert len({each.name for each in backends}) == len(backends)


def test_a_model_that_is_all_there() -> None:
    """Is taken, and its requests become tensors."""
    config = llava()
    plugin.validate_model(config)
    made = plugin.preprocess(config, form("what?", cat_file()))
    assert not isinstance(made, list)


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (("generation_config.json", "config.json", "tokenizer_config.json", *GRAPH), "which token ends a text"),
        (("tokenizer.json", *GRAPH), "tokenizer"),
    ],
)
def test_a_model_that_is_not(tmp_path: Path, without: tuple[str, ...], said: str) -> None:
    """Is refused when it is loaded, not when it is asked."""
    with pytest.raises(ConfigError, match=said):
        plugin.validate_model(llava(copied(tmp_path, *without)))


def test_a_template_that_is_none(tmp_path: Path) -> None:
    """Is refused then, too; none at all is not."""
    folder = copied(tmp_path, "chat_template.jinja", *GRAPH)
    config = llava(folder)
    plugin.validate_model(config)
    with pytest.raises(InvalidInputError, match="no chat template"):
        plugin.preprocess(config, _two_turns())
    (folder / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ConfigError, match="no Jinja template"):
        plugin.validate_model(llava(folder))


def _two_turns() -> Any:
    messages = [Message("user", "Hi"), Message("assistant", "Hello")]
    return InferenceRequest(b"", "application/json", GenerationRequest(messages=messages))
