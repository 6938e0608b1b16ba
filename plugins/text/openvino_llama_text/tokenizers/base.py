"""What every tokenizer can do. Subclasses know a library, and only how it cuts a text into tokens without special ones.

A tokenizer is shared by all threads of a model. Texts are str as clients send them: one that is no Unicode text (lone
surrogates) is the client's error. The text of a special token in a text *is* that token, as it is for the libraries;
what clients of a chat write is kept from it by ``chat.py``.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import msgspec

from openvino_llama import ContextLengthError, InvalidInputError
from openvino_llama_text.tokenizers.pieces import Pieces
from openvino_llama_text.tokenizers.template import Encoding, Template

__all__ = ["BREAK", "SpecialTokens", "Tokenizer"]

BREAK = "\ufdd0"
"""Where a text is cut before it is tokenized, so that what stands on both sides makes no token together.

One of Unicode's noncharacters, which no text holds that is meant for others.
"""

_CHARACTERS_PER_TOKEN = 64
"""Of a text that is to be truncated this many characters for each token are looked at first."""


class SpecialTokens(msgspec.Struct, frozen=True):
    """Tokens with a meaning of their own, by role; None is unknown."""

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unk: int | None = None


class Tokenizer(abc.ABC):
    """Text to ids and back."""

    vocab_size: int
    """One more than the highest id."""
    special: SpecialTokens
    special_ids: frozenset[int]
    """Tokens that stand for no text."""
    special_texts: tuple[str, ...]
    """How they are written."""
    template: Template
    """Special tokens around a text, or two."""
    pieces: Pieces | None
    """The bytes of each token; None if a token's text depends on its neighbours in some other way."""
    longest_token: int | None
    """Most bytes of UTF-8 that one token stands for; None if there is no such bound."""
    unknown_bytes: bytes = b""
    """Bytes of UTF-8 that no token stands for, so that they may be dropped: they do not count for the bound."""

    @abc.abstractmethod
    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens around it; callable from several threads at once."""

    @abc.abstractmethod
    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The library's own decoding; ids are in range."""

    def encode(self, text: str, *, add_special_tokens: bool = True, most: int | None = None) -> list[int]:
        """Ids of a text; it is cut at each BREAK.

        InvalidInputError if it is no Unicode text or has more than ``most`` tokens. Where it can be seen from the
        length that it has, it is not tokenized first.
        """
        least = self._least_tokens(_utf8(text))
        if most is not None and least > most:
            raise _too_long(f"at least {least}", most)
        ids = [each for part in self.segment(text.split(BREAK)) for each in part]
        if add_special_tokens:
            ids = self.template.single(ids).ids
        if most is not None and len(ids) > most:
            raise _too_long(str(len(ids)), most)
        return ids

    def encode_batch(self, texts: Sequence[str], max_length: int, pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Ids of many texts with special tokens around them, each truncated to ``max_length`` ids.

        ``pairs`` gives each text a second one to follow it. Of two texts the longer one is truncated first. Texts that
        are far longer than they may be are cut before they are tokenized: a word at the cut may then become other
        tokens than it would in the whole text, if it alone is longer than all that is kept.
        """
        room = max_length - self.template.size(pair=pairs is not None)
        if room < 0:
            raise InvalidInputError(f"max_length {max_length} is less than the special tokens around a text")
        for text in (*texts, *(pairs or ())):
            _utf8(text)
        first = self._beginnings(texts, room)
        if pairs is None:
            return [self.template.single(ids[:room]) for ids in first]
        second = self._beginnings(pairs, room)
        return [self.template.pair(a, b, room) for a, b in zip(first, second, strict=True)]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens; ids that are none are left out, and bytes that are no UTF-8 become U+FFFD."""
        known = [each for each in ids if 0 <= each < self.vocab_size]
        if self.pieces is None:
            return self.join(known, skip_special_tokens=skip_special_tokens)
        return self.pieces.text(known, skip_special_tokens=skip_special_tokens)

    def text_of(self, token: int | None) -> str | None:
        """How a token is written; None if it is none."""
        if token is None or not 0 <= token < self.vocab_size:
            return None
        return self.decode([token], skip_special_tokens=False)

    def _least_tokens(self, text: bytes) -> int:
        """What a text has at least, without looking at it closely."""
        if self.longest_token is None:
            return 0
        return -(-len(text.translate(None, self.unknown_bytes)) // self.longest_token)

    def _beginnings(self, texts: Sequence[str], room: int) -> list[list[int]]:
        """Ids of each text, at least the first ``room`` of them."""
        size = _CHARACTERS_PER_TOKEN * (room + 1)
        found = self.segment([text[:size] for text in texts])
        for index, text in enumerate(texts):
            reach = size
            # The last of these tokens are those of a cut word: they count only if there are more than needed.
            while reach < len(text) and len(found[index]) <= 2 * room:
                reach *= 8
                found[index] = self.segment([text[:reach]])[0]
        return found


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the text is no Unicode text: a lone surrogate stands at character {error.start}"
        ) from error


def _too_long(number: str, most: int) -> ContextLengthError:
    return ContextLengthError(f"the text has {number} tokens, the model takes at most {most}")
