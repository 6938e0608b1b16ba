"""The path of a request: find the model, let its runner work, wait without blocking the event loop.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from openvino_llama.config import ModelType
from openvino_llama.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelNotFoundError,
    OpenVINOLlamaError,
    UnavailableError,
)
from openvino_llama.hookspecs import InferenceRequest
from openvino_llama.jobs import Finish, Job
from openvino_llama.mailbox import Mailbox
from openvino_llama.models import Model, Models
from openvino_llama.reading import read_fields
from openvino_llama.runner import Runner
from openvino_llama.sandbox.deadline import Deadline

__all__ = ["Pipeline", "read_parameters", "told_apart"]

_GRACE_SECONDS = 0.25
"""The watchdog ends a running inference at its deadline; this is what that may take."""


class Pipeline:
    """What serves requests."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._mailboxes: WeakKeyDictionary[Runner, Mailbox] = WeakKeyDictionary()
        """One for each loaded model: the answers of a quick one must not wait for those of a slow one."""

    def _news(self, runner: Runner, deadline: Deadline, *, stream: bool = False) -> _News:
        loop = asyncio.get_running_loop()
        mailbox = self._mailboxes.get(runner)
        if mailbox is None or mailbox.loop is not loop:
            self._mailboxes[runner] = mailbox = Mailbox(loop)
        return _News(mailbox, deadline, stream=stream)

    def choose(self, model_type: ModelType, name: str | None = None) -> Model:
        """The named model, or the active one of the model type's endpoint."""
        if name is None:
            return self.models.active(model_type.endpoint)
        model = self.models.get(name)
        if model.entry.type != model_type.name:
            raise ModelNotFoundError(f"model {name!r} is of type {model.entry.type!r}, not {model_type.name!r}")
        return model

    def choose_for(
        self, kind: type[msgspec.Struct], model_types: Sequence[ModelType], name: str | None = None
    ) -> Model:
        """The named model, if it answers requests of that kind, or the first of the model types' active ones that does.

        ModelNotFoundError if there is none, InvalidInputError if it answers others.
        """
        takers = {each.name: each for each in model_types if kind in each.answers}
        if not takers:
            raise ModelNotFoundError(f"no installed plugin has models for such a request ({kind.__name__})")
        models = [self.models.get(name)] if name is not None else self._active(takers.values())
        for model in models:
            if model.entry.type in takers and model.entry.task in takers[model.entry.type].answers[kind]:
                return model
        which = f"{name!r}" if name is not None else f"name one; the active one, {models[0].name!r},"
        tasks = {task: None for each in takers.values() for task in each.answers[kind]}  # in their order
        raise InvalidInputError(
            f"model: {which} has the task {models[0].entry.task!r}; expected a model with the task {' or '.join(tasks)}"
        )

    def _active(self, model_types: Iterable[ModelType]) -> list[Model]:
        """The active models of the types; what is wrong is raised if there is none at all."""
        active: list[Model] = []
        failures: list[OpenVINOLlamaError] = []
        for each in model_types:
            try:
                active.append(self.models.active(each.endpoint))
            except (ModelNotFoundError, UnavailableError) as error:
                failures.append(error)
        if not active:  # one that is being loaded says more than one that is not there
            raise max(failures, key=lambda error: isinstance(error, UnavailableError))
        return active

    async def infer(self, model: Model, request: InferenceRequest, deadline: Deadline, *finish: Finish) -> Any:
        """Preprocess, infer, postprocess and finish on one of the model's workers.

        Raises what went wrong there, QueueFullError or DeadlineExceededError. If the awaiting task is cancelled, the
        request gives its place free.
        """
        runner = model.serving.runner
        with closing(self._news(runner, deadline)) as news:
            job = runner.submit(Job(request, deadline, *finish))
            job.future.add_done_callback(news.end)
            try:
                _, ended = await news.next()
                if not ended:
                    raise deadline.reason or _too_late(model)
                return job.future.result()
            finally:
                if not job.future.done():
                    runner.cancel(job)

    async def stream(
        self, model: Model, request: InferenceRequest, deadline: Deadline, encode: Finish, finish: Finish
    ) -> AsyncGenerator[list[Any]]:
        """What ``encode`` makes of each chunk, as they come, several at a time if several have come; at last, what
        ``finish`` makes of the answer.

        Both are called on the worker. Raises as ``infer`` does; closing the iterator gives the request's place free.
        """
        runner = model.serving.runner
        with closing(self._news(runner, deadline, stream=True)) as news:
            job = runner.submit(Job(request, deadline, finish, lambda data: news.tell(encode(data))))
            job.future.add_done_callback(news.end)
            try:
                ended = False
                while not ended:
                    chunks, ended = await news.next()
                    if chunks:
                        yield chunks
                    if news.too_late and not ended:
                        raise deadline.reason or _too_late(model)
                yield [job.future.result()]
            finally:
                if not job.future.done():
                    runner.cancel(job)


