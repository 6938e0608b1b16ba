"""One request for a model and its answer: limits, metrics, cancelling when the client leaves.

Every route that runs models is made of this, the plugins' own included. Knows nothing of what is asked or answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from openvino_llama.errors import RequestCancelledError
from openvino_llama.hookspecs import InferenceRequest, Part
from openvino_llama.jobs import Finish
from openvino_llama.models import Model
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.server.bodies import read_body, read_parts
from openvino_llama.server.problems import status_of
from openvino_llama.server.state import Server

__all__ = ["Exchange", "Gateway"]

HttpRequest = Request[Any, Any, Any]
Read = TypeVar("Read")

_BODY_SECONDS = 30.0
"""What a body may take that says itself which model is meant; any other has the model's own deadline."""
_QUICK_SECONDS = 0.05
"""Nobody looks whether the client has left who is answered so quickly: looking costs more than it could save."""


class Gateway:
    """What routes of plugins take by the dependency name ``gateway``."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def exchange(
        self,
        request: HttpRequest,
        endpoint: str,
        work: Callable[[Exchange], Awaitable[ASGIApp]],
        refuse: Callable[[Exception], ASGIApp] | None = None,
    ) -> ASGIApp:
        """The response to a request: what ``work`` makes of it, or ``refuse`` of what ``work`` raised.

        ``endpoint`` is what the metrics call it. The response is sent within the exchange, so that it may be a stream.
        """
        return Exchange(self._server, request, endpoint, work, refuse)


class Exchange:
    """A request for a model on its way to the answer. An ASGI app, to be returned by a route."""

    def __init__(
        self,
        server: Server,
        request: HttpRequest,
        endpoint: str,
        work: Callable[[Exchange], Awaitable[ASGIApp]],
        refuse: Callable[[Exception], ASGIApp] | None = None,
    ) -> None:
        self.request = request
        self._server = server
        self._endpoint = endpoint
        self._work = work
        self._refuse = refuse
        self._limit = server.settings.max_body_bytes
        self._started = time.perf_counter()
        self._deadline = Deadline(_BODY_SECONDS)
        self._deadlines: set[Deadline] = set()
        """Those of the inferences that have not ended."""
        self._task: asyncio.Task[Any] | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None
        self._room = 0
        """Bytes that are kept for the body."""
        self._body: bytes | None = None
        self.model: Model | None = None
        """The model that was chosen."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the work and send its answer."""
        sending = _Sending(send)
        status = 0
        try:
            self._room = self._server.bodies.keep(self.request)
            await self._answer(scope, receive, sending)
            status = sending.status
        except BaseException as error:
            status = status_of(error)
            if sending.status:
                if not sending.complete and not isinstance(error, RequestCancelledError):
                    raise  # the connection is cut: nothing else tells that an answer is not whole
            elif self._refuse is None or not isinstance(error, Exception):
                raise
            else:
                await self._refuse(error)(scope, receive, send)
        finally:
            self._server.bodies.give(self._room)
            name = self.model.name if self.model else ""
            self._server.metrics.request(self._endpoint, name, status, time.perf_counter() - self._started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._task = asyncio.current_task()
        try:
            response = await self._work(self)
            await response(scope, receive, send)
        except asyncio.CancelledError:
            if self._gone and self._gone.done() and self._task:
                self._task.uncancel()
                raise RequestCancelledError("the client has left") from None
            raise
        finally:
            for deadline in self._deadlines:
                deadline.cancel()  # what still runs now (one of several has failed) is for nothing
            self._stop_watching()

    def choose(self, model_type: str, name: str | None = None) -> Model:
        """The named model of that type, or the active one; raises if it is not there, not ready or overloaded."""
        return self._chose(self._server.pipeline.choose(self._server.plugins.model_type(model_type), name))

    def choose_for(self, kind: type[msgspec.Struct], name: str | None = None, *, first: str = "") -> Model:
        """The named model of whatever type, if it answers requests of that kind (ModelType.answers); or an active one.

        The model type ``first`` comes before the others. InvalidInputError if the model answers other requests, else
        as ``choose``.
        """
        model_types = sorted(self._server.plugins.model_types.values(), key=lambda each: each.name != first)
        return self._chose(self._server.pipeline.choose_for(kind, model_types, name))

    def _chose(self, model: Model) -> Model:
        self.model = model
        self._deadline = Deadline(model.entry.limits.deadline_s)
        model.serving.runner.check_room()
        return model

    async def body(self) -> bytes:
        """The body, its content coding undone; a client that sends it too slowly is not waited for.

        It comes only once: whoever takes it from here must not have Litestar read it as well.
        """
        if self._body is None:
            self._body = await self._in_time(read_body(self.request, self._limit))
            self._has_size(len(self._body))
        return self._body

    async def parts(self) -> tuple[Part, ...]:
        """The parts of a multipart body."""
        parts = await self._in_time(read_parts(self.request, self._limit))
        self._has_size(sum(len(part.body) for part in parts))
        return parts

    def _has_size(self, size: int) -> None:
        """The body turned out to be so large: what was kept for it beyond that is free for others."""
        self._server.bodies.give(self._room - size)
        self._room = size

    async def infer(self, request: InferenceRequest, *finish: Finish) -> Any:
        """The answer of the chosen model; what ``finish`` makes of it on the worker."""
        model, deadline = self._chosen(), self._own_deadline()
        try:
            return await self._server.pipeline.infer(model, request, deadline, *finish)
        finally:
            self._deadlines.discard(deadline)

    def stream(self, request: InferenceRequest, encode: Finish, finish: Finish) -> AsyncGenerator[list[Any]]:
        """What ``encode`` makes of each chunk of the chosen model and ``finish`` of the answer, both on the worker."""
        model, deadline = self._chosen(), self._own_deadline()
        return self._to_its_end(deadline, self._server.pipeline.stream(model, request, deadline, encode, finish))

    async def _to_its_end(self, deadline: Deadline, stream: AsyncGenerator[list[Any]]) -> AsyncGenerator[list[Any]]:
        try:
            async with aclosing(stream):
                async for chunks in stream:
                    yield chunks
        finally:
            self._deadlines.discard(deadline)

    def _chosen(self) -> Model:
        if self.model is None:
            raise RuntimeError("no model has been chosen")
        self._watch()
        return self.model

    def _own_deadline(self) -> Deadline:
        deadline = self._deadline.again()
        self._deadlines.add(deadline)
        return deadline

    async def _in_time(self, reading: Awaitable[Read]) -> Read:
        try:
            return await _within(self._deadline.remaining(), reading)
        except TimeoutError:
            raise HTTPException(status_code=408, detail="the body did not come in time") from None

    def _watch(self) -> None:
        """From now on, when the client leaves, the work is cancelled, so that its requests give their places free."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().call_later(_QUICK_SECONDS, self._watch_now)

    def _watch_now(self) -> None:
        self._gone = asyncio.ensure_future(_disconnected(self.request))
        self._gone.add_done_callback(self._leave)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching.cancel()
        if self._gone:
            self._gone.remove_done_callback(self._leave)
            self._gone.cancel()

    def _leave(self, _: object) -> None:
        if self._task:
            self._task.cancel()


class _Sending:
    """Passes a response on, and knows how far it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """0 until it has begun."""
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.complete = not message.get("more_body", False)
        await self._send(message)


async def _within(seconds: float, reading: Awaitable[Read]) -> Read:
    """As asyncio.timeout does it, which takes longer where nothing is late. Raises TimeoutError."""
    task, late = asyncio.current_task(), False
    before = task.cancelling() if task else 0

    def give_up() -> None:
        nonlocal late
        late = True
        if task:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await reading
    except asyncio.CancelledError:
        if not late or task is None or task.uncancel() > before:  # somebody else has cancelled it as well
            raise
        raise TimeoutError from None
    finally:
        timer.cancel()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # what a multipart body has after its last part
