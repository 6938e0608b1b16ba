"""What is put on top of an embedding model's graph: one vector for each text in place of one for each of its tokens.

Knows nothing of texts. Everything here is a sum of products, not a product of matrices: the CPU keeps what follows a
graph's last matrix in f32, where it computes all else in bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from openvino import opset13 as ops

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_text.embedding import normalizes
from openvino_llama_text.files import facts_of, read_text

__all__ = ["INPUTS", "answer_with", "check_inputs", "output_of", "prepare_vectors"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""What is known of a text; the first two of them every model must take."""

_TOKENS = ("last_hidden_state", "token_embeddings")
_NEUTRAL_MODULES = ("Transformer", "Pooling", "Normalize", "Dropout")


def prepare_vectors(config: ModelConfig, model: ov.Model) -> ov.Model:
    """The model with one output, (texts, dimensions) f32: ``sentence_embedding``.

    A model that has that output, or only one of two dimensions, is not pooled. ConfigError if the outputs are no
    vectors, or the files beside the model say of them what is not done here.
    """
    check_inputs(config, model)
    vectors = output_of(config, model, ("sentence_embedding", *_TOKENS), (2, 3))
    if len(vectors.get_partial_shape()) == 3:
        _check_modules(config)
        vectors = _POOLINGS[_pooling(config)](vectors, _mask(model))
    if normalizes(config):
        vectors = _normalized(vectors)
    return answer_with(model, vectors, "sentence_embedding")


def _pooling(config: ModelConfig) -> str:
    stated = config.config.pooling
    return stated.value if stated else facts_of(config).pooling or "mean"


def check_inputs(config: ModelConfig, model: ov.Model) -> None:
    """Raise ConfigError unless the model takes texts, and heeds what of them is padding."""
    names = [port.get_any_name() for port in model.inputs]
    if not set(INPUTS[:2]) <= set(names) <= set(INPUTS) or any(len(p.get_partial_shape()) != 2 for p in model.inputs):
        raise ConfigError(
            f"model {config.name!r}: expected the inputs input_ids and attention_mask (texts, tokens), and at most "
            f"token_type_ids and position_ids beside them; got {', '.join(names)}"
        )


def output_of(config: ModelConfig, model: ov.Model, names: tuple[str, ...], ranks: tuple[int, ...]) -> Any:
    """What the first output of these names is made of, else the only output, in f32; ConfigError for another rank."""
    ports = {name: port for port in model.outputs for name in port.get_names()}
    known = [ports[name] for name in names if name in ports] or list(model.outputs)
    rank = known[0].get_partial_shape().rank
    if (len(model.outputs) > 1 and not ports.keys() & set(names)) or rank.is_dynamic or rank.get_length() not in ranks:
        found = ", ".join(f"{port.get_any_name()} {port.get_partial_shape()}" for port in model.outputs)
        raise ConfigError(
            f"model {config.name!r}: expected an output {' or '.join(names)} of {' or '.join(map(str, ranks))} "
            f"dimensions, got {found}"
        )
    source = known[0].get_node().input_value(0)
    return source if source.get_element_type() == ov.Type.f32 else ops.convert(source, "f32").output(0)


def answer_with(model: ov.Model, output: Any, name: str) -> ov.Model:
    """The model with that one output."""
    output.set_names({name})
    return ov.Model([ops.result(output)], model.get_parameters(), model.get_friendly_name())


class _Module(msgspec.Struct, frozen=True):
    type: str


def _check_modules(config: ModelConfig) -> None:
    """Refuse a model whose vectors go through a further layer that its graph has not: they would be wrong."""
    source = read_text(config, "modules.json")
    try:
        modules = msgspec.json.decode(source or "[]", type=list[_Module])
    except msgspec.DecodeError as error:
        raise ConfigError(f"model {config.name!r}, file modules.json: {error}") from error
    for kind in (module.type.rpartition(".")[2] for module in modules):
        if kind not in _NEUTRAL_MODULES:
            raise ConfigError(
                f"model {config.name!r}, file modules.json: the graph gives tokens' vectors, and a module {kind} "
                "cannot be put on top of them; export the model with its output sentence_embedding"
            )


def _mask(model: ov.Model) -> Any:
    """1 for each token and 0 for padding: (texts, tokens) f32."""
    return ops.convert(model.input("attention_mask"), "f32").output(0)


def _normalized(vectors: Any) -> Any:
    """Vectors of length 1; those of length 0 remain."""
    return ops.normalize_l2(vectors, ops.constant(np.array([1])), 1e-24, "max").output(0)


def _weighted(weights: Any, tokens: Any) -> Any:
    """The sum of a text's tokens (texts, tokens, dimensions), each times its weight (texts, tokens)."""
    column = ops.unsqueeze(weights, np.array([2]))
    return ops.reduce_sum(ops.multiply(tokens, column), np.array([1]), keep_dims=False).output(0)


def _total(weights: Any) -> Any:
    """The sum of each text's weights, at least something: (texts, 1)."""
    return ops.maximum(ops.reduce_sum(weights, np.array([1]), keep_dims=True), np.float32(1e-9))


def _numbered(mask: Any) -> Any:
    """1, 2, 3... for the tokens of each text, wherever its padding stands."""
    return ops.cum_sum(mask, np.array(1))


def _mean(tokens: Any, mask: Any) -> Any:
    return _weighted(ops.divide(mask, _total(mask)), tokens)


def _mean_sqrt_len(tokens: Any, mask: Any) -> Any:
    return _weighted(ops.divide(mask, ops.sqrt(_total(mask))), tokens)


def _weighted_mean(tokens: Any, mask: Any) -> Any:
    weights = ops.multiply(mask, _numbered(mask))
    return _weighted(ops.divide(weights, _total(weights)), tokens)


def _cls(tokens: Any, mask: Any) -> Any:
    return _weighted(_at(mask, np.float32(1)), tokens)


def _last(tokens: Any, mask: Any) -> Any:
    return _weighted(_at(mask, _total(mask)), tokens)


def _at(mask: Any, number: Any) -> Any:
    """1 for the token of that number, 0 for all others."""
    return ops.multiply(mask, ops.convert(ops.equal(_numbered(mask), number), "f32"))


def _max(tokens: Any, mask: Any) -> Any:
    is_token = ops.unsqueeze(ops.greater(mask, np.float32(0)), np.array([2]))
    return ops.reduce_max(ops.select(is_token, tokens, np.float32(-1e9)), np.array([1]), keep_dims=False).output(0)


_POOLINGS: dict[str, Callable[[Any, Any], Any]] = {
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "cls": _cls,
    "last": _last,
    "max": _max,
}
