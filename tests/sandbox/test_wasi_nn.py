"""The ABI of wasi_ephemeral_nn, its extensions, and what bad calls are answered, from inside real guests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sandbox import support
from tests.sandbox.support import (
    BUILDERS,
    DATA,
    DIMS,
    NAME,
    OUT,
    PAGE,
    RECORD,
    RESULT,
    TENSOR,
    CountingContext,
    CountingGraph,
    Prober,
    probe,
)

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Limits
from openvino_llama.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidTensorError,
    LimitError,
    ModelLoadError,
    UnsupportedTargetError,
)
from openvino_llama.sandbox import wasi_nn
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.wasi_nn import FUNCTIONS
from openvino_llama.specs import DataType

OPENVINO, ONNX, TENSORFLOW, PYTORCH, TENSORFLOWLITE, AUTODETECT = range(6)
FOUR = np.array([[-1, 2, -3, 4]], np.float32)
END = 2 * PAGE
"""The first address behind a prober's memory."""


def relu(array: NDArray[Any]) -> NDArray[Any]:
    return np.where(array > 0, array, np.zeros_like(array))


# ---- what works -----------------------------------------------------------------------------------------------------


def test_a_named_graph_is_run(prober: Prober) -> None:
    """load_by_name, init_execution_context, set_input, compute, get_output: the usual order."""
    context = prober.context("relu")
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    assert (prober.output(context, FOUR) == relu(FOUR)).all()
    assert prober.nn.last_error == ""


@pytest.mark.parametrize("kind", support.TYPES)
def test_every_tensor_type_passes(prober: Prober, kind: str) -> None:
    """Each of the six element types goes in and comes out unchanged in meaning."""
    array = np.array([1, 2, 100], DataType(kind).numpy)
    context = prober.context(kind)
    assert prober.set_input(context, 0, array) == 0
    assert prober("compute", context) == 0
    assert (prober.output(context, array) == array + array).all()


def test_several_inputs_and_outputs(prober: Prober) -> None:
    """Inputs and outputs are found by their index."""
    a, b = np.array([5, 7], np.float32), np.array([1, 2], np.float32)
    context = prober.context("two")
    assert prober.set_input(context, 0, a) == 0
    assert prober.set_input(context, 1, b) == 0
    assert prober("compute", context) == 0
    assert prober.output(context, a, 0).tolist() == [6, 9]
    assert prober.output(context, a, 1).tolist() == [4, 5]


def test_a_scalar_has_no_dimensions(prober: Prober) -> None:
    """Rank 0 is a tensor of one element."""
    context = prober.context("scalar")
    assert prober.set_input(context, 0, np.array(-3, np.float32)) == 0
    assert prober("compute", context) == 0
    assert prober.output(context, np.array(0, np.float32)) == 0


def test_dynamic_dimensions_may_change_from_call_to_call(prober: Prober) -> None:
    """Each set_input chooses the sizes that the model leaves open; an empty batch gives an empty output."""
    context = prober.context("dynamic")
    for rows in (1, 3, 2, 0, 5):
        array = np.full((rows, 4), rows, np.float32)
        assert prober.set_input(context, 0, array) == 0
        assert prober("compute", context) == 0
        assert (prober.output(context, array) == array).all()


def test_padding_of_a_tensor_is_not_read(prober: Prober) -> None:
    """Real guests leave garbage in the three bytes after the type."""
    context = prober.context("relu")
    record = prober.record(FOUR, padding=b"\xde\xad\xff")
    assert prober("set_input", context, 0, record) == 0


def test_data_may_stand_at_any_address(prober: Prober) -> None:
    """Nothing in the ABI aligns a tensor's data."""
    context = prober.context("relu")
    assert prober("set_input", context, 0, prober.record(FOUR, data=DATA + 1)) == 0
    assert prober("compute", context) == 0
    assert (prober.output(context, FOUR) == relu(FOUR)).all()


def test_handles_count_up_and_are_never_used_again(prober: Prober) -> None:
    """A handle that was given back stays unknown."""
    first = prober.context("relu")
    assert prober("finalize_execution_context", first) == 0
    second = prober.context("relu")
    assert second > first
    assert prober("compute", first) == 1


