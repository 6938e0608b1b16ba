"""Small OpenVINO models, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

__all__ = ["boxes", "double", "save", "slow", "sums"]


def double(rows: int = -1, columns: int = 4, factor: float = 2.0) -> ov.Model:
    """``y = factor * x``; a row for each row."""
    x = named(ops.parameter([rows, columns], np.float32, name="x"), "x")
    return ov.Model([named(ops.multiply(x, np.float32(factor)), "y")], [x])


def sums() -> ov.Model:
    """Sums of rows of any length."""
    x = named(ops.parameter([-1, -1], np.float32, name="x"), "x")
    return ov.Model([named(ops.reduce_sum(x, np.array([1]), keep_dims=True), "y")], [x])


def boxes() -> ov.Model:
    """The places of what is not zero: as many rows as there are, whatever the rows of the input."""
    x = named(ops.parameter([-1, 4], np.float32, name="x"), "x")
    places = ops.transpose(ops.non_zero(x, output_type="i32"), np.array([1, 0]))
    return ov.Model([named(places, "y")], [x])


def slow(steps: int = 400, size: int = 1024) -> ov.Model:
    """Multiplies matrices, one after the other, for a second or so of a core; the answer is the input's sum."""
    x = named(ops.parameter([1, 4], np.float32, name="x"), "x")
    total = ops.reduce_sum(x, np.array([0, 1]), keep_dims=False)
    matrix = ops.multiply(ops.broadcast(total, np.array([size, size])), np.float32(1 / size))
    other = ops.divide(matrix, ops.add(total, np.float32(1e-6)))
    for _ in range(steps):
        matrix = ops.matmul(matrix, other, transpose_a=False, transpose_b=False)
    mean = ops.reduce_mean(matrix, np.array([0, 1]), keep_dims=False)
    answer = ops.multiply(ops.reshape(mean, np.array([1, 1]), special_zero=False), np.float32(size))
    return ov.Model([named(answer, "y")], [x])


def save(model: ov.Model, path: Path) -> Path:
    """Write a model as IR, uncompressed."""
    ov.save_model(model, path, compress_to_fp16=False)
    return path


def named(node: Any, name: str) -> Any:
    """The node with a name for its output tensor."""
    node.output(0).set_names({name})
    return node
