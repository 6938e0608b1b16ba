"""The guest of one worker: kept from inference to inference, or made anew for each; replaced when it broke.

Knows nothing of requests or of what the guest computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from openvino_llama.errors import (
    DeadlineExceededError,
    GuestTrapError,
    LimitError,
    RequestCancelledError,
    UnavailableError,
)

if TYPE_CHECKING:
    from openvino_llama.sandbox.guest import Guest

__all__ = ["KeptGuest"]

_BROKEN = (GuestTrapError, DeadlineExceededError, LimitError, RequestCancelledError, UnavailableError)
"""Errors after which a guest's state is not to be trusted: it may have been stopped anywhere. (UnavailableError: since
its model goes. That of an engine which is restarting has stopped nothing, and costs a new guest.)"""


class KeptGuest:
    """``with kept as guest:`` is one inference. Of one thread."""

    def __init__(self, make: Callable[[], Guest], largest: int | None) -> None:
        """The guest stays while its memory has at most ``largest`` bytes: with None always, with 0 never."""
        self._make = make
        self._largest = largest
        self._guest: Guest | None = None

    def __enter__(self) -> Guest:
        if self._guest is None:
            self._guest = self._make()
        return self._guest

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        broke = kind is not None and issubclass(kind, _BROKEN)
        if broke or (self._largest is not None and self._guest and self._guest.memory_bytes > self._largest):
            self.drop()

    def drop(self) -> None:
        """Free it; the next inference has a new one."""
        guest, self._guest = self._guest, None
        if guest:
            guest.close()
