"""Errors in OpenAI's shape: which field, which code, which type."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from litestar.exceptions import NotAuthorizedException

from openvino_llama import (
    ContextLengthError,
    InputTooLargeError,
    InvalidInputError,
    ModelNotFoundError,
    UnavailableError,
)
from openvino_llama_text.openai.errors import answer_error, error_body

TOO_LONG = "prompt: it has 9 tokens, the model takes at most 5"


def told(error: Exception) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(error_body(error))
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return body["error"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("field 'max_tokens': expected int, got 'x'", "max_tokens"),
        ("field 'messages[0].content': expected str, got 1", "messages[0].content"),
        ("field 'tools': there is no such field", "tools"),
        ("field 'messages': is required", "messages"),
        ("stop[3]: expected 1 to 1024 characters, got 0", "stop"),
        ("max_tokens: the prompt has 5 tokens, and 3 more are asked for; the model's context has 6", "max_tokens"),
        ("parameter 'regex' is not a regular expression that can be enforced", "regex"),
        ("the body is empty; expected JSON", None),
    ],
)
def test_the_field_that_is_wrong(message: str, param: str | None) -> None:
    assert told(InvalidInputError(message))["param"] == param


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ModelNotFoundError("no model"), "invalid_request_error", "model_not_found"),
        (
            ContextLengthError("prompt: it has 9 tokens, the model takes at most 5"),
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (InputTooLargeError("the body is larger than the limit"), "invalid_request_error", None),
        (UnavailableError("later"), "server_error", None),
        (NotAuthorizedException("a key is needed"), "authentication_error", None),
        (ValueError("a secret"), "server_error", None),
    ],
)
def test_types_and_codes(error: Exception, kind: str, code: str | None) -> None:
    """As clients look for; what is no error of the project's own says nothing of itself."""
    found = told(error)
    assert (found["type"], found["code"]) == (kind, code)
    assert "secret" not in found["message"]


def test_headers() -> None:
    """Whoever is to come again is told when."""
    request: Any = None
    answer = answer_error(request, UnavailableError("later"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
