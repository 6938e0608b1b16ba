"""What the outputs become inside of the graph: no larger than the answer needs.

Scores of classes become probabilities; the scores that a box or a pixel has for each class become its best class. So
kilobytes, and not megabytes, leave the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from openvino_llama import DYNAMIC, ConfigError, ModelConfig
from openvino_llama_vision.config import Decoder, Yolo
from openvino_llama_vision.decoders import deduced_decoder, fits, misfit
from openvino_llama_vision.labels import class_count

__all__ = ["reduce_outputs", "sizes", "stated_decoder"]

_LEVELS = 255
"""Probabilities of pixels leave the graph in 255ths, as those of quantised models do."""


def reduce_outputs(config: ModelConfig, model: ov.Model) -> ov.Model:
    """The model with its outputs reduced, under their old names; ConfigError if they do not fit the configuration."""
    return _TASKS[config.task](config, model)


def sizes(port: Any) -> tuple[int, ...]:
    """The shape of an input or output; -1 is dynamic."""
    return tuple(each.get_length() if each.is_static else -1 for each in port.get_partial_shape())


def stated_decoder(config: ModelConfig, model: ov.Model) -> Decoder | None:
    """How a detection model's outputs are read, as stated or deduced; None for other models."""
    if config.task != "detection":
        return None
    stated: Decoder | None = config.config.decoder
    return stated or deduced_decoder([sizes(each) for each in model.outputs], class_count(config))


def _classification(config: ModelConfig, model: ov.Model) -> ov.Model:
    """(batch, classes) of probabilities. An output of one dimension has no batch: it is of one picture."""
    output = model.output(0)
    rank = len(sizes(output))
    logits = _gives_logits(config, output)

    def probabilities(scores: Any) -> Any:
        if rank < 2:
            scores = ops.reshape(scores, np.array([1, -1]), special_zero=False)
        elif rank > 2 and logits:
            scores = ops.reshape(scores, np.array([0, -1]), special_zero=True)
        return ops.softmax(scores, axis=1) if logits else scores

    return _replaced(model, probabilities)


def _detection(config: ModelConfig, model: ov.Model) -> ov.Model:
    decoder = stated_decoder(config, model)
    shapes = [sizes(each) for each in model.outputs]
    if decoder is None or not fits(decoder, shapes):
        raise misfit(config, shapes)
    if not isinstance(decoder, Yolo):
        return model
    return _replaced(model, lambda rows: _best_class(config, decoder, rows, sizes(model.output(0))))


def _best_class(config: ModelConfig, decoder: Yolo, rows: Any, shape: tuple[int, ...]) -> Any:
    """(batch, 4 + classes, boxes) or its transpose -> (batch, 6, boxes): box, best score, its class."""
    classes = config.config.output_classes
    columns = 4 + decoder.objectness
    expected = None if classes is None else classes + columns
    if _has_boxes_first(shape, expected):
        rows, shape = ops.transpose(rows, np.array([0, 2, 1])), (shape[0], shape[2], shape[1])
    if expected is not None and shape[1] != expected:
        raise ConfigError(
            f"model {config.name!r}, field 'config.output_classes': {classes} classes need {expected} rows "
            f"for each box, the model has {shape[1]}"
        )
    if shape[1] <= columns:
        raise ConfigError(
            f"model {config.name!r}, field 'config.decoder': expected more than {columns} rows for each box, got "
            f"{shape[1]}"
        )
    rows = ops.convert(rows, "f32")
    box = _sliced(rows, 0, 4)
    best = ops.topk(_sliced(rows, columns, None), np.int64(1), 1, "max", "none", index_element_type="i32")
    score = ops.multiply(best.output(0), _sliced(rows, 4, 5)) if decoder.objectness else best.output(0)
    return ops.concat([box, score, ops.convert(best.output(1), "f32")], axis=1)


def _has_boxes_first(shape: tuple[int, ...], expected: int | None) -> bool:
    """Whether boxes come before their rows: by the rows that are expected, or as boxes are many, or of open number."""
    _, second, last = shape
    if expected is not None:
        return last == expected != second
    return second == DYNAMIC or DYNAMIC < last < second


def _sliced(rows: Any, start: int, stop: int | None) -> Any:
    """``rows[:, start:stop]`` as a node."""
    last = np.iinfo(np.int64).max if stop is None else stop
    return ops.slice(rows, np.array([start]), np.array([last]), np.array([1]), np.array([1]))


