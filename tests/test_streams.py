"""Models that give output after output: on the runner, and from it to the event loop."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from tests.counting import GATES, CountingBackend, CountingGraph

from openvino_llama import InferenceRequest, ModelType, RegistryEntry, hookimpl
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Isolation, Limits
from openvino_llama.errors import (
    ContextLengthError,
    DeadlineExceededError,
    HookError,
    InferenceError,
    InvalidInputError,
    OpenVINOLlamaError,
    PluginError,
    QueueFullError,
    RequestCancelledError,
    UnavailableError,
)
from openvino_llama.jobs import Job
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.pipeline import Pipeline
from openvino_llama.plugins import Plugins
from openvino_llama.runner import Runner
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from tests import counting


class Recorder(SilentObserver):
    """Remembers the streams that it was told of."""

    def __init__(self) -> None:
        self.streams: list[int] = []

    def stream(self, model: str, first: float, rest: float, tokens: int) -> None:
        assert min(first, rest) >= 0
        self.streams.append(tokens)


class Bench:
    """Loads models that count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.observer = Recorder()
        self.sandbox = Sandbox()
        self.backend = CountingBackend()
        plugins = Plugins()
        plugins.add(counting, name="counting")
        self.models = Models(plugins, self.sandbox, [self.backend, OpenVINOBackend()], self.observer)

    def model(self, limits: Limits | None = None, parallelism: int = 1, **entry: Any) -> Model:
        """A loaded model, with one worker unless the limits say otherwise."""
        name = f"model-{len(self.models.all())}"
        (self.folder / "count").touch()
        stated = RegistryEntry(
            type="counting",
            task="count",
            files={"model": "count"},
            limits=limits or Limits(workers=1),
            config={"parallelism": parallelism},
            **entry,
        )
        return self.models.load(name, stated, self.folder.joinpath)

    def graph(self, model: Model) -> CountingGraph:
        return self.backend.graphs[model.name]

    def close(self) -> None:
        self.models.close()
        self.sandbox.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate() -> Iterator[str]:
    """A gate of this test's own; open afterwards in any case."""
    with counting.gate(uuid4().hex) as name:
        yield name


class Stream:
    """A request, and the chunks that have come of it."""

    def __init__(self, model: Model, start: int = 3, seconds: float = 20, **asked: Any) -> None:
        self.chunks: list[Any] = []
        self.runner: Runner = model.serving.runner
        self.job = Job(request(start, **asked), Deadline(seconds), emit=self.chunks.append)
        self.runner.submit(self.job)

    @property
    def values(self) -> list[int]:
        return [chunk["value"] for chunk in self.chunks]

    def answer(self) -> Any:
        return self.job.future.result(30)

    def error(self) -> BaseException | None:
        return self.job.future.exception(30)

    def cancel(self) -> None:
        self.runner.cancel(self.job)


def request(start: int, **asked: Any) -> InferenceRequest:
    return InferenceRequest(json.dumps({"start": start, **asked}).encode(), "application/json", stream=True)


def counts(model: Model) -> bool:
    """Whether it still serves."""
    stream = Stream(model, 2)
    return bool(stream.answer()["seen"] == stream.values == [2, 1])


# ---- outputs --------------------------------------------------------------------------------------------------------


def test_each_output_is_a_chunk(bench: Bench) -> None:
    """In their order; the answer is made after the last one, of the same context."""
    model = bench.model()
    stream = Stream(model, 5)
    assert stream.answer()["seen"] == [5, 4, 3, 2, 1]
    assert stream.values == [5, 4, 3, 2, 1]
    assert bench.observer.streams == [5]


def test_a_chunk_comes_before_the_next_output_is_computed(bench: Bench, gate: str) -> None:
    """The model is held at its second output, the first is there."""
    stream = Stream(bench.model(), 2, gates={1: gate})
    GATES.await_waiting(gate)
    assert stream.values == [2]
    assert not stream.job.future.done()
    GATES.open(gate)
    assert stream.answer()["seen"] == [2, 1]


def test_who_wants_no_stream_gets_the_answer(bench: Bench) -> None:
    """Nothing is emitted where nobody takes it."""
    runner = bench.model().serving.runner
    job = runner.submit(Job(request(3), Deadline(20), finish=lambda answer: sum(answer["seen"])))
    assert job.future.result(30) == 6


