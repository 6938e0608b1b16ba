"""``/infer/<endpoint>/stream`` over real connections: events, statuses, and clients that leave, wait or do not read."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from tests.counting import BACKEND, GATES, CountingGraph
from tests.server.support import Live, check_problem, live_server, tiny_plugins
from tests.server.test_overload import hang_up, until

from openvino_llama.server.settings import Settings
from tests import counting, graphs

PATH = "/infer/count/stream"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("counting")
    (folder / "count").touch()
    graphs.save(graphs.sums(), folder / "sums.xml")
    count = {"type": "counting", "task": "count", "files": {"model": "count"}}
    models = {
        "count": count | {"config": {"parallelism": 3}},
        "single": count | {"limits": {"workers": 1, "queue_size": 1}},
        "hasty": count | {"limits": {"workers": 1, "deadline_s": 0.3}},
        "größe": count,
        "sums": count | {"task": "sum", "files": {"model": "sums.xml"}},
    }
    registry = folder / "registry.json"
    registry.write_text(json.dumps({"models": models}))
    return Settings(registry=registry, port=0, max_body_bytes=1 << 20)


@pytest.fixture(scope="module")
def counts(settings: Settings) -> Iterator[Live]:
    """A server that counts."""
    with live_server(settings, tiny_plugins(counting)) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_goes_on(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After each test no model works for nobody, and no server has complained about its app."""
    yield
    if "counts" in request.fixturenames:
        live: Live = request.getfixturevalue("counts")
        until(lambda: all(graph.running == 0 for graph in BACKEND.graphs.values()))
        until(lambda: all(model.queue_length == 0 for model in live.server.models.all()))
        until(lambda: live.server.bodies._free == live.server.settings.max_bodies_bytes)
    assert not [each for each in caplog.records if each.name.startswith("uvicorn") and each.levelno >= logging.ERROR]


@pytest.fixture
def gate() -> Iterator[str]:
    with counting.gate(uuid4().hex) as name:
        yield name