class _News:
    """Carries what comes of one request from its worker to the event loop."""

    def __init__(self, mailbox: Mailbox, deadline: Deadline, *, stream: bool) -> None:
        self._mailbox = mailbox
        self._stream = stream
        self._mailbox.begin(stream=stream)
        self._loop = mailbox.loop
        self._deadline = deadline
        self._chunks: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None
        self._timer = self._loop.call_later(deadline.remaining() + _GRACE_SECONDS, self._check)
        self._ended = False
        self.too_late = False

    def tell(self, chunk: Any) -> None:
        """Something has come. Called on the worker."""
        self._call(self._take, chunk)

    def end(self, _: Future[Any]) -> None:
        """The answer is there, or the error. Called on any thread."""
        self._call(self._take_end)

    async def next(self) -> tuple[list[Any], bool]:
        """Wait for news: the chunks that have come, and whether they are the last."""
        if not (self._chunks or self._ended or self.too_late):
            self._waiter = self._loop.create_future()  # an Event would make one too, and do more with it
            await self._waiter
        chunks, self._chunks = self._chunks, []
        return chunks, self._ended

    def close(self) -> None:
        """Nobody wants any more."""
        self._timer.cancel()
        self._mailbox.end(stream=self._stream)

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            self._mailbox.post(function, *arguments)
        except RuntimeError:  # the loop has been closed: nobody is there any more
            self._deadline.cancel()

    def _take(self, chunk: Any) -> None:
        self._chunks.append(chunk)
        self._wake()

    def _take_end(self) -> None:
        self._ended = True
        self._wake()

    def _check(self) -> None:
        """The deadline is put off by each output: one timer that follows it costs less than one for each."""
        left = self._deadline.remaining()
        if left:
            self._timer = self._loop.call_later(left + _GRACE_SECONDS, self._check)
        else:
            self.too_late = True
            self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


def _too_late(model: Model) -> DeadlineExceededError:
    return DeadlineExceededError(f"model {model.name!r} did not answer in time")


def read_parameters(model_type: ModelType, given: Mapping[str, str]) -> Any:
    """The parameters of a request as the model type's Struct; InvalidInputError names one that is wrong."""
    if model_type.parameters is None:
        if given:
            raise InvalidInputError(f"the endpoint {model_type.endpoint!r} takes no parameters; got {sorted(given)}")
        return None
    return read_fields(dict(given), model_type.parameters, strict=False, word="parameter")


def told_apart(model_type: ModelType, given: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """The parameters among what stands for a query and the fields of a form together, and these fields."""
    struct = model_type.parameters
    known = {field.encode_name for field in msgspec.structs.fields(struct)} if struct else set()
    values = read_parameters(model_type, {name: value for name, value in given.items() if name in known})
    return values, {name: value for name, value in given.items() if name not in known}