def test_contexts_of_one_graph_are_apart(prober: Prober) -> None:
    """What one context was given, another does not see."""
    first, second = prober.context("relu"), prober.context("relu")
    assert prober.set_input(first, 0, FOUR) == 0
    assert prober.set_input(second, 0, -FOUR) == 0
    assert prober("compute", first) == 0
    assert prober("compute", second) == 0
    assert (prober.output(first, FOUR) == relu(FOUR)).all()
    assert (prober.output(second, FOUR) == relu(-FOUR)).all()


@pytest.mark.parametrize("borrow", [False, True])
def test_memory_grows_between_set_input_and_compute(
    sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend, borrow: bool
) -> None:
    """An input stays right when the guest's memory grows under it, copied or borrowed."""
    prober = probe(sandbox, graphs, backend.load, borrow=borrow)
    context = prober.context("relu")
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("grow", 1000) == 2
    assert prober("compute", context) == 0
    assert (prober.output(context, FOUR) == relu(FOUR)).all()
    # And what lies in the new pages is read: the last 16 bytes of the memory.
    assert prober("set_input", context, 0, prober.record(-FOUR, data=1002 * PAGE - FOUR.nbytes)) == 0
    assert prober("compute", context) == 0
    assert (prober.output(context, FOUR) == relu(-FOUR)).all()


def test_a_copied_input_may_be_overwritten(prober: Prober) -> None:
    """Without borrowing, set_input has taken what it was given: a guest may use its memory again at once."""
    context = prober.context("relu")
    assert prober.set_input(context, 0, FOUR) == 0
    prober.put(DATA, bytes(FOUR.nbytes))
    assert prober("compute", context) == 0
    assert (prober.output(context, FOUR) == relu(FOUR)).all()


def test_a_borrowed_input_is_read_at_compute(
    sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend
) -> None:
    """With borrowing, the same set_input again costs nothing and compute sees what stands there by then."""
    prober = probe(sandbox, graphs, backend.load, borrow=True)
    context = prober.context("relu")
    for factor in (1, -1, 2):
        assert prober.set_input(context, 0, factor * FOUR) == 0
        assert prober("compute", context) == 0
        assert (prober.output(context, FOUR) == relu(factor * FOUR)).all()


# ---- loading from guest memory --------------------------------------------------------------------------------------

Files = Callable[[Path], tuple[bytes, ...]]


def ir(folder: Path) -> tuple[bytes, ...]:
    return support.serialized(support.relu(), folder)


def onnx(_folder: Path) -> tuple[bytes, ...]:
    return (support.onnx_relu(),)


def tensorflow(_folder: Path) -> tuple[bytes, ...]:
    return (support.tensorflow_relu(),)


@pytest.mark.parametrize(
    ("files", "encoding"),
    [
        (ir, OPENVINO),
        (ir, AUTODETECT),
        (onnx, ONNX),
        (onnx, AUTODETECT),
        (tensorflow, TENSORFLOW),
        (tensorflow, AUTODETECT),
    ],
)
def test_a_model_is_loaded_from_guest_memory(prober: Prober, tmp_path: Path, files: Files, encoding: int) -> None:
    """IR, ONNX and TensorFlow, said or detected, give a graph that computes."""
    assert prober.load(files(tmp_path), encoding) == 0, prober.nn.last_error
    context = prober.handle("init_execution_context", prober.number())
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    assert (prober.output(context, FOUR) == relu(FOUR)).all()


@pytest.mark.skipif(not support.MOBILENET.exists(), reason="the shared models are not here")
@pytest.mark.parametrize("encoding", [TENSORFLOWLITE, AUTODETECT])
def test_a_tflite_model_is_loaded_from_guest_memory(prober: Prober, encoding: int) -> None:
    """MobileNetV2 as TensorFlow Lite, said or detected."""
    assert prober.load([support.MOBILENET.read_bytes()], encoding) == 0, prober.nn.last_error
    context = prober.handle("init_execution_context", prober.number())
    assert prober("compute", context) == 5  # its input has not been set


def test_weights_come_with_the_model(prober: Prober, tmp_path: Path) -> None:
    """An IR's second builder is its weights."""
    assert prober.load(support.serialized(support.weighted(), tmp_path), OPENVINO) == 0
    context = prober.handle("init_execution_context", prober.number())
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    expected = FOUR @ np.arange(12, dtype=np.float32).reshape(4, 3)
    assert (prober.output(context, expected) == expected).all()


