"""What a generation graph is given for one sequence: tokens, and how to go on, the JSON of its tensor ``parameters``.

Knows nothing of openvino-genai, nor of what needs text: stop strings and several choices are others' business.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from numpy.typing import NDArray

from openvino_llama import InvalidInputError, InvalidTensorError

__all__ = ["GRAMMARS", "EngineParameters", "check_tokens", "read_parameters"]

GRAMMARS = ("json_schema", "regex", "grammar")
"""Fields that say what the output has to look like; at most one may be set."""

_LAST_TOKEN = (1 << 31) - 1
"""Of a model whose vocabulary is not known."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Source = Annotated[str, msgspec.Meta(min_length=1, max_length=1 << 18)]


class EngineParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Sampling, lengths and the output's form."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    """Tokens to generate at most; the context window may end the sequence before."""
    min_tokens: Count = 0
    """Tokens before which no stop token is generated."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """0 always takes the most likely token."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    top_k: Count = 0
    """0 is all."""
    min_p: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    stop_token_ids: Annotated[tuple[Count, ...], msgspec.Meta(max_length=256)] = ()
    """Tokens that end the sequence, and are its last; empty is those that the model's files state."""
    ignore_eos: bool = False
    """Whether no token ends the sequence."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    """Same seed and same batch, same tokens; None is another one each time."""
    logprobs: bool = False
    """Whether the logarithm of each token's probability is wanted."""
    json_schema: Source | None = None
    regex: Source | None = None
    grammar: Source | None = None
    """EBNF with the rule ``root``."""

    def __post_init__(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens is {self.min_tokens}, more than max_tokens, which is {self.max_tokens}")
        stated = [name for name in GRAMMARS if getattr(self, name) is not None]
        if len(stated) > 1:
            raise ValueError(f"at most one of {', '.join(GRAMMARS)} may be set, not {' and '.join(stated)}")

    @property
    def form(self) -> tuple[str, str] | None:
        """Name and source of what the output has to look like."""
        return next(((name, source) for name in GRAMMARS if (source := getattr(self, name)) is not None), None)


_decoder = msgspec.json.Decoder(EngineParameters)


def read_parameters(text: bytes | memoryview) -> EngineParameters:
    """The parameters that a JSON text states; InvalidInputError naming the field that is wrong."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"generation parameters: {error}") from error


def check_tokens(prompt: NDArray[Any], vocab_size: int | None) -> None:
    """Raise InvalidTensorError if a prompt (1, tokens) is empty or has tokens that the model does not know.

    Their rows would be read from beyond the embedding table.
    """
    if prompt.size == 0:
        raise InvalidTensorError("tensor 'input_ids': there is no token in it")
    last = vocab_size - 1 if vocab_size else _LAST_TOKEN
    if prompt.min() < 0 or prompt.max() > last:
        wrong = prompt[(prompt < 0) | (prompt > last)][0]
        raise InvalidTensorError(f"tensor 'input_ids': tokens are 0 to {last}, got {wrong}")
