"""One loaded model at work: batching, isolation, deadlines, cancelling, draining; on real guests and OpenVINO."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from openvino_llama import InferenceRequest, RegistryEntry
from openvino_llama.backends.base import Backend, Encoding, Graph, Prepare, Target
from openvino_llama.backends.openvino import OpenVINOBackend, keeps_rows
from openvino_llama.config import Batching, Isolation, Limits, ModelConfig
from openvino_llama.errors import (
    DeadlineExceededError,
    GuestTrapError,
    HookError,
    InvalidTensorError,
    QueueFullError,
    RequestCancelledError,
    SandboxError,
    UnavailableError,
)
from openvino_llama.jobs import Job
from openvino_llama.models import Models
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins
from openvino_llama.runner import Runner
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from tests import graphs, guests, tiny

NUMBERS = guests.FIRST_NUMBERS


class Recorder(SilentObserver):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.stages: list[str] = []
        self.traps = 0

    def batch(self, model: str, size: int) -> None:
        self.batches.append(size)

    def stage(self, model: str, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append(stage)

    def trap(self, model: str) -> None:
        self.traps += 1


class Bench:
    """Loads models from files, one after the other."""

    def __init__(self, folder: Path, *further: Backend) -> None:
        self.folder = folder
        self.observer = Recorder()
        self.sandbox = Sandbox()
        plugins = Plugins()
        plugins.add(tiny, name="tiny")
        self.models = Models(plugins, self.sandbox, [*further, OpenVINOBackend()], self.observer)

    def runner(self, model: ov.Model, limits: Limits | None = None, **entry: Any) -> Runner:
        """The runner of a loaded model with one worker."""
        name = f"model-{len(self.models.all())}"
        graphs.save(model, self.folder / f"{name}.xml")
        stated = RegistryEntry(
            type="tiny", task="double", files={"model": f"{name}.xml"}, limits=limits or Limits(workers=1), **entry
        )
        return self.models.load(name, stated, self.folder.joinpath).serving.runner

    def close(self) -> None:
        self.models.close()
        self.sandbox.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def submit(runner: Runner, x: Any = ((1, 2, 3, 4),), seconds: float = 20, **asked: Any) -> Job:
    body = json.dumps({"x": x, **asked}).encode()
    return runner.submit(Job(InferenceRequest(body, "application/json"), Deadline(seconds)))


def result(job: Job) -> Any:
    return job.future.result(30)["y"]


class Held:
    """Keeps a runner's only worker busy until it is let go."""

    def __init__(self, runner: Runner) -> None:
        self.gate = uuid4().hex
        self.job = submit(runner, gate=self.gate)
        tiny.GATES.await_waiting(self.gate)

    def go(self) -> None:
        tiny.GATES.open(self.gate)


def test_waiting_requests_share_an_inference(bench: Bench) -> None:
    """What waits is put together, up to max_batch_size, and each gets its own rows."""
    runner = bench.runner(graphs.double(), batching=Batching(max_batch_size=4))
    held = Held(runner)
    jobs = [submit(runner, [[n, 0, 0, 0]]) for n in range(10)]
    held.go()
    assert [result(job)[0][0] for job in jobs] == [2 * n for n in range(10)]
    assert bench.observer.batches == [1, 4, 4, 2]


def test_requests_of_several_rows_share_an_inference_too(bench: Bench) -> None:
    """max_batch_size counts rows; a request that has more of them alone is not refused."""
    runner = bench.runner(graphs.double(), batching=Batching(max_batch_size=4))
    held = Held(runner)
    jobs = [submit(runner, [[n, 0, 0, 0]] * n) for n in (1, 2, 3, 6, 1)]
    held.go()
    for n, job in zip((1, 2, 3, 6, 1), jobs, strict=True):
        assert result(job) == [[2 * n, 0, 0, 0]] * n


def test_shapes_that_do_not_fit_are_grouped_apart(bench: Bench) -> None:
    """Rows of different lengths never meet in one tensor."""
    runner = bench.runner(graphs.sums())
    held = Held(runner)
    jobs = [submit(runner, [[1] * (1 + n % 3)]) for n in range(6)]
    held.go()
    assert [result(job) for job in jobs] == [[[1 + n % 3]] for n in range(6)]
    assert bench.observer.batches == [1, 2, 2, 2]