@pytest.mark.parametrize("encoding", [OPENVINO, ONNX, TENSORFLOW, TENSORFLOWLITE, AUTODETECT])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"no model at all", b"\x08\x08" + b"\xff" * 60])
def test_meaningless_bytes_are_a_runtime_error(prober: Prober, encoding: int, content: bytes) -> None:
    """Whatever the encoding, bytes that are no model answer 5."""
    builders = [content, b"\1\2\3"] if encoding == OPENVINO else [content]
    assert prober.load(builders, encoding) == 5


@pytest.mark.parametrize(
    ("encoding", "count"),
    [
        (OPENVINO, 0),
        (OPENVINO, 1),
        (OPENVINO, 3),
        (ONNX, 0),
        (ONNX, 2),
        (TENSORFLOW, 0xFFFFFFFF),
        (TENSORFLOWLITE, 2),
        (AUTODETECT, 0),
        (AUTODETECT, 3),
    ],
)
def test_a_wrong_number_of_builders_is_invalid(prober: Prober, encoding: int, count: int) -> None:
    """An IR has two builders, everything else one, and autodetect takes either."""
    assert prober("load", BUILDERS, count, encoding, 0, OUT) == 1


@pytest.mark.parametrize("encoding", [PYTORCH, 6, 7, 255, 0x80000000, 0xFFFFFFFF])
def test_an_unsupported_encoding_is_invalid(prober: Prober, encoding: int) -> None:
    """PyTorch, the numbers that other runtimes use, and nonsense answer 2."""
    assert prober.load([b"x"], encoding) == 2


@pytest.mark.parametrize("target", [1, 2])
def test_a_target_that_is_not_here_is_unsupported(prober: Prober, tmp_path: Path, target: int) -> None:
    """A gpu or tpu on a machine that has none answers 6, with a text that says what there is."""
    if set(OpenVINOBackend().devices) - {"CPU"}:
        pytest.skip("this machine has more than a CPU")
    assert prober.load(ir(tmp_path), OPENVINO, target) == 6
    assert "there is CPU" in prober.nn.last_error


@pytest.mark.parametrize("target", [3, 0xFFFFFFFF])
def test_a_target_that_is_none_is_invalid(prober: Prober, tmp_path: Path, target: int) -> None:
    """The witx knows three targets."""
    assert prober.load(ir(tmp_path), OPENVINO, target) == 1


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobody", "", "relu ", "RELU", "../relu", "/etc/passwd", "relu\0"])
def test_an_unknown_name_is_not_found(prober: Prober, name: str) -> None:
    """A name is looked up as it is: it is never a path, and nothing is cut off or folded."""
    assert prober.load_by_name(name) == 8


@pytest.mark.parametrize("name", [b"\xff", b"rel\xc3", b"\xed\xa0\x80"])
def test_a_name_that_is_not_utf8_is_invalid(prober: Prober, name: bytes) -> None:
    """Truncated sequences and lone surrogates answer 1."""
    assert prober.load_by_name(name) == 1


def test_a_name_without_end_is_invalid(prober: Prober) -> None:
    """A length that lies inside the memory but is no name's is refused before it is decoded."""
    assert prober("load_by_name", 0, END, OUT) == 1


def test_load_by_name_with_config(prober: Prober) -> None:
    """The configuration has to be text; the host's own is what counts."""
    prober.put(NAME, b'relu{"a":1}\xff')
    assert prober("load_by_name_with_config", NAME, 4, NAME + 4, 7, OUT) == 0
    assert prober("load_by_name_with_config", NAME, 4, NAME + 4, 8, OUT) == 1
    assert prober("load_by_name_with_config", NAME, 4, END, 1, OUT) == 1
    assert prober("load_by_name_with_config", NAME, 3, NAME + 4, 7, OUT) == 8


# ---- handles and indices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_unknown_handles_are_invalid(prober: Prober, handle: int) -> None:
    """Every function that takes a graph or a context answers 1 for one that is not there."""
    record = prober.record(FOUR)
    assert prober("init_execution_context", handle, OUT) == 1
    assert prober("unload", handle) == 1
    assert prober("set_input", handle, 0, record) == 1
    for name in ("compute", "compute_single", "fini_single", "finalize_execution_context"):
        assert prober(name, handle) == 1
    for name in ("get_output", "get_output_single"):
        assert prober(name, handle, 0, RESULT, 16, OUT) == 1


