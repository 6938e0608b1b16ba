"""Texts as clients send them, checked, and the tokens that they become for a model that takes whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from openvino_llama import DYNAMIC, InvalidInputError, ModelConfig, per_model
from openvino_llama_text.files import facts_of
from openvino_llama_text.tokenizers import Encoding, find_tokenizer

__all__ = ["MOST_TEXTS", "Input", "Texts", "check_text", "encode_pairs", "encode_texts", "listed", "max_length_of"]

MOST_TEXTS = 2048

Texts = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]
Input = str | Texts

_PADDED_POSITIONS = frozenset({"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta"})
"""Models whose positions begin after that of padding: they have fewer than they state."""


def listed(given: Input) -> Sequence[str]:
    """The texts; InvalidInputError names one that is no text."""
    texts = [given] if isinstance(given, str) else given
    for index, text in enumerate(texts):
        check_text(text, "input" if isinstance(given, str) else f"input[{index}]")
    return texts


def check_text(text: str, where: str) -> None:
    """Raise InvalidInputError for NUL characters and lone surrogates, which tokenizers take each in its own way."""
    if "\0" in text:
        raise InvalidInputError(f"{where}: a NUL character stands at character {text.index(chr(0))}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"{where}: a lone surrogate stands at character {error.start}") from error


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


def encode_texts(config: ModelConfig, texts: Sequence[str], *, truncate: bool) -> tuple[list[Encoding], list[int]]:
    """The texts' tokens, and which of the texts were too long.

    InvalidInputError if those are not to be truncated, or if a text has no tokens at all.
    """
    tokenizer, most = find_tokenizer(config), max_length_of(config)
    encodings = tokenizer.encode_batch(texts, most + 1)
    truncated = [index for index, each in enumerate(encodings) if len(each.ids) > most]
    if truncated and not truncate:
        where = "input" if len(texts) == 1 else f"input[{truncated[0]}]"
        raise InvalidInputError(f"{where}: the text has more than the {most} tokens that the model takes")
    for index in truncated:
        encodings[index] = _shortened(encodings[index], len(tokenizer.template.after))
    for index, each in enumerate(encodings):
        if not each.ids:
            raise InvalidInputError(f"input[{index}]: the text has no tokens")
    return encodings, truncated


def encode_pairs(config: ModelConfig, first: str, seconds: Sequence[str]) -> list[Encoding]:
    """The tokens of one text with each of others; of two that are too long together, the longer one is truncated."""
    return find_tokenizer(config).encode_batch([first] * len(seconds), max_length_of(config), seconds)


def _shortened(encoding: Encoding, after: int) -> Encoding:
    """Without its last token before the special ones at the end."""
    drop = len(encoding.ids) - after - 1
    ids, type_ids = encoding.ids, encoding.type_ids
    return Encoding(ids[:drop] + ids[drop + 1 :], type_ids[:drop] + type_ids[drop + 1 :])
