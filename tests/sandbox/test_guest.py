"""The guest's FFI from Python, with the built-in guest and with guests that lie."""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from tests.sandbox.support import CountingGraph, config_of, wat

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Limits
from openvino_llama.errors import (
    GuestTrapError,
    InferenceError,
    InvalidTensorError,
    LimitError,
    ModelLoadError,
    OpenVINOLlamaError,
    SandboxError,
)
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import BUILT_IN, Guest, StreamEnd
from openvino_llama.sandbox.wasi_nn import WasiNN
from openvino_llama.specs import DataType, TensorSpec

FOUR = np.array([[-1, 2, -3, 4]], np.float32)
Make = Callable[..., Guest]


@pytest.fixture
def make(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> Iterator[Make]:
    """Makes a guest for a graph; borrowing and the built-in module unless said."""
    made = []

    def make_(name: str, module: bytes | None = None, *, streaming: bool = False, **fields: Any) -> Guest:
        config = config_of(graphs[name], name, **fields)
        nn = WasiNN(graphs, backend.load, sandbox.watchdog, borrow=module is None)
        instance = sandbox.instantiate(sandbox.compile(module or BUILT_IN), nn, config.limits)
        guest = Guest(instance, config, streaming=streaming)
        made.append(guest)
        return guest

    yield make_
    for guest in made:
        guest.close()


# ---- the built-in guest ---------------------------------------------------------------------------------------------


def test_infer(make: Make) -> None:
    """Outputs by name, again and again."""
    guest = make("relu")
    for factor in (1, -1, 3):
        outputs = guest.infer([{"x": factor * FOUR}])
        assert not isinstance(outputs, StreamEnd)
        assert list(outputs) == ["y"]
        assert (outputs["y"] == np.maximum(factor * FOUR, 0)).all()
        assert guest.compute_seconds > 0


@pytest.mark.parametrize("kind", ["f16", "f32", "f64", "u8", "i32", "i64"])
def test_every_tensor_type(make: Make, kind: str) -> None:
    """Types pass as they are."""
    array = np.array([1, 2, 100], DataType(kind).numpy)
    outputs = make(kind).infer([{"x": array}])
    assert not isinstance(outputs, StreamEnd)
    assert outputs["y"].dtype == array.dtype
    assert (outputs["y"] == array + array).all()


def test_several_requests_in_one_inference(make: Make) -> None:
    """They are put together along the first dimension; sizes may change from call to call, down to nothing."""
    guest = make("dynamic")
    for rows in ((1,), (2, 3), (1, 1, 1), (300,), (0,), (5, 0)):
        arrays = [np.full((count, 4), count, np.float32) for count in rows]
        outputs = guest.infer([{"x": array} for array in arrays])
        assert not isinstance(outputs, StreamEnd)
        assert (outputs["y"] == np.concatenate(arrays)).all()


def test_arrays_of_any_layout(make: Make) -> None:
    """Not contiguous, read-only, of the other byte order: copied into the guest as they mean."""
    guest = make("relu")
    for array in (np.asfortranarray(FOUR), FOUR.astype(">f4"), np.repeat(FOUR, 2, axis=1)[:, ::2]):
        array.flags.writeable = False
        outputs = guest.infer([{"x": array}])
        assert not isinstance(outputs, StreamEnd)
        assert (outputs["y"] == np.maximum(FOUR, 0)).all()


def counted(guest: Guest, start: int) -> tuple[list[int], StreamEnd]:
    """All values of a stream, and how it ended."""
    values = []
    outputs = guest.infer([{"start": np.array([start], np.int32)}])
    while not isinstance(outputs, StreamEnd):
        values.append(int(outputs["value"][0]))
        outputs = guest.next()
    return values, outputs


def test_a_stream(make: Make) -> None:
    """Infer gives the first output, next the others, and then why there are no more."""
    guest = make("count", streaming=True)
    for start in (3, 1, 4, 0):
        assert counted(guest, start) == (list(range(start, 0, -1)), StreamEnd.END_OF_SEQUENCE)
    assert counted(guest, 50) == (list(range(50, 40, -1)), StreamEnd.CONTEXT_FULL)
    assert counted(guest, 1000) == ([], StreamEnd.PROMPT_TOO_LONG)


def test_a_stream_that_is_not_read_to_its_end(make: Make, graphs: Mapping[str, Graph]) -> None:
    """The next inference ends it first: what it holds in the backend is given back."""
    guest, graph = make("count", streaming=True), graphs["count"]
    assert isinstance(graph, CountingGraph)
    before = graph.finished
    for _ in range(2):
        assert guest.infer([{"start": np.array([5], np.int32)}]) is not StreamEnd.END_OF_SEQUENCE
    assert graph.finished == before + 1
    assert counted(guest, 2) == ([2, 1], StreamEnd.END_OF_SEQUENCE)
    assert graph.finished == before + 3
    assert counted(guest, 0) == ([], StreamEnd.END_OF_SEQUENCE)
    assert graph.finished == before + 4


def test_next_is_for_streams(make: Make) -> None:
    """Of a model that does not stream there is no next."""
    with pytest.raises(SandboxError, match="does not stream"):
        make("relu").next()


def test_what_the_host_noticed_is_the_error(make: Make) -> None:
    """The exception behind the guest's code comes out, not the code."""
    config = {"inputs": (TensorSpec("x", (1, 5), DataType.F32),)}
    guest = make("relu", **config)
    with pytest.raises(InvalidTensorError, match=r"expected shape \[1, 4\], got \[1, 5\]"):
        guest.infer([{"x": np.zeros((1, 5), np.float32)}])


def test_the_text_of_a_foreign_exception_stays_inside(make: Make) -> None:
    """It may have a path in it: clients are told that the inference failed, the log has the cause."""
    guest = make("foreign")
    with pytest.raises(InferenceError) as caught:
        guest.infer([{"start": np.array([1], np.int32)}])
    assert str(caught.value) == "the inference failed"
    assert "/secret" in str(caught.value.__cause__)


def test_what_the_guest_noticed_is_an_error(make: Make) -> None:
    """A rejected tensor that the host never saw."""
    guest = make("dynamic")
    with pytest.raises(InvalidTensorError, match="the guest found"):
        guest.infer([{"x": np.zeros((1, 5), np.float32)}])
    assert not isinstance(guest.infer([{"x": FOUR}]), StreamEnd)


def test_an_input_larger_than_the_guests_memory(make: Make) -> None:
    """Says how much there was to be, and the guest goes on with what fits."""
    guest = make("dynamic", limits=Limits(memory_mib=1))
    assert not isinstance(guest.infer([{"x": FOUR}]), StreamEnd)
    with pytest.raises(LimitError, match="1600000 bytes left of its 1 MiB"):
        guest.infer([{"x": np.zeros((100_000, 4), np.float32)}])
    outputs = guest.infer([{"x": FOUR}])
    assert not isinstance(outputs, StreamEnd)
    assert (outputs["y"] == np.maximum(FOUR, 0)).all()


def test_outputs_keep_their_memory(make: Make) -> None:
    """An array that outlives its guest can still be read: it keeps the memory mapped."""
    guest = make("relu")
    outputs = guest.infer([{"x": FOUR}])
    assert not isinstance(outputs, StreamEnd)
    guest.close()
    del guest
    gc.collect()
    assert (outputs["y"] == np.maximum(FOUR, 0)).all()


# ---- guests that lie ------------------------------------------------------------------------------------------------

HONEST = {
    "alloc": "(global.set $next (i32.add (global.get $next) (i32.const 4096)))"
    "(i32.sub (global.get $next) (i32.const 4096))",
    "load": "(i32.const 0)",
    "infer": "(i32.store (local.get 2) (i32.const 1)) (i32.store offset=4 (local.get 2) (i32.const 512)) (i32.const 0)",
}
RECORD = {"dims": 0, "rank": 0, "type": 1, "data": 1024, "size": 16}


def liar(**changes: Any) -> bytes:
    """A guest that answers without asking the host: one f32 (1, 4) output of zeros, unless something is changed."""
    bodies = HONEST | {name: value for name, value in changes.items() if name in HONEST}
    record = RECORD | {name: value for name, value in changes.items() if name in RECORD}
    content = struct.pack("<IIB3xII", *record.values())
    dims = struct.pack("<4I", 1, 4, 5, 0xFFFFFFFF)
    data = "".join(f"\\{byte:02x}" for byte in content.ljust(32, b"\0") + dims)
    return wat(f"""
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 8192))
        (data (i32.const 512) "{data}")
        (func (export "alloc") (param i32) (result i32) {bodies["alloc"]})
        (func (export "dealloc") (param i32))
        (func (export "load_model_by_name") (param i32 i32 i32) (result i32) {bodies["load"]})
        (func (export "infer") (param i32 i32 i32) (result i32) {bodies["infer"]})
    """)


DIMS = 512 + 32  # 1, 4, 5, 0xFFFFFFFF


def infer_result(count: int, outputs: int) -> str:
    return f"""
        (i32.store (local.get 2) (i32.const {count}))
        (i32.store offset=4 (local.get 2) (i32.const {outputs})) (i32.const 0)
    """


def test_a_foreign_guest_may_answer_by_itself(make: Make) -> None:
    """With its own FFI and no host call at all; it states the shape of its output, or leaves it to the spec."""
    for module in (liar(), liar(dims=DIMS, rank=2), liar(data=(2 << 16) - 16), liar(data=1025)):
        outputs = make("relu", module).infer([{"x": FOUR}])
        assert not isinstance(outputs, StreamEnd)
        assert outputs["y"].shape == (1, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 15},
        {"size": 0},
        {"size": 0xFFFFFFFF},
        {"type": 0},
        {"type": 3},
        {"type": 255},
        {"data": (2 << 16) - 15},
        {"data": 0xFFFFFFFF},
        {"data": 0x80000000},
        {"dims": DIMS + 4, "rank": 2},
        {"dims": DIMS, "rank": 1},
        {"dims": DIMS, "rank": 3},
        {"dims": DIMS + 8, "rank": 2},
        {"dims": 0xFFFFFFFC, "rank": 2},
        {"dims": DIMS, "rank": 17},
        {"dims": DIMS, "rank": 0xFFFFFFFF},
        {"infer": infer_result(0, 512)},
        {"infer": infer_result(2, 512)},
        {"infer": infer_result(0xFFFFFFFF, 512)},
        {"infer": infer_result(1, 0xFFFFFFFF)},
        {"infer": infer_result(1, (2 << 16) - 19)},
        {"infer": "(i32.const 0)"},
    ],
    ids=str,
)
def test_outputs_that_lie(make: Make, changes: dict[str, Any]) -> None:
    """Sizes, types, pointers, shapes and counts that do not fit, or lie outside of the memory."""
    guest = make("relu", liar(**changes))
    with pytest.raises(InferenceError):
        guest.infer([{"x": FOUR}])


