"""One request on its way through a runner, and what several of them have in common.

Knows nothing of threads or of guests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from openvino_llama.hookspecs import InferenceRequest, Preprocessed
from openvino_llama.sandbox.deadline import Deadline

__all__ = ["Emit", "Finish", "Job", "LastOf", "Part", "Whole"]

Finish = Callable[[Any], Any]
"""What is done on the worker to that which ``postprocess`` gave: encoding it, for example."""

Emit = Callable[[Any], None]
"""Takes the data of each chunk of a stream, on the worker."""


def _as_it_is(result: Any) -> Any:
    return result


class Job:
    """One request."""

    __slots__ = ("deadline", "emit", "finish", "future", "prepared", "request", "submitted")

    def __init__(
        self, request: InferenceRequest, deadline: Deadline, finish: Finish = _as_it_is, emit: Emit | None = None
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.finish = finish
        self.emit = emit
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


class Part(Job):
    """One of the inferences of a request that has several."""

    __slots__ = ()

    def __init__(self, whole: Job, prepared: Preprocessed) -> None:
        super().__init__(whole.request, whole.deadline)
        self.prepared = prepared


class Whole:
    """A request of several inferences: answered when the last of them is, or when one has failed."""

    def __init__(self, job: Job, prepared: Sequence[Preprocessed], answer: Callable[[Job], None]) -> None:
        """``answer`` is called once, by the thread that has answered the last part."""
        self._job = job
        self._answer = answer
        self._left = len(prepared)
        self._lock = threading.Lock()
        self.parts = [Part(job, each) for each in prepared]
        job.prepared = Preprocessed({}, prepared[0].context)  # it has no tensors of its own
        for part in self.parts:
            part.future.add_done_callback(self._one_done)

    def _one_done(self, future: Future[Any]) -> None:
        with self._lock:
            self._left -= 1
            is_last = not self._left  # two parts may end at the same time, and only one of them is the last
            failed = future.exception()
            if failed and not self._job.future.done():
                self._job.future.set_exception(failed)
                self._job.deadline.cancel()  # the other parts are for nothing
        if is_last and not self._job.future.done():
            self._answer(self._job)


class LastOf(Deadline):
    """The deadline of an inference for several jobs: over when every one of theirs is."""

    __slots__ = ("_deadlines",)

    def __init__(self, deadlines: Sequence[Deadline]) -> None:
        super().__init__(max(each.remaining() for each in deadlines))
        self._deadlines = deadlines

    @property
    def at(self) -> float:
        """The last of theirs."""
        return max(each.at for each in self._deadlines)

    def on_cancel(self, notify: Callable[[], None]) -> None:
        """When any of theirs is."""
        for each in self._deadlines:
            each.on_cancel(notify)

    def remaining(self) -> float:
        """The longest of theirs, in seconds."""
        return max(each.remaining() for each in self._deadlines)

    def is_over(self, now: float | None = None) -> bool:
        """Whether all of theirs are."""
        return all(each.is_over(now) for each in self._deadlines)

    def seconds_over(self) -> float:
        """The shortest of theirs."""
        return min(each.seconds_over() for each in self._deadlines)