@pytest.mark.parametrize("index", [1, 2, 0x80000000, 0xFFFFFFFF])
def test_an_index_out_of_range_is_invalid(prober: Prober, index: int) -> None:
    """Of inputs and of outputs; a huge index is not taken for a negative one."""
    context = prober.context("relu")
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("set_input", context, index, RECORD) == 1
    assert prober("compute", context) == 0
    assert prober("get_output", context, index, RESULT, 16, OUT) == 1


def test_unload_frees_the_graph_and_its_contexts(prober: Prober) -> None:
    """After unload, the handles of both are unknown; the graph can be loaded again."""
    assert prober.load_by_name("relu") == 0
    graph = prober.number()
    context = prober.handle("init_execution_context", graph)
    assert prober("unload", graph) == 0
    assert prober("unload", graph) == 1
    assert prober("compute", context) == 1
    assert prober.load_by_name("relu") == 0


# ---- tensors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 4), np.float64),
        np.zeros((1, 4), np.int32),
        np.zeros((1, 4), np.float16),
        np.zeros((4,), np.float32),
        np.zeros((1, 1, 4), np.float32),
        np.zeros((4, 1), np.float32),
        np.zeros((2, 4), np.float32),
        np.zeros((1, 0), np.float32),
        np.zeros((), np.float32),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_a_tensor_that_is_not_the_models_is_invalid(prober: Prober, array: NDArray[Any]) -> None:
    """Element type, rank and fixed dimensions are the model's; OpenVINO would convert and broadcast in silence."""
    context = prober.context("relu")
    assert prober.set_input(context, 0, array) == 1
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0


def test_a_rejected_shape_is_forgotten(prober: Prober) -> None:
    """A size outside the model's bounds is invalid, and the context goes on with what it had before."""
    context = prober.context("bounded")
    good = np.ones((2, 3), np.float32)
    assert prober.set_input(context, 0, good) == 0
    assert prober.set_input(context, 0, np.ones((9, 3), np.float32)) == 1
    assert prober("compute", context) == 0
    assert (prober.output(context, good) == good).all()


@pytest.mark.parametrize("kind", [6, 7, 127, 255])
def test_an_unknown_tensor_type_is_invalid(prober: Prober, kind: int) -> None:
    """There are six types."""
    context = prober.context("relu")
    prober.record(FOUR)
    prober.put(RECORD + 8, bytes([kind]))
    assert prober("set_input", context, 0, RECORD) == 1


@pytest.mark.parametrize("size", [0, 15, 17, 32, 0xFFFFFFFF])
def test_a_size_that_is_not_the_shapes_is_invalid(prober: Prober, size: int) -> None:
    """The bytes of a tensor are the product of its dimensions times its element's size."""
    context = prober.context("relu")
    prober.record(FOUR)
    prober.put(RECORD + 16, struct.pack("<I", size))
    assert prober("set_input", context, 0, RECORD) == 1


@pytest.mark.parametrize(
    ("dims", "size"),
    [
        ((1 << 31, 1 << 31, 4), 0),
        ((1 << 30, 4), 0),
        ((1 << 16, 1 << 16), 0),
        ((0xFFFFFFFF, 0xFFFFFFFF), 4),
        ((1 << 30, 4, 0), 0),
    ],
)
def test_dimensions_whose_product_overflows_are_invalid(prober: Prober, dims: tuple[int, ...], size: int) -> None:
    """A product that is right modulo 2**32 or 2**64 is wrong."""
    context = prober.context("dynamic")
    prober.put(DIMS, struct.pack(f"<{len(dims)}I", *dims))
    prober.put(RECORD, TENSOR.pack(DIMS, len(dims), 1, b"\0\0\0", DATA, size))
    assert prober("set_input", context, 0, RECORD) == 1


@pytest.mark.parametrize("rank", [17, 1 << 16, 0xFFFFFFFF])
def test_a_rank_without_end_is_invalid(prober: Prober, rank: int) -> None:
    """No dimension of such a tensor is read."""
    context = prober.context("relu")
    prober.record(FOUR)
    prober.put(RECORD + 4, struct.pack("<I", rank))
    assert prober("set_input", context, 0, RECORD) == 1


# ---- compute and outputs --------------------------------------------------------------------------------------------


def test_compute_with_an_input_missing(prober: Prober) -> None:
    """Answers 5 and names the input."""
    context = prober.context("two")
    assert prober("compute", context) == 5
    assert prober.set_input(context, 1, np.zeros(2, np.float32)) == 0
    assert prober("compute", context) == 5
    assert "'a'" in prober.nn.last_error