@pytest.mark.parametrize("size", [16, 32, 0, 0xFFFFFFF0])
def test_a_dynamic_shape_that_nobody_knows(make: Make, size: int) -> None:
    """A guest that neither states a dynamic shape nor has asked the host for it."""
    guest = make("dynamic", liar(size=size))
    with pytest.raises(InferenceError):
        guest.infer([{"x": FOUR}])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("(i32.const -3)", InvalidTensorError),
        ("(i32.const -4)", InferenceError),
        ("(i32.const -1)", SandboxError),
        ("(i32.const 1)", SandboxError),
        ("(i32.const 42)", SandboxError),
        ("(i32.const 0x7FFFFFFF)", SandboxError),
        ("(unreachable)", GuestTrapError),
    ],
)
def test_codes_of_an_inference(make: Make, body: str, error: type[OpenVINOLlamaError]) -> None:
    """Every code but 0 and the ends of a stream is an error."""
    guest = make("relu", liar(infer=body))
    with pytest.raises(error):
        guest.infer([{"x": FOUR}])


@pytest.mark.parametrize("code", [1, 2, -1, -2, -5, 100])
def test_codes_of_a_load(make: Make, code: int) -> None:
    """Only 0 is a loaded model."""
    with pytest.raises(ModelLoadError, match=f"answered {code} "):
        make("relu", liar(load=f"(i32.const {code})"))


