"""The hooks of the multimodal plugin: pictures and texts in; descriptions, scores or vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from openvino_llama import Backend, InferenceRequest, ModelConfig, ModelType, Preprocessed, hookimpl
from openvino_llama_multimodal import captioner, dual_encoder, vision_language
from openvino_llama_multimodal.config import DESCRIBE, MATCH, Fusion, MultimodalConfig, fusion_of
from openvino_llama_multimodal.questions import MULTIPART
from openvino_llama_multimodal.requests import MultimodalParameters
from openvino_llama_text.embedding import EmbeddingRequest, IllustratedEmbeddingRequest
from openvino_llama_text.requests import GenerationRequest, IllustratedRequest

if TYPE_CHECKING:
    import openvino as ov

OPENVINO_LLAMA_API = 1


class _Way(Protocol):
    """A module that serves the models of one fusion."""

    def validate(self, config: ModelConfig) -> None: ...

    def preprocess(self, config: ModelConfig, request: InferenceRequest) -> Preprocessed | Sequence[Preprocessed]: ...

    def postprocess(self, config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any: ...


_WAYS: dict[Fusion, _Way] = {
    Fusion.EARLY: vision_language,
    Fusion.LATE: dual_encoder,
    Fusion.CROSS_ATTENTION: captioner,
}


@hookimpl
def model_types() -> Sequence[ModelType]:
    """``multimodal``, served as ``POST /infer/multimodal``."""
    return [
        ModelType(
            name="multimodal",
            config=MultimodalConfig,
            tasks=(DESCRIBE, MATCH),
            endpoint="multimodal",
            accepts=(MULTIPART,),
            parts={"image": "file", "text": "text"},
            parameters=MultimodalParameters,
            streaming=(DESCRIBE,),
            answers={
                GenerationRequest: (DESCRIBE,),
                IllustratedRequest: (DESCRIBE,),
                EmbeddingRequest: (MATCH,),
                IllustratedEmbeddingRequest: (MATCH,),
            },
        )
    ]


@hookimpl
def model_index() -> Path:
    """The models that ``ovllama pull`` can fetch for this plugin."""
    return Path(__file__).with_name("index.json")


@hookimpl
def backends() -> Sequence[Backend]:
    """The engine that generates, given pictures too; and the one for encoder-decoders."""
    from openvino_llama_multimodal.encoder_decoder.backend import EncoderDecoderBackend
    from openvino_llama_multimodal.engine import VisionLanguageBackend

    return [VisionLanguageBackend(), EncoderDecoderBackend()]


@hookimpl
def prepare_model(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Fuse the conversion of pixels into the graph of a dual encoder."""
    return dual_encoder.prepare(config, model)


@hookimpl
def validate_model(config: ModelConfig) -> None:
    """Refuse a model whose tokenizer, processor or outputs do not fit."""
    _WAYS[fusion_of(config)].validate(config)


@hookimpl
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | Sequence[Preprocessed]:
    """Turn pictures and texts into tensors."""
    return _WAYS[fusion_of(config)].preprocess(config, request)


@hookimpl
def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
    """Turn tensors into words, scores or vectors."""
    return _WAYS[fusion_of(config)].postprocess(config, outputs, context)
