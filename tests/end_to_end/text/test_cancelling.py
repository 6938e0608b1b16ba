"""Clients that leave: what they asked for ends, at whatever point it is, and nobody else notices."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from .support import STORY, Served, await_true, events, joined

LONG = {"prompt": STORY, "max_tokens": 900, "temperature": 0, "ignore_eos": True}
ROUTES = ("/infer/text", "/infer/text/stream", "/v1/completions", "/v1/chat/completions")
SECOND = 1.0


def request(route: str, body: dict[str, Any]) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(content)}\r\n\r\n".encode() + content


def body_for(route: str, *, stream: bool) -> dict[str, Any]:
    asked = dict(LONG)
    if "chat" in route:
        asked["messages"] = [{"role": "user", "content": asked.pop("prompt")}]
    return asked | ({"stream": True} if stream and route.startswith("/v1") else {})


@contextmanager
def asking(served: Served, route: str = ROUTES[1], *, stream: bool = True, model: str = "") -> Iterator[socket.socket]:
    """A connection over which a long text has been asked for."""
    body = body_for(route, stream=stream)
    if model and route.startswith("/v1"):
        body["model"] = model
    elif model:
        route += f"?model={model}"
    with closing(socket.create_connection(served.place, timeout=20)) as connection:
        connection.sendall(request(route, body))
        yield connection


@contextmanager
def undisturbed(served: Served) -> Iterator[None]:
    """Two streams go on meanwhile, and have the tokens that they have alone."""
    body = {"prompt": "The sea is", "max_tokens": 60, "temperature": 0, "return_token_ids": True}
    alone = served.infer(body)

    def stream() -> Any:
        with served.http.stream("POST", "/infer/text/stream", json=body) as answer:
            return joined(events(answer))[1]

    with ThreadPoolExecutor(2) as threads:
        streams = [threads.submit(stream) for _ in range(2)]
        await_true(lambda: served.running() >= 2)
        yield
        assert [each.result() for each in streams] == [alone, alone]


def await_gone(served: Served, others: int = 0) -> None:
    """No more sequences than the others' within a second."""
    await_true(lambda: served.running() <= others, SECOND)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_it_generates(served: Served, route: str, stream: bool) -> None:
    """Before anything has come, or in the middle of a stream; with closing the connection or only half of it."""
    with asking(served, route, stream=stream) as connection:
        await_true(lambda: served.running() == 1)
        if route.endswith("stream") or (stream and route.startswith("/v1")):
            assert b"200 OK" in connection.recv(200)
    await_gone(served)


def test_half_closed(served: Served) -> None:
    """A client that has closed its own half has left, as far as can be told."""
    with asking(served) as connection:
        await_true(lambda: served.running() == 1)
        connection.shutdown(socket.SHUT_WR)
        await_gone(served)


def test_leaving_before_the_first_token(served: Served) -> None:
    """At once, and while the prompt is read: others go on as if nothing had been."""
    prompt = " ".join(f"word{number}" for number in range(220))
    with undisturbed(served):
        for pause in (0, 0.005, 0.01, 0.02, 0.05, 0.1):
            with closing(socket.create_connection(served.place, timeout=20)) as connection:
                connection.sendall(
                    request("/infer/text/stream", LONG | {"prompt": f"{pause} {prompt}", "max_tokens": 9})
                )
                threading.Event().wait(pause)
    served.await_idle()


def test_leaving_the_queue(served: Served) -> None:
    """Four generate, three wait, one is refused; when those that wait leave, their places are free again."""
    with ExitStack() as stack:

        def ask(stream: str) -> socket.socket:
            return stack.enter_context(asking(served, f"/infer/text{stream}", model="crowded"))

        def await_queue(running: int, waiting: int) -> None:
            await_true(lambda: (served.running("crowded"), served.queue_length("crowded")) == (running, waiting))

        connections = [ask("") for _ in range(4)]
        await_queue(4, 0)
        waiting = [ask(stream) for stream in ("/stream", "", "/stream")]
        await_queue(4, 3)
        refusal = served.http.post("/infer/text", params={"model": "crowded"}, json=LONG)
        assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
        assert "queue" in refusal.json()["detail"]
        told = served.http.post("/v1/completions", json={"prompt": STORY, "model": "crowded"})
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert told.json()["error"]["type"] == "server_error"
        for each in waiting:
            each.close()
        await_queue(4, 0)
        last = [ask("/stream") for _ in range(2)]
        await_queue(4, 2)
        for each in connections:
            each.close()
        for each in last:
            assert b"200 OK" in each.recv(200)
    served.await_idle("crowded")


def test_several_choices_end_together(served: Served) -> None:
    """All texts of a request end when its client leaves."""
    body = body_for("/v1/completions", stream=True) | {"n": 4}
    with closing(socket.create_connection(served.place, timeout=20)) as connection:
        connection.sendall(request("/v1/completions", body))
        await_true(lambda: served.running() == 4)
        connection.recv(100)
    await_gone(served)


@pytest.mark.slow
def test_a_hundred_that_are_cancelled(served: Served) -> None:
    """Nothing of them is left: no sequence, no cache in use, no memory.

    The cache's memory is taken when a part of it is first used, so all of it is used before. After that 16 MiB are
    allowed for each process, for what allocators keep: sequences that were not freed would hold 400 KiB and more each.
    """
    for number in range(10):
        prompt = " ".join(f"{number} and {each}," for each in range(140))
        assert served.infer({"prompt": prompt, "max_tokens": 1}, model="crowded")["usage"]["prompt_tokens"] > 600
    chance = random.Random(5)
    _cancel(served, chance, 40)
    before = _memory(served)
    _cancel(served, chance, 100)
    assert served.gauge("crowded", "kv_cache_usage") == 0
    grown = {name: after - before[name] for name, after in _memory(served).items()}
    assert max(grown.values()) < 16 << 20, grown


def _cancel(served: Served, chance: random.Random, count: int) -> None:
    def leave(job: tuple[str, bool, float]) -> None:
        route, stream, pause = job
        with asking(served, route, stream=stream, model="crowded"):
            threading.Event().wait(pause)

    jobs = [(chance.choice(ROUTES), chance.random() < 0.5, chance.random() ** 2 * 1.2) for _ in range(count)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(leave, jobs))
    await_true(lambda: served.running("crowded") == 0, SECOND)


def _memory(served: Served) -> dict[str, float]:
    """Bytes in memory of the server and of its engines."""
    engines = {model: served.gauge(model, "rss_bytes") for model in ("smol", "crowded")}
    return {"server": served.memory(), **engines}
