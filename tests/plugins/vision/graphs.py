"""Small graphs with known answers, for what no real model is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops


def named(node: Any, name: str) -> Any:
    """The node with a name for its output tensor."""
    node.output(0).set_names({name})
    return node


def echo(shape: list[int], kind: type = np.float32) -> ov.Model:
    """A model whose output is what arrives at its input."""
    pixels = named(ops.parameter(shape, kind, name="pixels"), "pixels")
    return ov.Model([ops.result(named(ops.relu(pixels) if kind is np.uint8 else ops.abs(pixels), "seen"))], [pixels])


def identity(shape: list[int]) -> ov.Model:
    """The same, negative values included."""
    pixels = named(ops.parameter(shape, np.float32, name="pixels"), "pixels")
    return ov.Model([ops.result(named(ops.multiply(pixels, np.float32(1)), "seen"))], [pixels])


def scores(shape: list[int]) -> ov.Model:
    """Logits of three classes: the mean of each channel, divided by 25."""
    pixels = named(ops.parameter(shape, np.float32, name="pixels"), "pixels")
    means = ops.reduce_mean(pixels, np.array([2, 3]), keep_dims=True)
    return ov.Model([ops.result(named(ops.divide(means, np.float32(25)), "scores"))], [pixels])
