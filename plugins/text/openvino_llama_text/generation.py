"""Generating text: from a request to the tensors of the engine's graph, and from its tokens to text.

Knows neither the engine nor HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import Chunk, ConfigError, InferenceRequest, InvalidInputError, ModelConfig, Preprocessed
from openvino_llama_text.chat import chat_template_of
from openvino_llama_text.detokenizer import Detokenizer
from openvino_llama_text.files import facts_of
from openvino_llama_text.requests import GenerationRequest, read_request
from openvino_llama_text.sampling import Sampling, defaults_of, with_defaults
from openvino_llama_text.stops import StopStrings
from openvino_llama_text.tokenizers import Tokenizer, find_tokenizer

__all__ = ["Generated", "Piece", "Usage", "context_window", "max_prompt", "postprocess", "preprocess", "validate"]

DEFAULT_MAX_TOKENS = 256
"""Of a text that is continued, where nobody says."""

_NOT_FOR_ENGINE = ("stop",)


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has come of a text since the last piece."""

    text: str
    token_ids: list[int] = []
    logprobs: list[float] = []


class Usage(msgspec.Struct, frozen=True):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Generated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A generated text."""

    generated_text: str
    tokens_generated: int
    finish_reason: str
    """``stop``: the model, a stop string or a stop token ended it; ``length``: it has as many tokens as it may."""
    usage: Usage
    prompt_token_ids: list[int] = []
    token_ids: list[int] = []
    logprobs: list[float] = []


class _Text:
    """One text as it grows: what is remembered of a request."""

    def __init__(self, asked: GenerationRequest, sampling: Sampling, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.ended = False
        self.asked = asked
        self.prompt = prompt
        self._most = sampling.max_tokens or DEFAULT_MAX_TOKENS
        self._ends = frozenset(() if sampling.ignore_eos else sampling.stop_token_ids)
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(sampling.stops)
        self._stopped = False
        self._text = asked.prompt if asked.echo and isinstance(asked.prompt, str) else ""
        self._sent = 0, 0  # characters, tokens

    def add(self, ids: list[int], logprobs: list[float]) -> None:
        """Some tokens more; at the last one, what was held back comes too."""
        self.ids += ids
        self.logprobs += logprobs
        by_token = ids[-1] in self._ends
        self._push(self._detokenizer.push(ids[:-1] if by_token else ids))
        if by_token or len(self.ids) >= self._most:
            self.end()

    def end(self) -> None:
        """There will be no further token: half a character, or the beginning of a stop string, is what it is."""
        if not self.ended:
            self._push(self._detokenizer.flush())
            self._text += self._stops.flush()
            self.ended = True

    def news(self) -> Piece | None:
        """What has not been asked for yet."""
        characters, tokens = self._sent
        self._sent = len(self._text), len(self.ids)
        if len(self._text) == characters and not self.logprobs[tokens:]:
            return None
        ids = self.ids[tokens:] if self.asked.return_token_ids or self.asked.logprobs else []
        return Piece(self._text[characters:], ids, self.logprobs[tokens:])

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been found: the engine does not know of them."""
        return self._stopped

    def whole(self) -> Generated:
        """The answer."""
        prompt, count = len(self.prompt), len(self.ids)
        by_token = bool(self.ids) and self.ids[-1] in self._ends
        shown = self.asked.return_token_ids
        return Generated(
            generated_text=self._text,
            tokens_generated=count,
            finish_reason="stop" if by_token or self._stopped else "length",
            usage=Usage(prompt, count, prompt + count),
            prompt_token_ids=self.prompt if shown else [],
            token_ids=self.ids if shown or self.asked.logprobs else [],
            logprobs=self.logprobs,
        )

    def _push(self, piece: str) -> None:
        text, self._stopped = self._stops.push(piece)
        self._text += text


