"""What stands around each step of a request on its worker: how long it took, what becomes of an error.

These are entered several times a request: they are classes, since a generator's context manager costs two to three
times as much. Knows nothing of threads or of guests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from openvino_llama.errors import DeadlineExceededError, HookError, OpenVINOLlamaError, RequestCancelledError
from openvino_llama.hookspecs import Chunk
from openvino_llama.jobs import Job
from openvino_llama.observer import Observer
from openvino_llama.sandbox.deadline import Deadline

__all__ = ["Answering", "Flow", "Stage", "time_is_over"]

logger = logging.getLogger(__name__)


class Stage:
    """Tells how long the body took."""

    __slots__ = ("_model", "_name", "_observer", "_started")

    def __init__(self, observer: Observer, model: str, name: str) -> None:
        self._observer = observer
        self._model = model
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._observer.stage(self._model, self._name, time.perf_counter() - self._started)


class Answering:
    """Answers the jobs that have no answer yet with the exception of the body."""

    __slots__ = ("_jobs",)

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if error is None:
            return False
        if not isinstance(error, OpenVINOLlamaError):
            # Plugins' code runs here: whatever it raises must not end the worker. Nor is it handed on as it is:
            # SystemExit would end the event loop, StopIteration would never arrive, TimeoutError be taken for another.
            logger.error("a request failed unexpectedly", exc_info=error)
            failure = HookError("the request failed unexpectedly; the log has the error")
            failure.__cause__ = error
            error = failure
        for job in self._jobs:
            if not job.future.done():
                job.future.set_exception(error)
        return True


class Flow:
    """What has come of a stream so far."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tokens = 0
        self._first = 0.0

    def pass_on(self, chunk: Chunk) -> None:
        """The next output is for whoever waits; there is as much time again for the one after it."""
        self._first = self._first or time.perf_counter()
        self._tokens += chunk.tokens
        self._job.deadline.renew()
        if self._job.emit and chunk.data is not None:
            self._job.emit(chunk.data)

    def observe(self, observer: Observer, model: str) -> None:
        """The stream has ended."""
        if self._tokens:
            ended = time.perf_counter()
            observer.stream(model, self._first - self._job.submitted, ended - self._first, self._tokens)


def time_is_over(deadline: Deadline, where: str) -> OpenVINOLlamaError:
    """The error for a request whose deadline is over: nobody waits for it, it had to end, or it took too long."""
    if deadline.cancelled:
        return deadline.reason or RequestCancelledError("the client has left")
    return DeadlineExceededError(f"the request's time was over {where}")