class Event:
    """One event of a stream, as it is read."""

    def __init__(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        self.number = int(fields["id"]) if "id" in fields else None
        self.kind = fields.get("event", "message")
        self.data = json.loads(fields["data"])


def events(text: str) -> list[Event]:
    """All events of a whole answer."""
    assert text.endswith("\n\n")
    return [Event(block) for block in text.split("\n\n")[:-1] if not block.startswith(":")]


def ask(live: Live, start: int = 3, model: str | None = None, **asked: Any) -> httpx.Response:
    params = {"model": model} if model else {}
    return live.http.post(PATH, json={"start": start, **asked}, params=params)


def ask_later(live: Live, start: int = 3, model: str = "count", **asked: Any) -> Future[httpx.Response]:
    return live.later(lambda client: client.post(PATH, json={"start": start, **asked}, params={"model": model}))


def graph(live: Live, model: str) -> CountingGraph:
    found = live.server.models.get(model).serving.graph
    assert isinstance(found, CountingGraph)
    return found


def send(live: Live, model: str, path: str = PATH, **asked: Any) -> socket.socket:
    """Send a request on a bare connection."""
    connection = live.connect()
    body = json.dumps(asked).encode()
    head = f"POST {path}?model={model} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return connection


# ---- events ---------------------------------------------------------------------------------------------------------


def test_events_of_a_stream(counts: Live) -> None:
    """A message for each output, ``done`` with the answer at the end; all are numbered."""
    answer = ask(counts, 3)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["ovllama-model"] == "count"
    *messages, done = events(answer.text)
    assert [(each.number, each.kind, each.data) for each in messages] == [
        (0, "message", {"value": 3}),
        (1, "message", {"value": 2}),
        (2, "message", {"value": 1}),
    ]
    assert (done.number, done.kind) == (3, "done")
    assert done.data["model_type"] == "counting"
    assert done.data["task"] == "count"
    assert done.data["results"] == {"seen": [3, 2, 1], "unit": "", "stream": True, "produces": "text/event-stream"}


def test_events_come_one_by_one(counts: Live, gate: str) -> None:
    """The first is there while the model is held at the second."""
    with counts.http.stream("POST", PATH, json={"start": 2, "gates": {1: gate}}) as answer:
        pieces = answer.iter_text()
        assert [each.data for each in events(next(pieces))] == [{"value": 2}]
        GATES.await_waiting(gate)
        GATES.open(gate)
        assert [each.kind for each in events("".join(pieces))] == ["message", "done"]


def test_the_same_model_without_a_stream(counts: Live) -> None:
    """``POST /infer/<endpoint>`` waits for the answer."""
    answer = counts.http.post("/infer/count", json={"start": 3})
    results = answer.json()["results"]
    assert results == {"seen": [3, 2, 1], "unit": "", "stream": False, "produces": "application/json"}


def test_an_eventsource_asks_by_query(counts: Live) -> None:
    """The query is what a form's body would be, and the model type's parameters are read from it as ever."""
    query = {"start": "3", "stop_at": "2", "unit": "kg", "model": "single"}
    answer = counts.http.get(PATH, params=query, headers={"Accept": "text/event-stream"})
    assert answer.headers["ovllama-model"] == "single"
    done = events(answer.text)[-1].data["results"]
    assert (done["seen"], done["unit"]) == ([3, 2], "kg")


def test_a_head_runs_no_model(counts: Live) -> None:
    """Although GET of the same address would."""
    before = len(graph(counts, "count").begun)
    assert counts.http.head(PATH, params={"start": "3"}).status_code == 405
    assert len(graph(counts, "count").begun) == before


def test_a_form_says_the_same(counts: Live) -> None:
    """As the body of a POST."""
    answer = counts.http.post(PATH, data={"start": "2"}, params={"unit": "kg"})
    assert events(answer.text)[-1].data["results"]["unit"] == "kg"


def test_an_eventsource_that_comes_again_is_told_to_stop(counts: Live) -> None:
    """204 is the only answer that it does not take for a connection that broke."""
    before = len(graph(counts, "count").begun)
    answer = counts.http.get(PATH, params={"start": "3"}, headers={"Last-Event-ID": "3"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert len(graph(counts, "count").begun) == before


def test_head_runs_nothing(counts: Live) -> None:
    """Somebody only looks."""
    before = len(graph(counts, "count").begun)
    assert counts.http.head(PATH, params={"start": "3"}).status_code == 405
    assert len(graph(counts, "count").begun) == before


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "text/*", "application/json, text/event-stream;q=0.1"])
def test_who_takes_events(counts: Live, accept: str) -> None:
    """Whatever a range of Accept covers."""
    assert counts.http.post(PATH, json={"start": 1}, headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream;q=0"])
def test_who_takes_no_events(counts: Live, accept: str) -> None:
    """Told so, before the model works."""
    before = len(graph(counts, "count").begun)
    check_problem(counts.http.post(PATH, json={"start": 1}, headers={"Accept": accept}), 406)
    assert len(graph(counts, "count").begun) == before


def test_an_answer_is_sent_in_chunks(counts: Live) -> None:
    """By HTTP/1.1's own means, to its proper end."""
    with send(counts, "count", start=1) as connection:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        assert b"content-length" not in head.lower()
        assert b'data: {"value":1}\n\n' in body


def test_a_connection_serves_one_stream_after_the_other(counts: Live) -> None:
    """It is kept open, errors in between included."""
    with counts.http.stream("POST", PATH, json={"start": 1}) as first:
        first.read()
        network = first.extensions["network_stream"].get_extra_info("socket").getsockname()
    ask(counts, 1001)
    with counts.http.stream("POST", PATH, json={"start": 2, "fails_at": 1}) as last:
        last.read()
        assert last.extensions["network_stream"].get_extra_info("socket").getsockname() == network


def test_a_model_whose_name_fits_no_header(counts: Live) -> None:
    """It is quoted."""
    assert ask(counts, 1, "größe").headers["ovllama-model"] == "gr%C3%B6%C3%9Fe"


def test_the_description_has_the_routes(counts: Live) -> None:
    """The body is the POST's, the parameters are both's."""
    paths = counts.http.get("/schema/openapi.json").json()["paths"]
    post, get = paths[PATH]["post"], paths[PATH]["get"]
    assert set(post["requestBody"]["content"]) == {"application/json", counting.FORM}
    assert "requestBody" not in get
    for operation in (post, get):
        assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
        assert {each["name"] for each in operation["parameters"]} == {"model", "unit"}
    assert "/infer/tiny/stream" not in paths


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "model", "status"),
    [
        ({"start": 1001}, "count", 400),
        ({"start": 3}, "nowhere", 404),
        ({"start": 3, "fails_at": 3}, "count", 500),
        ({"start": 3, "where": "preprocess", "raises": "InvalidInputError"}, "count", 400),
        ({"start": 3, "where": "preprocess", "raises": "OSError"}, "count", 500),
        ({"start": 3, "where": "output", "raises": "OSError"}, "count", 500),
        ({"start": 3, "where": "encode"}, "count", 500),
        ({"rows": [[1]]}, "sums", 400),
    ],
)
def test_errors_before_the_first_event_have_a_status(counts: Live, body: Any, model: str, status: int) -> None:
    """The answer is a problem as on every other route."""
    answer = counts.http.post(PATH, json=body, params={"model": model})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_media_type(counts: Live) -> None:
    """415, with what would be right."""
    answer = counts.http.post(PATH, content=b"3", headers={"Content-Type": "text/plain"})
    assert check_problem(answer, 415)["accepts"] == ["application/json", counting.FORM]


