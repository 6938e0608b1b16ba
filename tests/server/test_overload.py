"""Queues, deadlines, and clients that leave."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from tests.server.support import GOOD, Live, check_problem, numbers

from tests import tiny

BODY = json.dumps(GOOD).encode()


@pytest.fixture(autouse=True)
def _still_serves(live: Live) -> Iterator[None]:
    yield
    for model in ("double", "narrow", "hasty", "slow"):
        assert live.server.models.get(model).queue_length == 0
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]
    assert numbers(live.infer(model="narrow")) == [[2.0, 4.0, 6.0, 8.0]]


@pytest.fixture
def gate() -> Iterator[str]:
    """A gate of this test's own; opened at its end in any case."""
    name = uuid4().hex
    yield name
    tiny.GATES.open(name)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def send(live: Live, model: str, body: bytes = BODY) -> socket.socket:
    """Send a request whose answer nobody reads."""
    connection = live.connect()
    head = f"POST /infer/tiny?model={model} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def hang_up(connection: socket.socket) -> None:
    """Close with a reset, as a client that is killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_full_queue_is_503(live: Live, gate: str) -> None:
    """One runs, two wait, the next is told when to come again; those that wait are answered."""
    model = live.server.models.get("narrow")
    running = live.infer_later(GOOD | {"gate": gate}, "narrow")
    tiny.GATES.await_waiting(gate)
    waiting = [live.infer_later(GOOD, "narrow") for _ in range(2)]
    until(lambda: model.queue_length == 2)
    assert live.metric("ovllama_queue_length", model="narrow") == 2
    refused = live.infer(model="narrow")
    assert "2 requests wait" in check_problem(refused, 503)["detail"]
    assert refused.headers["retry-after"] == "1"
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]], "other models are not concerned"
    tiny.GATES.open(gate)
    assert [numbers(each.result()) for each in [running, *waiting]] == [[[2.0, 4.0, 6.0, 8.0]]] * 3


def test_a_deadline_in_the_queue_is_504(live: Live) -> None:
    """A request whose time is over while it waits frees its place."""
    model = live.server.models.get("hasty")
    running = live.infer_later(GOOD | {"sleep": 1.0}, "hasty")
    time.sleep(0.1)
    started = time.perf_counter()
    check_problem(live.infer(model="hasty"), 504)
    assert time.perf_counter() - started < 0.95
    assert model.queue_length == 0
    check_problem(running.result(), 504)
    until(lambda: not model.unready_reason())


def test_a_deadline_during_the_inference_is_504(live: Live) -> None:
    """The inference is cancelled, so the worker is free again soon."""
    started = time.perf_counter()
    check_problem(live.infer(model="hasty"), 504)
    assert time.perf_counter() - started < 0.9
    check_problem(live.infer(GOOD, "hasty"), 504)
    assert time.perf_counter() - started < 1.8, "the worker was still busy with the first one"


def test_a_client_that_leaves_the_queue_frees_its_place(live: Live, gate: str) -> None:
    """Its request is not run."""
    model = live.server.models.get("narrow")
    running = live.infer_later(GOOD | {"gate": gate}, "narrow")
    tiny.GATES.await_waiting(gate)
    unread = uuid4().hex
    leaving = [send(live, "narrow", json.dumps(GOOD | {"gate": unread}).encode()) for _ in range(2)]
    until(lambda: model.queue_length == 2)
    for connection in leaving:
        hang_up(connection)
    until(lambda: model.queue_length == 0)
    tiny.GATES.open(gate)
    assert numbers(running.result()) == [[2.0, 4.0, 6.0, 8.0]]
    assert numbers(live.infer(model="narrow")) == [[2.0, 4.0, 6.0, 8.0]]
    assert not tiny.GATES.reached[unread].acquire(blocking=False)


def test_a_client_that_leaves_during_the_inference_ends_it(live: Live) -> None:
    """The next request does not wait for what nobody wants."""
    started = time.perf_counter()
    assert numbers(live.infer(model="slow")) == [[10.0]]
    usual = time.perf_counter() - started
    leaving = [send(live, "slow") for _ in range(3)]
    time.sleep(0.1)
    for connection in leaving:
        hang_up(connection)
    started = time.perf_counter()
    assert numbers(live.infer(model="slow")) == [[10.0]]
    assert time.perf_counter() - started < 2.5 * usual
    assert live.metric("ovllama_requests_total", model="slow", status="499") >= 3


def test_a_client_that_leaves_a_batch_spoils_nothing(live: Live, gate: str) -> None:
    """Those that were put together with it get their answers."""
    model = live.server.models.get("double")
    running = live.infer_later(GOOD | {"gate": gate}, "double")
    tiny.GATES.await_waiting(gate)
    leaving = send(live, "double", json.dumps(GOOD | {"sleep": 0.2}).encode())
    until(lambda: model.queue_length == 1)
    staying = [live.infer_later(GOOD | {"sleep": 0.05}, "double") for _ in range(4)]
    until(lambda: model.queue_length == 5)
    tiny.GATES.open(gate)
    time.sleep(0.1)
    hang_up(leaving)
    assert [numbers(each.result()) for each in [running, *staying]] == [[[2.0, 4.0, 6.0, 8.0]]] * 5


def test_many_clients_that_leave(live: Live) -> None:
    """Fifty connections that are cut at any moment cost nothing but themselves."""
    for number in range(50):
        connection = send(live, ("double", "sums", "narrow")[number % 3])
        time.sleep(number / 20_000)
        hang_up(connection)
    until(lambda: all(model.queue_length == 0 for model in live.server.models.all()))


def test_a_client_that_does_not_read(live: Live) -> None:
    """Its answer waits in a buffer; nobody else does."""
    body = json.dumps({"x": [[1.0, 2.0, 3.0, 4.0]] * 5000}).encode()
    connection = send(live, "double", body)
    for _ in range(20):
        assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]
    hang_up(connection)
