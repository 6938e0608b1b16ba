"""``tokenizer.model``, by the library ``sentencepiece``.

The library itself never reads control tokens from a text; here they are cut out of it first, so that what a chat
template writes becomes them. As in transformers' older ("legacy") tokenizers, what follows one begins a word. Which of
them stand around a text is what ``tokenizer_config.json`` says, else the begin token alone, as Llama's has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_text.files import TokenizerFacts, tokenizer_facts_of
from openvino_llama_text.tokenizers.base import SpecialTokens, Tokenizer
from openvino_llama_text.tokenizers.pieces import SPACE, Pieces, fallback_byte
from openvino_llama_text.tokenizers.template import Template

__all__ = ["SentencePieceTokenizer"]


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model: Unigram or BPE."""

    longest_token = None  # an unknown token stands for any number of characters, and normalization drops some

    def __init__(self, model: bytes, facts: TokenizerFacts | None = None) -> None:
        """``model`` is the file's content."""
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        processor, facts = self._processor, facts or TokenizerFacts()
        self.vocab_size = processor.vocab_size()
        ids = range(self.vocab_size)
        roles = (processor.bos_id(), processor.eos_id(), processor.pad_id(), processor.unk_id())
        self.special = SpecialTokens(*(each if each >= 0 else None for each in roles))
        self.special_ids = frozenset(each for each in ids if processor.is_control(each) or processor.is_unknown(each))
        self.special_texts = tuple(processor.id_to_piece(each) for each in sorted(self.special_ids))
        controls = [re.escape(processor.id_to_piece(each)) for each in ids if processor.is_control(each)]
        self._control = re.compile(f"({'|'.join(controls)})" if controls else r"((?!))")
        self.template = self._template(facts)
        pieces = [
            (processor.is_byte(each) and fallback_byte(piece)) or piece.replace(SPACE, " ").encode()
            for each, piece in enumerate(processor.id_to_piece(list(ids)))
        ]
        self.pieces = Pieces(pieces, self.special_ids, self._leading_spaces())

    @classmethod
    def read(cls, config: ModelConfig, path: Path) -> SentencePieceTokenizer:
        """The tokenizer of a model."""
        try:
            return cls(path.read_bytes(), tokenizer_facts_of(config))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"model {config.name!r}: {path.name} is no SentencePiece model") from error

    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """As the base class has it, one after the other."""
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> list[int]:
        parts = self._control.split(text)  # every other one is a control token
        ids: list[int] = self._processor.encode(parts[0])
        for token, part in zip(parts[1::2], parts[2::2], strict=True):
            ids += [self._processor.piece_to_id(token), *self._processor.encode(part)]
        return ids

    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """As the library does it."""
        shown = [each for each in ids if not (skip_special_tokens and each in self.special_ids)]
        text: str = self._processor.decode(shown)
        return text

    def _template(self, facts: TokenizerFacts) -> Template:
        begin, end = self.special.bos, self.special.eos
        before = (begin,) if begin is not None and facts.add_bos_token is not False else ()
        after = (end,) if end is not None and facts.add_eos_token else ()
        return Template(before, after, after + before, after)

    def _leading_spaces(self) -> int:
        """How many spaces the library drops at the beginning: none, that which it has put there, or all."""
        space = self._processor.piece_to_id(SPACE)
        some = 3
        if self._processor.is_unknown(space):
            return 0
        kept = len(self._processor.decode([space] * some))
        return some - kept if kept else _ALL


_ALL = 1 << 16
