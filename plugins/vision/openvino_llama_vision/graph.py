"""What is moved into the model's graph, so that a request costs little outside of it.

The input becomes u8 pixels, (batch, height, width, channels): a quarter of the bytes of f32, and the conversions run
inside OpenVINO. The outputs become as small as the answer needs: classes of pixels instead of scores for each,
one score for a box instead of one for each class.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import ColorFormat, PrePostProcessor

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_vision.config import ChannelOrder, Normalize, Ssd, VisionConfig, Yolo
from openvino_llama_vision.decoders import deduced_decoder

__all__ = ["prepare"]

logger = logging.getLogger(__name__)

_LEVELS = 255
"""Probabilities leave the graph in 255ths, as those of quantised models do."""


def prepare(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Fuse what can be fused; ConfigError if the configuration does not fit the model."""
    layout = _layout(config, model)
    _fix_size(config, model, layout)
    model = _TAILS[config.task](config, model)
    return _with_pixel_input(config, model, layout)


def _layout(config: ModelConfig, model: ov.Model) -> str:
    """The layout of the model's one input; ConfigError if it is no picture."""
    if len(model.inputs) != 1 or len(model.input(0).get_partial_shape()) != 4:
        found = ", ".join(f"{each.get_any_name()} {each.get_partial_shape()}" for each in model.inputs)
        raise ConfigError(f"model {config.name!r}: expected one input of four dimensions (a picture), got {found}")
    shape = model.input(0).get_partial_shape()
    stated: str | None = config.config.layout
    fitting = [each for each in ("NCHW", "NHWC") if _length(shape[each.index("C")]) in (1, 3)]
    if stated is None and fitting:
        return fitting[0]
    if stated is None or _length(shape[stated.index("C")]) not in (1, 3, -1):
        raise ConfigError(
            f"model {config.name!r}, field 'config.layout': the input {shape} has no dimension of 1 or 3 channels "
            f"where {stated or 'NCHW or NHWC'} has it"
        )
    return stated


def _length(dimension: Any) -> int:
    return dimension.get_length() if dimension.is_static else -1


def _fix_size(config: ModelConfig, model: ov.Model, layout: str) -> None:
    """Give the dimensions that the model leaves open the size that the registry states; check the others.

    The batch stays as it is: where it is dynamic, the runner puts requests together.
    """
    shape = model.input(0).get_partial_shape()
    stated = dict(zip("NCHW", config.config.input_shape or (-1, -1, -1, -1), strict=True))
    for axis in "CHW":
        found = _length(shape[layout.index(axis)])
        if found == -1 and stated[axis] != -1:
            shape[layout.index(axis)] = stated[axis]
        elif stated[axis] not in (-1, found):
            raise ConfigError(
                f"model {config.name!r}, field 'config.input_shape': {axis} is {found} in the model, not {stated[axis]}"
            )
    if _length(shape[layout.index("C")]) not in (1, 3):
        raise ConfigError(f"model {config.name!r}, field 'config.input_shape': the channels must be 1 or 3")
    if isinstance(_decoder(config, model), Ssd):
        shape[layout.index("N")] = 1  # DetectionOutput mixes the pictures of a batch in one list
    if shape != model.input(0).get_partial_shape():
        model.reshape(shape)


def _decoder(config: ModelConfig, model: ov.Model) -> Any:
    if config.task != "detection":
        return None
    return config.config.decoder or deduced_decoder([_shape(each) for each in model.outputs])


def _shape(output: Any) -> tuple[int, ...]:
    return tuple(_length(each) for each in output.get_partial_shape())


def _with_pixel_input(config: ModelConfig, model: ov.Model, layout: str) -> ov.Model:
    vision: VisionConfig = config.config
    processor = PrePostProcessor(model)
    entry = processor.input()
    channels = _length(model.input(0).get_partial_shape()[layout.index("C")])
    colour = channels == 3
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout(layout))
    if colour and vision.preprocessing.channel_order is ChannelOrder.BGR:
        entry.tensor().set_color_format(ColorFormat.RGB)
        entry.preprocess().convert_color(ColorFormat.BGR)
    if model.input(0).get_element_type() == ov.Type.u8:
        _warn_of_normalize(config)
    else:
        entry.preprocess().convert_element_type(ov.Type.f32)
        if vision.preprocessing.normalize is not None:
            _normalize(config, entry.preprocess(), vision.preprocessing.normalize, channels)
    return processor.build()


