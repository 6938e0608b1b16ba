"""How tokens are chosen: the parameters of a request, in their ranges, and what holds where it states nothing.

Names and ranges are those of the OpenAI API, and of vLLM for what that has not. Knows nothing of text or engines.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from openvino_llama import ConfigError, ModelConfig, per_model
from openvino_llama_text.files import generation_defaults_of

__all__ = ["MAX_STOPS", "Sampling", "defaults_of", "with_defaults"]

MAX_STOPS = 16
GRAMMARS = ("json_schema", "regex", "grammar")
_MAX_STOP_LENGTH = 1024
_MAX_GRAMMAR_BYTES = 64 << 10

TokenId = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """None is what the model's own configuration says, and where it says nothing, no restriction."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] | None = None
    """Most tokens to generate."""
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] | None = None
    """The end of the text is not chosen before so many."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    """0 takes the most probable token each time (greedy)."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Only the most probable tokens whose probabilities add up to this."""
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] | None = None
    """Only so many of the most probable tokens; 0 is all."""
    min_p: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    """Only tokens at least this probable, relative to the most probable one."""
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=10)] | None = None
    """Above 1, tokens that the text already has become less probable (Keskar et al., 2019, CTRL)."""
    presence_penalty: Penalty | None = None
    """Above 0, tokens that the text already has become less probable."""
    frequency_penalty: Penalty | None = None
    """Above 0, tokens become less probable with each time that the text already has them."""
    stop: str | list[str] | None = None
    """The text ends before any of these."""
    stop_token_ids: Annotated[list[TokenId], msgspec.Meta(max_length=64)] | None = None
    """The text ends at any of these tokens."""
    ignore_eos: bool | None = None
    """Whether the model's own end of a text does not end it."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    """The same request with the same seed gives the same text; None is another one each time."""
    json_schema: dict[str, Any] | str | None = None
    """The text is JSON of this schema."""
    regex: str | None = None
    """The text matches this regular expression."""
    grammar: str | None = None
    """The text is a sentence of this grammar, in EBNF as of XGrammar."""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value}")
        if self.stop is not None:
            _check_stops(self.stops)
        if _has_form(self):
            _check_grammars(self)

    @property
    def stops(self) -> list[str]:
        """Stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


def _has_form(sampling: Sampling) -> bool:
    """Whether it says what the text has to look like."""
    return not (sampling.json_schema is None and sampling.regex is None and sampling.grammar is None)


def _check_stops(stops: list[str]) -> None:
    if len(stops) > MAX_STOPS:
        raise ValueError(f"stop: expected at most {MAX_STOPS} strings, got {len(stops)}")
    for index, stop in enumerate(stops):
        if not 0 < len(stop) <= _MAX_STOP_LENGTH:
            raise ValueError(f"stop[{index}]: expected 1 to {_MAX_STOP_LENGTH} characters, got {len(stop)}")


def _check_grammars(sampling: Sampling) -> None:
    given = {name: value for name in GRAMMARS if (value := getattr(sampling, name)) is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: expected one of them at most")
    for name, value in given.items():
        size = len(value.encode() if isinstance(value, str) else msgspec.json.encode(value))
        if not 0 < size <= _MAX_GRAMMAR_BYTES:
            raise ValueError(f"{name}: expected 1 to {_MAX_GRAMMAR_BYTES} bytes, got {size}")


@per_model
def defaults_of(config: ModelConfig) -> Sampling:
    """What the model's files say, and over it what the registry says."""
    stated = generation_defaults_of(config)
    found = {
        "temperature": 0.0 if stated.do_sample is False else 1.0 if stated.temperature is None else stated.temperature,
        "top_p": stated.top_p,
        "top_k": stated.top_k,
        "min_p": stated.min_p,
        "repetition_penalty": stated.repetition_penalty,
        "max_tokens": stated.max_new_tokens,
    }
    known = {name: value for name, value in found.items() if value is not None}
    try:
        return msgspec.convert(known | config.config.generation, Sampling)
    except msgspec.ValidationError as error:
        raise ConfigError(f"model {config.name!r}, the defaults of its generation: {error}") from error


def with_defaults(asked: Sampling, defaults: Sampling) -> Sampling:
    """What a request asks, and the defaults where it says nothing; a form of its own takes the place of theirs."""
    forms = GRAMMARS if _has_form(asked) else ()
    stated = msgspec.to_builtins(defaults)  # most have two or three
    added = {name: value for name, value in stated.items() if getattr(asked, name) is None and name not in forms}
    return msgspec.structs.replace(asked, **added)