def test_max_batch_size_of_one_switches_batching_off(bench: Bench) -> None:
    """And so does a model whose batch dimension is fixed."""
    for runner in (
        bench.runner(graphs.double(), batching=Batching(max_batch_size=1)),
        bench.runner(graphs.double(rows=1)),
    ):
        held = Held(runner)
        jobs = [submit(runner) for _ in range(5)]
        held.go()
        assert [result(job) for job in jobs] == [[[2, 4, 6, 8]]] * 5
    assert set(bench.observer.batches) == {1}


def test_outputs_whose_rows_are_no_requests_are_not_shared(bench: Bench) -> None:
    """A model that gives a list of boxes is not batched, though its first dimension is dynamic."""
    runner = bench.runner(graphs.boxes())
    held = Held(runner)
    jobs = [submit(runner, [[n & 1, n & 2, n & 4, n & 8]]) for n in range(16)]
    held.go()
    assert [[column for _, column in result(job)] for job in jobs] == [
        [column for column in range(4) if n & 1 << column] for n in range(16)
    ]


class ForeignBackend:
    """Another backend for the same models: its graphs are OpenVINO's, but do not say whether they batch."""

    name = "foreign"

    def serves(self, config: ModelConfig) -> bool:
        return True

    def open(self, config: ModelConfig, prepare: Prepare) -> Graph:
        graph = OpenVINOBackend().open(config, prepare)
        names = ("inputs", "outputs", "parallelism", "create_context", "close")
        foreign: Any = SimpleNamespace(**{name: getattr(graph, name) for name in names})
        return cast("Graph", foreign)

    def load(self, builders: Sequence[memoryview], encoding: Encoding, target: Target) -> Graph:
        raise NotImplementedError


def test_graphs_that_do_not_say_so_do_not_batch(tmp_path: Path) -> None:
    """What another backend gives may not be row by row, whatever its shapes look like."""
    bench = Bench(tmp_path, ForeignBackend())
    try:
        runner = bench.runner(graphs.double(), batching=Batching(max_batch_size=4))
        held = Held(runner)
        jobs = [submit(runner, [[n, 0, 0, 0]]) for n in range(4)]
        held.go()
        assert [result(job)[0][0] for job in jobs] == [2 * n for n in range(4)]
        assert bench.observer.batches == [1] * 5
    finally:
        bench.close()


def test_keeps_rows_is_true_only_of_models_that_do() -> None:
    """It tries another number of rows, and looks what becomes of them."""
    x = graphs.named(ops.parameter([-1, 4], np.float32, name="x"), "x")
    total = ov.Model([graphs.named(ops.reduce_sum(x, np.array([0]), keep_dims=True), "y")], [x])
    flat = ov.Model([graphs.named(ops.reshape(x, np.array([-1]), special_zero=False), "y")], [x])
    scalar = ov.Model([graphs.named(ops.reduce_sum(x, np.array([0, 1]), keep_dims=False), "y")], [x])
    assert keeps_rows(graphs.double())
    assert keeps_rows(graphs.sums())
    for model in (graphs.double(rows=1), graphs.boxes(), total, flat, scalar):
        assert not keeps_rows(model)


def test_inputs_of_different_rows_are_not_put_together(bench: Bench) -> None:
    """Where a request's own tensors disagree about its rows, nobody else's are put beside them."""
    a, b = (graphs.named(ops.parameter([-1, 1], np.float32, name=name), name) for name in "ab")
    y, z = (graphs.named(ops.multiply(each, np.float32(2)), name) for each, name in ((a, "y"), (b, "z")))
    runner = bench.runner(ov.Model([y, z], [a, b]))
    runner._hooks.preprocess = lambda config, request: _two_inputs(request)  # the tiny plugin gives all inputs the same
    gate = threading.Event()
    first = runner.submit(Job(InferenceRequest(b"[[1], [1]]", "", gate), Deadline(20)))
    jobs = [
        runner.submit(Job(InferenceRequest(body, ""), Deadline(20)))
        for body in (b"[[1, 2], [3]]", b"[[4], [5, 6]]", b"[[7], [8]]")
    ]
    gate.set()
    first.future.result(20)
    assert [job.future.result(20) for job in jobs] == [
        {"y": [[2], [4]], "z": [[6]]},
        {"y": [[8]], "z": [[10], [12]]},
        {"y": [[14]], "z": [[16]]},
    ]