def test_outputs_without_data_are_not_sent(bench: Bench) -> None:
    """Half a character is no text; its tokens count all the same."""
    stream = Stream(bench.model(), 4, silent=[4, 2], tokens=3)
    assert stream.answer()["seen"] == [4, 3, 2, 1]
    assert stream.values == [3, 1]
    assert bench.observer.streams == [12]


def test_no_output_at_all(bench: Bench) -> None:
    """A model that has nothing to say answers so, and is in no average."""
    stream = Stream(bench.model(), 0)
    assert stream.answer()["seen"] == []
    assert stream.chunks == []
    assert bench.observer.streams == []


def test_a_full_context_ends_the_stream(bench: Bench) -> None:
    """What has come is the answer, and the model is told that nothing more is wanted."""
    model = bench.model()
    assert Stream(model, 9, context=2).answer()["seen"] == [9, 8]
    assert bench.graph(model).running == 0


def test_a_prompt_that_is_too_long(bench: Bench) -> None:
    """The client's fault."""
    model = bench.model()
    assert isinstance(Stream(model, 1001).error(), ContextLengthError)
    assert bench.graph(model).running == 0
    assert counts(model)


def test_a_stop_string_stops_the_model(bench: Bench) -> None:
    """Nothing is computed after the chunk that is the last, and the guest serves the next request."""
    model = bench.model()
    stream = Stream(model, 9, stop_at=7)
    assert stream.answer()["seen"] == stream.values == [9, 8, 7]
    assert bench.graph(model).given == [9, 8, 7]
    assert bench.graph(model).running == 0
    assert counts(model)
    assert bench.graph(model).contexts == 1


def test_a_fresh_guest_for_each_stream(bench: Bench) -> None:
    """Where the registry wants it so, nothing of a stream is left for the next one."""
    model = bench.model(isolation=Isolation.PER_REQUEST)
    before = bench.graph(model).contexts
    assert counts(model)
    assert Stream(model, 9, stop_at=9).answer()["seen"] == [9]
    assert bench.graph(model).contexts == before + 2
    assert bench.graph(model).running == 0


def test_streams_side_by_side(bench: Bench, gate: str) -> None:
    """One for each worker at a time; one that waits does not hold up the others."""
    model = bench.model(Limits(), parallelism=3)
    assert model.serving.runner.workers == 4
    held = [Stream(model, 2, gates={1: gate}) for _ in range(3)]
    GATES.await_waiting(gate, 3)
    assert bench.graph(model).running == 3
    assert counts(model)
    GATES.open(gate)
    assert [each.answer()["seen"] for each in held] == [[2, 1]] * 3


def test_many_streams_on_few_workers(bench: Bench) -> None:
    """Each gets its own outputs only."""
    model = bench.model(Limits(workers=3, queue_size=100))
    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda start: Stream(model, start), range(1, 41)))
        for start, stream in enumerate(streams, 1):
            assert stream.answer()["seen"] == stream.values == list(range(start, 0, -1))
    assert bench.graph(model).running == 0


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_failure_in_the_middle(bench: Bench) -> None:
    """What came before it has been sent; the model goes on with the next request."""
    model = bench.model()
    stream = Stream(model, 5, fails_at=3)
    error = stream.error()
    assert isinstance(error, InferenceError)
    assert "cannot give 3" in str(error)
    assert stream.values == [5, 4]
    assert bench.observer.streams == [2], "the tokens that came are counted"
    assert bench.graph(model).running == 0
    assert counts(model)


@pytest.mark.parametrize("where", ["preprocess", "output", "answer"])
@pytest.mark.parametrize("raises", ["OSError", "TimeoutError", "InvalidInputError"])
def test_a_hook_that_raises(bench: Bench, where: str, raises: str) -> None:
    """The stream is stopped; errors of our own are handed on, others are for the log."""
    model = bench.model()
    error = Stream(model, 5, where=where, raises=raises).error()
    assert type(error) is (InvalidInputError if raises == "InvalidInputError" else HookError)
    assert bench.graph(model).running == 0
    assert counts(model)


def test_a_postprocess_that_knows_no_chunks(bench: Bench) -> None:
    """A plugin's mistake is named."""
    model = bench.model()
    error = Stream(model, 5, where="no chunk").error()
    assert isinstance(error, HookError)
    assert "no Chunk for an output of a stream, but dict" in str(error)
    assert bench.graph(model).running == 0


