"""What routes of plugins are made of: the gateway of ``openvino_llama.web``, with answers and errors of their own."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from tests.counting import BACKEND, GATES
from tests.server.support import Live, live_server, tiny_plugins
from tests.server.test_overload import hang_up, until

from openvino_llama import InferenceRequest, InvalidInputError, hookimpl
from openvino_llama.server.settings import Settings
from openvino_llama.web import Exchange, Gateway, decode_object, event, headers_of, open_events, problem_of
from tests import counting, graphs

HttpRequest = Request[Any, Any, Any]
TYPE = "application/json"


def answered(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> ASGIApp:
    return ASGIResponse(body=msgspec.json.encode(content), status_code=status, media_type=TYPE, headers=headers)


def refuse(error: Exception) -> ASGIApp:
    """An error in the shape of this plugin's API."""
    problem = problem_of(error)
    return answered({"oops": {"code": problem.status, "message": problem.detail}}, problem.status, headers_of(error))


async def asked(exchange: Exchange) -> dict[str, Any]:
    """The body, for the model that it names."""
    content = decode_object(await exchange.body())
    exchange.choose("counting", content.pop("model", None))
    return content


def wanted(content: dict[str, Any], *, stream: bool = False) -> InferenceRequest:
    return InferenceRequest(json.dumps(content).encode(), TYPE, stream=stream)


async def several(exchange: Exchange) -> ASGIApp:
    """As many inferences as there are starts, at the same time."""
    content = await asked(exchange)
    each = [exchange.infer(wanted(content | {"start": start}), lambda got: got["seen"]) for start in content["starts"]]
    return answered(await asyncio.gather(*each))


async def merged(exchange: Exchange) -> ASGIApp:
    """The outputs of several inferences in one stream, each with the number of its own."""
    content = await asked(exchange)
    streams = [
        exchange.stream(
            wanted(content | {"start": start}, stream=True),
            partial(output, number),
            partial(end, number),
        )
        for number, start in enumerate(content["starts"])
    ]
    return open_events(both(streams), lambda error: event(b"!%d" % problem_of(error).status))


def output(number: int, data: Any) -> bytes:
    return event(b"%d:%d" % (number, data["value"]))


def end(number: int, _: Any) -> bytes:
    return event(b"%d:end" % number)


async def both(streams: Sequence[Any]) -> AsyncGenerator[list[bytes]]:
    """Whatever comes of any of them; the first error is the error."""
    pieces: asyncio.Queue[list[bytes] | Exception | None] = asyncio.Queue()

    async def pump(stream: Any) -> None:
        try:
            async with aclosing(stream):
                async for piece in stream:
                    pieces.put_nowait(piece)
            pieces.put_nowait(None)
        except Exception as error:
            pieces.put_nowait(error)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    left = len(tasks)
    try:
        while left:
            piece = await pieces.get()
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                left -= 1
            else:
                yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def first(exchange: Exchange) -> ASGIApp:
    """The answers of whichever inferences have ended first; the others go on."""
    content = await asked(exchange)
    each = [exchange.infer(wanted(content | {"start": start}), lambda got: got["seen"]) for start in content["starts"]]
    done, _ = await asyncio.wait(map(asyncio.ensure_future, each), return_when=asyncio.FIRST_COMPLETED)
    return answered([task.result() for task in done])


async def broken(exchange: Exchange) -> ASGIApp:
    """An answer whose second half does not come."""

    async def response(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise InvalidInputError("too late to say so")

    return response


async def created(exchange: Exchange) -> ASGIApp:
    """An answer with a status of its own."""
    return answered({}, 201)


async def unchosen(exchange: Exchange) -> ASGIApp:
    """A plugin's mistake."""
    return answered(await exchange.infer(wanted({"start": 1})))


async def handed(exchange: Exchange) -> ASGIApp:
    """A request that is for any model that answers its kind."""
    content = decode_object(await exchange.body())
    kind = counting.CountRequest if content["known"] else counting.CountingConfig
    model = exchange.choose_for(kind, content.get("model"), first="counting")
    request = InferenceRequest(b"", TYPE, counting.CountRequest(content["start"]))
    return answered(await exchange.infer(request, lambda got: [model.name, got["seen"]]))


WORKS = {work.__name__: work for work in (several, first, merged, broken, created, unchosen, handed)}


@post("/own/{name:str}")
async def own(request: HttpRequest, name: FromPath[str], gateway: NamedDependency[Gateway]) -> ASGIApp:
    return gateway.exchange(request, f"own/{name}", WORKS[name], refuse)


@get("/plain")
async def plain(request: HttpRequest, gateway: NamedDependency[Gateway]) -> ASGIApp:
    async def work(exchange: Exchange) -> ASGIApp:
        exchange.choose("counting", "nowhere")
        raise AssertionError("there is no such model")

    return gateway.exchange(request, "plain", work)


@hookimpl
def route_handlers() -> Sequence[Any]:
    return [own, plain]


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "count").touch()
    model = {"type": "counting", "task": "count", "files": {"model": "count"}}
    models = {"count": model | {"config": {"parallelism": 4}}, "single": model | {"limits": {"workers": 1}}}
    graphs.save(graphs.sums(), folder / "sums.xml")
    models["sums"] = model | {"task": "sum", "files": {"model": "sums.xml"}}
    (folder / "registry.json").write_text(json.dumps({"models": models}))
    routes = SimpleNamespace(OPENVINO_LLAMA_API=1, route_handlers=route_handlers)
    with live_server(Settings(registry=folder / "registry.json", port=0), tiny_plugins(counting, routes)) as live:
        yield live


