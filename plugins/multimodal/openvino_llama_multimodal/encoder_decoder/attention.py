"""Attention that a graph writes out, as two products with a softmax between them, becomes OpenVINO's own operation.

TrOCR's decoders are exported so. Only OpenVINO's own appends to a cache in place. Knows nothing of caches, nor of what
the graph is for.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import openvino as ov
from openvino import opset13 as ops

from openvino_llama_vision.reduction import sizes

__all__ = ["name_attention"]


class _Attention(msgspec.Struct, frozen=True):
    """Nodes' outputs, (1, heads, tokens, width) where nothing else is said."""

    query: Any
    """Scaled already."""
    key: Any
    value: Any
    mask: Any
    """What is added to the scores; None is nothing."""
    answer: Any
    """(heads, tokens, width)"""


def name_attention(model: ov.Model) -> None:
    """Change a graph of one sequence, in place, wherever its heads are put into the first dimension and multiplied."""
    for node in model.get_ordered_ops():
        found = _found(node) if node.get_type_name() == "Softmax" else None
        if found is None:
            continue
        mask = np.zeros((1, 1), np.float32) if found.mask is None else found.mask
        scale = np.float32(1)  # else it would be that of the width
        whole = ops.scaled_dot_product_attention(found.query, found.key, found.value, mask, scale, causal=False)
        answer = ops.squeeze(whole, np.array([0]))
        found.answer.replace(answer.output(0))


def _found(softmax: Any) -> _Attention | None:
    """The attention around a softmax; None if it is not of this kind."""
    users = list(softmax.output(0).get_target_inputs())
    scores, mask = softmax.input_value(0), None
    if _is(scores, "Reshape"):  # to (1, heads, tokens, all tokens), for the mask, and back
        masked = _before(scores)
        if not _is(masked, "Add"):
            return None
        scores, mask = _before(masked.get_node().input_value(0)), masked.get_node().input_value(1)
    if len(users) != 1 or not _is_product(users[0].get_node(), second=False):
        return None
    if not _is_product(scores.get_node(), second=True):
        return None
    answer, product = users[0].get_node(), scores.get_node()
    query, key, value = _before(product.input_value(0)), _before(product.input_value(1)), _before(answer.input_value(1))
    if any(len(sizes(each)) != 4 or sizes(each)[0] != 1 for each in (query, key, value)):
        return None
    return _Attention(query, key, value, mask, answer.output(0))


def _is(output: Any, kind: str) -> bool:
    return bool(output.get_node().get_type_name() == kind)


def _is_product(node: Any, *, second: bool) -> bool:
    """Whether it multiplies matrices, of which the second is transposed or not."""
    if node.get_type_name() != "MatMul":
        return False
    attributes = node.get_attributes()
    return not attributes["transpose_a"] and attributes["transpose_b"] == second


def _before(output: Any) -> Any:
    """What has been reshaped; the output itself if it has not."""
    return output.get_node().input_value(0) if _is(output, "Reshape") else output
