"""One sequence as the server sees it: what the engine gives is put in on one thread and taken out on another."""

from __future__ import annotations

import queue
from collections.abc import Callable

from openvino_llama import InferenceError, OpenVINOLlamaError
from openvino_llama_text.engine.frames import Output, joined

__all__ = ["Sequence"]


class Sequence:
    """Tokens on their way from the engine to whoever waits for them. Never full: max_tokens bounds it."""

    def __init__(self, number: int, forget: Callable[[Sequence], None]) -> None:
        """``forget`` is called, on the cancelling thread, if it is cancelled."""
        self.number = number
        self.is_cancelled = False
        self._forget = forget
        self._arrived: queue.SimpleQueue[Output | OpenVINOLlamaError] = queue.SimpleQueue()

    def put(self, item: Output | OpenVINOLlamaError) -> None:
        """Add what a step gave, or why nothing more will come."""
        self._arrived.put(item)

    def take(self) -> Output:
        """Wait for the next tokens, and take all that are there; raises the error that ended the sequence."""
        output = self._next()
        while output.reason is None and not self._arrived.empty():
            output = joined(output, self._next())
        return output

    def cancel(self) -> None:
        """Make ``take`` raise at once and the engine forget the sequence. From any thread, at any time."""
        self.is_cancelled = True
        self._arrived.put(InferenceError("the generation was cancelled"))
        self._forget(self)

    def _next(self) -> Output:
        item = self._arrived.get()
        if isinstance(item, OpenVINOLlamaError):
            self._arrived.put(item)  # for whoever asks again
            raise item
        if self.is_cancelled:
            raise InferenceError("the generation was cancelled")
        return item
