"""``POST /infer/<endpoint>`` for each registered model type, ``/infer/<endpoint>/stream`` for those that stream."""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from openvino_llama.config import ModelType
from openvino_llama.errors import HookError, InvalidInputError
from openvino_llama.hookspecs import InferenceRequest, Reply
from openvino_llama.models import Model
from openvino_llama.pipeline import read_parameters, told_apart
from openvino_llama.server.answers import WholeAnswer
from openvino_llama.server.bodies import FORM, MULTIPART, header, media_type_of, preferred
from openvino_llama.server.events import event, open_events
from openvino_llama.server.exchange import Exchange
from openvino_llama.server.openapi import inference_operation, stream_operation
from openvino_llama.server.problems import problem_of
from openvino_llama.server.state import Server

__all__ = ["inference_routes"]

HttpRequest = Request[Any, Any, Any]

_IN_HEADERS = "".join(map(chr, range(0x20, 0x7F)))
_EVENTS = "text/event-stream"


class Answer(msgspec.Struct, frozen=True):
    """What a client gets."""

    model_type: str
    task: str
    results: Any


def inference_routes(model_type: ModelType, server: Server) -> list[HTTPRouteHandler]:
    """The routes of a model type."""
    routes = [_infer_route(model_type, server)]
    if model_type.streaming:
        routes.append(_stream_route(model_type, server))
    if model_type.streaming and FORM in model_type.accepts:
        routes.append(_browser_route(model_type, server))
    return routes


def _infer_route(model_type: ModelType, server: Server) -> HTTPRouteHandler:
    @post(
        f"/infer/{model_type.endpoint}",
        name=f"infer_{model_type.endpoint}",
        status_code=200,
        request_max_body_size=server.settings.max_body_bytes,
        operation_class=inference_operation(model_type),
        summary=f"Run a {model_type.name} model",
        tags=["inference"],
    )
    async def infer(request: HttpRequest) -> ASGIApp:
        return Exchange(server, request, model_type.endpoint, partial(_infer, model_type))

    return infer


def _stream_route(model_type: ModelType, server: Server) -> HTTPRouteHandler:
    @post(
        f"/infer/{model_type.endpoint}/stream",
        name=f"stream_{model_type.endpoint}",
        status_code=200,
        request_max_body_size=server.settings.max_body_bytes,
        operation_class=stream_operation(model_type),
        summary=f"Run a {model_type.name} model, output by output",
        tags=["inference"],
    )
    async def stream(request: HttpRequest) -> ASGIApp:
        return Exchange(server, request, f"{model_type.endpoint}/stream", partial(_stream, model_type))

    return stream


def _browser_route(model_type: ModelType, server: Server) -> HTTPRouteHandler:
    """The same for a browser's EventSource, which can only GET: the query is what a form's body would be."""

    @get(
        f"/infer/{model_type.endpoint}/stream",
        name=f"stream_{model_type.endpoint}_by_query",
        operation_class=stream_operation(model_type, by_query=True),
        summary=f"Run a {model_type.name} model, output by output, for EventSource",
        tags=["inference"],
    )
    async def listen(request: HttpRequest) -> ASGIApp:
        if "last-event-id" in request.headers:  # an EventSource connects again; what has ended cannot be resumed,
            return ASGIResponse(status_code=204)  # and only this makes it stop
        return Exchange(server, request, f"{model_type.endpoint}/stream", partial(_stream, model_type))

    return listen


async def _infer(model_type: ModelType, exchange: Exchange) -> ASGIApp:
    parameters = _query(exchange.request)
    model = exchange.choose(model_type.name, parameters.pop("model", None))
    wanted = await _read(exchange, model_type, parameters, model_type.produces)
    answer: ASGIApp = await exchange.infer(wanted, partial(_answer, model))
    return answer


async def _stream(model_type: ModelType, exchange: Exchange) -> ASGIApp:
    parameters = _query(exchange.request)
    model = exchange.choose(model_type.name, parameters.pop("model", None))
    if model.entry.task not in model_type.streaming:
        expected = ", ".join(model_type.streaming)
        raise InvalidInputError(
            f"model {model.name!r}: models with the task {expected} stream, this one has {model.entry.task!r}; "
            f"POST /infer/{model_type.endpoint} asks it"
        )
    wanted = await _read(exchange, model_type, parameters, (_EVENTS,), stream=True)
    numbers = count()
    events = exchange.stream(wanted, partial(_chunk, numbers), partial(_done, model, numbers))
    return open_events(events, partial(_failed, numbers), headers=_headers(model.name))


def _query(request: HttpRequest) -> dict[str, str]:
    pairs = list(request.query_params.multi_items())
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise InvalidInputError("query parameters: each may be given once")
    return parameters


async def _read(
    exchange: Exchange,
    model_type: ModelType,
    parameters: dict[str, str],
    produces: tuple[str, ...],
    *,
    stream: bool = False,
) -> InferenceRequest:
    """What the client wants; everything that can be refused is refused before the body is read."""
    request = exchange.request
    wanted = preferred(header(request, b"accept"), produces)
    if request.method == "GET":
        values, fields = told_apart(model_type, parameters)
        return InferenceRequest(urlencode(fields).encode(), FORM, values, wanted, stream=stream)
    media_type = media_type_of(request, model_type.accepts)
    values = read_parameters(model_type, parameters)
    if media_type == MULTIPART:
        return InferenceRequest(b"", media_type, values, wanted, await exchange.parts(), stream)
    return InferenceRequest(await exchange.body(), media_type, values, wanted, stream=stream)


def _answer(model: Model, result: Any) -> ASGIApp:
    """The response, ready to be sent; made on the worker, since results may be large."""
    if isinstance(result, Reply):
        if not isinstance(result.body, bytes):
            raise HookError(f"postprocess gave a Reply whose body is no bytes, but {type(result.body).__name__}")
        return WholeAnswer(result.body, _with_charset(result.media_type), _headers(model.name))
    return WholeAnswer(_encoded(model, result), "application/json", _headers(model.name))


def _chunk(numbers: count[int], data: Any) -> bytes:
    return event(msgspec.json.encode(data), number=next(numbers))


def _done(model: Model, numbers: count[int], result: Any) -> bytes:
    return event(_encoded(model, result), number=next(numbers), kind=b"done")


def _failed(numbers: count[int], error: Exception) -> bytes:
    # It has a number, too: an EventSource that was told none would ask again for what has just failed.
    return event(msgspec.json.encode(problem_of(error)), number=next(numbers), kind=b"error")


def _encoded(model: Model, result: Any) -> bytes:
    return msgspec.json.encode(Answer(model.entry.type, model.entry.task, result))


def _with_charset(media_type: str) -> str:
    """A text's media type says how it is encoded, also where the plugin does not."""
    is_silent = media_type.startswith("text/") and "charset=" not in media_type
    return f"{media_type}; charset=utf-8" if is_silent else media_type


@lru_cache
def _headers(model: str) -> tuple[tuple[bytes, bytes]]:
    """What an answer says of who has given it."""
    return ((b"ovllama-model", quote(model, safe=_IN_HEADERS).encode()),)
