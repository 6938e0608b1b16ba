"""Texts as clients send them, checked, and the tokens that they become for a model that takes whole texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from openvino_llama import DYNAMIC, ConfigError, ContextLengthError, InvalidInputError, ModelConfig, per_model
from openvino_llama_text.files import facts_of
from openvino_llama_text.tokenizers import Encoding, find_tokenizer

__all__ = [
    "MOST_TEXTS",
    "Input",
    "Texts",
    "check_not_empty",
    "check_room",
    "encode_pairs",
    "encode_texts",
    "max_length_of",
    "named",
]

MOST_TEXTS = 2048

Texts = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]
Input = str | Texts

_PADDED_POSITIONS = frozenset({"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta"})
"""Models whose positions begin after that of padding: they have fewer than they state."""


def named(field: str, given: str | Sequence[str]) -> dict[str, str]:
    """Texts by their places in the request: ``input``, or ``input[0]``, ``input[1]``..."""
    if isinstance(given, str):
        return {field: given}
    return {f"{field}[{index}]": text for index, text in enumerate(given)}


def check_not_empty(texts: Mapping[str, str]) -> None:
    """Raise InvalidInputError for a text of no characters: whatever a model answers to it means nothing."""
    for place, text in texts.items():
        if not text:
            raise InvalidInputError(f"{place}: expected some text, got none")


@per_model
def max_length_of(config: ModelConfig) -> int:
    """Most tokens of a text, special ones included: the least of what is stated anywhere."""
    facts = facts_of(config)
    positions = facts.max_positions
    if positions and facts.model_type in _PADDED_POSITIONS:
        positions -= (1 if facts.pad_token_id is None else facts.pad_token_id) + 1
    fixed = [spec.shape[1] for spec in config.input_specs() if spec.shape[1] != DYNAMIC]
    stated = (config.config.max_sequence_length, facts.max_sequence_length, config.limits.max_sequence_length)
    known: list[int] = [length for length in (positions, *stated, *fixed) if length]
    return min(known)


def check_room(config: ModelConfig, *, pair: bool = False) -> None:
    """Raise ConfigError if a model has no tokenizer, or the special tokens leave no room for a text."""
    most, special = max_length_of(config), find_tokenizer(config).template.size(pair=pair)
    if most <= special:
        raise ConfigError(f"model {config.name!r}: it takes at most {most} tokens, and {special} of them are special")


def encode_texts(config: ModelConfig, texts: Mapping[str, str], *, truncate: bool) -> tuple[list[Encoding], list[int]]:
    """The tokens of texts by their places, and which of the texts, counted from 0, were too long.

    InvalidInputError names a text that is none or has no tokens; ContextLengthError one that has too many, unless it is
    to be truncated.
    """
    tokenizer, most = find_tokenizer(config), max_length_of(config)
    _check(texts)
    encodings = tokenizer.encode_batch(list(texts.values()), most + 1)
    truncated = []
    for index, (place, each) in enumerate(zip(texts, encodings, strict=True)):
        if not each.ids:
            raise InvalidInputError(f"{place}: the text has no tokens")
        if len(each.ids) > most:
            if not truncate:
                raise ContextLengthError(f"{place}: the text has more than the {most} tokens that the model takes")
            truncated.append(index)
    for index in truncated:
        encodings[index] = _shortened(encodings[index], len(tokenizer.template.after))
    return encodings, truncated


def encode_pairs(config: ModelConfig, texts: Mapping[str, str]) -> list[Encoding]:
    """The tokens of the first text with each of the others; of two that are too long, the longer one is truncated."""
    _check(texts)
    first, *seconds = texts.values()
    return find_tokenizer(config).encode_batch([first] * len(seconds), max_length_of(config), seconds)


def _check(texts: Mapping[str, str]) -> None:
    """Raise InvalidInputError for NUL characters and lone surrogates, which tokenizers take each in its own way."""
    for place, text in texts.items():
        if "\0" in text:
            raise InvalidInputError(f"{place}: a NUL character stands at character {text.index(chr(0))}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"{place}: a lone surrogate stands at character {error.start}") from error


def _shortened(encoding: Encoding, after: int) -> Encoding:
    """Without its last token before the special ones at the end."""
    drop = len(encoding.ids) - after - 1
    ids, type_ids = encoding.ids, encoding.type_ids
    return Encoding(ids[:drop] + ids[drop + 1 :], type_ids[:drop] + type_ids[drop + 1 :])