@pytest.fixture(autouse=True)
def _nothing_goes_on(counts: Live) -> Iterator[None]:
    yield
    until(lambda: all(graph.running == 0 for graph in BACKEND.graphs.values()))
    until(lambda: counts.server.bodies._free == counts.server.settings.max_bodies_bytes)


@pytest.fixture
def gate() -> Iterator[str]:
    with counting.gate(uuid4().hex) as name:
        yield name


def ask(live: Live, name: str, **content: Any) -> httpx.Response:
    return live.http.post(f"/own/{name}", json=content)


def requests(live: Live, name: str, status: int) -> float:
    return live.metric("ovllama_requests_total", endpoint=f"own/{name}", status=str(status))


def test_several_inferences_of_one_request(counts: Live) -> None:
    """They run side by side, and what is made of them is one answer and one request of the metrics."""
    before = requests(counts, "several", 200)
    answer = ask(counts, "several", starts=[3, 1, 2])
    assert answer.json() == [[3, 2, 1], [1], [2, 1]]
    assert requests(counts, "several", 200) == before + 1


def test_what_goes_on_after_the_answer_is_stopped(counts: Live, gate: str) -> None:
    """Nobody waits for it: it must not keep its place."""
    answer = ask(counts, "first", starts=[5, 2], gates={"4": gate})
    assert answer.json() == [[2, 1]]
    GATES.await_waiting(gate)
    until(lambda: all(graph.running == 0 for graph in BACKEND.graphs.values()))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how often a thread has slept")
def test_a_request_that_ends_well_wakes_no_watchdog(counts: Live) -> None:
    """It is asleep until a deadline is over; a thread that wakes up for each request would cost them all something."""
    ask(counts, "several", starts=[1])
    watchdogs = [each for each in threading.enumerate() if each.name == "ovllama-watchdog"]
    assert watchdogs
    before = _sleeps(watchdogs)
    for _ in range(50):
        assert ask(counts, "several", starts=[1, 2]).status_code == 200
    assert _sleeps(watchdogs) - before < 10


def _sleeps(threads: Sequence[threading.Thread]) -> int:
    statuses = (Path(f"/proc/self/task/{each.native_id}/status").read_text() for each in threads)
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in statuses)


def test_their_outputs_in_one_stream(counts: Live) -> None:
    """Those of each are in their order."""
    answer = ask(counts, "merged", starts=[3, 2])
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")[:-1]]
    assert [line for line in lines if line[0] == "0"] == ["0:3", "0:2", "0:1", "0:end"]
    assert [line for line in lines if line[0] == "1"] == ["1:2", "1:1", "1:end"]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ({"starts": [3], "model": "nowhere"}, 404, "there is no model 'nowhere'"),
        ({"starts": [3, 1001]}, 400, "the prompt has more tokens than the model can take"),
        ({"starts": [3, 2], "fails_at": 2}, 500, "cannot give 2"),
    ],
)
def test_errors_in_the_plugins_own_shape(counts: Live, content: Any, status: int, message: str) -> None:
    """With the status that they have everywhere."""
    before = requests(counts, "several", status)
    answer = ask(counts, "several", **content)
    assert answer.status_code == status
    assert answer.json()["oops"]["code"] == status
    assert message in answer.json()["oops"]["message"]
    assert requests(counts, "several", status) == before + 1


def test_a_body_that_is_no_object(counts: Live) -> None:
    """Found by decode_object, told by refuse."""
    answer = counts.http.post("/own/several", content=b"[1]")
    assert answer.json() == {"oops": {"code": 400, "message": "the body: expected object, got array"}}


def test_errors_in_the_servers_shape(counts: Live) -> None:
    """Where the plugin has none of its own."""
    answer = counts.http.get("/plain")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_mistake_of_the_plugin(counts: Live) -> None:
    """An unexpected error is refused as well, and tells nothing."""
    answer = ask(counts, "unchosen")
    assert answer.status_code == 500
    assert "no model" not in answer.text


