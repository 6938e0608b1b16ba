"""A plugin's own guest behind a served model: whatever it does, the others, and the next request, are served."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.server.support import Live, check_problem, numbers

from tests import guests

NUMBERS = guests.FIRST_NUMBERS


@pytest.fixture(scope="module", params=["per_request", "pooled"])
def moody(live: Live, request: pytest.FixtureRequest) -> Iterator[str]:
    """A model with the moody guest; the name of its isolation is its name."""
    name: str = request.param
    loaded = live.load(
        name,
        "double.xml",
        config={"guest": guests.MOODY.hex()},
        isolation=name,
        limits={"workers": 1, "deadline_s": 1.0, "memory_mib": 32},
    )
    assert loaded.status_code == 201, loaded.text
    yield name
    live.unload(name)


def ask(first: float) -> dict[str, list[list[float]]]:
    return {"x": [[first, 5.0, 6.0, 7.0]]}


@pytest.mark.parametrize(
    ("mood", "status", "traps"),
    [
        ("refuse", 500, 0),
        ("lie about the size", 500, 0),
        ("lie about the shape", 500, 0),
        ("trap", 500, 1),
        ("recurse", 500, 1),
        ("loop", 504, 0),
        ("grow", 500, 0),
    ],
)
def test_bad_guests(live: Live, moody: str, mood: str, status: int, traps: int) -> None:
    """A clear error within the deadline; traps are counted; a new guest answers the next request."""
    before = live.metric("ovllama_guest_traps_total", model=moody)
    started = time.perf_counter()
    check_problem(live.infer(ask(NUMBERS[mood]), moody), status)
    assert time.perf_counter() - started < 2
    assert live.metric("ovllama_guest_traps_total", model=moody) == before + traps
    assert numbers(live.infer(ask(3), moody)) == [[3.0, 5.0, 6.0, 7.0]]
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]


def test_isolation(live: Live, moody: str) -> None:
    """A pooled guest remembers; one per request never does; a guest that trapped is gone with what it knew."""
    live.infer(ask(NUMBERS["trap"]), moody)
    seen = [numbers(live.infer(ask(NUMBERS["count"]), moody))[0][0] for _ in range(4)]
    assert seen == ([1, 2, 3, 4] if moody == "pooled" else [1, 1, 1, 1])


def test_others_are_answered_while_a_guest_loops(live: Live, moody: str) -> None:
    """A guest that spins holds neither the interpreter nor the event loop."""
    looping = live.infer_later(ask(NUMBERS["loop"]), moody)
    time.sleep(0.1)
    started = time.perf_counter()
    for _ in range(20):
        assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]
    assert time.perf_counter() - started < 0.8
    check_problem(looping.result(), 504)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(module)", "exports no function"),
        ('(module (import "env" "f" (func)))', "no WebAssembly module that this host can link"),
        (
            '(module (import "wasi_ephemeral_nn" "load" (func (param i64) (result i32))))',
            "no WebAssembly module that this host can link",
        ),
        ('(module (memory (export "memory") 10000))', "memory"),
        ("(module (func $f unreachable) (start $f))", ""),
        ("(module (func $f (loop $l (br $l))) (start $f))", ""),
        ('(module (func (export "alloc") (param i64) (result i32) (i32.const 0)))', "alloc"),
    ],
)
def test_guests_that_cannot_be_used(live: Live, text: str, said: str) -> None:
    """They are refused when the model is loaded, before any request."""
    answer = live.load(
        "unusable", "double.xml", config={"guest": guests.module(text).hex()}, limits={"memory_mib": 32, "workers": 1}
    )
    assert answer.status_code in (422, 500, 504)
    assert said in check_problem(answer, answer.status_code)["detail"]
    live.unload("unusable")
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]
