"""All routes of the API for OpenAI's clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openvino_llama_text.openai.generating import chat_completions, completions
from openvino_llama_text.openai.models import list_models, show_model
from openvino_llama_text.openai.reading import embeddings, rerank

__all__ = ["ROUTES"]

ROUTES: Sequence[Any] = (list_models, show_model, chat_completions, completions, embeddings, rerank)
