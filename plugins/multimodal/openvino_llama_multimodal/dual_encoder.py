"""Late fusion: pictures and texts go through an encoder each, and only their vectors are compared (CLIP, SigLIP).

A request asks which of some texts fits a picture best (``dual_matching``), or for vectors (``dual_embedding``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from openvino_llama import InferenceRequest, ModelConfig, Preprocessed
from openvino_llama_multimodal import dual_embedding, dual_matching
from openvino_llama_multimodal.dual_vectors import collect, plan_for, text_of
from openvino_llama_text.embedding import EmbeddingRequest, IllustratedEmbeddingRequest
from openvino_llama_text.texts import check_room

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["postprocess", "prepare", "preprocess", "validate"]


def prepare(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Fuse the conversion of pixels, and have the graph answer with vectors; ConfigError if it does not fit."""
    from openvino_llama_multimodal.dual_graph import prepare as prepare_graph

    return prepare_graph(config, model)


def validate(config: ModelConfig) -> None:
    """Raise ConfigError if the model has no tokenizer, or no room for a text."""
    check_room(text_of(config))
    plan_for(config)


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
    """The inferences for a picture and texts, or for what vectors are wanted of."""
    asked = request.parameters
    if isinstance(asked, (EmbeddingRequest, IllustratedEmbeddingRequest)):
        return dual_embedding.preprocess(config, asked)
    return dual_matching.preprocess(config, request)


def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:  # noqa: ARG001
    """Put together what came of the inferences."""
    return collect(outputs, context)