def test_a_wrong_parameter(counts: Live) -> None:
    """The query of a POST has parameters only."""
    check_problem(counts.http.post(PATH, json={"start": 3}, params={"size": "3"}), 400)


def test_nothing_in_time(counts: Live, gate: str) -> None:
    """504, if not even the first output comes."""
    check_problem(ask(counts, 3, "hasty", gates={3: gate}), 504)
    assert counts.metric("ovllama_requests_total", endpoint="count/stream", model="hasty", status="504") == 1


@pytest.mark.parametrize(("where", "status"), [({"fails_at": 2}, 500), ({"raises": "OSError", "where": "answer"}, 500)])
def test_errors_after_the_first_event_are_events(counts: Live, where: Any, status: int) -> None:
    """The last one, numbered; metrics count what it says, though the status of HTTP has been sent."""
    labels = {"endpoint": "count/stream", "model": "single", "status": str(status)}
    before = counts.metric("ovllama_requests_total", **labels)
    *messages, last = events(ask(counts, 3, "single", **where).text)
    assert messages[0].data == {"value": 3}
    assert (last.kind, last.data["status"], last.number) == ("error", status, len(messages))
    assert "/a/" not in str(last.data)
    until(lambda: counts.metric("ovllama_requests_total", **labels) == before + 1)


def test_an_output_that_comes_too_late(counts: Live, gate: str) -> None:
    """Said by an event, since others have come before it."""
    *_, last = events(ask(counts, 3, "hasty", gates={2: gate}).text)
    assert (last.kind, last.data["status"]) == ("error", 504)


def test_no_room(counts: Live, gate: str) -> None:
    """503 with Retry-After, as everywhere."""
    held = ask_later(counts, 2, "single", gates={1: gate})
    GATES.await_waiting(gate)
    waiting = ask_later(counts, 1, "single")
    until(lambda: counts.server.models.get("single").queue_length == 1)
    answer = ask(counts, 1, "single")
    check_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    GATES.open(gate)
    assert [events(each.result().text)[-1].kind for each in (held, waiting)] == ["done", "done"]


# ---- clients that leave, and those that do not read -----------------------------------------------------------------


