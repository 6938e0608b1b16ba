"""What a client asks of a generative model, and how it is read from a body. Knows nothing of tokens."""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs

import msgspec

from openvino_llama import InferenceRequest, InvalidInputError, check_nesting, read_fields, read_json
from openvino_llama_text.sampling import Sampling, TokenId

__all__ = [
    "FORM",
    "JSON",
    "PICTURE",
    "PLAIN",
    "Attachment",
    "GenerationRequest",
    "IllustratedRequest",
    "Message",
    "Role",
    "TextParameters",
    "read_request",
]

JSON = "application/json"
PLAIN = "text/plain"
FORM = "application/x-www-form-urlencoded"

PICTURE = "\ufdd1"
"""Where a picture stands in a message; one of Unicode's noncharacters, which no text holds that is meant for others."""

_MAX_MESSAGES = 4096
_MOST_FIELDS = 64

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
"""Those of OpenAI's API. What a model's template makes of them is its own."""

Body = TypeVar("Body", bound=msgspec.Struct)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message of a chat."""

    role: Role
    content: str
    name: str | None = None


class GenerationRequest(Sampling, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The body of ``POST /infer/text`` for a model that generates."""

    prompt: str | Annotated[list[TokenId], msgspec.Meta(min_length=1)] | None = None
    """The text to continue, or its token ids."""
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=_MAX_MESSAGES)] | None = None
    """A chat to answer, by the model's chat template; in place of ``prompt``."""
    template_variables: dict[str, Any] = {}  # noqa: RUF012 - a Struct's field
    """What else the chat template is given: ``{"enable_thinking": false}``."""
    echo: bool = False
    """Whether the generated text begins with the prompt."""
    logprobs: bool = False
    """Whether the logarithm of each generated token's probability is wanted."""
    return_token_ids: bool = False
    """Whether the ids of the prompt and of what was generated are wanted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.prompt is None) == (self.messages is None):
            came = "neither" if self.prompt is None else "both"
            raise ValueError(f"prompt: expected either 'prompt' or 'messages', got {came}")
        if self.echo and not isinstance(self.prompt, str):
            raise ValueError("echo: it is for a prompt that is a text")
        if self.template_variables:
            check_nesting(self.template_variables, "template_variables")


class Attachment(msgspec.Struct, frozen=True):
    """A picture that came with a text."""

    name: str
    """Where it was in the request."""
    media_type: str
    """As stated; empty says nothing."""
    base64: str

    def body(self) -> bytes:
        """The picture's file, which may be large: decoded where it is wanted. InvalidInputError if it is no base64."""
        try:
            return b64decode(self.base64, validate=True)
        except ValueError as error:
            raise InvalidInputError(f"{self.name}: what follows 'base64,' is not base64") from error


class IllustratedRequest(GenerationRequest, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What routes hand over for models that take pictures."""

    pictures: tuple[Attachment, ...]
    """One for each PICTURE in the messages, in their order."""


class TextParameters(Sampling, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What the query of ``POST /infer/text`` may state in place of the body."""

    echo: bool = False
    """Whether the generated text begins with the prompt."""
    logprobs: bool = False
    """Whether the logarithm of each generated token's probability is wanted."""
    return_token_ids: bool = False
    """Whether the ids of the prompt and of what was generated are wanted."""
    dimensions: int | None = None
    """Embedding: how many of the vectors' numbers are wanted."""
    truncate: bool = True
    """Embedding and classification: whether a text that is too long loses its end; else it is an error."""


def read_request(request: InferenceRequest, kind: type[Body]) -> Body:
    """The request of that kind; InvalidInputError names the field that is wrong.

    One that comes from another route has been read there. A plain text is the field that texts go into.
    """
    if isinstance(request.parameters, kind):
        return request.parameters
    stated = msgspec.to_builtins(request.parameters) if request.parameters is not None else {}
    if request.media_type == PLAIN:
        return read_fields({_text_field(kind): _text(request.body)} | stated, kind)
    if request.media_type == FORM:
        return read_fields(_fields(request.body) | stated, kind, strict=False)
    if stated:
        return read_fields(read_json(request.body, dict[str, Any]) | stated, kind)
    return read_json(request.body, kind)


def _text_field(kind: type[msgspec.Struct]) -> str:
    """The field that a plain text is: ``prompt``, ``input`` or ``query``."""
    fields = kind.__struct_fields__
    return next(name for name in ("prompt", "input", "query") if name in fields)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the body is not UTF-8 at byte {error.start}") from error


def _fields(body: bytes) -> dict[str, Any]:
    """A form's fields; one that is given several times is a list."""
    if body.lstrip().startswith(b"{"):  # what curl sends unless it is told otherwise
        raise InvalidInputError(f"Content-Type: got {FORM}, but the body looks like JSON, which needs {JSON}")
    if body.count(b"&") >= _MOST_FIELDS:
        raise InvalidInputError(f"the form: expected at most {_MOST_FIELDS} fields")
    try:
        given = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict")
    except UnicodeError as error:
        raise InvalidInputError("the form: a field is not UTF-8") from error
    except ValueError as error:
        raise InvalidInputError(
            f"Content-Type: got {FORM}, but the body is not NAME=VALUE&NAME=VALUE; JSON needs {JSON}, a text {PLAIN}"
        ) from error
    return {name: values[0] if len(values) == 1 else values for name, values in given.items()}
