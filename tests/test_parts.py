"""Requests of several inferences: shared by the workers, put together with others, answered once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.counting import GATES

from openvino_llama import InferenceRequest, Preprocessed, RegistryEntry
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Batching, Isolation, Limits
from openvino_llama.errors import (
    DeadlineExceededError,
    HookError,
    InferenceError,
    InvalidInputError,
    InvalidTensorError,
    QueueFullError,
    RequestCancelledError,
)
from openvino_llama.jobs import Job, Whole
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.pipeline import Pipeline
from openvino_llama.plugins import Plugins
from openvino_llama.runner import Runner
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from tests import counting, graphs


class Recorder(SilentObserver):
    """Remembers how many shared each inference."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.queued = 0

    def batch(self, model: str, size: int) -> None:
        self.batches.append(size)

    def stage(self, model: str, stage: str, seconds: float) -> None:
        self.queued += stage == "queue"


class Bench:
    """Loads models that sum rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.observer = Recorder()
        self.sandbox = Sandbox()
        graphs.save(graphs.sums(), folder / "sums.xml")
        plugins = Plugins()
        plugins.add(counting, name="counting")
        self.models = Models(plugins, self.sandbox, [OpenVINOBackend()], self.observer)

    def model(self, workers: int = 1, batch: int = 4, **entry: Any) -> Model:
        name = f"model-{len(self.models.all())}"
        entry = {"limits": Limits(workers=workers), "batching": Batching(max_batch_size=batch)} | entry
        stated = RegistryEntry(type="counting", task="sum", files={"model": "sums.xml"}, **entry)
        return self.models.load(name, stated, self.folder.joinpath)

    def close(self) -> None:
        self.models.close()
        self.sandbox.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sums")


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    made = Bench(folder)
    yield made
    made.close()


@pytest.fixture
def gate() -> Iterator[str]:
    with counting.gate(uuid4().hex) as name:
        yield name


def submit(model: Model, rows: list[list[float]], seconds: float = 20, **asked: Any) -> Job:
    runner: Runner = model.serving.runner
    return runner.submit(Job(request(rows, **asked), Deadline(seconds)))


def request(rows: list[list[float]], **asked: Any) -> InferenceRequest:
    return InferenceRequest(json.dumps({"rows": rows, **asked}).encode(), "application/json")


def serves(model: Model) -> bool:
    """Whether it answers as ever."""
    return bool(submit(model, [[1, 2], [3]]).future.result(30) == [3.0, 3.0])


# ---- answers --------------------------------------------------------------------------------------------------------


def test_each_row_is_an_inference(bench: Bench) -> None:
    """The answer is made once, of what all of them have left in their contexts; it waited in the queue once."""
    model = bench.model(batch=1)
    assert submit(model, [[1], [2, 3], [4, 5, 6]]).future.result(30) == [1.0, 5.0, 15.0]
    assert bench.observer.batches == [1, 1, 1]
    assert bench.observer.queued == 1


def test_those_of_one_shape_share_an_inference(bench: Bench) -> None:
    """The others have one of their own."""
    model = bench.model(batch=8)
    assert submit(model, [[1, 2], [3], [4, 5], [6]]).future.result(30) == [3.0, 3.0, 9.0, 6.0]
    assert sorted(bench.observer.batches) == [2, 2]


def test_a_list_of_one(bench: Bench) -> None:
    """Is no special case."""
    assert submit(bench.model(), [[7]]).future.result(30) == [7.0]


def test_an_empty_list(bench: Bench) -> None:
    """A plugin's mistake: it is answered, and nothing waits for ever."""
    model = bench.model()
    assert isinstance(submit(model, []).future.exception(30), HookError)
    assert serves(model)


def test_they_share_with_other_requests(bench: Bench, gate: str) -> None:
    """Which have waited meanwhile: those of one shape go together, whoever asked for them."""
    model = bench.model(batch=8)
    held = submit(model, [[0]], hold=gate, hold_at=0)
    GATES.await_waiting(gate)
    bench.observer.batches.clear()
    jobs = [submit(model, [[n, n]]) for n in range(3)]
    GATES.open(gate)
    assert [job.future.result(30) for job in (held, *jobs)] == [[0.0], [0.0], [2.0], [4.0]]
    assert bench.observer.batches == [3]


