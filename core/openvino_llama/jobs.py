"""One request on its way through a runner, and what several of them have in common.

Knows nothing of threads or of guests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from openvino_llama.hookspecs import InferenceRequest, Preprocessed
from openvino_llama.sandbox.deadline import Deadline

__all__ = ["Finish", "Job", "LastOf"]

Finish = Callable[[Any], Any]
"""What is done on the worker to that which ``postprocess`` gave: encoding it, for example."""


def _as_it_is(result: Any) -> Any:
    return result


class Job:
    """One request."""

    __slots__ = ("deadline", "finish", "future", "prepared", "request", "submitted")

    def __init__(self, request: InferenceRequest, deadline: Deadline, finish: Finish = _as_it_is) -> None:
        self.request = request
        self.deadline = deadline
        self.finish = finish
        self.future: Future[Any] = Future()
        """Gets what ``finish`` made of what ``postprocess`` gave, or the error."""
        self.submitted = time.perf_counter()
        self.prepared = Preprocessed({})

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Jobs with equal keys fit into one inference: all shapes but the batch dimension agree."""
        shapes = [array.shape for _, array in sorted(self.prepared.tensors.items())]
        if len({shape[:1] for shape in shapes}) != 1:
            return (id(self),)  # its tensors have no common number of rows: nothing can be put beside them
        return tuple(shape[1:] for shape in shapes)

    @property
    def rows(self) -> int:
        """Length of the batch dimension."""
        return next(len(array) for array in self.prepared.tensors.values())


class LastOf(Deadline):
    """The deadline of an inference for several jobs: over when every one of theirs is."""

    __slots__ = ("_deadlines",)

    def __init__(self, deadlines: Sequence[Deadline]) -> None:
        super().__init__(max(each.remaining() for each in deadlines))
        self._deadlines = deadlines

    def remaining(self) -> float:
        """The longest of theirs, in seconds."""
        return max(each.remaining() for each in self._deadlines)

    def seconds_over(self) -> float:
        """The shortest of theirs."""
        return min(each.seconds_over() for each in self._deadlines)
