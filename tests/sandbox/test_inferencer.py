"""The built-in guest's own code, called through its exports: every function, and every code it returns.

The structs are packed here by hand, from ``docs/guests.md``: these tests hold the FFI, not our own Python class.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sandbox import support
from tests.sandbox.support import TYPES

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Limits
from openvino_llama.errors import GuestTrapError
from openvino_llama.sandbox.engine import Instance, Sandbox
from openvino_llama.sandbox.guest import BUILT_IN
from openvino_llama.sandbox.wasi_nn import WasiNN

OK, ALREADY_LOADED = 0, 1
INVALID_PARAMETERS, LOAD_FAILURE, INVALID_TENSOR, INFERENCE_FAILURE, UNSUPPORTED_MODEL_TYPE = -1, -2, -3, -4, -5
END_OF_SEQUENCE, CONTEXT_FULL, PROMPT_TOO_LONG = 100, 101, 102
ONE_SHOT, STREAMING = 0, 1

CONFIG = struct.Struct("<9I")
SPEC = struct.Struct("<IIIIII")
TENSOR = struct.Struct("<IIB3xII")
RESULT = struct.Struct("<II")

Spec = tuple[str, Sequence[int], str]
X: Spec = ("x", (1, 4), "f32")
Y: Spec = ("y", (1, 4), "f32")
FOUR = np.array([[-1, 2, -3, 4]], np.float32)


class FFI:
    """The exports, and what a caller has to put into the guest's memory for them."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        signatures = {"alloc": 1, "dealloc": 1, "load_model": 5, "load_model_by_name": 3, "infer": 3}
        signatures |= {"infer_next": 1, "get_model_info": 2, "unload_model": 1}
        self._functions = {name: instance.function(name, count) for name, count in signatures.items()}

    def __call__(self, name: str, *arguments: int) -> int:
        return self.instance.call(self._functions[name], *arguments, deadline=None)

    def put(self, content: bytes) -> int:
        pointer = self("alloc", max(1, len(content))) & 0xFFFFFFFF
        assert pointer
        self.instance.memory.write(pointer, content)
        return pointer

    def specs(self, specs: Sequence[Spec]) -> int:
        records = b""
        for name, shape, kind in specs:
            dims = self.put(struct.pack(f"<{len(shape)}i", *shape))
            records += SPEC.pack(self.put(name.encode()), len(name.encode()), dims, len(shape), TYPES[kind], 0)
        return self.put(records)

    def config(  # noqa: PLR0917
        self,
        model_id: int = 0,
        inputs: Sequence[Spec] = (X,),
        outputs: Sequence[Spec] = (Y,),
        kind: int = ONE_SHOT,
        version: int = 1,
        encoding: int = 0,
        target: int = 0,
    ) -> int:
        pointers = (self.specs(inputs), len(inputs), self.specs(outputs), len(outputs))
        return self.put(CONFIG.pack(version, model_id, kind, encoding, target, *pointers))

    def load(self, name: str, config: int | None = None) -> int:
        content = name.encode()
        return self("load_model_by_name", self.config() if config is None else config, self.put(content), len(content))

    def tensors(self, *arrays: NDArray[Any]) -> int:
        records = b""
        for array in arrays:
            dims = self.put(struct.pack(f"<{array.ndim}I", *array.shape))
            kind = list(TYPES.values())[["f2", "f4", "f8", "u1", "i4", "i8"].index(array.dtype.str[1:])]
            records += TENSOR.pack(dims, array.ndim, kind, self.put(array.tobytes()), array.nbytes)
        return self.put(records)

    def infer(self, *arrays: NDArray[Any]) -> tuple[int, list[bytes]]:
        """The code, and the outputs' bytes."""
        result = self.put(bytes(RESULT.size))
        return self._answer(self("infer", self.tensors(*arrays), len(arrays), result), result)

    def next(self) -> tuple[int, list[bytes]]:
        result = self.put(bytes(RESULT.size))
        return self._answer(self("infer_next", result), result)

    def _answer(self, code: int, result: int) -> tuple[int, list[bytes]]:
        if code != OK:
            return code, []
        memory = self.instance.memory
        count, outputs = memory.unpack(RESULT, result)
        records = [memory.unpack(TENSOR, outputs + TENSOR.size * index) for index in range(count)]
        return code, [bytes(memory.view(data, size)) for _, _, _, data, size in records]


