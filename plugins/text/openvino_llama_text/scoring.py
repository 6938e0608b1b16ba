"""What is put on top of a classifier's graph: probabilities in place of logits. Knows nothing of texts or labels."""

from __future__ import annotations

import msgspec
import openvino as ov
from openvino import opset13 as ops

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_text.files import read_text
from openvino_llama_text.pooling import answer_with, check_inputs, output_of

__all__ = ["gives_scores", "prepare_scores"]

_LOGITS = ("logits",)


class _Problem(msgspec.Struct, frozen=True):
    """``config.json``: whether a text has one class, or any number of them."""

    problem_type: str | None = None


def gives_scores(model: ov.Model) -> bool:
    """Whether the model says how well two texts go together: one number, and not a vector."""
    if any("logits" in port.get_names() for port in model.outputs):
        return True
    shape = model.outputs[0].get_partial_shape()
    return len(model.outputs) == 1 and shape.rank.is_static and len(shape) == 2 and shape[1] == ov.Dimension(1)


def prepare_scores(config: ModelConfig, model: ov.Model) -> ov.Model:
    """The model with one output, (texts, classes) f32: ``probabilities``.

    They are those of classes that exclude each other (softmax), or, if ``config.json`` has the problem type
    ``multi_label_classification`` or there is one class alone, each its own (sigmoid).
    """
    check_inputs(config, model)
    logits = output_of(config, model, _LOGITS, (2,))
    alone = logits.get_partial_shape()[1] == ov.Dimension(1)
    own = alone or _problem_type(config) == "multi_label_classification"
    scores = ops.sigmoid(logits) if own else ops.softmax(logits, 1)
    return answer_with(model, scores.output(0), "probabilities")


def _problem_type(config: ModelConfig) -> str | None:
    source = read_text(config, "config.json")
    try:
        return msgspec.json.decode(source or "{}", type=_Problem).problem_type
    except msgspec.DecodeError as error:
        raise ConfigError(f"model {config.name!r}, file config.json: {error}") from error
