"""Which tokenizer a model has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openvino_llama import ConfigError, ModelConfig, per_model
from openvino_llama_text.files import located
from openvino_llama_text.tokenizers.base import Tokenizer

__all__ = ["find_tokenizer"]


@per_model
def find_tokenizer(config: ModelConfig) -> Tokenizer:
    """The tokenizer of a model: the file of the role ``tokenizer``, else what lies beside the model.

    Raises ConfigError if there is none, or the one that there is cannot be read.
    """
    path = config.files.get("tokenizer") or next(filter(None, (located(config, name) for name in _READERS)), None)
    if path is None:
        expected = ", ".join(_READERS)
        raise ConfigError(f"model {config.name!r}: no tokenizer; expected one of {expected} beside the model")
    read = _SUFFIXES.get(path.suffix)
    if read is None:
        expected = ", ".join(_SUFFIXES)
        raise ConfigError(f"model {config.name!r}, field 'files.tokenizer': expected a file ending in {expected}")
    return read(config, path)


def _hugging_face(config: ModelConfig, path: Path) -> Tokenizer:
    from openvino_llama_text.tokenizers.huggingface import HuggingFaceTokenizer

    return HuggingFaceTokenizer.read(config, path)


def _openvino(config: ModelConfig, path: Path) -> Tokenizer:
    from openvino_llama_text.tokenizers.openvino import OpenVINOTokenizer

    return OpenVINOTokenizer.read(config, path)


def _sentence_piece(config: ModelConfig, path: Path) -> Tokenizer:
    from openvino_llama_text.tokenizers.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer.read(config, path)


_READERS: dict[str, Callable[[ModelConfig, Path], Tokenizer]] = {
    "tokenizer.json": _hugging_face,
    "openvino_tokenizer.xml": _openvino,
    "tokenizer.model": _sentence_piece,
}
_SUFFIXES = {Path(name).suffix: read for name, read in _READERS.items()}
