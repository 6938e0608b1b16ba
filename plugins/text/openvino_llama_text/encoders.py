"""The hooks for models that read whole texts and answer once: embedding, classification, reranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from openvino_llama import InferenceRequest, ModelConfig, Preprocessed
from openvino_llama_text import classification, embedding, rerank
from openvino_llama_text.buckets import gather
from openvino_llama_text.texts import check_room

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["gather", "prepare", "preprocess", "validate"]


class _Task(Protocol):
    """A module of one task."""

    def validate(self, config: ModelConfig) -> None: ...

    def preprocess(self, config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]: ...


_TASKS: dict[str, _Task] = {"embedding": embedding, "classification": classification, "rerank": rerank}


def prepare(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Put pooling or probabilities on top of the graph; ConfigError if it does not fit the task."""
    from openvino_llama_text.pooling import prepare_vectors
    from openvino_llama_text.scoring import gives_scores, prepare_scores

    if config.task == "classification" or (config.task == "rerank" and gives_scores(model)):
        return prepare_scores(config, model)
    return prepare_vectors(config, model)


def validate(config: ModelConfig) -> None:
    """Refuse a model whose outputs, labels or tokenizer do not fit, or are not there."""
    check_room(config, pair=config.task == "rerank")
    _TASKS[config.task].validate(config)


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
    """The inferences for a request; whoever asks for a reranking by its route may ask a model of another task."""
    if isinstance(request.parameters, rerank.RerankRequest):
        return rerank.preprocess(config, request)
    return _TASKS[config.task].preprocess(config, request)
