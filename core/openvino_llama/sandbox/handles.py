"""The numbers by which a guest names what it holds. Knows nothing of the things themselves."""

from __future__ import annotations

from typing import Generic, TypeVar

from openvino_llama.errors import LimitError
from openvino_llama.sandbox.errnos import CallError, Errno

__all__ = ["Handles"]

Item = TypeVar("Item")


class Handles(Generic[Item]):
    """Numbers for things: counting up, never used again."""

    def __init__(self, kind: str, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self._items: dict[int, Item] = {}
        self._next = 0

    def check_room(self) -> None:
        """Raise LimitError if no further one may be added."""
        if len(self._items) >= self._limit:
            raise LimitError(f"a guest may hold {self._limit} {self._kind}s at a time")

    def add(self, item: Item) -> int:
        """The number of a new one."""
        handle = self._next
        self._items[handle] = item
        self._next += 1
        return handle

    def get(self, handle: int) -> Item:
        """What has this number; CallError if nothing has it."""
        try:
            return self._items[handle]
        except KeyError:
            raise CallError(Errno.INVALID_ARGUMENT, f"there is no {self._kind} {handle}") from None

    def pop(self, handle: int) -> Item:
        """Forget what has this number, and give it."""
        item = self.get(handle)
        del self._items[handle]
        return item

    def numbers(self) -> list[int]:
        """All numbers, oldest first."""
        return list(self._items)

    def items(self) -> list[tuple[int, Item]]:
        """All numbers and what they stand for, oldest first."""
        return list(self._items.items())
