"""A plugin for tests: a backend that counts down, output by output, and sums of rows, several in one request.

Task ``count`` streams. The body is a JSON object, or a form with the same fields: ``{"start": 3}`` gives 3, 2, 1.
``gates``: value -> name of a gate that the backend waits for before it gives this value; ``fails_at``: the value at
which it fails; ``context``: outputs that fit its context; ``hold``: name of a gate that ``postprocess`` waits for at
the value ``hold_at``; ``stop_at``: the value after which the rest is not wanted; ``silent``: values of which no chunk
is sent; ``padding``: bytes in each chunk; ``raises`` and ``where``: the exception of a hook. A start over 1000 is a
prompt too long.

Task ``sum`` is OpenVINO's: ``{"rows": [[1, 2], [3]]}`` gives the sum of each row, each by an inference of its own;
``hold`` is the gate that the row ``hold_at`` waits for in ``postprocess``, ``raises`` and ``at`` its exception there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from numpy.typing import NDArray
from tests.tiny import Gates

from openvino_llama import (
    Chunk,
    Encoding,
    Graph,
    InferenceError,
    InferenceRequest,
    InvalidInputError,
    ModelConfig,
    ModelType,
    Prepare,
    Preprocessed,
    Step,
    Target,
    TensorSpec,
    hookimpl,
)
from openvino_llama.specs import DataType

OPENVINO_LLAMA_API = 1
FORM = "application/x-www-form-urlencoded"
GATES = Gates()


class CountingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an entry states."""

    parallelism: int = 1


class CountingParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the query may ask."""

    unit: str = ""


class CountRequest(msgspec.Struct, frozen=True):
    """What routes may hand over."""

    start: int


# ---- the backend ----------------------------------------------------------------------------------------------------


class CountingGraph:
    """What its contexts do is seen in it."""

    inputs = (TensorSpec("start", (1,), DataType.I32), TensorSpec("script", (-1,), DataType.U8))
    outputs = (TensorSpec("value", (1,), DataType.I32),)
    batches = False

    def __init__(self, parallelism: int) -> None:
        self.parallelism = parallelism
        self.reason = ""
        """Why it is not ready."""
        self.sick = False
        """Whether it raises when it is asked how it is."""
        self.given: list[int] = []
        """Every value that was computed."""
        self.begun: list[int] = []
        """The start of every stream."""
        self.running = 0
        """Streams whose next value would still be computed."""
        self.contexts = 0
        """Contexts that were made."""
        self.is_closed = False
        self._lock = threading.Lock()

    def create_context(self) -> CountingContext:
        with self._lock:
            self.contexts += 1
        return CountingContext(self)

    def unready_reason(self) -> str:
        self._check()
        return self.reason

    def gauges(self) -> Mapping[str, float]:
        self._check()
        return {"running_streams": self.running}

    def _check(self) -> None:
        if self.sick:
            raise OSError("/a/secret/path is gone")

    def add(self, streams: int) -> None:
        with self._lock:
            self.running += streams

    def close(self) -> None:
        self.is_closed = True


class CountingContext:
    """One stream at a time."""

    def __init__(self, graph: CountingGraph) -> None:
        self._graph = graph
        self._next = 0
        self._left = 0
        self._running = False
        self._script: dict[str, Any] = {}
        self._value: NDArray[Any] = np.zeros(1, np.int32)
        self._cancelled = threading.Event()

    def set_input(self, index: int, tensor: NDArray[Any], *, borrow: bool) -> None:
        self._graph.inputs[index].check(tensor)
        if index == 0:
            self._next = int(tensor[0])
            self._cancelled.clear()
            return
        self._script = json.loads(bytes(tensor))
        self._left = self._script.get("context", 1000)
        self._graph.begun.append(self._next)
        self._run(True)

    def compute(self) -> None:
        raise InferenceError("this graph only streams")

    def compute_single(self) -> Step:
        if self._next > 1000:
            return Step.PROMPT_TOO_LONG
        if self._next == 0:
            self._run(False)
            return Step.END_OF_SEQUENCE
        if self._left == 0:
            return Step.CONTEXT_FULL
        if str(self._next) in self._script.get("gates", {}):
            self._wait(self._script["gates"][str(self._next)])
        if self._next == self._script.get("fails_at"):
            raise InferenceError(f"cannot give {self._next}")
        self._value = np.array([self._next], np.int32)
        self._graph.given.append(self._next)
        self._next -= 1
        self._left -= 1
        return Step.OUTPUT

    def _wait(self, gate: str) -> None:
        GATES.reached[gate].release()
        while not GATES.opened[gate].wait(0.005):
            if self._cancelled.is_set():
                raise InferenceError("cancelled")

    def _run(self, running: bool) -> None:
        self._graph.add(int(running) - int(self._running))
        self._running = running

    def output(self, index: int) -> NDArray[Any]:
        return self._value

    def finish(self) -> None:
        self._run(False)

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self._run(False)


class CountingBackend:
    """Opens every model that counts; its graphs are kept by the models' names."""

    name = "counting"

    def __init__(self) -> None:
        self.graphs: dict[str, CountingGraph] = {}

    def serves(self, config: ModelConfig) -> bool:
        return (config.type, config.task) == ("counting", "count")

    def open(self, config: ModelConfig, prepare: Prepare) -> Graph:
        graph = CountingGraph(config.config.parallelism)
        self.graphs[config.name] = graph
        return graph

    def load(self, builders: Sequence[memoryview], encoding: Encoding, target: Target) -> Graph:
        raise InferenceError("nothing counts out of memory")


