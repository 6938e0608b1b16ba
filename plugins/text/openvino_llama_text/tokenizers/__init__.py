"""Text to token ids and back: SentencePiece, Hugging Face and OpenVINO tokenizers behind one class."""

from __future__ import annotations

from openvino_llama_text.tokenizers.arrays import model_inputs
from openvino_llama_text.tokenizers.base import BREAK, SpecialTokens, Tokenizer
from openvino_llama_text.tokenizers.find import find_tokenizer
from openvino_llama_text.tokenizers.template import Encoding

__all__ = ["BREAK", "Encoding", "SpecialTokens", "Tokenizer", "find_tokenizer", "model_inputs"]
