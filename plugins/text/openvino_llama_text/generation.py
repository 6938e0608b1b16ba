"""Generating text: from a request to the tensors of the engine's graph, and from its tensors to an answer.

Knows neither the engine nor HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import (
    Chunk,
    ConfigError,
    ContextLengthError,
    InferenceRequest,
    InvalidInputError,
    ModelConfig,
    Preprocessed,
    per_model,
)
from openvino_llama_text.answers import Answer, Generated
from openvino_llama_text.chat import chat_template_of
from openvino_llama_text.files import facts_of
from openvino_llama_text.requests import GenerationRequest, read_request
from openvino_llama_text.sampling import Sampling, defaults_of, with_defaults
from openvino_llama_text.tokenizers import Tokenizer, find_tokenizer

__all__ = [
    "complete",
    "context_window",
    "encode_prompt",
    "engine_parameters",
    "max_prompt",
    "postprocess",
    "preprocess",
    "take_output",
    "validate",
]

DEFAULT_MAX_TOKENS = 256
"""Of a text that is continued, where nobody says."""
DEFAULT_MAX_ANSWER = 2048
"""Of an answer in a chat: it mostly ends by itself, but the engine keeps room for all that it may have."""

_OF_SERVER = (
    "max_sequence_length, which is set for the server (--max-sequence-length, MAX_SEQUENCE_LENGTH) "
    "or in the limits of the model's registry entry"
)
_FOR_ENGINE = tuple(name for name in Sampling.__struct_fields__ if name != "stop")


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
    sampling = complete(config, asked, len(prompt))
    parameters = engine_parameters(sampling, logprobs=asked.logprobs)
    tensors: dict[str, NDArray[Any]] = {
        "input_ids": np.asarray([prompt], np.int64),
        "parameters": np.frombuffer(parameters, np.uint8),
    }
    return Preprocessed(tensors, Answer(asked, sampling, tokenizer, prompt))


def postprocess(outputs: Mapping[str, NDArray[Any]], answer: Answer) -> Chunk | Generated:
    """A piece of the text for each output; the whole text at the end."""
    if not outputs:
        answer.end()
        return answer.whole()
    return take_output(outputs, answer)


def take_output(outputs: Mapping[str, NDArray[Any]], answer: Answer) -> Chunk:
    """What one output of an engine adds to an answer."""
    taken = answer.add(outputs["tokens"].tolist(), outputs["logprobs"].tolist())
    return Chunk(answer.news(), tokens=taken, last=answer.ended)


def context_window(config: ModelConfig) -> int | None:
    """Most tokens of a prompt and its answer together; None if nobody says."""
    stated: int | None = config.config.context_window
    return stated or facts_of(config).max_positions


def max_prompt(config: ModelConfig) -> int | None:
    """Most tokens of a prompt, which leaves one for the answer."""
    return min(_limits(config), default=None)


@per_model
def _limits(config: ModelConfig) -> dict[int, str]:
    """The numbers of tokens that bound a prompt, and what each of them is."""
    window = context_window(config)
    found = (
        (config.limits.max_sequence_length, _OF_SERVER),
        (config.config.max_sequence_length, "max_sequence_length in the config of its registry entry"),
        (window and window - 1, f"its context has {window}, one of them for the answer"),
    )
    return {limit: reason for limit, reason in found if limit}


def encode_prompt(config: ModelConfig, text: str, *, add_special_tokens: bool = True) -> list[int]:
    """The tokens of a prompt; ContextLengthError says which limit it is that it has too many for."""
    most = max_prompt(config)
    try:
        return find_tokenizer(config).encode(text, add_special_tokens=add_special_tokens, most=most)
    except ContextLengthError as error:
        raise ContextLengthError(f"{error}: {_limits(config)[most or 0]}") from error


def _prompt_ids(config: ModelConfig, asked: GenerationRequest, tokenizer: Tokenizer) -> list[int]:
    if asked.messages is not None:
        messages = msgspec.to_builtins(asked.messages)
        text = chat_template_of(config).render(messages, **asked.template_variables)
        return encode_prompt(config, text, add_special_tokens=False)
    if isinstance(asked.prompt, str):
        ids = encode_prompt(config, asked.prompt)
        if not ids:
            raise InvalidInputError("prompt: expected some text, got none")
        return ids
    return _checked_ids(config, asked.prompt or [], tokenizer.vocab_size)


def _checked_ids(config: ModelConfig, ids: list[int], vocab_size: int) -> list[int]:
    wrong = next((each for each in ids if each >= vocab_size), None)
    if wrong is not None:
        raise InvalidInputError(f"prompt: expected token ids below {vocab_size}, got {wrong}")
    most = max_prompt(config)
    if most is not None and len(ids) > most:
        reason = _limits(config)[most]
        raise ContextLengthError(f"prompt: it has {len(ids)} tokens, the model takes at most {most}: {reason}")
    return ids


def complete(config: ModelConfig, asked: GenerationRequest, prompt: int) -> Sampling:
    """The sampling of a request with everything stated; ``prompt`` is how many tokens that has at least.

    ContextLengthError if more is asked for than the context has room for.
    """
    sampling = with_defaults(asked, defaults_of(config))
    window = context_window(config)
    room = window - prompt if window else None
    most = sampling.max_tokens
    if most is None:
        most = _default_most(asked, room)
    elif room is not None and most > room:
        if asked.max_tokens is not None:
            raise ContextLengthError(
                f"max_tokens: the prompt has {prompt} tokens, and {most} more are asked for; "
                f"the model's context has {window}"
            )
        most = room
    if most < (sampling.min_tokens or 0):
        raise InvalidInputError(f"min_tokens: expected at most max_tokens, which is {most}, got {sampling.min_tokens}")
    ends = {*(sampling.stop_token_ids or ()), *(() if sampling.ignore_eos else facts_of(config).eos_token_ids)}
    return msgspec.structs.replace(sampling, max_tokens=most, stop_token_ids=sorted(ends))


def _default_most(asked: GenerationRequest, room: int | None) -> int:
    most = DEFAULT_MAX_TOKENS if asked.messages is None else DEFAULT_MAX_ANSWER
    return most if room is None else min(most, room)


def engine_parameters(sampling: Sampling, *, logprobs: bool) -> bytes:
    """JSON for an engine's tensor ``parameters``."""
    stated = {name: value for name in _FOR_ENGINE if (value := getattr(sampling, name)) is not None}
    if isinstance(sampling.json_schema, dict):
        stated["json_schema"] = msgspec.json.encode(sampling.json_schema).decode()
    return msgspec.json.encode(stated | {"logprobs": logprobs})