BACKEND = CountingBackend()

# ---- the hooks ------------------------------------------------------------------------------------------------------


@hookimpl
def model_types() -> Sequence[ModelType]:
    return [
        ModelType(
            name="counting",
            config=CountingConfig,
            tasks=("count", "sum"),
            endpoint="count",
            accepts=("application/json", FORM),
            parameters=CountingParameters,
            streaming=("count",),
            answers={CountRequest: ("count",)},
        )
    ]


@hookimpl
def backends() -> Sequence[CountingBackend]:
    return [BACKEND]


@hookimpl
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | Sequence[Preprocessed]:
    asked = _asked(request)
    asked["unit"] = request.parameters.unit if isinstance(request.parameters, CountingParameters) else ""
    asked["stream"], asked["produces"] = request.stream, request.produces
    if asked.get("where") == "preprocess":
        _raise(asked)
    if config.task == "sum":
        return _rows(asked)
    start = np.array([int(asked["start"])], np.int32)
    script = np.frombuffer(json.dumps(asked).encode(), np.uint8)
    prepared = Preprocessed({"start": start, "script": script}, asked | {"seen": []})
    return [prepared] if asked.get("where") == "list" else prepared


def _asked(request: InferenceRequest) -> dict[str, Any]:
    if isinstance(request.parameters, CountRequest):
        return {"start": request.parameters.start}
    if request.media_type == FORM:
        fields = dict(parse_qsl(request.body.decode()))
        return {name: json.loads(value) if value[:1] in "{[0123456789" else value for name, value in fields.items()}
    try:
        asked: dict[str, Any] = msgspec.json.decode(request.body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise InvalidInputError("the body is not a JSON object") from None
    return asked


def _rows(asked: dict[str, Any]) -> list[Preprocessed]:
    sums: dict[int, float] = {}
    return [
        Preprocessed({"x": np.array([row], np.float32)}, asked | {"row": number, "sums": sums})
        for number, row in enumerate(asked["rows"])
    ]


@hookimpl
def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: dict[str, Any]) -> Any:
    if not outputs and context.get("where") == "answer":
        _raise(context)
    return _sum(outputs, context) if config.task == "sum" else _count(outputs, context)


def _sum(outputs: Mapping[str, NDArray[Any]], context: dict[str, Any]) -> Any:
    if not outputs:
        return [total for _, total in sorted(context["sums"].items())]
    if context.get("hold_at", context["row"]) == context["row"] and "hold" in context:
        GATES.wait(context["hold"])
    if context.get("at") == context["row"]:
        _raise(context)
    context["sums"][context["row"]] = float(outputs["y"].item())
    return "is not used"


def _count(outputs: Mapping[str, NDArray[Any]], context: dict[str, Any]) -> Any:
    if not outputs:
        return {name: context[name] for name in ("seen", "unit", "stream", "produces")}
    value = int(outputs["value"].item())
    context["seen"].append(value)
    if context.get("hold_at", value) == value and "hold" in context:
        GATES.wait(context["hold"])
    if context.get("where") == "output":
        _raise(context)
    if context.get("where") == "no chunk":
        return {"value": value}
    data = {"value": value} | ({"padding": "x" * context["padding"]} if "padding" in context else {})
    if context.get("where") == "encode":
        data = {"value": object()}
    silent = value in context.get("silent", ())
    return Chunk(None if silent else data, tokens=context.get("tokens", 1), last=value == context.get("stop_at"))


def _raise(asked: dict[str, Any]) -> None:
    from openvino_llama import errors

    kind = getattr(errors, asked["raises"], None) or {"OSError": OSError, "TimeoutError": TimeoutError}[asked["raises"]]
    raise kind(f"{asked['raises']} of /a/secret/path")


@contextmanager
def gate(name: str) -> Iterator[str]:
    """A gate that is open afterwards in any case."""
    try:
        yield name
    finally:
        GATES.open(name)