def test_all_workers_share_in_them(bench: Bench, gate: str) -> None:
    """Three are in work at the same time: each worker is held in another one."""
    model = bench.model(workers=3, batch=1)
    job = submit(model, [[1], [2], [3]], hold=gate)
    for _ in range(3):
        GATES.await_waiting(gate)
    assert not job.future.done()
    GATES.open(gate)
    assert job.future.result(30) == [1.0, 2.0, 3.0]


def test_they_come_before_requests_that_arrived_later(bench: Bench, gate: str) -> None:
    """A long request is not overtaken by every short one."""
    model = bench.model(batch=1)
    order: list[str] = []
    held = submit(model, [[1], [2], [3]], hold=gate, hold_at=0)
    GATES.await_waiting(gate)
    later = submit(model, [[4]])
    held.future.add_done_callback(lambda _: order.append("held"))
    later.future.add_done_callback(lambda _: order.append("later"))
    GATES.open(gate)
    later.future.result(30)
    assert order == ["held", "later"]


def test_they_take_no_places_in_the_queue(bench: Bench, gate: str) -> None:
    """What waits is counted in requests: one of many rows is one, and leaves the next ones their places."""
    model = bench.model(batch=1, limits=Limits(workers=1, queue_size=2))
    job = submit(model, [[n] for n in range(50)], hold=gate, hold_at=0)
    GATES.await_waiting(gate)
    assert model.queue_length == 0
    others = [submit(model, [[1]]) for _ in range(2)]
    with pytest.raises(QueueFullError):
        submit(model, [[1]])
    GATES.open(gate)
    assert job.future.result(30) == [float(n) for n in range(50)]
    assert [each.future.result(30) for each in others] == [[1.0]] * 2


def test_each_in_a_guest_of_its_own(bench: Bench) -> None:
    """Where the registry wants isolation, the rows of one request are apart, too."""
    model = bench.model(batch=8, isolation=Isolation.PER_REQUEST)
    assert submit(model, [[1], [2], [3]]).future.result(30) == [1.0, 2.0, 3.0]
    assert bench.observer.batches == [1, 1, 1]


def test_unloading_finishes_them(bench: Bench, gate: str) -> None:
    """All of what was accepted is answered first."""
    model = bench.model(workers=2, batch=1)
    job = submit(model, [[n] for n in range(20)], hold=gate, hold_at=0)
    GATES.await_waiting(gate)
    unloading = threading.Thread(target=bench.models.unload, args=(model.name,))
    unloading.start()
    GATES.open(gate)
    assert job.future.result(30) == [float(n) for n in range(20)]
    unloading.join(30)
    assert not unloading.is_alive()


rows = st.lists(st.lists(st.integers(-100, 100), min_size=1, max_size=5), min_size=1, max_size=12)


@given(st.lists(rows, min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 5))
@hypothesis_settings(max_examples=25, deadline=None)
def test_whatever_is_asked_at_the_same_time(folder: Path, asked: Any, workers: int, batch: int) -> None:
    """Every request gets its own sums, in its own order, however they are split and put together."""
    bench = Bench(folder)
    try:
        model = bench.model(workers=workers, batch=batch)
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda each: submit(model, each), asked))
        for job, given_rows in zip(jobs, asked, strict=True):
            assert job.future.result(30) == [float(sum(row)) for row in given_rows]
        assert max(bench.observer.batches) <= batch
    finally:
        bench.close()


def test_the_last_two_that_end_at_the_same_time() -> None:
    """The answer is made once, whatever the threads do."""
    for _ in range(200):
        answers: list[Job] = []
        job = Job(request([]), Deadline(20))
        job.future.set_running_or_notify_cancel()
        whole = Whole(job, [Preprocessed({}) for _ in range(8)], answers.append)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(finish_with_others, whole.parts, [threading.Barrier(8)] * 8))
        assert answers == [job]


