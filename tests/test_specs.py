"""Tensors and their descriptions."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from openvino_llama import DYNAMIC, DataType, TensorLayout, TensorSpec
from openvino_llama.errors import InvalidTensorError
from openvino_llama.specs import check_tensors

SPEC = TensorSpec("x", (DYNAMIC, 3), DataType.F32)


@pytest.mark.parametrize(
    ("kind", "size", "code"),
    [("f16", 2, "<f2"), ("f32", 4, "<f4"), ("f64", 8, "<f8"), ("u8", 1, "|u1"), ("i32", 4, "<i4"), ("i64", 8, "<i8")],
)
def test_data_types(kind: str, size: int, code: str) -> None:
    """Named as in WASI-NN; little-endian in NumPy."""
    data_type = DataType(kind)
    assert (data_type.itemsize, data_type.numpy) == (size, np.dtype(code))


def test_specs_are_read_strictly() -> None:
    """From JSON, with the specification's names; what is unknown or impossible is an error."""
    stated = b'{"name": "x", "shape": [-1, 3, 224, 224], "data_type": "f32", "layout": "NCHW"}'
    spec = msgspec.json.decode(stated, type=TensorSpec)
    assert spec == TensorSpec("x", (-1, 3, 224, 224), DataType.F32, TensorLayout.NCHW)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=TensorSpec) == spec
    for wrong in (
        b'{"name": "x", "shape": [0], "data_type": "f32"}',
        b'{"name": "x", "shape": [-2], "data_type": "f32"}',
        b'{"name": "x", "shape": [1.5], "data_type": "f32"}',
        b'{"name": "x", "shape": [1], "data_type": "bf16"}',
        b'{"name": "x", "shape": [1], "data_type": "f32", "layout": "HWC"}',
        b'{"name": "x", "shape": [1], "data_type": "f32", "more": 1}',
        b'{"shape": [1], "data_type": "f32"}',
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(wrong, type=TensorSpec)


def test_sizes() -> None:
    """In bytes; none where a dimension is dynamic; numbers that no machine word holds are no trouble."""
    assert TensorSpec("x", (2, 3), DataType.F64).nbytes == 48
    assert TensorSpec("x", (), DataType.U8).nbytes == 1
    assert SPEC.nbytes is None
    assert SPEC.is_dynamic
    assert TensorSpec("x", (2**62, 2**62), DataType.F64).nbytes == 2**127


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((1, 3), True), ((9, 3), True), ((0, 3), True), ((3,), False), ((1, 4), False), ((1, 1, 3), False)],
)
def test_shapes_that_fit(shape: tuple[int, ...], fits: bool) -> None:
    """The same rank, and every fixed dimension."""
    assert SPEC.fits(shape) is fits


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, r"expected the tensors \['x'\], got \[\]"),
        ({"y": np.zeros((1, 3), np.float32)}, r"got \['y'\]"),
        ({"x": np.zeros((1, 3), np.float32), "y": np.zeros(1)}, r"got \['x', 'y'\]"),
        ({"x": np.zeros((1, 3), np.float64)}, "tensor 'x': expected elements of type f32, got float64"),
        ({"x": np.zeros((1, 3), ">f4")}, "tensor 'x': expected elements of type f32"),
        ({"x": np.zeros((1, 4), np.float32)}, r"tensor 'x': expected shape \[-1, 3\], got \[1, 4\]"),
        ({"x": np.zeros(3, np.float32)}, r"tensor 'x': expected shape \[-1, 3\], got \[3\]"),
    ],
)
def test_tensors_that_do_not_fit(tensors: dict[str, Any], said: str) -> None:
    """The message names the tensor, what was expected and what came."""
    with pytest.raises(InvalidTensorError, match=said):
        check_tensors([SPEC], tensors)
    check_tensors([SPEC], {"x": np.zeros((1, 3), np.float32)})
