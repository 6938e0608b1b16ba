"""Model configurations over a folder, and the tokenizers that tests go through."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openvino_llama import ModelConfig
from openvino_llama_text.config import TextConfig
from openvino_llama_text.tokenizers.base import Tokenizer
from openvino_llama_text.tokenizers.huggingface import HuggingFaceTokenizer
from openvino_llama_text.tokenizers.sentencepiece import SentencePieceTokenizer

from . import trained

KINDS = ("byte_level", "byte_fallback", "byte_fallback_unstripped", "word_piece", "bpe", "unigram")
LOSSLESS = ("byte_level", "byte_fallback", "byte_fallback_unstripped", "bpe", "unigram")
"""Those that give back the text that they were given."""


SOURCES: dict[str, Callable[[], str]] = {
    "byte_level": trained.byte_level,
    "byte_fallback": trained.byte_fallback,
    "byte_fallback_unstripped": functools.partial(trained.byte_fallback, strip=False),
    "word_piece": trained.word_piece,
}
"""What trains each kind of ``tokenizer.json``."""


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    """A trained tokenizer."""
    if kind in ("bpe", "unigram"):
        return SentencePieceTokenizer(trained.sentence_piece(kind))
    return HuggingFaceTokenizer(SOURCES[kind]())


def model(folder: Path, files: dict[str, Path] | None = None, **config: Any) -> ModelConfig:
    """A text model in that folder."""
    return ModelConfig(
        name="tale",
        type="text",
        task="generation",
        files={"model": folder / "openvino_model.xml"} | (files or {}),
        config=TextConfig(**config),
    )
