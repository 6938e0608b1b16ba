"""The hooks of the text plugin: text in; text, vectors, classes or an order out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta
from numpy.typing import NDArray

from openvino_llama import Backend, InferenceRequest, ModelConfig, ModelType, Preprocessed, hookimpl
from openvino_llama_text import encoders, generation
from openvino_llama_text.classification import ClassificationRequest
from openvino_llama_text.config import TextConfig
from openvino_llama_text.convert.choice import converter
from openvino_llama_text.embedding import EmbeddingRequest
from openvino_llama_text.requests import FORM, JSON, PLAIN, GenerationRequest, TextParameters
from openvino_llama_text.rerank import RerankRequest

if TYPE_CHECKING:
    import click
    import openvino as ov

OPENVINO_LLAMA_API = 1

_GENERATION = "generation"
_PROMPT = {"prompt": "The capital of France is", "max_tokens": 8}
_INPUT = {"input": ["A cat sits on the mat.", "Stocks fell on Monday."]}
_QUERY = {"query": "Where does the cat sleep?", "documents": ["Stocks fell on Monday.", "A kitten rests on a rug."]}
_BODIES = {
    _GENERATION: Annotated[GenerationRequest, Meta(examples=[_PROMPT])],
    "embedding": Annotated[EmbeddingRequest, Meta(examples=[_INPUT])],
    "classification": Annotated[ClassificationRequest, Meta(examples=[_INPUT])],
    "rerank": Annotated[RerankRequest, Meta(examples=[_QUERY])],
}


@hookimpl
def model_types() -> Sequence[ModelType]:
    """``text``, served as ``POST /infer/text``."""
    return [
        ModelType(
            name="text",
            config=TextConfig,
            tasks=(_GENERATION, "embedding", "classification", "rerank"),
            endpoint="text",
            accepts=(JSON, PLAIN, FORM),
            parameters=TextParameters,
            bodies=_BODIES,
            streaming=(_GENERATION,),
            answers={
                GenerationRequest: (_GENERATION,),
                EmbeddingRequest: ("embedding",),
                RerankRequest: ("rerank", "classification", "embedding"),
            },
        )
    ]


@hookimpl
def model_index() -> Path:
    """The models that ``ovllama pull`` can fetch for this plugin."""
    return Path(__file__).with_name("index.json")


@hookimpl
def model_converter(by: str, options: Mapping[str, Any]) -> str | None:
    """GGUF files and Hugging Face folders become OpenVINO models."""
    return converter(by, options)


@hookimpl
def backends() -> Sequence[Backend]:
    """The engine that generates."""
    from openvino_llama_text.engine.backend import EngineBackend

    return [EngineBackend()]


@hookimpl
def route_handlers() -> Sequence[Any]:
    """The API for OpenAI's clients."""
    from openvino_llama_text.openai.routes import ROUTES

    return ROUTES


@hookimpl
def commands() -> Sequence[click.Command]:
    """``ovllama chat``."""
    from openvino_llama_text.terminal import chat

    return [chat]


@hookimpl
def prepare_model(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Put pooling or probabilities on top of the graph of an encoder."""
    return encoders.prepare(config, model)


@hookimpl
def validate_model(config: ModelConfig) -> None:
    """Refuse a model whose tokenizer, template, labels or outputs do not fit."""
    if config.task == _GENERATION:
        generation.validate(config)
    else:
        encoders.validate(config)


@hookimpl
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | Sequence[Preprocessed]:
    """Turn texts into tokens."""
    if config.task == _GENERATION:
        return generation.preprocess(config, request)
    return encoders.preprocess(config, request)


@hookimpl
def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
    """Turn tokens into text, or put together what came of each text."""
    if config.task == _GENERATION:
        return generation.postprocess(outputs, context)
    return encoders.gather(outputs, context)