def _two_inputs(request: InferenceRequest) -> Any:
    from openvino_llama import Preprocessed

    if request.parameters:
        request.parameters.wait(20)
    a, b = json.loads(request.body)
    tensors = {name: np.array(rows, np.float32).reshape(-1, 1) for name, rows in (("a", a), ("b", b))}
    return Preprocessed(tensors, {"digits": 6, "produces": ""})


@pytest.mark.parametrize("mood", ["trap", "refuse", "recurse", "lie about the size", "lie about the shape"])
def test_one_bad_request_does_not_spoil_its_batch(bench: Bench, mood: str) -> None:
    """Its neighbours are run again without it."""
    runner = bench.runner(graphs.double(), config={"guest": guests.MOODY.hex()}, isolation=Isolation.POOLED)
    held = Held(runner)
    bad = submit(runner, [[NUMBERS[mood], 0, 0, 0]])
    good = [submit(runner, [[n, 0, 0, 0]]) for n in (20, 30, 40)]
    held.go()
    with pytest.raises(SandboxError):
        result(bad)
    assert [result(job) for job in good] == [[[20, 0, 0, 0]], [[30, 0, 0, 0]], [[40, 0, 0, 0]]]
    assert max(bench.observer.batches) == 4


def test_a_bad_postprocess_does_not_spoil_its_batch(bench: Bench) -> None:
    """Nor does a bad preprocess; neither is run twice."""
    runner = bench.runner(graphs.double())
    held = Held(runner)
    bad = [submit(runner, raises="SystemExit", where=where) for where in ("preprocess", "postprocess")]
    good = [submit(runner) for _ in range(3)]
    held.go()
    for job in bad:
        with pytest.raises(HookError, match="the log has the error") as caught:
            result(job)
        assert isinstance(caught.value.__cause__, SystemExit)
    assert [result(job) for job in good] == [[[2, 4, 6, 8]]] * 3
    assert bench.observer.batches == [1, 4]


def test_tensors_that_do_not_fit_are_refused_before_the_inference(bench: Bench) -> None:
    """In a batch, too."""
    runner = bench.runner(graphs.double())
    held = Held(runner)
    bad, good = submit(runner, [[1, 2, 3]]), submit(runner)
    held.go()
    with pytest.raises(InvalidTensorError, match=r"expected shape \[-1, 4\], got \[1, 3\]"):
        result(bad)
    assert result(good) == [[2, 4, 6, 8]]


def test_per_request_guests_are_not_shared(bench: Bench) -> None:
    """Every request has an instance that has seen no other, even when many wait."""
    runner = bench.runner(graphs.double(), config={"guest": guests.MOODY.hex()})
    held = Held(runner)
    jobs = [submit(runner, [[NUMBERS["count"], 0, 0, 0]]) for _ in range(6)]
    held.go()
    assert [result(job)[0][0] for job in jobs] == [1] * 6
    assert set(bench.observer.batches) == {1}