def test_metrics_know_the_status_that_was_sent(counts: Live) -> None:
    """Whatever a plugin answers with."""
    before = requests(counts, "created", 201)
    assert ask(counts, "created").status_code == 201
    assert requests(counts, "created", 201) == before + 1


def test_an_answer_that_breaks_off(counts: Live) -> None:
    """The connection is cut, since nothing else tells the client that this was not all."""
    before = requests(counts, "broken", 400)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # cut with or without a reset
        ask(counts, "broken")
    until(lambda: requests(counts, "broken", 400) == before + 1)


@pytest.mark.parametrize("name", ["several", "merged"])
def test_a_client_that_leaves_ends_all_of_them(counts: Live, gate: str, name: str) -> None:
    """Those that run and those that wait."""
    before = requests(counts, name, 499)
    body = json.dumps({"starts": [3, 3, 3], "model": "single", "gates": {2: gate}}).encode()
    connection = counts.connect()
    head = f"POST /own/{name} HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    GATES.await_waiting(gate)
    model = counts.server.models.get("single")
    until(lambda: model.queue_length == 2)
    hang_up(connection)
    until(lambda: model.queue_length == 0)
    until(lambda: BACKEND.graphs["single"].running == 0)
    until(lambda: requests(counts, name, 499) == before + 1)
    assert ask(counts, "several", starts=[1], model="single").json() == [[1]]


def test_one_that_fails_ends_the_others(counts: Live, gate: str) -> None:
    """The first of several is held at its second output, when the second one is refused."""
    assert ask(counts, "several", starts=[900, 1001], gates={899: gate}).status_code == 400
    until(lambda: BACKEND.graphs["count"].running == 0)
    answer = ask(counts, "merged", starts=[900, 1001], gates={899: gate})
    assert answer.status_code == 400 or answer.text.endswith("data: !400\n\n")
    until(lambda: BACKEND.graphs["count"].running == 0)


# ---- open_events, without a server ----------------------------------------------------------------------------------


class Wire:
    """What a response has sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._sent = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        self._sent.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to have been sent."""
        while not condition():
            self._sent.clear()
            await self._sent.wait()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages if message["type"] == "http.response.body")

    async def take(self, response: ASGIApp) -> None:
        scope: Any = {"type": "http"}
        await response(scope, self.receive, self.send)


def told(error: Exception) -> bytes:
    return event(type(error).__name__.encode(), kind=b"error")


def test_heartbeats_while_nothing_comes() -> None:
    """Comments, which clients pass over; before the first event as well, and none once the last one has been sent."""

    async def run() -> Wire:
        wire, go_on = Wire(), asyncio.Event()

        async def slow() -> AsyncGenerator[list[bytes]]:
            await go_on.wait()
            yield [event(b"1"), event(b"2")]

        taking = asyncio.create_task(wire.take(open_events(slow(), told, heartbeat_seconds=0.01)))
        await wire.until(lambda: wire.body.count(b": still here\n\n") == 3)
        go_on.set()
        await taking
        count = len(wire.messages)
        await asyncio.sleep(0.05)
        assert len(wire.messages) == count
        return wire

    wire = asyncio.run(run())
    assert wire.messages[0]["type"] == "http.response.start"
    assert wire.body.replace(b": still here\n\n", b"") == b"data: 1\n\ndata: 2\n\n"
    assert not wire.messages[-1].get("more_body")


def test_the_end_does_not_overtake_a_heartbeat() -> None:
    """Which may be the response's beginning, and held up by a client that does not read."""

    async def run() -> Wire:
        wire, reads, go_on = Wire(), asyncio.Event(), asyncio.Event()
        waits = asyncio.Event()

        async def nothing() -> AsyncGenerator[list[bytes]]:
            nothing_at_all: tuple[list[bytes], ...] = ()
            await go_on.wait()
            for each in nothing_at_all:
                yield each

        async def send(message: Message) -> None:
            waits.set()
            await reads.wait()
            await wire.send(message)

        scope: Any = {"type": "http"}
        response = open_events(nothing(), told, heartbeat_seconds=0.01)
        responding = asyncio.ensure_future(response(scope, wire.receive, send))
        await waits.wait()
        go_on.set()
        await asyncio.sleep(0.05)
        reads.set()
        await responding
        return wire

    wire = asyncio.run(run())
    assert [message["type"] for message in wire.messages] == ["http.response.start", *["http.response.body"] * 2]
    assert wire.body == b": still here\n\n"
    assert not wire.messages[-1].get("more_body")


