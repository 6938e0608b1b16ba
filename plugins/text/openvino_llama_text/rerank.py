"""Reranking: a query and documents in, the documents' order out.

Two kinds of models can do it. A cross-encoder reads the query together with each document, and says how well they go
together (0..1). An embedding model reads each on its own; the score is then the cosine of their vectors (-1..1), which
orders less well and costs less. Scores of different models cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, InferenceRequest, InvalidInputError, ModelConfig, Preprocessed
from openvino_llama_text.buckets import split
from openvino_llama_text.embedding import normalized
from openvino_llama_text.requests import read_request
from openvino_llama_text.texts import MOST_TEXTS, check_not_empty, encode_pairs, encode_texts, named

__all__ = ["Document", "Ranked", "Ranking", "RerankRequest", "preprocess", "validate"]

_VECTORS = "sentence_embedding"


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document as an object."""

    text: str


class RerankRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /infer/text`` for a model that reranks."""

    query: str
    documents: Annotated[Sequence[str | Document], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]
    top_n: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] | None = None
    """How many documents are wanted; None is all."""
    return_documents: bool = False
    """Whether their texts are wanted too."""


class Ranked(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document."""

    index: int
    """Its place in the request."""
    relevance_score: float
    document: Document | None = None


class Ranking(msgspec.Struct, frozen=True):
    """The answer to a request that another route has read; what came as a body gets ``results`` alone."""

    results: list[Ranked]
    """The best first; of equal ones, that which came first."""
    tokens: int
    """How many tokens the model has read."""


def validate(config: ModelConfig) -> None:
    """Raise ConfigError if the model gives neither one score nor a vector."""
    output = config.output_specs()[0]
    if len(output.shape) != 2 or (output.name != _VECTORS and output.shape[1] != 1):
        raise ConfigError(
            f"model {config.name!r}: expected an output (texts, 1) or vectors, got {output.name} {list(output.shape)}"
        )


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
    """The inferences for a request's documents."""
    asked = read_request(request, RerankRequest)
    documents = [each if isinstance(each, str) else each.text for each in asked.documents]
    check_not_empty({"query": asked.query})  # a document of nothing is one that says nothing of it
    texts = {"query": asked.query} | named("documents", documents)
    crosses = _crosses(config)
    encodings = encode_pairs(config, texts) if crosses else encode_texts(config, texts, truncate=True)[0]
    tokens = sum(len(each.ids) for each in encodings)
    is_body = asked is not request.parameters

    def finish(rows: NDArray[np.float32]) -> Any:
        results = _ranked(asked, documents, rows[:, 0] if crosses else _cosines(rows))
        return results if is_body else Ranking(results, tokens)

    return split(config, encodings, finish)


def _crosses(config: ModelConfig) -> bool:
    """Whether the model reads pairs; if not, it embeds. InvalidInputError if it does neither."""
    output = config.output_specs()[0]
    if output.name != _VECTORS and output.shape[-1] != 1:
        raise InvalidInputError(
            f"model {config.name!r} cannot rerank: that takes an embedding model, or a classifier of one class"
        )
    return output.name != _VECTORS


def _cosines(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the first vector with each of the others."""
    query, *_ = unit = normalized(vectors)
    cosines: NDArray[np.float32] = unit[1:] @ query
    return cosines


def _ranked(asked: RerankRequest, documents: Sequence[str], scores: NDArray[np.float32]) -> list[Ranked]:
    best = np.argsort(-scores, kind="stable")[: asked.top_n].tolist()
    return [
        Ranked(each, round(float(scores[each]), 6), Document(documents[each]) if asked.return_documents else None)
        for each in best
    ]