def test_several_inferences_cannot_stream(bench: Bench) -> None:
    """A list of tensors is for models that give one output."""
    assert isinstance(Stream(bench.model(), 5, where="list").error(), HookError)


def test_who_takes_chunks_may_fail(bench: Bench) -> None:
    """What cannot be encoded is found on the worker: it ends the stream, not the worker."""

    def refuse(chunk: Any) -> None:
        raise TypeError("this cannot be encoded")

    model = bench.model()
    job = model.serving.runner.submit(Job(request(5), Deadline(20), emit=refuse))
    assert isinstance(job.future.exception(30), HookError)
    assert bench.graph(model).running == 0
    assert counts(model)


def test_only_tasks_of_a_type_can_stream() -> None:
    """A misspelt task is found when the plugin is loaded."""
    [known] = counting.model_types()
    wrong = ModelType(name="x", config=known.config, tasks=("a",), endpoint="x", accepts=("a/b",), streaming=("b",))
    plugin = SimpleNamespace(
        OPENVINO_LLAMA_API=1,
        model_types=hookimpl(lambda: [wrong]),
        preprocess=counting.preprocess,
        postprocess=counting.postprocess,
    )
    with pytest.raises(PluginError, match="'b', which is none of its tasks"):
        Plugins().add(plugin, name="x")


# ---- cancelling and deadlines ---------------------------------------------------------------------------------------


def test_cancelling_while_the_model_works(bench: Bench, gate: str) -> None:
    """It is interrupted in the middle of an output."""
    model = bench.model()
    stream = Stream(model, 5, gates={3: gate})
    GATES.await_waiting(gate)
    stream.cancel()
    assert isinstance(stream.error(), RequestCancelledError)
    assert stream.values == [5, 4]
    assert counts(model)
    assert bench.graph(model).running == 0


def test_cancelling_between_two_outputs(bench: Bench, gate: str) -> None:
    """The next one is not waited for."""
    model = bench.model()
    stream = Stream(model, 1000, hold=gate, hold_at=1000, gates={999: gate + "never"})
    GATES.await_waiting(gate)
    stream.cancel()
    GATES.open(gate)
    assert isinstance(stream.error(), RequestCancelledError)
    assert counts(model)
    assert bench.graph(model).running == 0
    GATES.open(gate + "never")


def test_cancelling_in_the_queue(bench: Bench, gate: str) -> None:
    """The place is free, and the request never reaches the model."""
    model = bench.model(Limits(workers=1, queue_size=1))
    running = Stream(model, 2, gates={1: gate})
    GATES.await_waiting(gate)
    waiting = Stream(model, 77)
    with pytest.raises(QueueFullError):
        Stream(model, 78)
    waiting.cancel()
    assert waiting.job.future.cancelled()
    assert model.queue_length == 0
    GATES.open(gate)
    running.answer()
    assert counts(model)
    assert 77 not in bench.graph(model).begun


def test_a_model_that_gives_nothing_in_time(bench: Bench, gate: str) -> None:
    """The deadline holds for each output."""
    model = bench.model()
    stream = Stream(model, 5, seconds=0.2, gates={4: gate})
    assert isinstance(stream.error(), DeadlineExceededError)
    assert counts(model)
    assert bench.graph(model).running == 0


def test_each_output_puts_the_deadline_off(bench: Bench, gate: str) -> None:
    """A stream may last longer than its deadline: here the first output has used all of it up."""
    model = bench.model()
    stream = Stream(model, 3, seconds=1.0, hold=gate, hold_at=3)
    GATES.await_waiting(gate)
    while not stream.job.deadline.is_over():
        time.sleep(0.01)
    GATES.open(gate)
    assert stream.answer()["seen"] == [3, 2, 1]


def test_deadlines_that_are_put_off() -> None:
    """A renewed one begins anew; another for the same moment has a life of its own; cancelling is for good."""
    first = Deadline(0.0)
    second = first.again()
    assert first.is_over()
    assert second.is_over()
    longer = Deadline(50.0)
    other = longer.again()
    assert abs(longer.seconds_over() - other.seconds_over()) < 1e-3
    other.cancel()
    assert (longer.is_over(), other.is_over()) == (False, True)
    other.renew()
    assert other.is_over()
    longer._at -= 100
    assert longer.is_over()
    longer.renew()
    assert longer.remaining() > 40