def test_no_heartbeat_where_events_come() -> None:
    """It is for the quiet only."""

    async def run() -> Wire:
        wire = Wire()

        async def busy() -> AsyncGenerator[list[bytes]]:
            for _ in range(5):
                yield [event(b"x")]

        await wire.take(open_events(busy(), told, heartbeat_seconds=30))
        return wire

    assert asyncio.run(run()).body == b"data: x\n\n" * 5


def test_an_error_before_the_first_event_is_raised() -> None:
    """So that it gets a status; the iterator is closed."""
    closed = []

    async def failing(*, at_once: bool = True) -> AsyncGenerator[list[bytes]]:
        try:
            if at_once:
                raise InvalidInputError("at once")
            yield []
        finally:
            closed.append(True)

    async def run() -> None:
        with pytest.raises(InvalidInputError):
            await Wire().take(open_events(failing(), told))

    asyncio.run(run())
    assert closed


def test_an_error_later_is_sent_and_raised() -> None:
    """The response is complete by then, so that whoever counts answers may count it."""

    async def failing() -> AsyncGenerator[list[bytes]]:
        yield [event(b"1")]
        raise InvalidInputError("later")

    async def run() -> Wire:
        wire = Wire()
        with pytest.raises(InvalidInputError):
            await wire.take(open_events(failing(), told))
        return wire

    wire = asyncio.run(run())
    assert wire.body == b"data: 1\n\nevent: error\ndata: InvalidInputError\n\n"
    assert not wire.messages[-1].get("more_body")


def test_a_stream_without_events() -> None:
    """Is an empty one."""

    async def nothing() -> AsyncGenerator[list[bytes]]:
        nothing_at_all: tuple[list[bytes], ...] = ()
        for each in nothing_at_all:
            yield each

    async def run() -> Wire:
        wire = Wire()
        await wire.take(open_events(nothing(), told))
        return wire

    assert asyncio.run(run()).body == b""


@pytest.mark.parametrize("when", ["before", "during"])
def test_cancelling_closes_the_iterator(when: str) -> None:
    """Before the first event, and between two."""
    closed = []

    async def endless() -> AsyncGenerator[list[bytes]]:
        try:
            if when == "during":
                yield [event(b"1")]
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def run() -> None:
        wire = Wire()

        async def respond() -> None:
            await wire.take(open_events(endless(), told))

        task = asyncio.create_task(respond())
        await (asyncio.sleep(0) if when == "before" else wire.until(lambda: b"data: 1" in wire.body))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert closed


def test_a_client_that_is_gone_at_the_first_byte() -> None:
    """Even then the iterator is closed."""
    closed = []

    async def endless() -> AsyncGenerator[list[bytes]]:
        try:
            while True:
                yield [event(b"1")]
        finally:
            closed.append(True)

    async def run() -> None:
        async def send(_: Message) -> None:
            raise OSError("gone")

        scope: Any = {"type": "http"}
        with pytest.raises(OSError, match="gone"):
            await open_events(endless(), told)(scope, Wire().receive, send)

    asyncio.run(run())
    assert closed


@pytest.mark.parametrize("model", ["single", None])
def test_a_model_for_a_kind_of_request(counts: Live, model: str | None) -> None:
    """The named one of whatever type, or the active one, if its task answers such requests."""
    answer = counts.http.post("/own/handed", json={"known": True, "start": 2, "model": model})
    assert answer.json() == [model or "count", [2, 1]]


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (
            {"known": True, "model": "sums"},
            400,
            "model: 'sums' has the task 'sum'; expected a model with the task count",
        ),
        (
            {"known": True, "model": "nowhere"},
            404,
            "there is no model 'nowhere'; GET /models lists those that there are",
        ),
        ({"known": False}, 404, "no installed plugin has models for such a request (CountingConfig)"),
        ({"known": False, "model": "count"}, 404, "no installed plugin has models for such a request (CountingConfig)"),
    ],
)
def test_no_model_for_a_kind_of_request(counts: Live, asked: dict[str, Any], status: int, message: str) -> None:
    """The error says what the model is for."""
    answer = counts.http.post("/own/handed", json=asked | {"start": 2})
    assert (answer.status_code, answer.json()) == (status, {"oops": {"code": status, "message": message}})


def test_the_active_model_is_for_something_else(counts: Live) -> None:
    """Then one has to be named."""
    assert counts.http.put("/models/sums/activate").status_code == 200
    try:
        answer = counts.http.post("/own/handed", json={"known": True, "start": 2})
        message = "model: name one; the active one, 'sums', has the task 'sum'; expected a model with the task count"
        assert answer.json() == {"oops": {"code": 400, "message": message}}
    finally:
        counts.http.put("/models/count/activate")


def test_how_an_event_is_written() -> None:
    """By the letter of the standard."""
    assert event(b"{}") == b"data: {}\n\n"
    assert event(b"{}", number=0, kind=b"done") == b"id: 0\nevent: done\ndata: {}\n\n"