def _normalize(config: ModelConfig, steps: Any, normalize: Normalize, channels: int) -> None:
    """(pixel / scale - mean) / std, as one subtraction and one division."""
    for field, values in (("mean", normalize.mean), ("std", normalize.std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"model {config.name!r}, field 'config.preprocessing.normalize.{field}': "
                f"expected 1 or {channels} values, got {len(values)}"
            )
    steps.mean(_per_channel(normalize.mean, normalize.scale, channels))
    steps.scale(_per_channel(normalize.std, normalize.scale, channels))


def _per_channel(values: tuple[float, ...], scale: float, channels: int) -> list[float]:
    return [value * scale for value in (values * channels if len(values) == 1 else values)]


def _warn_of_normalize(config: ModelConfig) -> None:
    if config.config.preprocessing.normalize is not None:
        logger.warning("model %s takes u8 pixels: config.preprocessing.normalize is not applied to it", config.name)


def _classification_tail(config: ModelConfig, model: ov.Model) -> ov.Model:
    output = model.output(0)
    if not _gives_logits(config, output):
        return model

    def softmax(scores: Any) -> Any:
        flat = scores if len(_shape(output)) == 2 else ops.reshape(scores, np.array([0, -1]), special_zero=True)
        return ops.softmax(flat, axis=1)

    return _replaced(model, softmax)


def _detection_tail(config: ModelConfig, model: ov.Model) -> ov.Model:
    decoder = _decoder(config, model)
    if not isinstance(decoder, Yolo):
        return model
    return _replaced(model, lambda rows: _best_class(config, decoder, rows, _shape(model.output(0))))


def _best_class(config: ModelConfig, decoder: Yolo, rows: Any, shape: tuple[int, ...]) -> Any:
    """(batch, 4 + classes, boxes) or its transpose -> (batch, 6, boxes): box, best score, its class."""
    classes = config.config.output_classes
    columns = 4 + decoder.objectness
    last_is_columns = shape[2] == classes + columns if classes else -1 < shape[2] < shape[1]
    if last_is_columns:
        rows, shape = ops.transpose(rows, np.array([0, 2, 1])), (shape[0], shape[2], shape[1])
    if classes is not None and shape[1] != classes + columns:
        raise ConfigError(
            f"model {config.name!r}, field 'config.output_classes': {classes} classes need {classes + columns} rows "
            f"for each box, the model has {shape[1]}"
        )
    box = _sliced(rows, 0, 4)
    best = ops.topk(_sliced(rows, columns, None), np.int64(1), 1, "max", "none", index_element_type="i32")
    score = ops.multiply(best.output(0), _sliced(rows, 4, 5)) if decoder.objectness else best.output(0)
    return ops.concat([box, score, ops.convert(best.output(1), "f32")], axis=1)


def _sliced(rows: Any, start: int, stop: int | None) -> Any:
    """``rows[:, start:stop]`` as a node."""
    last = np.iinfo(np.int64).max if stop is None else stop
    return ops.slice(rows, np.array([start]), np.array([last]), np.array([1]), np.array([1]))


def _segmentation_tail(config: ModelConfig, model: ov.Model) -> ov.Model:
    """(batch, height, width) of class ids, or (batch, 1, height, width) of probabilities in 255ths.

    The rank tells the one from the other ever after.
    """
    output = model.output(0)
    shape = _shape(output)
    if _holds_class_ids(output):
        return _replaced(model, lambda ids: _ids(_plane(ids, shape), config))
    if len(shape) == 3:
        return _replaced(model, lambda map_: _levels(ops.unsqueeze(map_, np.int64(1)), config, output))
    axis = _class_axis(config, shape)
    if shape[axis] == 1:
        return _replaced(model, lambda map_: _levels(_channels_first(map_, axis), config, output))
    return _replaced(model, lambda scores: _ids(_arg_max(scores, axis), config))


def _holds_class_ids(output: Any) -> bool:
    """Integers are class ids, but a u8 map with a dimension for its channels is a quantised one of scores."""
    kind = output.get_element_type()
    return bool(kind.is_integral()) and (kind != ov.Type.u8 or len(_shape(output)) == 3)


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


def _ids(ids: Any, config: ModelConfig) -> Any:
    """Class ids in the smallest type that holds them; without output_classes they are taken to be below 256."""
    return ops.convert(ids, "u8" if (config.config.output_classes or 1) <= 256 else "i32")


def _levels(map_: Any, config: ModelConfig, output: Any) -> Any:
    """Probabilities of 0..1 in 255ths; maps that are u8 already have them."""
    if output.get_element_type() == ov.Type.u8:
        return map_
    if _gives_logits(config, output):
        map_ = ops.sigmoid(map_)
    bounded = ops.clamp(ops.convert(map_, "f32"), 0.0, 1.0)
    return ops.convert(ops.round(ops.multiply(bounded, np.float32(_LEVELS)), "half_to_even"), "u8")


_TAILS: dict[str, Callable[[ModelConfig, ov.Model], ov.Model]] = {
    "classification": _classification_tail,
    "detection": _detection_tail,
    "segmentation": _segmentation_tail,
}


def _replaced(model: ov.Model, change: Callable[[Any], Any]) -> ov.Model:
    """The model with its first output changed, under the same name."""
    last = model.output(0).get_node().input_value(0)
    changed = change(last)
    changed = changed if isinstance(changed, ov.Output) else changed.output(0)
    if changed.get_node() is not last.get_node():
        names = last.get_names()
        last.set_names(set())
        changed.set_names(names or {"output"})
    results = [ops.result(changed), *(each.get_node() for each in model.outputs[1:])]
    return ov.Model(results, model.get_parameters(), model.get_friendly_name())


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
