"""``POST /infer/<endpoint>``, one route for each registered model type."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from openvino_llama.config import ModelType
from openvino_llama.errors import InvalidInputError, RequestCancelledError
from openvino_llama.hookspecs import InferenceRequest, Reply
from openvino_llama.models import Model
from openvino_llama.pipeline import read_parameters
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.server.bodies import MULTIPART, media_type_of, preferred, read_body, read_parts
from openvino_llama.server.metrics import Metrics
from openvino_llama.server.openapi import inference_operation
from openvino_llama.server.problems import status_of
from openvino_llama.server.state import Server

__all__ = ["inference_route"]


_IN_HEADERS = "".join(map(chr, range(0x20, 0x7F)))


class Answer(msgspec.Struct, frozen=True):
    """What a client gets."""

    model_type: str
    task: str
    results: Any


def inference_route(model_type: ModelType, server: Server) -> HTTPRouteHandler:
    """The route of a model type."""
    limit = server.settings.max_body_bytes

    @post(
        f"/infer/{model_type.endpoint}",
        name=f"infer_{model_type.endpoint}",
        status_code=200,
        request_max_body_size=limit,
        operation_class=inference_operation(model_type),
        summary=f"Run a {model_type.name} model",
    )
    async def infer(request: Request[Any, Any, Any]) -> ASGIApp:
        with _measured(server.metrics, model_type.endpoint) as seen:
            parameters = _query(request)
            model = server.pipeline.choose(model_type, parameters.pop("model", None))
            seen.model = model.name
            deadline = Deadline(model.entry.limits.deadline_s)
            model.serving.runner.check_room()
            with server.bodies.room(request):
                wanted = await _read_in_time(request, deadline, model_type, parameters, limit)
                with _cancelled_with_client(request):
                    answer: ASGIApp = await server.pipeline.infer(model, wanted, deadline, partial(_answer, model))
                    return answer

    return infer


def _query(request: Request[Any, Any, Any]) -> dict[str, str]:
    pairs = list(request.query_params.multi_items())
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise InvalidInputError("query parameters: each may be given once")
    return parameters


async def _read_in_time(
    request: Request[Any, Any, Any], deadline: Deadline, model_type: ModelType, parameters: dict[str, str], limit: int
) -> InferenceRequest:
    """A client that sends its body slower than the model's deadline is not waited for."""
    try:
        async with asyncio.timeout(deadline.remaining()):
            return await _read(request, model_type, parameters, limit)
    except TimeoutError:
        raise HTTPException(status_code=408, detail="the body did not come in time") from None


async def _read(
    request: Request[Any, Any, Any], model_type: ModelType, parameters: dict[str, str], limit: int
) -> InferenceRequest:
    """What the client wants; everything that can be refused is refused before the body is read."""
    media_type = media_type_of(request, model_type.accepts)
    produces = preferred(request.headers.get("accept"), model_type.produces)
    values = read_parameters(model_type, parameters)
    if media_type == MULTIPART:
        return InferenceRequest(b"", media_type, values, produces, await read_parts(request, limit))
    return InferenceRequest(await read_body(request, limit), media_type, values, produces)


def _answer(model: Model, result: Any) -> ASGIApp:
    """The response, ready to be sent; made on the worker, since results may be large."""
    headers = {"OVLLAMA-Model": quote(model.name, safe=_IN_HEADERS)}
    if isinstance(result, Reply):
        return ASGIResponse(body=result.body, media_type=result.media_type, headers=headers)
    answer = Answer(model.entry.type, model.entry.task, result)
    return ASGIResponse(body=msgspec.json.encode(answer), media_type="application/json", headers=headers)


@contextmanager
def _cancelled_with_client(request: Request[Any, Any, Any]) -> Iterator[None]:
    """Cancel the body when the client leaves, so that its request gives its place free."""
    task = asyncio.current_task()
    gone = asyncio.ensure_future(_disconnected(request))

    def leave(_: object) -> None:
        if task:
            task.cancel()

    gone.add_done_callback(leave)
    try:
        yield
    except asyncio.CancelledError:
        if gone.done() and task:
            task.uncancel()
            raise RequestCancelledError("the client has left") from None
        raise
    finally:
        gone.remove_done_callback(leave)
        gone.cancel()


async def _disconnected(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # what a multipart body has after its last part


class _Seen:
    """What is known of a request so far."""

    model = ""


@contextmanager
def _measured(metrics: Metrics, endpoint: str) -> Iterator[_Seen]:
    seen, started, status = _Seen(), time.perf_counter(), 200
    try:
        yield seen
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        metrics.request(endpoint, seen.model, status, time.perf_counter() - started)