@pytest.mark.parametrize("pointer", [0, -1, 0xFFFFFFF0, 0x80000000, (2 << 16) - 8])
def test_an_alloc_that_lies(make: Make, pointer: int) -> None:
    """Null, or a place that is not there: an error of the sandbox, wherever it is used first."""
    with pytest.raises(SandboxError):
        make("relu", liar(alloc=f"(i32.const {pointer})"))
    # The same for the room of an input: the first alloc is honest.
    later = f"""
        (global.set $next (i32.add (global.get $next) (i32.const 1)))
        (if (result i32) (i32.eq (global.get $next) (i32.const 8193))
            (then (i32.const 8192)) (else (i32.const {pointer})))
    """
    guest = make("relu", liar(alloc=later))
    with pytest.raises(SandboxError):
        guest.infer([{"x": FOUR}])


@pytest.mark.parametrize("missing", ["alloc", "dealloc", "infer", "load_model_by_name"])
def test_a_guest_without_an_export(make: Make, missing: str) -> None:
    """Names the function."""
    module = bytes(liar()).replace(missing.encode(), b"x" * len(missing))
    with pytest.raises(ModelLoadError, match=missing):
        make("relu", module)


def test_a_guest_without_memory(make: Make) -> None:
    """It cannot be given a model."""
    with pytest.raises(ModelLoadError, match="memory"):
        make("relu", bytes(liar()).replace(b"memory", b"xxxxxx"))


def test_a_streaming_guest_needs_infer_next(make: Make) -> None:
    """Only where the model type streams."""
    with pytest.raises(ModelLoadError, match="infer_next"):
        make("count", liar(), streaming=True)