def test_there_is_no_output_before_compute(prober: Prober) -> None:
    """get_output answers 5 before a successful compute, and writes nothing."""
    context = prober.context("relu")
    assert prober("get_output", context, 0, RESULT, 16, OUT) == 5
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("get_output", context, 0, RESULT, 16, OUT) == 5
    assert prober.number() != 16


@pytest.mark.parametrize("capacity", [0, 1, 15])
def test_a_small_output_buffer_is_told_the_size(prober: Prober, capacity: int) -> None:
    """7, the needed size is written, and not a byte of the buffer is."""
    context = prober.context("relu")
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    prober.put(RESULT, b"\xaa" * 16)
    assert prober("get_output", context, 0, RESULT, capacity, OUT) == 7
    assert prober.number() == 16
    assert prober.take(RESULT, 16) == b"\xaa" * 16
    assert prober("get_output", context, 0, RESULT, prober.number(), OUT) == 0


def test_a_large_output_buffer_is_filled_as_far_as_needed(prober: Prober) -> None:
    """What is behind the output stays as it was."""
    context = prober.context("relu")
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    prober.put(RESULT, b"\xaa" * 32)
    assert prober("get_output", context, 0, RESULT, 32, OUT) == 0
    assert prober.number() == 16
    assert prober.take(RESULT, 32) == relu(FOUR).tobytes() + b"\xaa" * 16


# ---- pointers -------------------------------------------------------------------------------------------------------

OUTSIDE = [(END - 3, 4), (END, 4), (END + 1, 0), (0xFFFFFFFF, 0), (0xFFFFFFFF, 1), (0xFFFFFFFC, 4), (0, END + 1)]
OUTSIDE += [(16, 0xFFFFFFFF), (0x80000000, 4), (0xFFFFFFFF, 0xFFFFFFFF)]
"""Pointer and length that do not lie in two pages."""


@pytest.mark.parametrize(("pointer", "size"), OUTSIDE)
def test_pointers_outside_are_invalid(prober: Prober, tmp_path: Path, pointer: int, size: int) -> None:
    """Name, configuration, builder, dimensions, data and output buffer: 1 wherever the memory ends before they do."""
    context = prober.context("relu")
    assert prober("load_by_name", pointer, size, OUT) == 1
    assert prober("load_by_name_with_config", NAME, 4, pointer, size, OUT) == 1
    prober.put(BUILDERS, struct.pack("<IIII", pointer, size, DATA, 4))
    assert prober("load", BUILDERS, 2, OPENVINO, 0, OUT) == 1
    prober.put(BUILDERS, struct.pack("<IIII", DATA, 4, pointer, size))
    assert prober("load", BUILDERS, 2, OPENVINO, 0, OUT) == 1
    prober.record(FOUR)
    prober.put(RECORD + 12, struct.pack("<II", pointer, size))
    assert prober("set_input", context, 0, RECORD) == 1
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    for name in ("get_output", "get_output_single"):
        assert prober(name, context, 0, pointer, size, OUT) == 1


@pytest.mark.parametrize("pointer", [END - 3, END, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])
def test_records_and_results_outside_are_invalid(prober: Prober, tmp_path: Path, pointer: int) -> None:
    """The outer structs, the dimensions, and where handles and sizes are to be written."""
    context = prober.context("relu")
    assert prober("load", pointer, 2, OPENVINO, 0, OUT) == 1
    assert prober("set_input", context, 0, pointer) == 1
    prober.record(FOUR)
    prober.put(RECORD, struct.pack("<I", pointer))
    assert prober("set_input", context, 0, RECORD) == 1
    assert prober.set_input(context, 0, FOUR) == 0
    assert prober("compute", context) == 0
    prober.put(NAME, b"relu")
    assert prober("load_by_name", NAME, 4, pointer) == 1
    assert prober("load_by_name_with_config", NAME, 4, NAME, 4, pointer) == 1
    assert prober("init_execution_context", 0, pointer) == 1
    assert prober("get_output", context, 0, RESULT, 16, pointer) == 1
    files = support.serialized(support.relu(), tmp_path)
    assert prober.load(files, OPENVINO) == 0
    assert prober("load", BUILDERS, 2, OPENVINO, 0, pointer) == 1


