"""``GET /v1/models``: the models that serve, of all types that answer what these routes ask."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from openvino_llama import ModelNotFoundError
from openvino_llama.web import operation
from openvino_llama_text.embedding import EmbeddingRequest
from openvino_llama_text.openai.errors import TAGS, ErrorBody, answer_error
from openvino_llama_text.requests import GenerationRequest
from openvino_llama_text.rerank import RerankRequest

__all__ = ["list_models", "show_model"]

_STARTED = int(time.time())
_ROUTES: dict[str, type[msgspec.Struct]] = {
    "chat/completions": GenerationRequest,
    "completions": GenerationRequest,
    "embeddings": EmbeddingRequest,
    "rerank": RerankRequest,
}
"""The requests that the routes make of a body without pictures."""


class _Model(msgspec.Struct, frozen=True):
    id: str
    task: str
    """Not OpenAI's, like the next two."""
    answers: list[str]
    """The routes below ``/v1`` that it can be named in."""
    active: bool
    """Whether it may be meant by requests that name none."""
    object: str = "model"
    created: int = _STARTED
    owned_by: str = "openvino-llama"


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]
    object: str = "list"


_OPTIONS: dict[str, Any] = {
    "operation_class": operation(error=ErrorBody),
    "tags": TAGS,
    "exception_handlers": {Exception: answer_error},
}


@get("/v1/models", **_OPTIONS)
async def list_models(pipeline: NamedDependency[Any]) -> _Models:
    """The models that serve."""
    return _Models(_serving(pipeline))


@get("/v1/models/{name:path}", **_OPTIONS)
async def show_model(name: FromPath[str], pipeline: NamedDependency[Any]) -> _Model:
    """One of them."""
    wanted = name.removeprefix("/")
    for model in _serving(pipeline):
        if model.id == wanted:
            return model
    raise ModelNotFoundError(f"no model {wanted!r} serves; GET /v1/models lists those that do")


def _serving(pipeline: Any) -> list[_Model]:
    models = pipeline.models
    return [
        _Model(each.name, each.entry.task, _answered(each), active=models.active_for(each.name) is not None)
        for each in models.all()
        if each.model_type is not None and each.model_type.answers
    ]


def _answered(model: Any) -> list[str]:
    asked = model.model_type.answers
    return [route for route, kind in _ROUTES.items() if model.entry.task in asked.get(kind, ())]
