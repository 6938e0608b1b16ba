"""What a call of a guest is answered with. Knows nothing of what was called."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CallError", "Errno"]


class Errno(IntEnum):
    """``nn_errno`` of the witx, and the codes that other runtimes add for streams."""

    SUCCESS = 0
    INVALID_ARGUMENT = 1
    INVALID_ENCODING = 2
    MISSING_MEMORY = 3
    BUSY = 4
    RUNTIME_ERROR = 5
    UNSUPPORTED_OPERATION = 6
    TOO_LARGE = 7
    NOT_FOUND = 8
    END_OF_SEQUENCE = 100
    CONTEXT_FULL = 101
    PROMPT_TOO_LONG = 102


class CallError(Exception):
    """What a guest's call is answered with."""

    def __init__(self, errno: Errno, message: str) -> None:
        super().__init__(message)
        self.errno = errno
