"""Attention that is written out is found, and means the same afterwards; what only looks like it is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from openvino_llama_multimodal.encoder_decoder.attention import name_attention

HEADS, TOKENS, SEEN, WIDTH = 2, 3, 5, 4
OWN = "ScaledDotProductAttention"


def heads(name: str, tokens: int) -> Any:
    made = ops.parameter([1, HEADS, tokens, WIDTH], np.float32, name)
    made.output(0).set_names({name})
    return made


def flat(node: Any, width: int = WIDTH) -> Any:
    return ops.reshape(node, np.array([HEADS, -1, width]), special_zero=False)


def written_out(masked: bool, weights: Callable[[Any], Any] = lambda node: node) -> ov.Model:
    """Attention with its heads in the first dimension; ``weights`` changes what the softmax gives."""
    query, key, value = heads("query", TOKENS), heads("key", SEEN), heads("value", SEEN)
    mask = ops.parameter([1, 1, TOKENS, SEEN], np.float32, "mask")
    mask.output(0).set_names({"mask"})
    scores = ops.matmul(flat(query), flat(key), transpose_a=False, transpose_b=True)
    if masked:
        whole = ops.reshape(scores, np.array([1, HEADS, TOKENS, SEEN]), special_zero=False)
        scores = flat(ops.add(whole, mask), SEEN)
    answer = ops.matmul(weights(ops.softmax(scores, -1)), flat(value), transpose_a=False, transpose_b=False)
    return ov.Model([ops.result(answer)], [query, key, value, mask])


def kinds(model: ov.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def answered(model: ov.Model) -> Any:
    chance = np.random.default_rng(0)
    given = {port.any_name: chance.normal(size=port.get_shape()).astype(np.float32) for port in model.inputs}
    given["mask"] = np.where(given["mask"] > 0, 0, -65504).astype(np.float32)
    given["mask"][..., 0] = 0
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)[0]


@pytest.mark.parametrize("masked", [False, True])
def test_it_means_the_same(masked: bool) -> None:
    """With a mask and without; the shape is that of the product that it takes the place of."""
    model = written_out(masked)
    before = answered(model)
    name_attention(model)
    assert OWN in kinds(model)
    assert "Softmax" not in kinds(model)
    assert before.shape == (HEADS, TOKENS, WIDTH)
    assert answered(model) == pytest.approx(before, abs=1e-5)


def test_a_softmax_whose_answer_is_used_otherwise_is_left_alone() -> None:
    """Scaled once more, or looked at by others too."""
    scaled = written_out(True, lambda node: ops.multiply(node, np.float32(2)))
    name_attention(scaled)
    assert OWN not in kinds(scaled)
    several = written_out(True)
    softmax = next(node for node in several.get_ordered_ops() if node.get_type_name() == "Softmax")
    several.add_results([ops.result(softmax)])
    name_attention(several)
    assert OWN not in kinds(several)


def test_a_classifiers_softmax_is_left_alone() -> None:
    """There is a product before it, and none after it."""
    features = ops.parameter([1, 8], np.float32)
    scores = ops.matmul(features, np.ones((8, 3), np.float32), transpose_a=False, transpose_b=False)
    model = ov.Model([ops.result(ops.softmax(scores, -1))], [features])
    name_attention(model)
    assert OWN not in kinds(model)
