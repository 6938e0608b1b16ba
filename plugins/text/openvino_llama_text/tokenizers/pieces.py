"""The bytes of each token: all that is needed to turn ids into text where a token has the same bytes everywhere.

That is so for byte-level BPE, and for SentencePiece models but for the space at the very beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["SPACE", "Pieces", "byte_alphabet", "fallback_byte"]

SPACE = "▁"
"""How SentencePiece writes a space."""

_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


class Pieces:
    """Bytes by id, with and without the special tokens; ids beyond the last one have none."""

    def __init__(self, pieces: Sequence[bytes], special_ids: Iterable[int] = (), leading_spaces: int = 0) -> None:
        """``leading_spaces``: how many spaces at the beginning of a text are not part of it."""
        self.all = list(pieces)
        self.shown = list(pieces)
        self.leading_spaces = leading_spaces
        for each in special_ids:
            if each < len(self.shown):
                self.shown[each] = b""

    @property
    def unknown_bytes(self) -> bytes:
        """Bytes of UTF-8 that are no token of their own."""
        known = set(self.all)
        return bytes(byte for byte in range(0x100) if byte not in _NEVER_IN_UTF8 and bytes([byte]) not in known)

    def text(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of ids in range; bytes that are no UTF-8 become U+FFFD."""
        pieces = self.shown if skip_special_tokens else self.all
        return self.trimmed(b"".join([pieces[each] for each in ids])).decode("utf-8", "replace")

    def trimmed(self, start: bytes) -> bytes:
        """The beginning of a text without the spaces that are not part of it."""
        spaces = len(start) - len(start.lstrip(b" "))
        return start[min(self.leading_spaces, spaces) :]


def fallback_byte(token: str) -> bytes | None:
    """The byte of a token such as ``<0x0A>``; None for other tokens."""
    match = _FALLBACK.fullmatch(token)
    return bytes.fromhex(match[1]) if match else None


def byte_alphabet() -> dict[str, int]:
    """The character that byte-level BPE writes for each byte (as GPT-2 does): printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}