def _segmentation(config: ModelConfig, model: ov.Model) -> ov.Model:
    """(batch, height, width) of class ids, or (batch, 1, height, width) of probabilities in 255ths.

    The rank tells the one from the other ever after.
    """
    output = model.output(0)
    shape = sizes(output)
    if _holds_class_ids(output):
        return _replaced(model, lambda ids: _without_negative_ids(_plane(ids, shape), config))
    if len(shape) == 3:
        return _replaced(model, lambda map_: _levels(ops.unsqueeze(map_, np.int64(1)), config, output))
    axis = _class_axis(config, shape)
    if shape[axis] == 1:
        return _replaced(model, lambda map_: _levels(_channels_first(map_, axis), config, output))
    classes = config.config.output_classes if shape[axis] == DYNAMIC else shape[axis]
    return _replaced(model, lambda scores: _narrowed(_arg_max(scores, axis), classes))


def _holds_class_ids(output: Any) -> bool:
    """Integers are class ids, but a u8 map with a dimension for its channels is a quantised one of scores."""
    kind = output.get_element_type()
    return bool(kind.is_integral()) and (kind != ov.Type.u8 or len(sizes(output)) == 3)


def _plane(ids: Any, shape: tuple[int, ...]) -> Any:
    """Class ids without a fourth dimension of 1."""
    if len(shape) == 3:
        return ids
    return ops.squeeze(ids, np.array([1 if shape[1] == 1 else 3]))


def _class_axis(config: ModelConfig, shape: tuple[int, ...]) -> int:
    """1 or 3, whichever holds the classes."""
    classes = config.config.output_classes or 1
    if len(shape) != 4 or (shape[1] == -1 and shape[3] == -1):
        raise ConfigError(f"model {config.name!r}: expected a map of classes or scores, got an output {list(shape)}")
    if classes in (shape[1], shape[3]):
        return 1 if shape[1] == classes else 3
    if config.config.output_classes is not None:
        raise ConfigError(
            f"model {config.name!r}, field 'config.output_classes': {classes} is no dimension of the output "
            f"{list(shape)}"
        )
    return 1 if 0 < shape[1] < shape[3] or shape[3] == -1 else 3


def _channels_first(map_: Any, axis: int) -> Any:
    return map_ if axis == 1 else ops.transpose(map_, np.array([0, 3, 1, 2]))


def _arg_max(scores: Any, axis: int) -> Any:
    best = ops.topk(scores, np.int64(1), axis, "max", "none", index_element_type="i32")
    return ops.squeeze(best.output(1), np.array([axis]))


def _without_negative_ids(ids: Any, config: ModelConfig) -> Any:
    """Class ids of a model that gives them; negative ones, of ignored pixels, become background, or -1 without one."""
    if ids.get_element_type() == ov.Type.u8:
        return ids
    background = config.config.segmentation.background
    ids = ops.convert(ids, "i32")
    ids = ops.select(ops.less(ids, np.int32(0)), np.int32(-1 if background is None else background), ids)
    return ids if background is None else _narrowed(ids, config.config.output_classes)


def _narrowed(ids: Any, classes: int | None) -> Any:
    """Class ids in the smallest type that is sure to hold them."""
    return ops.convert(ids, "u8" if classes is not None and classes <= 256 else "i32")


def _levels(map_: Any, config: ModelConfig, output: Any) -> Any:
    """Probabilities of 0..1 in 255ths; maps that are u8 already have them."""
    if output.get_element_type() == ov.Type.u8:
        return map_
    if _gives_logits(config, output):
        map_ = ops.sigmoid(map_)
    bounded = ops.clamp(ops.convert(map_, "f32"), 0.0, 1.0)
    return ops.convert(ops.round(ops.multiply(bounded, np.float32(_LEVELS)), "half_to_even"), "u8")


_TASKS: dict[str, Callable[[ModelConfig, ov.Model], ov.Model]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
}


def _replaced(model: ov.Model, change: Callable[[Any], Any]) -> ov.Model:
    """The model with its first output changed, under the same name, and without the others, which nobody reads."""
    last = model.output(0).get_node().input_value(0)
    changed = change(last)
    if changed is not last:
        changed = changed if isinstance(changed, ov.Output) else changed.output(0)
        names = last.get_names()
        last.set_names(set())
        changed.set_names(names or {"output"})
    return ov.Model([ops.result(changed)], model.get_parameters(), model.get_friendly_name())


_PASS_ON = {"Convert", "FakeQuantize", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Interpolate",
            "Multiply", "Subtract", "Clamp"}  # fmt: skip
_GIVE_PROBABILITIES = {"Softmax", "Sigmoid", "HardSigmoid", "SoftmaxV8"}


def _gives_logits(config: ModelConfig, output: Any) -> bool:
    """Whether scores are not probabilities yet: as stated, or by how the graph ends."""
    stated = config.config.logits
    if stated != "auto":
        return bool(stated)
    if output.get_element_type() == ov.Type.u8:
        return False
    node = output.get_node().input_value(0).get_node()
    while node.get_type_name() in _PASS_ON:
        node = node.input_value(0).get_node()
    return node.get_type_name() not in _GIVE_PROBABILITIES
