"""How generated texts look in the answers for chats and for completions, whole and in pieces."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from openvino_llama_text.answers import Generated, Piece, Usage
from openvino_llama_text.tokenizers import Tokenizer

__all__ = ["Chat", "ChatShape", "Completion", "CompletionShape", "Envelope", "Shape", "new_id", "now", "total"]


Choice = TypeVar("Choice")


class Envelope(msgspec.Struct, Generic[Choice], frozen=True, omit_defaults=True):
    """What is around the choices."""

    id: str
    object: str
    created: int
    model: str
    choices: Sequence[Choice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET


class Shape(Protocol):
    """One way in which choices look."""

    prefix: str
    """Of the id."""
    object: str
    piece_object: str

    def whole(self, index: int, text: Generated) -> Any:
        """A choice that is complete."""

    def begin(self, index: int) -> Any | None:
        """What a choice's stream begins with, if with anything of its own."""

    def piece(self, index: int, piece: Piece) -> Any:
        """A piece of a choice."""

    def end(self, index: int, text: Generated, rest: str) -> Any:
        """What a choice's stream ends with; ``rest`` is what no piece has had."""


class _TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: Sequence[Any] = ()


class _ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[_TokenLogprob]
    refusal: None = None


class _ChatMessage(msgspec.Struct, frozen=True):
    content: str
    role: str = "assistant"
    refusal: None = None


class _ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: _ChatMessage
    finish_reason: str
    logprobs: _ChatLogprobs | None = None


class _Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str | None = None
    content: str | None = None


class _ChatPiece(msgspec.Struct, frozen=True):
    index: int
    delta: _Delta
    logprobs: _ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatShape:
    """``chat.completion`` and ``chat.completion.chunk``."""

    prefix = "chatcmpl-"
    object = "chat.completion"
    piece_object = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs

    def whole(self, index: int, text: Generated) -> Any:
        """A message and why it ended."""
        message = _ChatMessage(text.generated_text)
        return _ChatChoice(index, message, text.finish_reason, self._described(text.token_ids, text.logprobs))

    def begin(self, index: int) -> Any | None:
        """The role."""
        return _ChatPiece(index, _Delta("assistant", ""))

    def piece(self, index: int, piece: Piece) -> Any:
        """Some content."""
        return _ChatPiece(index, _Delta(content=piece.text), self._described(piece.token_ids, piece.logprobs))

    def end(self, index: int, text: Generated, rest: str) -> Any:
        """Why it ended."""
        return _ChatPiece(index, _Delta(content=rest or None), finish_reason=text.finish_reason)

    def _described(self, ids: list[int], logprobs: list[float]) -> _ChatLogprobs | None:
        if not self._logprobs:
            return None
        tokens = _shown(self._tokenizer, ids, logprobs)
        return _ChatLogprobs([_TokenLogprob(_text(token), logprob, list(token)) for token, logprob in tokens])


class _Logprobs(msgspec.Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float]
    text_offset: list[int]
    top_logprobs: None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int
    text: str
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class CompletionShape:
    """``text_completion``, whole or in pieces."""

    prefix = "cmpl-"
    object = "text_completion"
    piece_object = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, echoed: Sequence[str]) -> None:
        """``echoed``: what each choice's text begins with that was not generated."""
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._offsets = [len(each) for each in echoed]
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in echoed]

    def whole(self, index: int, text: Generated) -> Any:
        """A text and why it ended."""
        logprobs = self._described(index, text.token_ids, text.logprobs)
        return _Choice(index, text.generated_text, logprobs, text.finish_reason)

    def begin(self, index: int) -> Any | None:  # noqa: ARG002
        """Nothing."""
        return None

    def piece(self, index: int, piece: Piece) -> Any:
        """Some text."""
        return _Choice(index, piece.text, self._described(index, piece.token_ids, piece.logprobs))

    def end(self, index: int, text: Generated, rest: str) -> Any:
        """Why it ended."""
        return _Choice(index, rest, finish_reason=text.finish_reason)

    def _described(self, index: int, ids: list[int], logprobs: list[float]) -> _Logprobs | None:
        if not self._logprobs:
            return None
        tokens = _shown(self._tokenizer, ids, logprobs)
        texts = [_text(token) for token, _ in tokens]
        return _Logprobs(texts, [value for _, value in tokens], [self._offset(index, token) for token, _ in tokens])

    def _offset(self, index: int, token: bytes) -> int:
        """Where in the choice's text the token begins, or the character that it is part of."""
        offset = self._offsets[index]
        self._offsets[index] += len(self._decoders[index].decode(token))
        return offset


Chat = Envelope[_ChatChoice]
Completion = Envelope[_Choice]


def new_id(shape: Shape) -> str:
    """An id for an answer."""
    return shape.prefix + uuid.uuid4().hex


def now() -> int:
    """Unix time in seconds."""
    return int(time.time())


def total(usages: Sequence[Usage]) -> Usage:
    """The sum of all."""
    prompt = sum(each.prompt_tokens for each in usages)
    completion = sum(each.completion_tokens for each in usages)
    return Usage(prompt, completion, prompt + completion)


def _shown(tokenizer: Tokenizer, ids: list[int], logprobs: list[float]) -> list[tuple[bytes, float]]:
    """The tokens that stand for text, with the logarithms of their probabilities."""
    tokens = zip(ids, logprobs, strict=True)
    return [(_bytes(tokenizer, each), value) for each, value in tokens if each not in tokenizer.special_ids]


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    if tokenizer.pieces is not None and token < len(tokenizer.pieces.all):
        return tokenizer.pieces.all[token]
    return tokenizer.decode([token], skip_special_tokens=False).encode()


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")