def validate(config: ModelConfig) -> None:
    """Refuse a model whose tokenizer, defaults or end of text are not known; what they are is kept."""
    find_tokenizer(config)
    defaults_of(config)
    with suppress(InvalidInputError):  # a model without a template continues texts
        chat_template_of(config)
    if not facts_of(config).eos_token_ids:
        raise ConfigError(
            f"model {config.name!r}: no file beside it says which token ends a text; generation_config.json with "
            f"eos_token_id does"
        )


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    """The tensors of a request: ``input_ids`` (1, prompt), and ``parameters``, JSON as bytes."""
    asked = read_request(request, GenerationRequest)
    tokenizer = find_tokenizer(config)
    prompt = _prompt_ids(config, asked, tokenizer)
    sampling = _completed(config, asked, len(prompt))
    tensors: dict[str, NDArray[Any]] = {
        "input_ids": np.asarray([prompt], np.int64),
        "parameters": np.frombuffer(_engine_parameters(sampling), np.uint8),
    }
    return Preprocessed(tensors, _Text(asked, sampling, tokenizer, prompt))


def postprocess(outputs: Mapping[str, NDArray[Any]], text: _Text) -> Chunk | Generated:
    """A piece of the text for each output; the whole text at the end."""
    if not outputs:
        text.end()
        return text.whole()
    ids: list[int] = outputs["tokens"].tolist()
    text.add(ids, outputs["logprobs"].tolist())
    return Chunk(text.news(), tokens=len(ids), last=text.stopped)


def context_window(config: ModelConfig) -> int | None:
    """Most tokens of a prompt and its answer together; None if nobody says."""
    stated: int | None = config.config.context_window
    return stated or facts_of(config).max_positions


def max_prompt(config: ModelConfig) -> int | None:
    """Most tokens of a prompt, which leaves one for the answer."""
    window = context_window(config)
    limits = (config.config.max_sequence_length, config.limits.max_sequence_length, window and window - 1)
    return min((limit for limit in limits if limit), default=None)


def _prompt_ids(config: ModelConfig, asked: GenerationRequest, tokenizer: Tokenizer) -> list[int]:
    most = max_prompt(config)
    if asked.messages is not None:
        messages = [msgspec.to_builtins(message) for message in asked.messages]
        text = chat_template_of(config).render(messages, **asked.template_variables)
        return tokenizer.encode(text, add_special_tokens=False, most=most)
    if isinstance(asked.prompt, str):
        ids = tokenizer.encode(asked.prompt, most=most)
        if not ids:
            raise InvalidInputError("prompt: expected some text, got none")
        return ids
    return _checked_ids(asked.prompt or [], tokenizer.vocab_size, most)


def _checked_ids(ids: list[int], vocab_size: int, most: int | None) -> list[int]:
    wrong = next((each for each in ids if each >= vocab_size), None)
    if wrong is not None:
        raise InvalidInputError(f"prompt: expected token ids below {vocab_size}, got {wrong}")
    if most is not None and len(ids) > most:
        raise InvalidInputError(f"prompt: it has {len(ids)} tokens, the model takes at most {most}")
    return ids


def _completed(config: ModelConfig, asked: GenerationRequest, prompt: int) -> Sampling:
    """The sampling of a request with everything stated."""
    sampling = with_defaults(asked, defaults_of(config))
    window = context_window(config)
    room = window - prompt if window else None
    most = sampling.max_tokens
    if most is None:
        most = _default_most(asked, room)
    elif room is not None and most > room:
        if asked.max_tokens is not None:
            raise InvalidInputError(
                f"max_tokens: the prompt has {prompt} tokens, and {most} more are asked for; "
                f"the model's context has {window}"
            )
        most = room
    ends = {*sampling.stop_token_ids, *facts_of(config).eos_token_ids}
    return msgspec.structs.replace(sampling, max_tokens=most, stop_token_ids=sorted(ends))


def _default_most(asked: GenerationRequest, room: int | None) -> int:
    """An answer in a chat ends by itself, and has all the room there is; a text that goes on might not."""
    if room is None or asked.messages is None:
        return min(DEFAULT_MAX_TOKENS, room or DEFAULT_MAX_TOKENS)
    return room


def _engine_parameters(sampling: Sampling) -> bytes:
    stated = {name: getattr(sampling, name) for name in Sampling.__struct_fields__ if name not in _NOT_FOR_ENGINE}
    if isinstance(sampling.json_schema, dict):
        stated["json_schema"] = msgspec.json.encode(sampling.json_schema).decode()
    return msgspec.json.encode({name: value for name, value in stated.items() if value is not None})
