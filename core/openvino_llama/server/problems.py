"""Errors as problem answers (RFC 9457, ``application/problem+json``).

One table maps the error tree to statuses, along each class's MRO. Nothing but the messages that were written for
clients goes out: never a traceback, a path or a library's text.
"""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from openvino_llama import errors

__all__ = ["STATUSES", "Problem", "answer_problem", "headers_of", "problem_of", "status_of"]

logger = logging.getLogger(__name__)

STATUSES: dict[type[BaseException], int] = {
    errors.RequestError: 400,
    errors.InputTooLargeError: 413,
    errors.UnsupportedMediaTypeError: 415,
    errors.NotAcceptableError: 406,
    errors.ConfigError: 400,
    errors.PluginError: 400,
    errors.ModelNotFoundError: 404,
    errors.ModelConflictError: 409,
    errors.ModelLoadError: 422,
    errors.UnavailableError: 503,
    errors.DeadlineExceededError: 504,
    errors.RequestCancelledError: 499,
    errors.InvalidTensorError: 422,
    errors.SandboxError: 500,
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457's members."""

    status: int
    title: str
    detail: str = ""
    type: str = "about:blank"
    accepts: tuple[str, ...] = ()
    """Extension: the media types that the route accepts."""


def status_of(error: BaseException) -> int:
    """The status of the nearest class in the error's MRO; 500 if none is listed."""
    if isinstance(error, HTTPException):
        return error.status_code
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error; what it is not told is logged."""
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _title(error.status_code), _detail(error))
    if not isinstance(error, errors.OpenVINOLlamaError):
        logger.error("a request failed", exc_info=error)
        return Problem(500, _title(500), "an unexpected error, which the server's log has")
    status = status_of(error)
    if status >= 500:
        cause = None if isinstance(error, errors.HookError) else error.__cause__  # logged where it was raised
        logger.warning("%s: %s", type(error).__name__, error, exc_info=cause)
    accepts = error.accepts if isinstance(error, errors.UnsupportedMediaTypeError) else ()
    return Problem(status, _title(status), str(error), accepts=accepts)


def answer_problem(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    return _respond(problem_of(error), headers_of(error))


def headers_of(error: Exception) -> dict[str, str]:
    """Headers that belong to the answer of an error."""
    if isinstance(error, HTTPException):
        return dict(error.headers or {})
    if isinstance(error, errors.UnavailableError):
        return {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, errors.UnsupportedMediaTypeError) and error.codings:
        return {"Accept-Encoding": ", ".join(error.codings)}
    if isinstance(error, errors.UnsupportedMediaTypeError):
        return {"Accept": ", ".join(error.accepts)}
    return {}


def _detail(error: HTTPException) -> str:
    # A server error's detail may quote an exception.
    return error.detail if error.status_code < 500 else ""


def _title(status: int) -> str:
    return HTTPStatus(status).phrase if status != 499 else "Client Closed Request"


def _respond(problem: Problem, headers: dict[str, str]) -> Response[bytes]:
    content = msgspec.json.encode(problem)
    return Response(content, status_code=problem.status, media_type="application/problem+json", headers=headers)
