"""What the tests of the sandbox share: small graphs, and guests in WebAssembly text that call the host.

Every call in these tests comes out of a real guest: ``Prober`` re-exports each import as it is, so that a test passes
what it likes from inside.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import wasmtime
from numpy.typing import NDArray
from openvino import opset13 as op

from openvino_llama.backends.base import Graph, Step
from openvino_llama.config import Limits, ModelConfig
from openvino_llama.errors import InferenceError
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Instance, Sandbox
from openvino_llama.sandbox.wasi_nn import FUNCTIONS, MODULE, GraphLoader, WasiNN
from openvino_llama.specs import DataType, TensorSpec

MODELS = Path(__file__).parents[3] / "shared" / "models"
MOBILENET = MODELS / "mobilenet_v2" / "mobilenet_v2_1.0_224_quant.tflite"

TYPES = {"f16": 0, "f32": 1, "f64": 2, "u8": 3, "i32": 4, "i64": 5}
OV_TYPES = {"f16": ov.Type.f16, "f32": ov.Type.f32, "f64": ov.Type.f64, "u8": ov.Type.u8} | {
    "i32": ov.Type.i32,
    "i64": ov.Type.i64,
}

# ---- graphs ---------------------------------------------------------------------------------------------------------


def parameter(name: str, shape: Sequence[Any], kind: str = "f32") -> Any:
    node = op.parameter(ov.PartialShape(list(shape)), OV_TYPES[kind], name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def model(inputs: Sequence[Any], **outputs: Any) -> ov.Model:
    """A model with these parameters, and one result of each name."""
    for name, node in outputs.items():
        node.output(0).get_tensor().set_names({name})
    return ov.Model([op.result(node) for node in outputs.values()], list(inputs), "small")


def relu(shape: Sequence[Any] = (1, 4)) -> ov.Model:
    x = parameter("x", shape)
    return model([x], y=op.relu(x))


def weighted() -> ov.Model:
    """Gives x (1, 4) times a constant matrix (4, 3): a model that has weights."""
    x = parameter("x", (1, 4))
    weights = op.constant(np.arange(12, dtype=np.float32).reshape(4, 3))
    return model([x], y=op.matmul(x, weights, False, False))


def two_inputs() -> ov.Model:
    a, b = parameter("a", (2,)), parameter("b", (2,))
    return model([a, b], sum=op.add(a, b), difference=op.subtract(a, b))


def same_type(kind: str) -> ov.Model:
    """Gives x + x, which is computed in every element type."""
    x = parameter("x", (3,), kind)
    return model([x], y=op.add(x, x))


def slow(layers: int = 600, size: int = 1500) -> ov.Model:
    """Matrix products one after the other: seconds of work, which can be cancelled between two of them."""
    x = parameter("x", (size, size))
    node = x
    for _ in range(layers):
        node = op.matmul(node, node, False, False)
    return model([x], y=op.reduce_sum(node, op.constant([0, 1]), True))


def serialized(graph: ov.Model, folder: Path) -> tuple[bytes, bytes]:
    """XML and weights of a model."""
    path = folder / "model.xml"
    ov.save_model(graph, path, compress_to_fp16=False)
    return path.read_bytes(), path.with_suffix(".bin").read_bytes()


class CountingGraph:
    """A small generator, written against the public protocols: from a start value n it gives n, n-1, ... 1."""

    inputs = (TensorSpec("start", (1,), DataType.I32),)
    outputs = (TensorSpec("value", (1,), DataType.I32),)
    parallelism = 1
    batches = False

    def __init__(self) -> None:
        self.finished = 0
        """How many streams were ended, by themselves or not."""

    def create_context(self) -> CountingContext:
        return CountingContext(self)

    def close(self) -> None:
        pass


class CountingContext:
    """A start over 100 is a prompt too long, ten values fill the context, and 99 hangs until it is cancelled."""

    def __init__(self, graph: CountingGraph) -> None:
        self._graph = graph
        self._next: int | None = None
        self._given = 0
        self._value: NDArray[Any] | None = None
        self.cancelled = threading.Event()

    def set_input(self, index: int, tensor: NDArray[Any], *, borrow: bool) -> None:
        CountingGraph.inputs[index].check(tensor)
        self._next, self._given = int(tensor[0]), 0

    def compute(self) -> None:
        if self.compute_single() is not Step.OUTPUT:
            raise InferenceError("there is nothing to count")

    def compute_single(self) -> Step:
        if self._next is None:
            raise InferenceError("input 'start' has not been set")
        if self._next > 100:
            return Step.PROMPT_TOO_LONG
        if self._next == 99:
            assert self.cancelled.wait(10)
            raise InferenceError("cancelled")
        if self._given == 10:
            return Step.CONTEXT_FULL
        if self._next <= 0:
            return Step.END_OF_SEQUENCE
        self._value = np.array([self._next], np.int32)
        self._next -= 1
        self._given += 1
        return Step.OUTPUT

    def output(self, index: int) -> NDArray[Any]:
        if self._value is None:
            raise InferenceError("there is no output before a successful compute")
        return self._value

    def finish(self) -> None:
        self._next = None
        self._graph.finished += 1

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self._value = None


class ForeignGraph(CountingGraph):
    """A graph of a backend that raises what it likes."""

    def create_context(self) -> CountingContext:
        return ForeignContext(self)


class ForeignContext(CountingContext):
    def compute(self) -> None:
        raise OSError("cannot open /secret/file")


# ---- formats, hand-encoded ------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])


def field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message: a varint, or something with a length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def onnx_relu() -> bytes:
    """An ONNX ModelProto: y = Relu(x), x f32 (1, 4)."""
    shape = b"".join(field(1, field(1, size)) for size in (1, 4))
    kind = field(2, field(1, field(1, 1) + field(2, shape)))
    node = field(1, "x") + field(2, "y") + field(4, "Relu")
    graph = field(1, node) + field(2, "small") + field(11, field(1, "x") + kind) + field(12, field(1, "y") + kind)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def tensorflow_relu() -> bytes:
    """A frozen TensorFlow GraphDef: y = Relu(x), x f32 (1, 4)."""

    def attribute(key: str, value: bytes) -> bytes:
        return field(5, field(1, key) + field(2, value))

    def node(name: str, kind: str, *rest: bytes) -> bytes:
        return field(1, field(1, name) + field(2, kind) + b"".join(rest))

    shape = field(7, b"".join(field(2, field(1, size)) for size in (1, 4)))
    float_type = field(6, 1)
    placeholder = node("x", "Placeholder", attribute("dtype", float_type), attribute("shape", shape))
    return placeholder + node("y", "Relu", field(3, "x"), attribute("T", float_type))


# ---- guests ---------------------------------------------------------------------------------------------------------

OUT = 0x10  # where handles and sizes are written
NAME = 0x100
BUILDERS = 0x200
RECORD = 0x300
DIMS = 0x400
RESULT = 0x1000
DATA = 0x2000
PAGE = 0x10000

TENSOR = struct.Struct("<IIB3sII")


def wat(text: str) -> bytes:
    """A module from its text."""
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


def _prober(memory: str) -> bytes:
    imports, wrappers = [], []
    for name, (count, _) in FUNCTIONS.items():
        kind = f"(param {'i32 ' * count}) (result i32)"
        arguments = " ".join(f"(local.get {position})" for position in range(count))
        imports.append(f'(import "{MODULE}" "{name}" (func ${name} {kind}))')
        wrappers.append(f'(func (export "{name}") {kind} (call ${name} {arguments}))')
    grow = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'
    return wat("".join([*imports, memory, *wrappers, grow]))


PROBER = _prober('(memory (export "memory") 2)')
PROBER_WITHOUT_MEMORY = _prober("(memory 2)")


class Prober:
    """A guest whose exports are the host's functions."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.nn = instance.nn
        self._functions = {name: instance.function(name, count) for name, (count, _) in FUNCTIONS.items()}
        self._functions["grow"] = instance.function("grow", 1)

    def __call__(self, name: str, *arguments: int, deadline: Deadline | None = None) -> int:
        """Call a function from inside the guest."""
        return self.instance.call(self._functions[name], *arguments, deadline=deadline)

    def put(self, pointer: int, content: bytes) -> None:
        self.instance.memory.write(pointer, content)

    def take(self, pointer: int, size: int) -> bytes:
        return bytes(self.instance.memory.view(pointer, size))

    def number(self, pointer: int = OUT) -> int:
        return int.from_bytes(self.take(pointer, 4), "little")

    def handle(self, name: str, *arguments: int) -> int:
        """Call a function that writes a handle, which must succeed."""
        assert self(name, *arguments, OUT) == 0, self.nn.last_error
        return self.number()

    def load_by_name(self, name: str | bytes) -> int:
        content = name.encode() if isinstance(name, str) else name
        self.put(NAME, content)
        return self("load_by_name", NAME, len(content), OUT)

    def context(self, name: str) -> int:
        """An execution context of a named graph."""
        assert self.load_by_name(name) == 0, self.nn.last_error
        return self.handle("init_execution_context", self.number())

    def load(self, builders: Sequence[bytes], encoding: int, target: int = 0) -> int:
        """Load from guest memory, which is grown as needed."""
        needed = DATA + sum(map(len, builders))
        pages = -(-needed // PAGE) - len(self.instance.memory) // PAGE
        if pages > 0:
            assert self("grow", pages) >= 0
        pointer = DATA
        for index, content in enumerate(builders):
            self.put(BUILDERS + 8 * index, struct.pack("<II", pointer, len(content)))
            self.put(pointer, content)
            pointer += len(content)
        return self("load", BUILDERS, len(builders), encoding, target, OUT)

    def record(self, array: NDArray[Any], padding: bytes = b"\0\0\0", data: int = DATA) -> int:
        """Write a tensor, its dimensions and its data; the pointer of the record."""
        self.put(DIMS, struct.pack(f"<{array.ndim}I", *array.shape))
        self.put(data, array.tobytes())
        kind = TYPES[DataType(_NAMES[array.dtype.str[1:]]).value]
        self.put(RECORD, TENSOR.pack(DIMS, array.ndim, kind, padding, data, array.nbytes))
        return RECORD

    def set_input(self, context: int, index: int, array: NDArray[Any]) -> int:
        return self("set_input", context, index, self.record(array))

    def output(self, context: int, like: NDArray[Any], index: int = 0) -> NDArray[Any]:
        """An output of which the shape and type are known; the call must succeed."""
        assert self("get_output", context, index, RESULT, like.nbytes, OUT) == 0, self.nn.last_error
        assert self.number() == like.nbytes
        return np.frombuffer(self.take(RESULT, like.nbytes), like.dtype).reshape(like.shape)


_NAMES = {"f2": "f16", "f4": "f32", "f8": "f64", "u1": "u8", "i4": "i32", "i8": "i64"}


def probe(
    sandbox: Sandbox,
    graphs: Mapping[str, Graph],
    load: GraphLoader,
    *,
    module: bytes = PROBER,
    limits: Limits | None = None,
    handles: int = 64,
    borrow: bool = False,
) -> Prober:
    """A prober in a store of its own."""
    nn = WasiNN(graphs, load, sandbox.watchdog, handles=handles, borrow=borrow)
    return Prober(sandbox.instantiate(sandbox.compile(module), nn, limits or Limits()))


def config_of(graph: Graph, name: str = "m", **fields: Any) -> ModelConfig:
    """The ModelConfig of a graph that is already there."""
    specs = {"inputs": tuple(graph.inputs), "outputs": tuple(graph.outputs)}
    return ModelConfig(name=name, type="t", task="t", files={}, config=None, **(specs | fields))


MISCHIEF = wat("""
    (memory (export "memory") 1)
    (table $table 1 funcref)
    (func (export "spin") (loop (br 0)))
    (func (export "grow_for_ever") (loop (drop (memory.grow (i32.const 16))) (br 0)))
    (func (export "grow_and_trap") (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable))
    (func (export "grow_table_for_ever") (loop (drop (table.grow $table (ref.null func) (i32.const 100))) (br 0)))
    (func (export "table_size") (result i32)
        (drop (table.grow $table (ref.null func) (i32.const 9999)))
        (drop (table.grow $table (ref.null func) (i32.const 9999)))
        (table.size $table))
    (func $recurse (export "recurse") (param i32) (result i32)
        (i32.add (i32.const 1) (call $recurse (local.get 0))))
    (func $depth (export "depth") (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.add (i32.const 1) (call $depth (i32.sub (local.get 0) (i32.const 1)))))
            (else (i32.const 0))))
    (func (export "unreachable") (unreachable))
    (func (export "out_of_bounds") (result i32) (i32.load (i32.const 0xFFFFFF00)))
    (func (export "divide") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
    (func (export "indirect") (call_indirect $table (i32.const 0)))
    (func (export "nothing"))
    (func (export "echo") (param i32) (result i32) (local.get 0))
    (func (export "wide") (param i64) (result i32) (i32.const 0))
    (func (export "two") (result i32 i32) (i32.const 0) (i32.const 0))
""")
"""A guest that does one bad thing in each of its functions."""


def mischief(sandbox: Sandbox, limits: Limits | None = None) -> Instance:
    """An instance of it."""
    return start(sandbox, MISCHIEF, limits)


def start(sandbox: Sandbox, module: bytes, limits: Limits | None = None) -> Instance:
    """An instance of a guest that uses no graphs."""

    def load(*_arguments: object) -> Graph:
        raise AssertionError("this guest loads nothing")

    nn = WasiNN({}, load, sandbox.watchdog)
    return sandbox.instantiate(sandbox.compile(module), nn, limits or Limits())