def finish_with_others(part: Job, all_are_here: threading.Barrier) -> None:
    all_are_here.wait()
    part.future.set_result(None)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", ["OSError", "InvalidInputError", "InferenceError"])
def test_one_that_fails(bench: Bench, gate: str, raises: str) -> None:
    """The request has failed at once, while others of its inferences still run; these have no use any more."""
    model = bench.model(workers=2, batch=1)
    job = submit(model, [[n] for n in range(30)], raises=raises, at=1, hold=gate, hold_at=0)
    wanted = {"OSError": HookError, "InvalidInputError": InvalidInputError, "InferenceError": InferenceError}
    assert type(job.future.exception(30)) is wanted[raises]
    GATES.open(gate)
    assert serves(model)
    assert len(bench.observer.batches) < 30, "the rest was computed for nothing"


def test_one_that_fails_spoils_no_other_request(bench: Bench, gate: str) -> None:
    """Though they shared an inference."""
    model = bench.model(batch=8)
    held = submit(model, [[0]], hold=gate, hold_at=0)
    GATES.await_waiting(gate)
    bad, good = submit(model, [[1], [2]], raises="OSError", at=1), submit(model, [[3], [4]])
    GATES.open(gate)
    assert isinstance(bad.future.exception(30), HookError)
    assert (held.future.result(30), good.future.result(30)) == ([0.0], [3.0, 4.0])


@pytest.mark.parametrize("where", ["preprocess", "answer"])
def test_a_hook_that_raises(bench: Bench, where: str) -> None:
    """Before the first, or after the last."""
    model = bench.model()
    assert isinstance(submit(model, [[1], [2]], raises="OSError", where=where).future.exception(30), HookError)
    assert serves(model)


def test_one_that_does_not_fit(bench: Bench) -> None:
    """All are checked before the first is run."""
    model = bench.model()
    runner = model.serving.runner
    hook = runner._hooks.preprocess

    def preprocess(**arguments: Any) -> Any:
        prepared = hook(**arguments)
        assert not isinstance(prepared, Preprocessed)
        first, second = prepared
        return [first, Preprocessed({"x": second.tensors["x"].astype("f8")})]

    runner._hooks.preprocess = preprocess
    assert isinstance(submit(model, [[1], [2]]).future.exception(30), InvalidTensorError)
    assert bench.observer.batches == []
    runner._hooks.preprocess = hook
    assert serves(model)


def test_cancelling_in_the_middle(bench: Bench, gate: str) -> None:
    """What has not begun is not run."""
    model = bench.model(batch=1)
    job = submit(model, [[n] for n in range(30)], hold=gate, hold_at=2)
    GATES.await_waiting(gate)
    model.serving.runner.cancel(job)
    GATES.open(gate)
    assert isinstance(job.future.exception(30), RequestCancelledError)
    assert serves(model)
    assert len(bench.observer.batches) <= 3 + 2


def test_a_deadline_in_the_middle(bench: Bench, gate: str) -> None:
    """It holds for the whole request, not for each of its inferences."""
    model = bench.model(batch=1)
    job = submit(model, [[1], [2], [3]], seconds=0.2, hold=gate, hold_at=1)
    GATES.await_waiting(gate)
    while not job.deadline.is_over():
        threading.Event().wait(0.01)
    GATES.open(gate)
    assert isinstance(job.future.exception(30), DeadlineExceededError)
    assert serves(model)


def test_whoever_waits_for_them_may_leave(bench: Bench, gate: str) -> None:
    """A task that is cancelled takes its inferences along."""
    model = bench.model(batch=1)

    async def leave() -> None:
        asked = request([[n] for n in range(30)], hold=gate, hold_at=0)
        waiting = asyncio.ensure_future(Pipeline(bench.models).infer(model, asked, Deadline(20)))
        await asyncio.to_thread(GATES.await_waiting, gate)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    GATES.open(gate)
    assert serves(model)
    assert len(bench.observer.batches) <= 1 + 2