@pytest.mark.parametrize("path", [PATH, "/infer/count"])
@pytest.mark.parametrize("value", [5, 4])
def test_a_client_that_leaves(counts: Live, gate: str, path: str, value: int) -> None:
    """Before the first output or after it, streamed or not: the model stops; it is counted as 499."""
    labels = {"endpoint": path.removeprefix("/infer/"), "model": "single", "status": "499"}
    before = counts.metric("ovllama_requests_total", **labels)
    connection = send(counts, "single", path, start=5, gates={value: gate})
    GATES.await_waiting(gate)
    hang_up(connection)
    until(lambda: graph(counts, "single").running == 0)
    until(lambda: counts.metric("ovllama_requests_total", **labels) == before + 1)
    assert events(ask(counts, 1, "single").text)[-1].data["results"]["seen"] == [1]


def test_a_client_that_leaves_while_a_hook_works(counts: Live, gate: str) -> None:
    """The model is not asked for more."""
    labels = {"endpoint": "count/stream", "model": "single", "status": "499"}
    before = counts.metric("ovllama_requests_total", **labels)
    connection = send(counts, "single", start=900, hold=gate, hold_at=899)
    GATES.await_waiting(gate)
    hang_up(connection)
    until(lambda: counts.metric("ovllama_requests_total", **labels) == before + 1)
    given = len(graph(counts, "single").given)
    GATES.open(gate)
    until(lambda: graph(counts, "single").running == 0)
    assert len(graph(counts, "single").given) <= given + 1


def test_a_client_that_leaves_the_queue(counts: Live, gate: str) -> None:
    """Its request never reaches the model."""
    held = ask_later(counts, 2, "single", gates={1: gate})
    GATES.await_waiting(gate)
    leaving = send(counts, "single", start=77)
    until(lambda: counts.server.models.get("single").queue_length == 1)
    hang_up(leaving)
    until(lambda: counts.server.models.get("single").queue_length == 0)
    GATES.open(gate)
    assert events(held.result().text)[-1].kind == "done"
    assert 77 not in graph(counts, "single").begun


def test_many_clients_that_leave(counts: Live) -> None:
    """At any moment."""
    for number in range(40):
        connection = send(counts, "count", start=number % 7)
        threading.Event().wait(number / 10_000)
        hang_up(connection)
    until(lambda: graph(counts, "count").running == 0)
    assert events(ask(counts, 2).text)[-1].kind == "done"


def test_a_client_that_does_not_read(counts: Live, gate: str) -> None:
    """The model does not wait for it, nor does anybody else; what has come meanwhile is there when it reads."""
    with send(counts, "single", start=300, padding=50_000, gates={1: gate}) as connection:
        GATES.await_waiting(gate)  # 15 MB further, more than sockets hold
        GATES.open(gate)
        assert events(ask(counts, 2, "single").text)[-1].kind == "done"
        received = bytearray()
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(1 << 20)
    body = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", bytes(received))
    assert [int(each) for each in re.findall(rb'"value":(\d+)', body)] == list(range(300, 0, -1))
    assert body.count(b"event: done") == 1