@pytest.fixture
def ffi(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> Iterator[FFI]:
    nn = WasiNN(graphs, backend.load, sandbox.watchdog)
    instance = sandbox.instantiate(sandbox.compile(BUILT_IN), nn, Limits())
    yield FFI(instance)
    instance.close()


# ---- loading --------------------------------------------------------------------------------------------------------


def test_load_by_name_and_infer(ffi: FFI) -> None:
    """The usual way."""
    assert ffi.load("relu") == OK
    code, outputs = ffi.infer(FOUR)
    assert code == OK
    assert outputs == [np.maximum(FOUR, 0).tobytes()]


def test_load_from_bytes(ffi: FFI, tmp_path: Path) -> None:
    """Model and weights through linear memory."""
    xml, weights = support.serialized(support.weighted(), tmp_path)
    config = ffi.config(outputs=[("y", (1, 3), "f32")])
    assert ffi("load_model", config, ffi.put(xml), len(xml), ffi.put(weights), len(weights)) == OK
    expected = FOUR @ np.arange(12, dtype=np.float32).reshape(4, 3)
    assert ffi.infer(FOUR) == (OK, [expected.tobytes()])


def test_load_from_bytes_without_weights(ffi: FFI) -> None:
    """A format of one file."""
    content = support.onnx_relu()
    assert ffi("load_model", ffi.config(encoding=1), ffi.put(content), len(content), 0, 0) == OK
    assert ffi.infer(FOUR)[0] == OK


def test_loads_that_fail(ffi: FFI) -> None:
    """No model in the bytes, no graph of that name, no such target: -2, and the guest can go on."""
    content = b"no model"
    pointer = ffi.put(content)
    assert ffi("load_model", ffi.config(), pointer, len(content), pointer, len(content)) == LOAD_FAILURE
    assert ffi("load_model", ffi.config(encoding=1, target=7), pointer, len(content), 0, 0) == LOAD_FAILURE
    assert ffi.load("nobody") == LOAD_FAILURE
    assert ffi.load("relu") == OK


def test_unsupported_model_types(ffi: FFI) -> None:
    """A model type that the guest does not know, and an encoding that the host does not."""
    assert ffi.load("relu", ffi.config(kind=2)) == UNSUPPORTED_MODEL_TYPE
    assert ffi.load("relu", ffi.config(kind=0xFFFFFFFF)) == UNSUPPORTED_MODEL_TYPE
    pointer = ffi.put(b"x")
    assert ffi("load_model", ffi.config(encoding=3), pointer, 1, 0, 0) == UNSUPPORTED_MODEL_TYPE


def test_parameters_of_a_load(ffi: FFI) -> None:
    """Null pointers, empty names and models, another version of the struct."""
    name = ffi.put(b"relu")
    assert ffi("load_model_by_name", 0, name, 4) == INVALID_PARAMETERS
    assert ffi("load_model_by_name", ffi.config(), 0, 4) == INVALID_PARAMETERS
    assert ffi("load_model_by_name", ffi.config(), name, 0) == INVALID_PARAMETERS
    assert ffi("load_model_by_name", ffi.config(version=2), name, 4) == INVALID_PARAMETERS
    assert ffi("load_model", 0, name, 4, name, 4) == INVALID_PARAMETERS
    assert ffi("load_model", ffi.config(), 0, 4, name, 4) == INVALID_PARAMETERS
    assert ffi("load_model", ffi.config(), name, 0, name, 4) == INVALID_PARAMETERS
    assert ffi("load_model", ffi.config(), name, 4, 0, 4) == INVALID_PARAMETERS


@pytest.mark.parametrize("count", [65, 0x0CCCCCCD, 0x7FFFFFFF, 0xFFFFFFFF])
def test_more_tensors_than_a_model_has(ffi: FFI, count: int) -> None:
    """Counts whose product with a struct's size would wrap are refused before anything is read."""
    name, specs = ffi.put(b"relu"), ffi.specs([X])
    for counts in ((specs, count, specs, 1), (specs, 1, specs, count)):
        config = ffi.put(CONFIG.pack(1, 0, 0, 0, 0, *counts))
        assert ffi("load_model_by_name", config, name, 4) == INVALID_PARAMETERS


@pytest.mark.parametrize(
    "spec", [(0, 0, 0, 17, 1, 0), (0, 0, 64, 0xFFFFFFFF, 1, 0), (0, 0, 0, 1, 1, 0), (0, 0, 64, 1, 6, 0)]
)
def test_specs_that_make_no_sense(ffi: FFI, spec: tuple[int, ...]) -> None:
    """A rank without end, dimensions at address 0, an unknown type."""
    pointers = (ffi.put(SPEC.pack(*spec)), 1, 0, 0)
    config = ffi.put(CONFIG.pack(1, 0, 0, 0, 0, *pointers))
    assert ffi.load("relu", config) == INVALID_PARAMETERS


def test_a_name_that_has_no_room(ffi: FFI) -> None:
    """A spec's name of nearly 4 GiB cannot be copied: -2, nothing is kept, and the handles have been given back."""
    pointers = (ffi.put(SPEC.pack(64, 0xFFFFFF00, 64, 0, 1, 0)), 1, 0, 0)
    config = ffi.put(CONFIG.pack(1, 0, 0, 0, 0, *pointers))
    for _ in range(100):
        assert ffi.load("relu", config) == LOAD_FAILURE
    assert ffi.load("relu") == OK


def test_specs_are_the_guests_own(ffi: FFI) -> None:
    """After a load the caller may use its memory for something else."""
    config = ffi.config()
    assert ffi.load("relu", config) == OK
    ffi.instance.memory.write(config, b"\xff" * CONFIG.size)
    assert ffi.infer(FOUR)[0] == OK


# ---- several models -------------------------------------------------------------------------------------------------


def test_the_model_loaded_last_is_current(ffi: FFI) -> None:
    """To load a known id again answers 1 and makes it current."""
    first, second = ffi.config(1), ffi.config(2, outputs=[("y", (1, 3), "f32")])
    assert ffi.load("relu", first) == OK
    assert ffi.load("weighted", second) == OK
    assert len(ffi.infer(FOUR)[1][0]) == 12
    assert ffi.load("relu", first) == ALREADY_LOADED
    assert len(ffi.infer(FOUR)[1][0]) == 16
    assert ffi.load("whatever", second) == ALREADY_LOADED
    assert len(ffi.infer(FOUR)[1][0]) == 12


def test_unload(ffi: FFI) -> None:
    """An unloaded model is gone; if it was current, none is; the others are not touched."""
    assert ffi.load("relu", ffi.config(1)) == OK
    assert ffi.load("relu", ffi.config(2)) == OK
    assert ffi("unload_model", 2) == OK
    assert ffi("unload_model", 2) == INVALID_PARAMETERS
    assert ffi.infer(FOUR)[0] == INVALID_PARAMETERS
    assert ffi.load("relu", ffi.config(1)) == ALREADY_LOADED
    assert ffi.infer(FOUR)[0] == OK
    assert ffi("unload_model", 0xFFFFFFFF) == INVALID_PARAMETERS


def test_sixteen_models(ffi: FFI) -> None:
    """One more has no place until another goes; ids are any numbers."""
    ids = [0xFFFFFFFF, *range(15)]
    assert [ffi.load("relu", ffi.config(number)) for number in ids] == [OK] * 16
    assert ffi.load("relu", ffi.config(100)) == LOAD_FAILURE
    assert ffi.infer(FOUR)[0] == OK
    assert ffi("unload_model", 0xFFFFFFFF) == OK
    assert ffi.load("relu", ffi.config(100)) == OK


def test_loading_and_unloading_for_ever(ffi: FFI) -> None:
    """The guest's memory and the host's handles come back: more rounds than either has room for."""
    config = ffi.config()
    assert ffi.load("relu", config) == OK
    size = len(ffi.instance.memory)
    for _ in range(500):
        assert ffi.infer(FOUR)[0] == OK
        assert ffi("unload_model", 0) == OK
        assert ffi.load("relu", config) == OK
    assert len(ffi.instance.memory) <= size + (1 << 20)  # the test's own tensors stay


# ---- model info -----------------------------------------------------------------------------------------------------


def test_get_model_info(ffi: FFI) -> None:
    """It gives back what was loaded, as the guest's own copy."""
    config = ffi.config(7, inputs=[("input name", (1, -1, 4), "f32")], outputs=[Y, ("z", (), "i64")])
    assert ffi.load("relu", config) == OK
    info = ffi.put(bytes(CONFIG.size))
    assert ffi("get_model_info", 7, info) == OK
    memory = ffi.instance.memory
    version, model_id, kind, encoding, target, inputs, num_inputs, outputs, num_outputs = memory.unpack(CONFIG, info)
    assert (version, model_id, kind, encoding, target, num_inputs, num_outputs) == (1, 7, ONE_SHOT, 0, 0, 1, 2)
    name, size, dims, rank, type_, _ = memory.unpack(SPEC, inputs)
    assert bytes(memory.view(name, size)) == b"input name"
    assert memory.unpack(struct.Struct(f"<{rank}i"), dims) == (1, -1, 4)
    assert type_ == TYPES["f32"]
    name, size, _, rank, type_, _ = memory.unpack(SPEC, outputs + SPEC.size)
    assert (bytes(memory.view(name, size)), rank, type_) == (b"z", 0, TYPES["i64"])
    assert ffi("get_model_info", 8, info) == INVALID_PARAMETERS
    assert ffi("get_model_info", 7, 0) == INVALID_PARAMETERS


# ---- inference ------------------------------------------------------------------------------------------------------


def test_parameters_of_an_inference(ffi: FFI) -> None:
    """No model yet, null pointers."""
    result, tensors = ffi.put(bytes(8)), ffi.tensors(FOUR)
    assert ffi("infer", tensors, 1, result) == INVALID_PARAMETERS
    assert ffi.load("relu") == OK
    assert ffi("infer", tensors, 1, 0) == INVALID_PARAMETERS
    assert ffi("infer", 0, 1, result) == INVALID_PARAMETERS
    assert ffi("infer", tensors, 1, result) == OK


@pytest.mark.parametrize(
    "arrays",
    [
        (),
        (FOUR, FOUR),
        (FOUR.astype(np.float64),),
        (FOUR.astype(np.int32),),
        (FOUR[0],),
        (FOUR.reshape(4, 1),),
        (np.concatenate([FOUR, FOUR]),),
        (np.zeros((1, 0), np.float32),),
    ],
    ids=["none", "two", "f64", "i32", "rank", "shape", "rows", "empty"],
)
def test_tensors_that_do_not_fit(ffi: FFI, arrays: tuple[NDArray[Any], ...]) -> None:
    """Number, type, rank and fixed dimensions are checked by the guest: -3, and the host is not asked."""
    assert ffi.load("relu") == OK
    code, _ = ffi.infer(*arrays)
    assert code == INVALID_TENSOR
    assert ffi.instance.nn.last_error == ""


@pytest.mark.parametrize(
    "record",
    [
        TENSOR.pack(0, 2, 1, 64, 16),
        TENSOR.pack(64, 2, 1, 0, 16),
        TENSOR.pack(64, 0xFFFFFFFF, 1, 64, 16),
        TENSOR.pack(64, 2, 255, 64, 16),
        TENSOR.pack(64, 2, 1, 64, 15),
    ],
)
def test_tensor_records_that_lie(ffi: FFI, record: bytes) -> None:
    """Null pointers, ranks and types without sense, a size that is not the shape's."""
    assert ffi.load("relu") == OK
    assert ffi("infer", ffi.put(record), 1, ffi.put(bytes(8))) == INVALID_TENSOR


def test_dimensions_that_overflow(ffi: FFI) -> None:
    """65536 x 65536 x 4 bytes is not 0 bytes."""
    assert ffi.load("relu", ffi.config(inputs=[("x", (-1, -1), "f32")])) == OK
    dims = ffi.put(struct.pack("<II", 1 << 16, 1 << 16))
    record = TENSOR.pack(dims, 2, 1, 64, 0)
    assert ffi("infer", ffi.put(record), 1, ffi.put(bytes(8))) == INVALID_TENSOR


def test_dynamic_dimensions(ffi: FFI) -> None:
    """Outputs whose size is not known grow their buffer, and shrink in it."""
    config = ffi.config(inputs=[("x", (-1, 4), "f32")], outputs=[("y", (-1, 4), "f32")])
    assert ffi.load("dynamic", config) == OK
    for rows in (1, 100, 3, 0, 1000):
        array = np.full((rows, 4), rows, np.float32)
        assert ffi.infer(array) == (OK, [array.tobytes()])


def test_several_inputs_and_outputs(ffi: FFI) -> None:
    """In the order of the config."""
    two = [(name, (2,), "f32") for name in ("a", "b")]
    assert ffi.load("two", ffi.config(inputs=two, outputs=two)) == OK
    a, b = np.array([5, 7], np.float32), np.array([1, 2], np.float32)
    assert ffi.infer(a, b) == (OK, [(a + b).tobytes(), (a - b).tobytes()])


def test_specs_that_are_not_the_graphs(ffi: FFI) -> None:
    """The guest believes its specs; the host holds them against the graph: -3 for an input, -4 for an output."""
    assert ffi.load("relu", ffi.config(1, inputs=[("x", (1, 5), "f32")])) == OK
    assert ffi.infer(np.zeros((1, 5), np.float32))[0] == INVALID_TENSOR
    assert "expected shape [1, 4]" in ffi.instance.nn.last_error
    assert ffi.load("relu", ffi.config(2, outputs=[Y, Y])) == OK
    assert ffi.infer(FOUR)[0] == INFERENCE_FAILURE
    assert ffi.load("relu", ffi.config(3, inputs=[])) == OK
    assert ffi.infer()[0] == INFERENCE_FAILURE


def test_pointers_outside_of_memory_trap(ffi: FFI) -> None:
    """The guest's own reads are WebAssembly's: a clear trap, and the instance can still be called."""
    assert ffi.load("relu") == OK
    for arguments in ((0xFFFFFF00, 1, 64), (ffi.tensors(FOUR), 1, 0xFFFFFFFC)):
        with pytest.raises(GuestTrapError, match="memory out of bounds"):
            ffi("infer", *arguments)
    assert ffi.infer(FOUR)[0] == OK


# ---- streams --------------------------------------------------------------------------------------------------------


def counting(ffi: FFI) -> None:
    config = ffi.config(inputs=[("start", (1,), "i32")], outputs=[("value", (1,), "i32")], kind=STREAMING)
    assert ffi.load("count", config) == OK


def test_a_stream(ffi: FFI) -> None:
    """Infer gives the first output, infer_next the others, then 100; the next infer starts anew."""
    counting(ffi)
    for start in (3, 2):
        code, outputs = ffi.infer(np.array([start], np.int32))
        values = []
        while code == OK:
            values += outputs
            code, outputs = ffi.next()
        assert code == END_OF_SEQUENCE
        assert b"".join(values) == np.arange(start, 0, -1, dtype=np.int32).tobytes()
    assert ffi.next()[0] == INFERENCE_FAILURE


@pytest.mark.parametrize(("start", "outputs", "end"), [(0, 0, 100), (50, 10, 101), (1000, 0, 102)])
def test_how_a_stream_ends(ffi: FFI, start: int, outputs: int, end: int) -> None:
    """The host's codes are passed on."""
    counting(ffi)
    codes = [ffi.infer(np.array([start], np.int32))[0]]
    while codes[-1] == OK:
        codes.append(ffi.next()[0])
    assert codes == [OK] * outputs + [end]


def test_a_model_that_does_not_stream(ffi: FFI) -> None:
    """infer_next is not for it, nor for nothing; a one-shot graph cannot be loaded as a stream and run."""
    assert ffi.next()[0] == INVALID_PARAMETERS
    assert ffi.load("relu") == OK
    assert ffi.next()[0] == INVALID_PARAMETERS
    assert ffi("infer_next", 0) == INVALID_PARAMETERS
    assert ffi.load("relu", ffi.config(5, kind=STREAMING)) == OK
    assert ffi.infer(FOUR)[0] == INFERENCE_FAILURE


# ---- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFC1, 0x80000000, 1 << 30])
def test_alloc_of_what_is_not_there(ffi: FFI, size: int) -> None:
    """Nothing, and more than the limit: a null pointer."""
    assert ffi("alloc", size) == 0


def test_alloc_is_aligned(ffi: FFI) -> None:
    """To a cache line, whatever the size."""
    pointers = [ffi("alloc", size) for size in (1, 63, 64, 65, 1000)]
    assert all(pointer > 0 and pointer % 64 == 0 for pointer in pointers)
    assert len(set(pointers)) == len(pointers)
    for pointer in pointers:
        ffi("dealloc", pointer)
    ffi("dealloc", 0)