def test_a_guest_is_replaced_after_a_trap(bench: Bench) -> None:
    """And only then: a pooled guest keeps its state otherwise."""
    runner = bench.runner(graphs.double(), config={"guest": guests.MOODY.hex()}, isolation=Isolation.POOLED)
    count, trap, refuse = ([[NUMBERS[mood], 0, 0, 0]] for mood in ("count", "trap", "refuse"))
    assert [result(submit(runner, count))[0][0] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(SandboxError):
        result(submit(runner, refuse))
    assert result(submit(runner, count))[0][0] == 5
    with pytest.raises(GuestTrapError):
        result(submit(runner, trap))
    assert result(submit(runner, count))[0][0] == 1
    assert bench.observer.traps == 1


def test_a_guest_is_replaced_after_its_deadline(bench: Bench) -> None:
    """What was stopped in the middle is not to be trusted."""
    runner = bench.runner(graphs.double(), config={"guest": guests.MOODY.hex()}, isolation=Isolation.POOLED)
    assert result(submit(runner, [[NUMBERS["count"], 0, 0, 0]]))[0][0] == 1
    with pytest.raises(DeadlineExceededError, match="during the inference"):
        result(submit(runner, [[NUMBERS["loop"], 0, 0, 0]], seconds=0.2))
    assert result(submit(runner, [[NUMBERS["count"], 0, 0, 0]]))[0][0] == 1


def test_the_queue_is_bounded(bench: Bench) -> None:
    """As many wait as queue_size says; the next is refused; a place that is freed can be taken."""
    runner = bench.runner(graphs.double(), Limits(workers=1, queue_size=2))
    held = Held(runner)
    first, second = submit(runner), submit(runner)
    with pytest.raises(QueueFullError, match="2 requests wait") as caught:
        submit(runner)
    assert caught.value.retry_after == 1
    runner.cancel(first)
    assert runner.queue_length == 1
    third = submit(runner)
    held.go()
    assert [result(second), result(third)] == [[[2, 4, 6, 8]]] * 2
    assert first.future.cancelled()


def test_a_burst_fills_the_workers_before_the_queue(bench: Bench) -> None:
    """Requests that come faster than idle workers wake up are not refused."""
    runner = bench.runner(graphs.double(), Limits(workers=4, queue_size=1))
    time.sleep(0.2)  # all workers wait
    gate = uuid4().hex
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # no worker runs in between
    try:
        jobs = [submit(runner, gate=gate) for _ in range(5)]
        with pytest.raises(QueueFullError, match="1 requests wait"):
            submit(runner)
    finally:
        sys.setswitchinterval(interval)
        tiny.GATES.open(gate)
    assert [result(each) for each in jobs] == [[[2, 4, 6, 8]]] * 5


def test_a_deadline_that_passes_in_the_queue(bench: Bench) -> None:
    """The request is not even preprocessed."""
    runner = bench.runner(graphs.double())
    held = Held(runner)
    late = submit(runner, seconds=0.01, gate="never-opened")
    time.sleep(0.05)
    held.go()
    with pytest.raises(DeadlineExceededError, match="in the queue"):
        result(late)


def test_a_deadline_that_passes_in_preprocess(bench: Bench) -> None:
    """The inference is not begun."""
    runner = bench.runner(graphs.double())
    with pytest.raises(DeadlineExceededError, match="before the inference"):
        result(submit(runner, seconds=0.05, sleep=0.2))
    assert bench.observer.batches == []


def test_a_deadline_that_passes_in_compute(bench: Bench) -> None:
    """OpenVINO is told to stop, and the worker goes on."""
    runner = bench.runner(graphs.slow())
    started = time.perf_counter()
    with pytest.raises(DeadlineExceededError, match="during the inference"):
        result(submit(runner, seconds=0.2))
    assert time.perf_counter() - started < 0.6
    assert result(submit(runner)) == [[10]]


def test_cancelling_a_running_request_ends_it(bench: Bench) -> None:
    """Its worker is free soon after."""
    runner = bench.runner(graphs.slow())
    job = submit(runner)
    while "compute" not in bench.observer.stages and not runner._deadlines:
        time.sleep(0.001)
    started = time.perf_counter()
    runner.cancel(job)
    with pytest.raises(RequestCancelledError):
        result(job)
    assert time.perf_counter() - started < 0.4


def slow_rows() -> ov.Model:
    """Takes a while, and has a dynamic batch dimension."""
    x = graphs.named(ops.parameter([-1, 4], np.float32, name="x"), "x")
    one = np.ones((1, 700, 700), np.float32) / 700
    total = ops.reshape(ops.reduce_sum(x, np.array([1]), keep_dims=True), np.array([0, 1, 1]), special_zero=True)
    matrix = ops.multiply(total, one)
    for _ in range(100):
        matrix = ops.matmul(matrix, one, transpose_a=False, transpose_b=False)
    mean = ops.reduce_mean(matrix, np.array([1, 2]), keep_dims=False)
    answer = ops.reshape(mean, np.array([-1, 1]), special_zero=False)
    return ov.Model([graphs.named(ops.multiply(answer, np.float32(700)), "y")], [x])


@pytest.mark.parametrize("leaving", [0, 1, 2])
def test_a_client_that_leaves_a_running_batch_spoils_nothing(bench: Bench, leaving: int) -> None:
    """The inference goes on for those that stay, whichever of them left."""
    runner = bench.runner(slow_rows())
    held = Held(runner)
    jobs = [submit(runner, [[n, 0, 0, 0]], seconds=20 - n) for n in (1, 2, 3)]
    held.go()
    while bench.observer.batches != [1, 3]:
        time.sleep(0.001)
    runner.cancel(jobs[leaving])
    for n, job in enumerate(jobs, 1):
        if job is not jobs[leaving]:
            assert result(job) == [[pytest.approx(n, rel=1e-2)]]
    assert bench.observer.batches == [1, 3], "it was not begun anew"


def test_a_batch_that_everybody_leaves_ends(bench: Bench) -> None:
    """Nobody is left to compute for."""
    runner = bench.runner(slow_rows())
    held = Held(runner)
    jobs = [submit(runner) for _ in range(3)]
    held.go()
    while bench.observer.batches != [1, 3]:
        time.sleep(0.001)
    for job in jobs:
        runner.cancel(job)
    for job in jobs:
        with pytest.raises(RequestCancelledError):
            result(job)
    assert bench.observer.batches == [1, 3]


def test_closing_finishes_what_was_accepted(bench: Bench) -> None:
    """Nothing new is taken meanwhile; afterwards no thread is left."""
    runner = bench.runner(graphs.double(), Limits(workers=2))
    held = Held(runner)
    jobs = [submit(runner, sleep=0.01) for _ in range(20)]
    closing = threading.Thread(target=runner.close)
    closing.start()
    while not runner._closing:
        time.sleep(0.001)
    with pytest.raises(UnavailableError, match="being unloaded"):
        submit(runner)
    held.go()
    closing.join(20)
    assert [job.future.done() for job in [held.job, *jobs]] == [True] * 21
    assert [result(job) for job in jobs] == [[[2, 4, 6, 8]]] * 20
    assert not any(thread.is_alive() for thread in runner._threads)


def test_many_threads_submit_and_cancel(bench: Bench) -> None:
    """Eight threads, with a quarter of their requests cancelled: every other one is answered with its own rows."""
    runner = bench.runner(graphs.double(), Limits(workers=2, queue_size=2000))

    def work(base: int) -> list[tuple[int, Future[Any]]]:
        kept = []
        for n in range(base, base + 200):
            job = submit(runner, [[n, 0, 0, 0]])
            if n % 4 == 0:
                runner.cancel(job)
            else:
                kept.append((n, job.future))
        return kept

    with ThreadPoolExecutor(8) as pool:
        answers = [pair for kept in pool.map(work, range(0, 1600, 200)) for pair in kept]
    assert len(answers) == 1200
    for n, future in answers:
        assert future.result(30)["y"][0][0] == pytest.approx(2 * n)
    assert runner.queue_length == 0


def test_every_stage_is_observed(bench: Bench) -> None:
    """Queue, preprocess, sandbox, compute, postprocess: once for each request, or each inference."""
    runner = bench.runner(graphs.double())
    result(submit(runner))
    runner.close()
    assert sorted(bench.observer.stages) == ["compute", "postprocess", "preprocess", "queue", "sandbox"]


def test_a_runner_whose_guests_cannot_be_made_does_not_start(bench: Bench) -> None:
    """The error is the load's; no thread is left behind."""
    before = threading.active_count()
    empty = guests.module("(module)")
    with pytest.raises(Exception, match="exports no function"):
        bench.runner(graphs.double(), config={"guest": empty.hex()})
    assert threading.active_count() == before
