"""One loaded model at work: a bounded queue, worker threads, batching, deadlines, cancelling.

A request makes one hop to a worker and one back: the worker decodes, preprocesses, infers and postprocesses. Each
worker has its own guest. When more requests wait than there are workers, and the model's batch dimension is dynamic,
a worker takes several in one guest call. Knows nothing of HTTP, of what is active, or of what the hooks do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from openvino_llama.answering import Answering, Flow, Stage, time_is_over
from openvino_llama.batches import grouped, largest_batch, split
from openvino_llama.config import Isolation, ModelConfig
from openvino_llama.errors import (
    ContextLengthError,
    DeadlineExceededError,
    GuestTrapError,
    HookError,
    QueueFullError,
    SandboxError,
    UnavailableError,
)
from openvino_llama.hookspecs import Chunk, Preprocessed
from openvino_llama.jobs import Job, LastOf, Part, Whole
from openvino_llama.keeping import KeptGuest
from openvino_llama.observer import Observer, SilentObserver
from openvino_llama.priority import make_way
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.guest import StreamEnd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openvino_llama.plugins import ModelHooks
    from openvino_llama.sandbox.guest import Guest

__all__ = ["Runner", "Workers"]

logger = logging.getLogger(__name__)

_STUCK_SECONDS = 5.0
_LOOK_SECONDS = 0.1
"""Between two looks for streams that have to end."""
_LARGEST_GUEST = 16 << 20
"""Bytes of linear memory that a guest of a model that streams keeps from request to request."""


class Workers(msgspec.Struct, frozen=True):
    """How the workers of one model work."""

    number: int
    stream: bool = False
    """Whether the model gives output after output."""
    make_way: bool = False
    """Whether another process runs the model: what hands its outputs on must not keep it waiting."""


class Runner:
    """The worker threads of one model."""

    def __init__(
        self,
        config: ModelConfig,
        hooks: ModelHooks,
        make_guest: Callable[[], Guest],
        workers: Workers,
        observer: Observer | None = None,
    ) -> None:
        """Start the workers; raises what making a guest raised if the first one cannot be made."""
        self._config = config
        self._hooks = hooks
        self._make_guest = make_guest
        self._observer = observer or SilentObserver()
        self._per_request = config.isolation is Isolation.PER_REQUEST
        self._streams = workers.stream
        self._makes_way = workers.make_way
        # What must leave nothing for the next request must not meet another one in its guest either.
        self._max_batch = 1 if self._per_request or workers.stream else largest_batch(config)
        self._waiting: deque[Job] = deque()
        self._parts: deque[Part] = deque()
        """Of requests that a worker has begun: they come first, and take no places of those that wait."""
        self._changed = threading.Condition()
        self._idle = 0
        """Workers that wait for requests, or have been told of some and are about to wake up."""
        self._closing = False
        self._deadlines: dict[int, Deadline] = {}
        started: list[Future[None]] = [Future() for _ in range(workers.number)]
        self._threads = [
            threading.Thread(target=self._work, args=(each,), name=f"ovllama-{config.name}-{number}", daemon=True)
            for number, each in enumerate(started)
        ]
        try:
            for thread in self._threads:
                thread.start()
            self._await_start(started)
        except BaseException:
            self.close()
            raise

    def _await_start(self, started: Sequence[Future[None]]) -> None:
        errors = [each.exception() for each in started]
        failed = next((error for error in errors if error), None)
        if failed:
            raise failed

    @property
    def workers(self) -> int:
        """Number of worker threads."""
        return len(self._threads)

    @property
    def queue_length(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def is_stuck(self) -> bool:
        """Whether an inference has not ended although its deadline is long over: the device is wedged."""
        return any(deadline.seconds_over() > _STUCK_SECONDS for deadline in list(self._deadlines.values()))

    def check_room(self) -> None:
        """Raise QueueFullError if there is no place for a request, UnavailableError while unloading."""
        if self._closing:
            raise self._unloading()
        # What an idle worker is about to take does not wait: a burst fills the workers first, and then the queue.
        waiting = len(self._waiting) - max(0, self._idle - len(self._parts))
        if waiting >= self._config.limits.queue_size:
            name = self._config.name
            raise QueueFullError(f"the queue of model {name!r} is full: {waiting} requests wait")

    def submit(self, job: Job) -> Job:
        """Queue a request; raises what ``check_room`` does."""
        with self._changed:
            self.check_room()
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more: free its place, or end its inference."""
        job.deadline.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.future.cancel()

    def close(self) -> None:
        """Take no more, finish what was accepted, end the workers, free their guests.

        A stream may go on for as long as something comes. Those that are not at their end when the time is over that a
        request may take (``limits.deadline_s``) are ended; who reads them is told so.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        patience = Deadline(self._config.limits.deadline_s)
        for thread in self._threads:
            if thread.ident:  # it was started
                thread.join(patience.remaining())
                while thread.is_alive():
                    self._end_streams()
                    thread.join(_LOOK_SECONDS)

    def _end_streams(self) -> None:
        if self._streams:  # every other request has a deadline that no output puts off
            for deadline in list(self._deadlines.values()):
                deadline.cancel(self._unloading())

    def _unloading(self) -> UnavailableError:
        return UnavailableError(f"model {self._config.name!r} is being unloaded")

    # ---- on the worker threads ----------------------------------------------------------------------------------

    def _work(self, started: Future[None]) -> None:
        if self._makes_way:
            make_way()
        # A model that streams has many workers: what one large picture took must not stay with each of them.
        largest = _LARGEST_GUEST if self._streams else None
        kept = KeptGuest(self._make_guest, 0 if self._per_request else largest)
        try:
            with kept:
                pass
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        while jobs := self._take():
            with Answering(jobs):
                self._serve(kept, jobs)
            jobs.clear()  # their pictures and tensors are not kept until the next request comes
        kept.drop()

    def _serve(self, kept: KeptGuest, jobs: list[Job]) -> None:
        ready = [job for job in jobs if self._preprocess(job)]
        if self._streams:
            for job in ready:
                with Answering([job]):
                    self._stream(kept, job)
            return
        for group in grouped(ready, self._max_batch):
            self._infer(kept, group)

    def _take(self) -> list[Job]:
        """Wait for the next jobs, at most as many as fit a batch and as leave the other workers their share."""
        with self._changed:
            while not (waiting := len(self._parts) + len(self._waiting)):
                if self._closing:
                    return []
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            share = min(self._max_batch, 1 + (waiting - 1) // self.workers)
            return [(self._parts or self._waiting).popleft() for _ in range(share)]

    def _preprocess(self, job: Job) -> bool:
        """Whether the job is ready for its inference; if not, it has been answered or spread over the workers."""
        if not job.future.set_running_or_notify_cancel():
            return False
        ready = False
        with Answering([job]):
            if job.deadline.is_over():
                raise time_is_over(job.deadline, "in the queue")
            ready = isinstance(job, Part) or self._become_tensors(job)
        return ready  # noqa: RET504 - False where the body raised

    def _become_tensors(self, job: Job) -> bool:
        """Whether the job has tensors of its own now; if not, its parts have."""
        self._observer.stage(self._config.name, "queue", time.perf_counter() - job.submitted)
        with self._stage("preprocess"):
            prepared = self._hooks.preprocess(config=self._config, request=job.request)
        if isinstance(prepared, Preprocessed):
            self._config.validate_input(prepared.tensors)
            job.prepared = prepared
            return True
        self._spread(job, list(prepared))
        return False

    def _spread(self, job: Job, several: list[Preprocessed]) -> None:
        """Let all workers share in a request of several inferences, before those that came after it."""
        if self._streams or not several:
            raise HookError(f"preprocess gave {len(several)} sets of tensors for one request")
        for each in several:
            self._config.validate_input(each.tensors)
        whole = Whole(job, several, self._answer_whole)
        with self._changed:
            self._parts.extend(whole.parts)
            self._changed.notify_all()

    def _answer_whole(self, job: Job) -> None:
        with Answering([job]):
            self._finish(job)

    def _finish(self, job: Job) -> None:
        """Answer a request of several outputs, all of which have been seen."""
        result = self._hooks.postprocess(config=self._config, outputs={}, context=job.prepared.context)
        job.future.set_result(job.finish(result))

    def _infer(self, kept: KeptGuest, jobs: list[Job]) -> None:
        """Answer the jobs with one inference for all of them; if that fails, with one for each."""
        if len(jobs) > 1:
            try:
                self._infer_together(kept, jobs)
            except Exception as error:
                # One request must not spoil the answers of those that it happened to be put together with.
                logger.warning("model %s: a batch of %d failed: %s", self._config.name, len(jobs), error)
        for job in jobs:
            if not job.future.done():
                with Answering([job]):
                    self._infer_together(kept, [job])

    def _infer_together(self, kept: KeptGuest, jobs: list[Job]) -> None:
        if all(job.deadline.is_over() for job in jobs):
            raise time_is_over(jobs[0].deadline, "before the inference")
        with kept as guest:
            outputs = self._call(guest, jobs)
            for job, own in zip(jobs, split(outputs, jobs), strict=True):
                with Answering([job]), self._stage("postprocess"):
                    result = self._hooks.postprocess(config=self._config, outputs=own, context=job.prepared.context)
                    job.future.set_result(job.finish(result))

    def _call(self, guest: Guest, jobs: list[Job]) -> Mapping[str, NDArray[Any]]:
        self._observer.batch(self._config.name, len(jobs))
        started = time.perf_counter()
        try:
            with _Inferring(self._deadlines, self._observer, self._config.name, jobs) as deadline:
                outputs = guest.infer([job.prepared.tensors for job in jobs], deadline)
        finally:
            spent = time.perf_counter() - started
            self._observer.stage(self._config.name, "compute", guest.compute_seconds)
            self._observer.stage(self._config.name, "sandbox", spent - guest.compute_seconds)
        if isinstance(outputs, StreamEnd):
            raise SandboxError("the guest ended a stream of a model that does not stream")
        return outputs

    def _stream(self, kept: KeptGuest, job: Job) -> None:
        """Answer a job with output after output, until the model or the plugin ends the stream."""
        flow = Flow(job)
        try:
            with kept as guest, _Inferring(self._deadlines, self._observer, self._config.name, [job]):
                self._flow(guest, job, flow)
        finally:
            flow.observe(self._observer, self._config.name)
        self._finish(job)

    def _flow(self, guest: Guest, job: Job, flow: Flow) -> None:
        outputs = None
        try:
            outputs = guest.infer([job.prepared.tensors], job.deadline)
            while not isinstance(outputs, StreamEnd):
                context = job.prepared.context
                chunk = self._hooks.postprocess(config=self._config, outputs=outputs, context=context)
                if not isinstance(chunk, Chunk):
                    raise HookError(f"postprocess gave no Chunk for an output of a stream, but {type(chunk).__name__}")
                flow.pass_on(chunk)
                if chunk.last:
                    return
                if job.deadline.is_over():  # cancelled: quick models would give some more
                    raise time_is_over(job.deadline, "between two outputs")
                outputs = guest.next(job.deadline)
        finally:
            if not isinstance(outputs, StreamEnd):
                guest.stop()
        if outputs is StreamEnd.PROMPT_TOO_LONG:
            raise ContextLengthError("the prompt has more tokens than the model can take")

    def _stage(self, name: str) -> Stage:
        return Stage(self._observer, self._config.name, name)


class _Inferring:
    """An inference for these jobs, seen by whoever looks for wedged ones; what ends it early is told."""

    __slots__ = ("_deadline", "_jobs", "_model", "_observer", "_running")

    def __init__(self, running: dict[int, Deadline], observer: Observer, model: str, jobs: Sequence[Job]) -> None:
        """``running`` gets its deadline, by the number of its thread."""
        self._running = running
        self._observer = observer
        self._model = model
        self._jobs = jobs
        self._deadline = jobs[0].deadline if len(jobs) == 1 else LastOf([job.deadline for job in jobs])

    def __enter__(self) -> Deadline:
        self._running[threading.get_ident()] = self._deadline
        return self._deadline

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        del self._running[threading.get_ident()]
        if isinstance(error, DeadlineExceededError):
            raise time_is_over(self._jobs[0].deadline, "during the inference") from error
        if isinstance(error, GuestTrapError):
            self._observer.trap(self._model)
