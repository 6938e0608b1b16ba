"""Embedding: texts in, vectors out. Knows nothing of how vectors come out of the model."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, InferenceRequest, InvalidInputError, ModelConfig, Preprocessed
from openvino_llama_text.buckets import split
from openvino_llama_text.files import facts_of
from openvino_llama_text.requests import Attachment, read_request
from openvino_llama_text.texts import MOST_TEXTS, Input, check_not_empty, encode_texts, named

__all__ = [
    "EmbeddingRequest",
    "EmbeddingResult",
    "Embeddings",
    "IllustratedEmbeddingRequest",
    "normalized",
    "normalizes",
    "preprocess",
    "validate",
]

_DECIMALS = 8
"""More than f32 has of numbers near 1, and half as long in JSON as all digits of those near 0."""


class EmbeddingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /infer/text`` for a model that embeds."""

    input: Input
    """A text, or several."""
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] | None = None
    """How many of the vectors' numbers are wanted: the first ones, which models trained for it pack best."""
    truncate: bool = True
    """Whether a text that is too long loses its end; else it is an error."""


class IllustratedEmbeddingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What routes hand over for models that embed pictures, too; the answer is ``Embeddings``."""

    input: Annotated[tuple[str | Attachment, ...], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] | None = None
    truncate: bool = True


class EmbeddingResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """``results`` of a request that came as a body."""

    embeddings: list[list[float]]
    """One for each text, in the request's order."""
    dimensions: int
    tokens: int
    """How many tokens all texts together had, special ones included."""
    truncated: list[int] = []
    """Which texts lost their end, by their place in the request."""


class Embeddings(msgspec.Struct, frozen=True):
    """The answer to a request that another route has read."""

    vectors: NDArray[np.float32]
    """(texts, dimensions)"""
    tokens: int
    truncated: list[int] = []

    def result(self) -> EmbeddingResult:
        """The same as JSON can say it."""
        rounded = self.vectors.astype(np.float64).round(_DECIMALS)
        return EmbeddingResult(rounded.tolist(), self.vectors.shape[1], self.tokens, self.truncated)


def normalizes(config: ModelConfig) -> bool:
    """Whether the model's vectors are to have length 1."""
    stated: bool | None = config.config.normalize
    return facts_of(config).normalize is not False if stated is None else stated


def validate(config: ModelConfig) -> None:
    """Raise ConfigError if the model has not one vector for each text."""
    spec = config.output_specs()[0]
    if len(spec.shape) != 2:
        raise ConfigError(f"model {config.name!r}: expected an output (texts, dimensions), got {list(spec.shape)}")


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
    """The inferences for a request's texts."""
    asked = read_request(request, EmbeddingRequest)
    _check_dimensions(config, asked.dimensions)
    texts = named("input", asked.input)
    check_not_empty(texts)
    encodings, truncated = encode_texts(config, texts, truncate=asked.truncate)
    tokens = sum(len(each.ids) for each in encodings)
    is_body = asked is not request.parameters

    def finish(vectors: NDArray[np.float32]) -> Any:
        found = Embeddings(_cut(config, vectors, asked.dimensions), tokens, truncated)
        return found.result() if is_body else found

    return split(config, encodings, finish)


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (texts, dimensions) of length 1; those of length 0 remain."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def _check_dimensions(config: ModelConfig, wanted: int | None) -> None:
    has = config.output_specs()[0].shape[1]
    if wanted is not None and 0 < has < wanted:
        raise InvalidInputError(f"dimensions: the model's vectors have {has}, not {wanted}")


def _cut(config: ModelConfig, vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    if dimensions is None or dimensions >= vectors.shape[1]:
        return vectors
    cut = vectors[:, :dimensions]
    return normalized(cut) if normalizes(config) else cut