def test_what_reaches_exactly_to_the_end_is_inside(prober: Prober) -> None:
    """The last bytes of the memory can be used, and zero bytes at its very end."""
    context = prober.context("relu")
    assert prober("set_input", context, 0, prober.record(FOUR, data=END - 16)) == 0
    assert prober("compute", context) == 0
    assert prober("get_output", context, 0, END - 16, 16, OUT) == 0
    assert prober("get_output", context, 0, RESULT, 16, END - 4) == 0
    assert prober("get_output", context, 0, END, 0, OUT) == 7


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_more_graphs_or_contexts_than_the_limit(
    sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend, tmp_path: Path
) -> None:
    """7 at the limit, for every way to get a handle; room that is given back can be used again."""
    prober = probe(sandbox, graphs, backend.load, handles=3)
    handles = [prober.context("relu") for _ in range(3)]
    graph = 0
    assert prober.load_by_name("relu") == 7
    assert prober.load(ir(tmp_path), OPENVINO) == 7
    assert prober("init_execution_context", graph, OUT) == 7
    assert prober("finalize_execution_context", handles[0]) == 0
    assert prober("init_execution_context", graph, OUT) == 0
    assert prober("unload", graph) == 0
    assert prober.load_by_name("relu") == 0


def test_thousands_of_handles(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> None:
    """Asking again and again after the limit costs the host nothing but the answer."""
    prober = probe(sandbox, graphs, backend.load)
    assert prober.load_by_name("relu") == 0
    answers = [prober("init_execution_context", 0, OUT) for _ in range(5000)]
    assert answers == [0] * 64 + [7] * (5000 - 64)


def test_more_bytes_than_the_limit(prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of all models that a guest has loaded count together, until it unloads them."""
    files = ir(tmp_path)
    monkeypatch.setattr(wasi_nn, "_MAX_LOADED_BYTES", sum(map(len, files)) + 10)
    assert prober.load(files, OPENVINO) == 0
    graph = prober.number()
    assert prober.load(files, OPENVINO) == 7
    assert prober("unload", graph) == 0
    assert prober.load(files, OPENVINO) == 0


def test_one_page_cannot_be_grown_past_the_limit(
    sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend
) -> None:
    """memory.grow answers -1 at the store's limit, and the guest goes on."""
    prober = probe(sandbox, graphs, backend.load, limits=Limits(memory_mib=1))
    assert prober("grow", 14) == 2
    assert prober("grow", 1) == -1
    assert prober.load_by_name("relu") == 0


# ---- no memory ------------------------------------------------------------------------------------------------------


def test_a_guest_that_exports_no_memory(
    sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend
) -> None:
    """Whatever would need it answers 3; a handle that is not there is still 1."""
    prober = probe(sandbox, graphs, backend.load, module=support.PROBER_WITHOUT_MEMORY)
    expected = dict.fromkeys(FUNCTIONS, 1) | dict.fromkeys(
        ("load", "load_by_name", "load_by_name_with_config", "init_execution_context"), 3
    )
    assert {name: prober(name, *[0] * count) for name, (count, _) in FUNCTIONS.items()} == expected


# ---- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_is_pulled_output_by_output(prober: Prober) -> None:
    """compute_single and get_output_single until 100, fini_single, and the context takes the next sequence."""
    context = prober.context("count")
    one = np.zeros(1, np.int32)
    for start in (3, 5):
        assert prober.set_input(context, 0, np.array([start], np.int32)) == 0
        values = []
        while (answer := prober("compute_single", context)) == 0:
            assert prober("get_output_single", context, 0, RESULT, 4, OUT) == 0
            values.append(int(np.frombuffer(prober.take(RESULT, 4), one.dtype)[0]))
        assert answer == 100
        assert values == list(range(start, 0, -1))
        assert prober("fini_single", context) == 0


@pytest.mark.parametrize(("start", "outputs", "end"), [(0, 0, 100), (50, 10, 101), (1000, 0, 102)])
def test_how_a_stream_ends(prober: Prober, start: int, outputs: int, end: int) -> None:
    """100 is the end of the sequence, 101 a full context, 102 a prompt that is too long."""
    context = prober.context("count")
    assert prober.set_input(context, 0, np.array([start], np.int32)) == 0
    for _ in range(outputs):
        assert prober("compute_single", context) == 0
    assert prober("compute_single", context) == end


def test_a_stream_ends_early(prober: Prober) -> None:
    """fini_single drops the rest: the next step needs an input again."""
    context = prober.context("count")
    assert prober.set_input(context, 0, np.array([5], np.int32)) == 0
    assert prober("compute_single", context) == 0
    assert prober("fini_single", context) == 0
    assert prober("compute_single", context) == 5


def test_a_graph_that_does_not_stream(prober: Prober) -> None:
    """The streaming functions are unsupported on it."""
    context = prober.context("relu")
    assert prober("compute_single", context) == 6
    assert prober("fini_single", context) == 6


def test_a_stream_over_its_deadline_is_cancelled(prober: Prober) -> None:
    """One step that takes too long ends as an inference does: 5, and the reason is kept."""
    context = prober.context("count")
    assert prober.set_input(context, 0, np.array([99], np.int32)) == 0
    assert prober("compute_single", context, deadline=Deadline(0.05)) == 5
    assert isinstance(prober.nn.failure, DeadlineExceededError)


# ---- backends of others ---------------------------------------------------------------------------------------------


class Hostile:
    """A plugin's backend at its worst: every method of its graph and context raises the same thing."""

    inputs = outputs = CountingGraph.inputs
    parallelism = 1
    batches = False

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.armed = False

    def _fail(self, *_arguments: object, **_named: object) -> Any:
        if self.armed:
            raise self._error

    set_input = compute = compute_single = output = finish = cancel = close = _fail

    def create_context(self) -> Any:
        self._fail()
        return self


@pytest.mark.parametrize(
    ("error", "errno"),
    [
        (KeyError("x"), 5),
        (RuntimeError(), 5),
        (InferenceError("x"), 5),
        (ModelLoadError("x"), 5),
        (SystemExit(3), 5),
        (KeyboardInterrupt(), 5),
        (RecursionError(), 5),
        (InvalidTensorError("x"), 1),
        (UnsupportedTargetError("x"), 6),
        (LimitError("x"), 7),
        (MemoryError(), 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_backend_raises_is_an_errno(sandbox: Sandbox, error: BaseException, errno: int) -> None:
    """No exception crosses the guest; it is kept for whoever called the guest."""
    graph = Hostile(error)

    def load(*_arguments: object) -> Graph:
        raise error

    prober = probe(sandbox, {"hostile": cast("Graph", graph)}, load)
    context = prober.context("hostile")
    graph.armed = True
    record = prober.record(np.array([1], np.int32))
    calls = {"init_execution_context": (0, OUT), "set_input": (context, 0, record)}
    calls |= dict.fromkeys(("compute", "compute_single", "fini_single"), (context,))
    calls |= dict.fromkeys(("get_output", "get_output_single"), (context, 0, RESULT, 4, OUT))
    for name, arguments in calls.items():
        assert prober(name, *arguments) == errno, name
        assert prober.nn.failure is error
    assert prober.load([b"a", b"b"], OPENVINO) == errno
    assert prober("unload", 0) == errno
    assert prober("unload", 0) == 0  # its context is gone, however that went
    assert prober.load_by_name("hostile") == 0
    assert prober("init_execution_context", prober.number(), OUT) == errno
    graph.armed = False
    prober.handle("init_execution_context", prober.number())
    graph.armed = True
    prober.instance.close()


def test_a_backend_may_run_a_guest(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> None:
    """A guest within a guest's compute: each has its own state, deadline and error, before and after."""
    inner = probe(sandbox, graphs, backend.load)

    class Outer(CountingContext):
        def compute(self) -> None:
            context = inner.context("count")
            assert inner.set_input(context, 0, np.array([3], np.int32)) == 0
            assert inner("compute", context, deadline=Deadline(10)) == 0
            assert inner.load_by_name("inner nobody") == 8
            super().compute()

    class OuterGraph(CountingGraph):
        def create_context(self) -> CountingContext:
            return Outer(self)

    outer = probe(sandbox, {"outer": OuterGraph()}, backend.load)
    context = outer.context("outer")
    assert outer.set_input(context, 0, np.array([7], np.int32)) == 0
    assert outer("compute", context, deadline=Deadline(10)) == 0
    assert outer.nn.last_error == ""
    assert outer.output(context, np.zeros(1, np.int32)).tolist() == [7]
    assert outer.load_by_name("outer nobody") == 8
    assert "outer nobody" in outer.nn.last_error
    assert "inner nobody" in inner.nn.last_error
