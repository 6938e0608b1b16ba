"""Special tokens around one text or two, and how two texts share the room that there is."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["Encoding", "Template"]


class Encoding(msgspec.Struct, frozen=True):
    """A text, or two, as a model takes it; both lists are of one length."""

    ids: list[int]
    type_ids: list[int]
    """Which text a token belongs to, as the model was trained."""


class Template(msgspec.Struct, frozen=True):
    """``before text after``, or ``before first between second last``."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    second_type: int = 1
    """Type id of the second text and what follows it; everything else has 0."""

    def size(self, *, pair: bool) -> int:
        """How many special tokens there are."""
        return len(self.before) + (len(self.between) + len(self.last) if pair else len(self.after))

    def single(self, ids: Sequence[int]) -> Encoding:
        """One text; ``ids`` are its tokens, already truncated."""
        whole = [*self.before, *ids, *self.after]
        return Encoding(whole, [0] * len(whole))

    def pair(self, first: Sequence[int], second: Sequence[int], room: int) -> Encoding:
        """Two texts, together truncated to ``room`` tokens."""
        kept_first, kept_second = shares(len(first), len(second), room)
        head = [*self.before, *first[:kept_first], *self.between]
        tail = [*second[:kept_second], *self.last]
        return Encoding(head + tail, [0] * len(head) + [self.second_type] * len(tail))


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths of two texts after the longer one was truncated, then both alike (``longest_first``)."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)
