"""Which sequences may enter the pipeline: those whose tokens will fit into its cache, whatever becomes of the others.

openvino-genai takes any number, and when several half-read prompts have filled the cache so that none can go on, it
drops them all. So each one's blocks are set aside for its longest course, and who finds none free waits, first come
first served. Knows nothing of the pipeline.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

__all__ = ["Admission"]


class _Numbered(Protocol):
    @property
    def id(self) -> int: ...


Entry = TypeVar("Entry", bound=_Numbered)


class Admission(Generic[Entry]):
    """The blocks of a cache, and who waits for some."""

    def __init__(self, blocks: int, block_tokens: int) -> None:
        """0 blocks is a cache without end."""
        self._free = blocks
        self._block_tokens = block_tokens
        self._is_bounded = blocks > 0
        self._held: dict[int, int] = {}
        self._leaving = 0
        self._waiting: deque[tuple[Entry, int]] = deque()

    def enter(self, entry: Entry, most_tokens: int) -> None:
        """A sequence has come, which will have so many tokens at most, its prompt included."""
        blocks = -(-most_tokens // self._block_tokens) if self._is_bounded else 0
        self._waiting.append((entry, blocks))

    def admit(self) -> Entry | None:
        """The next sequence that fits; None if there is none."""
        if not self._waiting or self._waiting[0][1] > self._free:
            return None
        entry, blocks = self._waiting.popleft()
        self._free -= blocks
        self._held[entry.id] = blocks
        return entry

    def leave(self, number: int) -> None:
        """A sequence has ended, or nobody waits for it any more: its blocks are free after the next step."""
        self._leaving += self._held.pop(number, 0)
        self._waiting = deque(each for each in self._waiting if each[0].id != number)

    def refuse(self, number: int) -> None:
        """A sequence that was admitted has never begun: its blocks are free at once."""
        self._free += self._held.pop(number)

    def after_step(self) -> None:
        """The pipeline has given back what sequences that left had held."""
        self._free += self._leaving
        self._leaving = 0

    @property
    def waiting(self) -> int:
        """Sequences that wait for blocks."""
        return len(self._waiting)