def test_unloading_lets_streams_come_to_their_end(bench: Bench, gate: str) -> None:
    """Nothing new is taken meanwhile; the graph is closed when the last one has ended."""
    model = bench.model()
    stream, waiting = Stream(model, 2, gates={1: gate}), Stream(model, 1)
    GATES.await_waiting(gate)
    unloading = threading.Thread(target=bench.models.unload, args=(model.name,))
    unloading.start()
    while not stream.runner._closing:
        time.sleep(0.001)
    with pytest.raises(UnavailableError):
        stream.runner.submit(Job(request(1), Deadline(20)))
    assert not bench.graph(model).is_closed
    GATES.open(gate)
    assert stream.answer()["seen"] == [2, 1]
    assert waiting.answer()["seen"] == [1]
    unloading.join(30)
    assert bench.graph(model).is_closed


def test_unloading_ends_a_stream_that_would_go_on(bench: Bench, gate: str) -> None:
    """A stream has as long as a request may take to come to its end; then it is told that the model goes."""
    model = bench.model(Limits(workers=1, deadline_s=0.5))
    stream = Stream(model, 1000, gates={998: gate})
    GATES.await_waiting(gate)
    bench.models.unload(model.name)
    assert isinstance(stream.error(), UnavailableError)
    assert str(stream.error()) == f"model {model.name!r} is being unloaded"
    assert stream.values == [1000, 999]


# ---- to the event loop ----------------------------------------------------------------------------------------------


def streamed(bench: Bench, model: Model, start: int, seconds: float = 20, **asked: Any) -> AsyncGenerator[list[Any]]:
    """Values and, at last, the answer."""
    return Pipeline(bench.models).stream(
        model, request(start, **asked), Deadline(seconds), lambda data: data["value"], lambda answer: answer["seen"]
    )


async def all_of(stream: AsyncGenerator[list[Any]]) -> list[Any]:
    return [each async for chunks in stream for each in chunks]


async def happens(condition: Any) -> None:
    """Wait without keeping the event loop busy."""
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def test_the_event_loop_gets_it_all(bench: Bench) -> None:
    """Encoded and finished on the worker."""
    model = bench.model()
    assert asyncio.run(all_of(streamed(bench, model, 3))) == [3, 2, 1, [3, 2, 1]]


def test_a_reader_that_is_slow_loses_nothing(bench: Bench) -> None:
    """The model does not wait for it: what comes meanwhile is handed over in one piece, the end included."""
    model = bench.model()

    async def read() -> list[list[Any]]:
        stream = streamed(bench, model, 50)
        pieces = [await anext(stream)]
        await happens(lambda: bench.observer.streams)
        await happens(lambda: not model.serving.runner._deadlines)
        await asyncio.sleep(0.05)  # whatever the worker has told is there
        pieces += [piece async for piece in stream]
        return pieces

    pieces = asyncio.run(read())
    assert [value for piece in pieces[:-1] for value in piece] == list(range(50, 0, -1))
    assert pieces[-1] == [list(range(50, 0, -1))]
    assert len(pieces) <= 3


def test_a_reader_that_leaves_stops_the_model(bench: Bench, gate: str) -> None:
    """Closing the iterator is all that it takes."""
    model = bench.model()

    async def read() -> None:
        stream: Any = streamed(bench, model, 5, gates={3: gate})
        assert (await anext(stream))[0] == 5
        await stream.aclose()
        await happens(lambda: bench.graph(model).running == 0)

    asyncio.run(read())
    assert counts(model)


def test_a_loop_that_is_gone(bench: Bench, gate: str) -> None:
    """Where nobody is left who could be told, the model stops."""
    model = bench.model()
    loop = asyncio.new_event_loop()
    stream = streamed(bench, model, 1000, hold=gate, hold_at=999, gates={997: gate + "never"})

    async def first() -> None:
        await anext(stream)

    loop.run_until_complete(first())
    GATES.await_waiting(gate)
    loop.close()
    GATES.open(gate)
    assert counts(model)
    assert bench.graph(model).running == 0
    GATES.open(gate + "never")


