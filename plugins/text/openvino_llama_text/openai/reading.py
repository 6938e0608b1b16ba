"""``POST /v1/embeddings`` and ``POST /v1/rerank``."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec
import numpy as np
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from openvino_llama import InferenceRequest
from openvino_llama.web import Exchange, Gateway, operation
from openvino_llama_text.embedding import Embeddings
from openvino_llama_text.openai.bodies import EmbeddingBody, RerankBody, read
from openvino_llama_text.openai.choosing import choose
from openvino_llama_text.openai.errors import OPTIONS, ErrorBody, refuse
from openvino_llama_text.requests import JSON
from openvino_llama_text.rerank import Ranked, Ranking, RerankRequest

__all__ = ["embeddings", "rerank"]


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class _Embedding(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class _Embeddings(msgspec.Struct, frozen=True):
    data: list[_Embedding]
    model: str
    usage: _Usage
    object: str = "list"


class _Reranked(msgspec.Struct, frozen=True):
    model: str
    results: list[Ranked]
    usage: _Usage


_EMBED = Annotated[EmbeddingBody, msgspec.Meta(examples=[{"input": ["A cat sits on the mat.", "Stocks fell."]}])]
_RERANK = Annotated[
    RerankBody,
    msgspec.Meta(examples=[{"query": "Where does the cat sleep?", "documents": ["Stocks fell.", "A kitten rests."]}]),
]


@post("/v1/embeddings", operation_class=operation(_EMBED, _Embeddings, ErrorBody), **OPTIONS)
async def embeddings(request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]) -> ASGIApp:
    """Turn texts into vectors."""
    return gateway.exchange(request, "v1/embeddings", _embed, refuse)


@post("/v1/rerank", operation_class=operation(_RERANK, _Reranked, ErrorBody), **OPTIONS)
async def rerank(request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]) -> ASGIApp:
    """Order documents by how well they answer a query."""
    return gateway.exchange(request, "v1/rerank", _rerank, refuse)


async def _embed(exchange: Exchange) -> ASGIApp:
    body = await read(exchange, EmbeddingBody)
    asked = body.asked()
    config = choose(exchange, body.model, type(asked))

    def finish(found: Embeddings) -> ASGIApp:
        vectors: list[Any] = found.vectors.tolist() if body.encoding_format != "base64" else _coded(found.vectors)
        data = [_Embedding(index, vector) for index, vector in enumerate(vectors)]
        return _json(_Embeddings(data, config.name, _Usage(found.tokens, found.tokens)))

    answer: ASGIApp = await exchange.infer(InferenceRequest(b"", JSON, asked), finish)
    return answer


async def _rerank(exchange: Exchange) -> ASGIApp:
    body = await read(exchange, RerankBody)
    config = choose(exchange, body.model, RerankRequest)

    def finish(found: Ranking) -> ASGIApp:
        return _json(_Reranked(config.name, found.results, _Usage(found.tokens, found.tokens)))

    answer: ASGIApp = await exchange.infer(InferenceRequest(b"", JSON, body), finish)
    return answer


def _coded(vectors: Any) -> list[str]:
    """Little-endian f32 in base64, as OpenAI's own client asks for."""
    return [base64.b64encode(vector).decode() for vector in np.ascontiguousarray(vectors, "<f4")]


def _json(answer: Any) -> ASGIApp:
    return ASGIResponse(body=msgspec.json.encode(answer), media_type=JSON)
