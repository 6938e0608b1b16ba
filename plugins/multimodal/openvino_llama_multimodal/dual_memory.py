"""The vectors of texts that were compared with pictures before.

Who sorts pictures sends the same texts with each of them, and a few texts cost as much as a picture. Kept for each
model; of too many, those that were not asked for the longest time are dropped. Knows nothing of what is in a row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from openvino_llama import ModelConfig, per_model

__all__ = ["Memory", "memory_of"]

_MOST_TEXTS = 4096
"""8 MiB of vectors of 512 numbers."""

Key = tuple[int, ...]
"""A text's tokens."""


class Memory:
    """Rows by their texts. Shared by all threads of a model."""

    def __init__(self, most: int = _MOST_TEXTS) -> None:
        self._most = most
        self._rows: dict[Key, NDArray[Any]] = {}  # in the order of their last use
        self._lock = threading.Lock()

    def recall(self, texts: Iterable[Key]) -> dict[Key, NDArray[Any]]:
        """The rows of those texts that are known."""
        with self._lock:
            found = {each: self._rows[each] for each in texts if each in self._rows}
            self._touch(found)
        return found

    def keep(self, rows: Mapping[Key, NDArray[Any]]) -> None:
        """Remember copies: the rows themselves are parts of larger arrays."""
        copies = {text: row.copy() for text, row in rows.items()}
        with self._lock:
            self._touch(copies)
            for oldest in list(self._rows)[: -self._most]:
                del self._rows[oldest]

    def _touch(self, rows: Mapping[Key, NDArray[Any]]) -> None:
        for text, row in rows.items():
            self._rows.pop(text, None)
            self._rows[text] = row


@per_model
def memory_of(config: ModelConfig) -> Memory:  # noqa: ARG001 - one for each model
    """The memory of a model."""
    return Memory()