def test_unloading_reaches_the_event_loop(bench: Bench, gate: str) -> None:
    """Whoever reads a stream that has to end is told why."""
    model = bench.model(Limits(workers=1, deadline_s=0.5))

    async def read() -> None:
        stream = streamed(bench, model, 1000, gates={998: gate})
        async with aclosing(stream):
            assert (await anext(stream))[0] == 1000
            unloading = asyncio.create_task(asyncio.to_thread(bench.models.unload, model.name))
            with pytest.raises(UnavailableError, match="is being unloaded"):
                await all_of(stream)
            await unloading

    asyncio.run(read())


def test_each_model_has_answers_of_its_own(bench: Bench) -> None:
    """Those of a quick one do not wait for those of a slow one."""
    quick, slow = bench.model(), bench.model()

    async def take() -> list[Any]:
        pipeline, deadline = Pipeline(bench.models), Deadline(1)
        news = [pipeline._news(each.serving.runner, deadline) for each in (quick, slow, quick)]
        for each in news:
            each.close()
        return [each._mailbox for each in news]

    first, other, again = asyncio.run(take())
    assert first is again
    assert first is not other


def test_the_deadline_of_a_hook_that_does_not_end(bench: Bench, gate: str) -> None:
    """Nothing can interrupt a plugin's hook, but nobody waits for it either."""
    model = bench.model()
    with pytest.raises(DeadlineExceededError, match="did not answer in time"):
        asyncio.run(all_of(streamed(bench, model, 3, seconds=0.1, hold=gate)))
    GATES.open(gate)
    assert counts(model)


def test_no_room_for_a_stream(bench: Bench, gate: str) -> None:
    """Raised before anything has come; no timer is left behind."""
    model = bench.model(Limits(workers=1, queue_size=1))
    held = Stream(model, 2, gates={1: gate})
    GATES.await_waiting(gate)
    waiting = Stream(model, 1)

    async def refused() -> int:
        with pytest.raises(QueueFullError):
            await anext(streamed(bench, model, 3))
        return sum(not each.cancelled() for each in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]

    assert asyncio.run(refused()) == 0
    GATES.open(gate)
    assert (held.answer()["seen"], waiting.answer()["seen"]) == ([2, 1], [1])


def test_waiting_for_the_answer_of_a_stream(bench: Bench, gate: str) -> None:
    """It is waited for as long as outputs come, though the first one has used the deadline up."""
    model = bench.model()

    async def infer() -> Any:
        deadline = Deadline(1.0)
        waiting = asyncio.ensure_future(Pipeline(bench.models).infer(model, request(3, hold=gate, hold_at=3), deadline))
        await happens(deadline.is_over)
        GATES.open(gate)
        return await waiting

    assert asyncio.run(infer())["seen"] == [3, 2, 1]


def test_cancelling_whoever_waits_for_the_answer(bench: Bench, gate: str) -> None:
    """Stops the model as well."""
    model = bench.model()

    async def infer() -> None:
        waiting = asyncio.ensure_future(Pipeline(bench.models).infer(model, request(3, gates={2: gate}), Deadline(20)))
        await asyncio.to_thread(GATES.await_waiting, gate)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(infer())
    assert counts(model)
    assert bench.graph(model).running == 0


def test_errors_reach_the_event_loop(bench: Bench) -> None:
    """After what came before them."""
    model = bench.model()

    async def read() -> tuple[list[Any], OpenVINOLlamaError]:
        seen: list[Any] = []
        try:
            async for piece in streamed(bench, model, 5, fails_at=4):
                seen += piece
        except OpenVINOLlamaError as error:
            return seen, error
        raise AssertionError("no error came")

    seen, error = asyncio.run(read())
    assert seen == [5]
    assert isinstance(error, InferenceError)


def test_a_guest_that_has_grown_large_is_not_kept(bench: Bench) -> None:
    """A model that streams has many workers, and a guest's memory never shrinks."""
    model = bench.model()
    graph = bench.graph(model)
    assert Stream(model).answer()["seen"] == [3, 2, 1]
    kept = graph.contexts
    assert Stream(model).answer()["seen"] == [3, 2, 1]
    assert graph.contexts == kept
    assert Stream(model, padded="x" * (20 << 20)).answer()["seen"] == [3, 2, 1]
    assert Stream(model).answer()["seen"] == [3, 2, 1]
    assert graph.contexts == kept + 1
