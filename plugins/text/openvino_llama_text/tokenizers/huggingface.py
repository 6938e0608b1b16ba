"""``tokenizer.json``, by the library ``tokenizers``.

Only its ``encode_batch_fast`` is used: ``encode`` holds the interpreter's lock until it is done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_text.files import ModelFacts, TokenizerFacts, facts_of, tokenizer_facts_of
from openvino_llama_text.tokenizers.base import SpecialTokens, Tokenizer
from openvino_llama_text.tokenizers.pieces import SPACE, Pieces, byte_alphabet, fallback_byte
from openvino_llama_text.tokenizers.template import Template

__all__ = ["HuggingFaceTokenizer"]

_MOST_TOKENS = 1 << 24
"""Ids need not be without gaps, but what is kept for each id would take all memory where one is 4294967295."""


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of any kind that the library knows."""

    def __init__(self, source: str, facts: TokenizerFacts | None = None, model: ModelFacts | None = None) -> None:
        """``source`` is the JSON text; ``facts`` and ``model`` say which token has which role."""
        self._tokenizer = tokenizers.Tokenizer.from_str(source)
        self._tokenizer.no_truncation()  # some are saved with those of their training
        self._tokenizer.no_padding()
        description = json.loads(source)
        added = self._tokenizer.get_added_tokens_decoder()
        vocabulary = {each: token for token, each in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        special = {each: token.content for each, token in added.items() if token.special}
        self.vocab_size = max(vocabulary, default=-1) + 1
        if self.vocab_size > _MOST_TOKENS:
            raise ValueError(f"a token has the id {self.vocab_size - 1}")
        self.special = self._special(facts or TokenizerFacts(), model or ModelFacts())
        self.special_ids = frozenset(special)
        self.special_texts = tuple(special.values())
        self.template = self._template()
        tokens = [vocabulary.get(each, "") for each in range(self.vocab_size)]
        self.pieces = _pieces(description, tokens, added, self.special_ids)
        self.longest_token = None
        if self.pieces and _is_lossless(description, added):
            self.longest_token, self.unknown_bytes = max(map(len, self.pieces.all)), self.pieces.unknown_bytes

    @classmethod
    def read(cls, config: ModelConfig, path: Path) -> HuggingFaceTokenizer:
        """The tokenizer of a model."""
        facts, model = tokenizer_facts_of(config), facts_of(config)
        try:
            return cls(path.read_text("utf-8"), facts, model)
        except BaseException as error:  # what panics in Rust is no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise ConfigError(f"model {config.name!r}: {path.name} is no tokenizer of Hugging Face") from error

    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """As the base class has it; all cores take part."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [each.ids for each in encodings]

    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """As the decoder of the file does it."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def _special(self, facts: TokenizerFacts, model: ModelFacts) -> SpecialTokens:
        def of(role: str, otherwise: int | None = None) -> int | None:
            text = facts.token(role)
            found: int | None = None if text is None else self._tokenizer.token_to_id(text)
            return otherwise if found is None else found

        unknown = getattr(self._tokenizer.model, "unk_token", None)
        return SpecialTokens(
            bos=of("bos", model.bos_token_id),
            eos=of("eos", next(iter(model.eos_token_ids), None)),
            pad=of("pad", model.pad_token_id),
            unk=of("unk", self._tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None),
        )

    def _template(self) -> Template:
        """What the post-processor puts around texts, seen from what it does to one and to two of them."""
        single, pair = self._tokenizer.encode("a"), self._tokenizer.encode("a", "a")
        before, after = _around(single, [0])
        _, between, last = _around(pair, [0, 1])
        second = [each for each, text in zip(pair.type_ids, pair.sequence_ids, strict=True) if text == 1]
        return Template(before, after, between, last, second[0] if second else 0)


def _around(encoding: tokenizers.Encoding, texts: list[int]) -> list[tuple[int, ...]]:
    """Special tokens before, between and after the texts."""
    groups: list[list[int]] = [[]]
    previous = None
    for token, text in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if text is None:
            groups[-1].append(token)
        elif text != previous:
            groups.append([])
            previous = text
    groups += [[] for _ in range(len(texts) + 1 - len(groups))]
    return [tuple(group) for group in groups]


def _pieces(
    description: dict[str, Any], tokens: list[str], added: dict[int, Any], special_ids: frozenset[int]
) -> Pieces | None:
    """The bytes of each token, if the decoder is one of those that put tokens together byte by byte."""
    decoder = description.get("decoder")
    if decoder is not None and decoder["type"] == "ByteLevel":
        alphabet = byte_alphabet()
        return Pieces([_byte_level(token, alphabet) for token in tokens], special_ids)
    if decoder in (_SENTENCE_PIECE, _SENTENCE_PIECE_UNSTRIPPED):
        fixed = {each: token.content.replace(SPACE, " ").encode() for each, token in added.items()}
        pieces = [
            fixed[each] if each in fixed else fallback_byte(token) or token.replace(SPACE, " ").encode()
            for each, token in enumerate(tokens)
        ]
        return Pieces(pieces, special_ids, leading_spaces=int(decoder == _SENTENCE_PIECE))
    return None


_SENTENCE_PIECE_UNSTRIPPED = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}
"""Gemma's; Llama's has one more part."""
_SENTENCE_PIECE = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def _byte_level(token: str, alphabet: dict[str, int]) -> bytes:
    """Added tokens are written as they are: they are bytes only if all of their characters are such."""
    try:
        return bytes([alphabet[character] for character in token])
    except KeyError:
        return token.encode()


def _keeps_text(pre_tokenizer: dict[str, Any]) -> bool:
    """Whether everything that it splits off remains, as bytes."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [step.get("type") for step in steps]
    splits = [step for step in steps if step.get("type") == "Split"]
    return (
        "ByteLevel" in kinds
        and set(kinds) <= {"ByteLevel", "Split", "Digits"}
        and not any(step.get("behavior") == "Removed" for step in splits)
    )


def _is_lossless(description: dict[str, Any], added: dict[int, Any]) -> bool:
    """Whether tokens stand for all bytes that they know: byte-level BPE before which nothing is dropped."""
    return (
        description.get("normalizer") is None
        and description["model"]["type"] == "BPE"
        and _keeps_text(description.get("pre_tokenizer") or {})
        and not any(token.lstrip or token.rstrip for token in added.values())
    )
