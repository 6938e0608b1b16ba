"""The bodies of requests: which fields there are. One that is not among them is refused by name, not ignored."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from openvino_llama import InvalidInputError, UnsupportedMediaTypeError, read_fields
from openvino_llama.web import Exchange, decode_object
from openvino_llama_text.embedding import EmbeddingRequest, IllustratedEmbeddingRequest
from openvino_llama_text.openai.contents import read_content, read_item
from openvino_llama_text.requests import JSON, Attachment, GenerationRequest, IllustratedRequest, Message, Role
from openvino_llama_text.rerank import RerankRequest
from openvino_llama_text.sampling import Sampling

__all__ = ["ChatBody", "CompletionBody", "EmbeddingBody", "RerankBody", "StreamOptions", "read"]

_LARGE = 256 << 10
"""Bytes; a body as large as this is decoded off the event loop."""
_MAX_CHOICES = 16

Body = TypeVar("Body", bound=msgspec.Struct)


Nothing = Annotated[list[Any], msgspec.Meta(max_length=0)] | None
"""Clients send answers back as they came, with all fields that could have been in them."""


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``stream_options``."""

    include_usage: bool = False


class _ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Role
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: None = None
    annotations: Nothing = None
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = None

    def plain(self, where: str) -> tuple[Message, list[Attachment]]:
        """With all its text in one, and its pictures; ``where`` is what it is called if it has something else."""
        if self.tool_calls:
            raise InvalidInputError(f"{where}.tool_calls: calling tools is not supported")
        if self.content is None and self.role != "assistant":  # an answer of nothing may be sent back
            raise InvalidInputError(f"{where}.content: expected a text or parts, got none")
        text, pictures = read_content(self.content, f"{where}.content")
        return Message("system" if self.role == "developer" else self.role, text, self.name), pictures


class _JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class _ResponseFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    json_schema: _JsonSchema | None = None

    def schema(self) -> dict[str, Any] | None:
        """The schema that the text must follow; None is any text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.type == "json_schema" and self.json_schema is not None and self.json_schema.schema is not None:
            return self.json_schema.schema
        expected = "text, json_object, or json_schema with json_schema.schema"
        raise InvalidInputError(f"response_format: expected the type {expected}; got {self.type!r}")


class _Sampled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What chats and completions have in common; the last ones are vLLM's.

    What asks for nothing (``logit_bias: {}``), or is only for whoever keeps requests (``user``), changes nothing.
    """

    model: str | None = None
    max_tokens: int | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: float | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=_MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    logit_bias: Annotated[dict[str, float], msgspec.Meta(max_length=0)] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    regex: str | None = None
    grammar: str | None = None

    def sampling(self) -> dict[str, Any]:
        """What is stated of how tokens are chosen, by the names of a GenerationRequest."""
        if self.stream_options is not None and not self.stream:
            raise InvalidInputError("stream_options: it is for streams; stream is not true")
        return {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}


_SAMPLING = tuple(name for name in _Sampled.__struct_fields__ if name in Sampling.__struct_fields__)


class ChatBody(_Sampled, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[_ChatMessage], msgspec.Meta(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: _ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: list[Any] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def asked(self) -> GenerationRequest:
        """The same as a request of the model type; InvalidInputError names what is wrong."""
        if self.tools:
            raise InvalidInputError("tools: calling tools is not supported")
        if self.top_logprobs:
            raise InvalidInputError("top_logprobs: only the chosen token's probability is known; expected 0")
        plain = [message.plain(f"messages[{index}]") for index, message in enumerate(self.messages)]
        stated = self.sampling() | {
            "messages": [message for message, _ in plain],
            "logprobs": bool(self.logprobs),
            "template_variables": self.chat_template_kwargs or {},
        }
        if self.max_completion_tokens is not None:
            stated["max_tokens"] = self.max_completion_tokens
        schema = self.response_format.schema() if self.response_format else None
        asked = _converted(stated | ({"json_schema": schema} if schema is not None else {}))
        pictures = tuple(picture for _, each in plain for picture in each)
        return IllustratedRequest(**msgspec.structs.asdict(asked), pictures=pictures) if pictures else asked


class CompletionBody(_Sampled, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[Any]
    """A text, texts, token ids, or several of those."""
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=1)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    suffix: None = None

    def asked(self) -> list[GenerationRequest]:
        """One request of the model type for each prompt."""
        stated = {"max_tokens": 16} | self.sampling()  # as OpenAI's
        stated |= {"echo": bool(self.echo), "logprobs": self.logprobs is not None}
        prompts = self.prompt if _is_several(self.prompt) else [self.prompt]
        if not 0 < len(prompts) <= _MAX_CHOICES:
            raise InvalidInputError(f"prompt: expected 1 to {_MAX_CHOICES} prompts, got {len(prompts)}")
        if len(prompts) * (self.n or 1) > _MAX_CHOICES:
            raise InvalidInputError(f"n: expected {_MAX_CHOICES} texts at most, got {len(prompts)} prompts for each n")
        return [_converted(stated | {"prompt": prompt}) for prompt in prompts]


class EmbeddingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /v1/embeddings``; pictures stand beside texts as in Jina's."""

    input: str | list[str | dict[str, Any]]
    """A text, or several items: texts, ``{"text": ...}`` or ``{"image": "data:..."}``."""
    dimensions: int | None = None
    truncate: bool = True
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    def asked(self) -> EmbeddingRequest | IllustratedEmbeddingRequest:
        """The same as a request of the model type; InvalidInputError names what is wrong."""
        given = self.input
        if not isinstance(given, str):
            items = [read_item(each, f"input[{index}]") for index, each in enumerate(given)]
            if any(isinstance(each, Attachment) for each in items):
                return self._converted(items, IllustratedEmbeddingRequest)
            given = [str(each) for each in items]
        return self._converted(given, EmbeddingRequest)

    def _converted(self, given: Any, kind: type[Body]) -> Body:
        return read_fields({"input": given, "dimensions": self.dimensions, "truncate": self.truncate}, kind)


class RerankBody(RerankRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /v1/rerank``, as Jina's and Cohere's."""

    model: str | None = None


async def read(exchange: Exchange, kind: type[Body]) -> Body:
    """The body of a request; InvalidInputError names the field that is wrong."""
    stated = exchange.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated != JSON:  # a page of anybody's can have a browser send any of the few others
        came = f"got {stated[:80]!r}" if stated else "the request states none"
        raise UnsupportedMediaTypeError(f"Content-Type: expected {JSON}; {came}", (JSON,))
    body = await exchange.body()
    if len(body) > _LARGE:
        return await asyncio.to_thread(_decoded, body, kind)
    return _decoded(body, kind)


def _decoded(body: bytes, kind: type[Body]) -> Body:
    return read_fields(decode_object(body), kind)


def _converted(stated: dict[str, Any]) -> GenerationRequest:
    return read_fields(stated, GenerationRequest)


def _is_several(prompt: str | list[Any]) -> bool:
    return isinstance(prompt, list) and not (prompt and isinstance(prompt[0], int))
