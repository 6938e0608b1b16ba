"""The text plugin as the server sees it: one model type, its routes and command, and which hook serves which task."""

from __future__ import annotations

from pathlib import Path

import pytest

from openvino_llama.plugins import load_plugins
from openvino_llama_text import plugin
from openvino_llama_text.config import TextConfig


def test_it_is_installed() -> None:
    """With nothing that the server would leave out."""
    plugins = load_plugins()
    (report,) = [each for each in plugins.reports if each.name == "text"]
    assert report.status == "loaded", report.reason
    model_type = plugins.model_type("text")
    assert (model_type.endpoint, model_type.config) == ("text", TextConfig)
    assert set(model_type.streaming) < set(model_type.tasks)
    assert Path(plugin.model_index()).is_file()


def test_routes() -> None:
    """The API for OpenAI's clients, all under /v1."""
    found = {(path, *route.http_methods) for route in plugin.route_handlers() for path in route.paths}
    posts = {(f"/v1/{name}", "POST") for name in ("chat/completions", "completions", "embeddings", "rerank")}
    assert posts <= found
    assert all(path.startswith("/v1/") for path, _ in found)


@pytest.mark.parametrize("name", ["chat"])
def test_commands(name: str) -> None:
    """``ovllama chat``."""
    assert name in {each.name for each in plugin.commands()}
