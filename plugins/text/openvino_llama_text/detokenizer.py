"""Text of tokens as they come: whole characters only, and all pieces together are what decoding all tokens gives.

Knows nothing of stop strings or requests. One instance serves one answer, and one thread at a time.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from openvino_llama_text.tokenizers.base import Tokenizer
from openvino_llama_text.tokenizers.pieces import Pieces

__all__ = ["Detokenizer"]

_LONGEST_CHARACTER = 16
"""Tokens after which what is still no character will not become one."""


class Detokenizer:
    """Incremental decoding; special tokens give no text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = tokenizer.pieces
        self._decoding = _Window(tokenizer) if pieces is None else _Bytes(pieces)

    def push(self, ids: Sequence[int]) -> str:
        """The text that is complete with these tokens; ids that are none are left out."""
        return self._decoding.push(ids)

    def flush(self) -> str:
        """The rest, at the end: U+FFFD for a character that was not completed."""
        return self._decoding.flush()


class _Bytes:
    """For tokens that are bytes."""

    def __init__(self, pieces: Pieces) -> None:
        self._shown, self._size = pieces.shown, len(pieces.shown)
        self._pieces = pieces
        self._leading = pieces.leading_spaces
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, ids: Sequence[int]) -> str:
        shown, size = self._shown, self._size
        text = b"".join([shown[each] for each in ids if 0 <= each < size])
        return self._decode(self._trimmed(text) if self._leading else text)

    def flush(self) -> str:
        return self._decode(b"", True)

    def _trimmed(self, text: bytes) -> bytes:
        """Without the spaces that are left to be dropped at the beginning."""
        rest = text.lstrip(b" ")
        dropped = min(self._leading, len(text) - len(rest))
        self._leading = self._leading - dropped if not rest else 0
        return text[dropped:]


class _Window:
    """For other tokens: the library decodes the last few again and again, and what is new at the end is the text.

    What such a library makes of tokens may depend on those before them, so that the window reaches back over the
    tokens whose text was sent last.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = 0
        """How many of the ids' tokens have been sent."""

    def push(self, ids: Sequence[int]) -> str:
        self._ids += [each for each in ids if each not in self._tokenizer.special_ids]
        before, text = self._texts()
        incomplete = text.endswith("\ufffd") and len(self._ids) - self._sent < _LONGEST_CHARACTER
        if len(text) <= len(before) or incomplete:
            return ""
        self._ids, self._sent = self._ids[self._sent :], len(self._ids) - self._sent
        return text[len(before) :]

    def flush(self) -> str:
        before, text = self._texts()
        self._ids, self._sent = [], 0
        return text[len(before) :]

    def _texts(self) -> tuple[str, str]:
        """The text of what was sent, and that of everything in the window."""
        return self._tokenizer.decode(self._ids[: self._sent]), self._tokenizer.decode(self._ids)