def test_streams_keep_no_room_for_bodies(settings: Settings, gate: str) -> None:
    """What a body takes is what it turned out to be, however it was sent, and not what it might have been."""
    tight = msgspec.structs.replace(settings, max_bodies_bytes=settings.max_body_bytes * 3 // 2)
    content = json.dumps({"start": 2, "gates": {1: gate}}).encode()

    def in_chunks(client: httpx.Client) -> httpx.Response:
        return client.post(PATH, content=iter([content]), headers={"Content-Type": "application/json"})

    query = {"start": "2", "gates": json.dumps({1: gate})}
    with live_server(tight, tiny_plugins(counting)) as live:
        first = live.later(in_chunks)
        GATES.await_waiting(gate)
        others = [live.later(in_chunks), live.later(lambda client: client.get(PATH, params=query))]
        GATES.await_waiting(gate, 2)
        assert live.http.post("/infer/count", content=b"", headers={"Content-Length": "0"}).status_code == 415
        GATES.open(gate)
        assert [events(each.result().text)[-1].kind for each in (first, *others)] == ["done"] * 3
        assert live.server.bodies._free == tight.max_bodies_bytes


# ---- the end of models and servers ----------------------------------------------------------------------------------


def test_unloading_lets_a_stream_come_to_its_end(counts: Live, gate: str) -> None:
    """And refuses new ones."""
    entry = {"name": "brief", "type": "counting", "task": "count", "files": {"model": "count"}}
    assert counts.http.post("/models/load", json=entry).status_code == 201
    held = ask_later(counts, 2, "brief", gates={1: gate})
    GATES.await_waiting(gate)
    leaving = counts.later(lambda client: client.delete("/models/brief"))
    until(lambda: counts.http.get("/models/brief").json()["state"] == "unloading")
    check_problem(ask(counts, 1, "brief"), 503)
    GATES.open(gate)
    assert events(held.result().text)[-1].data["results"]["seen"] == [2, 1]
    assert leaving.result().status_code == 204
    assert BACKEND.graphs["brief"].is_closed


@contextmanager
def stopping(settings: Settings) -> Iterator[Live]:
    with live_server(msgspec.structs.replace(settings, stop_seconds=1), tiny_plugins(counting)) as live:
        yield live


def test_a_server_that_stops_does_not_wait_for_ever(settings: Settings, gate: str, caplog: Any) -> None:
    """A stream that has not ended in the time for stopping is cut, and its model stops."""
    with stopping(settings) as live:
        used = graph(live, "count")
        connection = send(live, "count", start=5, gates={4: gate})
        GATES.await_waiting(gate)
    assert used.is_closed
    assert used.running == 0
    with connection:
        while received := connection.recv(65536):
            assert b"event: done" not in received
    caplog.clear()  # uvicorn says that it has cut it


# ---- what operators see ---------------------------------------------------------------------------------------------


def test_the_times_of_streams_are_measured(counts: Live) -> None:
    """To the first output, from token to token, and how many there were."""
    names = ("time_to_first_token_seconds_count", "time_per_output_token_seconds_count", "generated_tokens_total")
    before = [counts.metric(f"ovllama_{name}", model="größe") for name in names]
    ask(counts, 5, "größe")
    ask(counts, 1, "größe")
    ask(counts, 0, "größe")
    after = [counts.metric(f"ovllama_{name}", model="größe") for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 6]


def test_a_graph_that_lives_on_its_own(counts: Live) -> None:
    """It tells whether it is ready, and its gauges are metrics."""
    ready = {"model": "single"}
    assert counts.metric("ovllama_graph", gauge="running_streams", **ready) == 0
    assert counts.metric("ovllama_model_ready", **ready) == 1
    graph(counts, "single").reason = "the engine is started again"
    try:
        answer = counts.http.get("/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "single: the engine is started again"})
        assert counts.metric("ovllama_model_ready", **ready) == 0
        assert counts.metric("ovllama_model_ready", model="count") == 1
    finally:
        graph(counts, "single").reason = ""
    assert counts.http.get("/health/ready").status_code == 200


def test_a_graph_that_cannot_tell_how_it_is(counts: Live) -> None:
    """It is not ready; everybody else's metrics are there all the same, and nothing of its error is."""
    graph(counts, "single").sick = True
    try:
        answer = counts.http.get("/health/ready")
        assert answer.status_code == 503
        assert "secret" not in answer.text
        assert counts.metric("ovllama_model_ready", model="count") == 1
        assert counts.metric("ovllama_model_ready", model="single") == 0
        assert 'gauge="running_streams",model="single"' not in counts.http.get("/metrics").text
    finally:
        graph(counts, "single").sick = False
    assert counts.http.get("/health/ready").status_code == 200


def test_a_page_of_another_origin_is_told_the_model(counts: Live) -> None:
    """EventSource and fetch of an allowed page may read what comes."""
    answer = counts.http.get(PATH, params={"start": "1"}, headers={"Origin": "http://localhost:8000"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:8000"


def test_the_file_of_a_counting_model_is_empty(settings: Settings) -> None:
    """It is the backend, not OpenVINO, that opens it."""
    assert Path(settings.registry).with_name("count").read_bytes() == b""
