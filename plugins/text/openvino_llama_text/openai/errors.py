"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``. The statuses are the server's own."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.response import Response
from litestar.response.base import ASGIResponse

from openvino_llama import ContextLengthError, InvalidInputError, ModelNotFoundError
from openvino_llama.web import headers_of, problem_of

__all__ = ["OPTIONS", "TAGS", "ErrorBody", "answer_error", "error_body", "refuse"]

_FIELD = re.compile(r"^field '([^']+)'|^([a-z_]+)(?:\[\d+\]|\.[a-z_]+)*:|parameter '(\w+)'")


class _Error(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """What every error is answered with."""

    error: _Error


def error_body(error: Exception) -> bytes:
    """The error as JSON."""
    return _described(error)[1]


def refuse(error: Exception) -> ASGIResponse:
    """The answer to a request that failed."""
    status, body = _described(error)
    return ASGIResponse(body=body, status_code=status, media_type="application/json", headers=headers_of(error))


def answer_error(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The same for Litestar: what goes wrong before a route runs."""
    status, body = _described(error)
    return Response(body, status_code=status, media_type="application/json", headers=headers_of(error))


def _described(error: Exception) -> tuple[int, bytes]:
    problem = problem_of(error)
    message = problem.detail or problem.title
    described = _Error(message, _type(problem.status), _param(error, message), _code(error))
    return problem.status, msgspec.json.encode(ErrorBody(described))


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 403: "permission_error"}.get(status, "invalid_request_error")


def _param(error: Exception, message: str) -> str | None:
    """The field that is wrong, as far as the message names it."""
    if isinstance(error, ModelNotFoundError):
        return "model"
    if not isinstance(error, InvalidInputError | ContextLengthError):
        return None
    field = _FIELD.search(message)
    return next((each for each in field.groups() if each), None) if field else None


def _code(error: Exception) -> str | None:
    if isinstance(error, ModelNotFoundError):
        return "model_not_found"
    if isinstance(error, ContextLengthError):
        return "context_length_exceeded"
    return None


TAGS = ["openai"]
OPTIONS: dict[str, Any] = {
    "status_code": 200,
    "tags": TAGS,
    "exception_handlers": {Exception: answer_error},
    "request_max_body_size": None,  # the exchange has the server's own limit
}
"""Of every route that a body is sent to."""
