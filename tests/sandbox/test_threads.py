"""Many guests on many threads: no answer, error or exception of one comes to another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from tests.sandbox.support import Prober, config_of, mischief, probe

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.errors import DeadlineExceededError, GuestTrapError
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import BUILT_IN, Guest, StreamEnd
from openvino_llama.sandbox.wasi_nn import GraphLoader, WasiNN

ROUNDS = 2000


@dataclass
class World:
    """What the threads share."""

    sandbox: Sandbox
    graphs: Mapping[str, Graph]
    load: GraphLoader

    def probe(self) -> Prober:
        return probe(self.sandbox, self.graphs, self.load)


def computes(world: World, number: int) -> None:
    prober = world.probe()
    context = prober.context("relu")
    for turn in range(ROUNDS):
        array = np.array([[number, turn, -turn, 1]], np.float32)
        assert prober.set_input(context, 0, array) == 0
        assert prober("compute", context) == 0
        assert (prober.output(context, array) == np.maximum(array, 0)).all()
        assert prober.nn.last_error == ""


def infers(world: World, number: int) -> None:
    nn = WasiNN({"m": world.graphs["relu"]}, world.load, world.sandbox.watchdog, borrow=True)
    config = config_of(world.graphs["relu"])
    guest = Guest(world.sandbox.instantiate(world.sandbox.compile(BUILT_IN), nn, config.limits), config)
    for turn in range(ROUNDS):
        array = np.array([[number, turn, -turn, 1]], np.float32)
        outputs = guest.infer([{"x": array}], Deadline(30))
        assert not isinstance(outputs, StreamEnd)
        assert (outputs["y"] == np.maximum(array, 0)).all()


def names_nobody(world: World, number: int) -> None:
    prober = world.probe()
    for turn in range(2 * ROUNDS):
        assert prober.load_by_name(f"nobody-{number}-{turn}") == 8
        assert f"nobody-{number}-{turn}'" in prober.nn.last_error


def passes_nonsense(world: World, number: int) -> None:
    prober = world.probe()
    for turn in range(2 * ROUNDS):
        handle = 1_000_000 * number + turn
        assert prober("compute", handle) == 1
        assert prober.nn.last_error.endswith(f" {handle}")
        assert prober("set_input", 0, 0, 0xFFFFFFFF - turn) == 1


def traps(world: World, _number: int) -> None:
    instance = mischief(world.sandbox)
    boom, divide, echo = (instance.function(*each) for each in (("unreachable", 0), ("divide", 1), ("echo", 1)))
    for turn in range(ROUNDS):
        with pytest.raises(GuestTrapError, match="unreachable"):
            instance.call(boom, deadline=Deadline(30))
        with pytest.raises(GuestTrapError, match="division by zero"):
            instance.call(divide, 0, deadline=Deadline(30))
        assert instance.call(echo, turn, deadline=None) == turn


def overruns(world: World, _number: int) -> None:
    instance = mischief(world.sandbox)
    spin = instance.function("spin")
    for _ in range(10):
        with pytest.raises(DeadlineExceededError):
            instance.call(spin, deadline=Deadline(0.02))


WORKERS: list[Callable[[World, int], None]] = [
    computes,
    computes,
    infers,
    infers,
    names_nobody,
    passes_nonsense,
    traps,
    overruns,
]


@pytest.mark.timeout(120)
def test_nothing_crosses_over(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> None:
    """Eight threads, each with its own store: four compute, four do nothing but fail, each in its own way."""
    world, barrier = World(sandbox, graphs, backend.load), threading.Barrier(len(WORKERS))

    def run(number: int) -> None:
        barrier.wait()
        WORKERS[number](world, number + 1)

    with ThreadPoolExecutor(len(WORKERS)) as pool:
        list(pool.map(run, range(len(WORKERS))))
