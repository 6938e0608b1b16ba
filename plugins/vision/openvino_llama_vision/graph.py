"""What is moved into the model's graph, so that a request costs little outside of it.

The input becomes u8 pixels, (batch, height, width, channels): a quarter of the bytes of f32, and the conversions run
inside OpenVINO. What becomes of the outputs is in reduction.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from openvino_llama import DYNAMIC, ConfigError, ModelConfig
from openvino_llama_vision.config import ChannelOrder, Normalize, Preprocessing, ResizeMode, Ssd, VisionConfig
from openvino_llama_vision.reduction import reduce_outputs, sizes, stated_decoder

__all__ = ["fix_size", "prepare", "take_pixels"]

logger = logging.getLogger(__name__)


def prepare(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Fuse what can be fused; ConfigError if the configuration does not fit the model."""
    if len(model.inputs) != 1:
        raise _no_picture(config, model.inputs)
    layout = fix_size(config, model, one=_answers_for_one(config, model))
    return take_pixels(config, reduce_outputs(config, model), layout)


def fix_size(config: ModelConfig, model: ov.Model, index: int = 0, *, one: bool = False) -> str:
    """Give the dimensions that an input leaves open the size that the registry states; check the others.

    The batch stays as it is, unless it is to be ``one``: where it is dynamic, the runner puts requests together.
    The layout of the input, ``NCHW`` or ``NHWC``. ConfigError if it is no picture.
    """
    found = sizes(model.input(index))
    layout = _layout(config, model.input(index))
    shape = dict(zip(layout, found, strict=True))
    for field, stated in _stated_sizes(config.config):
        for axis, size in stated.items():
            if shape[axis] == DYNAMIC:
                shape[axis] = size
            elif size not in (DYNAMIC, shape[axis]):
                raise ConfigError(
                    f"model {config.name!r}, field 'config.{field}': expected {shape[axis]} as {axis}, which is the "
                    f"size of the model's input, got {size}"
                )
    if shape["C"] not in (1, 3):
        raise ConfigError(f"model {config.name!r}, field 'config.input_shape': the channels must be 1 or 3")
    if one:
        shape["N"] = 1
    wanted = [shape[axis] for axis in layout]
    if wanted != list(found):
        model.reshape({index: ov.PartialShape(wanted)})
    return layout


def _layout(config: ModelConfig, port: Any) -> str:
    """The layout of an input; ConfigError if it is no picture."""
    shape = sizes(port)
    if len(shape) != 4:
        raise _no_picture(config, [port])
    stated: str | None = config.config.layout
    fitting = [each for each in ("NCHW", "NHWC") if shape[each.index("C")] in (1, 3)]
    if stated is None and fitting:
        return fitting[0]
    if stated is None or shape[stated.index("C")] not in (1, 3, DYNAMIC):
        raise ConfigError(
            f"model {config.name!r}, field 'config.layout': the input {list(shape)} has no dimension of 1 or 3 "
            f"channels where {stated or 'NCHW or NHWC'} has it"
        )
    return stated


def _no_picture(config: ModelConfig, ports: Sequence[Any]) -> ConfigError:
    found = ", ".join(f"{each.get_any_name()} {list(sizes(each))}" for each in ports)
    return ConfigError(f"model {config.name!r}: expected one input of four dimensions (a picture), got {found}")


def _stated_sizes(config: VisionConfig) -> Iterator[tuple[str, dict[str, int]]]:
    """The fields of the registry that state the sizes of axes, and these; -1 is left open."""
    if config.input_shape is not None:
        yield "input_shape", dict(zip("CHW", config.input_shape[1:], strict=True))
    options = config.preprocessing
    if options.resize is not None and options.mode is not ResizeMode.CROP:  # a crop's is the size before the cut
        yield "preprocessing.resize", dict(zip("HW", options.resize, strict=True))


def _answers_for_one(config: ModelConfig, model: ov.Model) -> bool:
    """Whether what the model says of the pictures of a batch cannot be told apart.

    DetectionOutput puts all into one list; an output of one dimension has none for the batch.
    """
    return isinstance(stated_decoder(config, model), Ssd) or any(len(sizes(each)) < 2 for each in model.outputs)


def take_pixels(config: ModelConfig, model: ov.Model, layout: str, index: int = 0) -> ov.Model:
    """The model with u8 pixels, (batch, height, width, channels), as an input, whose layout has been that one."""
    options: Preprocessing = config.config.preprocessing
    element_type = model.input(index).get_element_type()
    channels = sizes(model.input(index))[layout.index("C")]
    processor = PrePostProcessor(model)
    entry = processor.input(index)
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout(layout))
    if channels == 3 and options.channel_order is ChannelOrder.BGR:
        entry.tensor().set_color_format(ColorFormat.RGB)
        entry.preprocess().convert_color(ColorFormat.BGR)
    if element_type.is_real():
        entry.preprocess().convert_element_type(ov.Type.f32)
        if options.normalize is not None:
            _normalize(config, entry.preprocess(), options.normalize, channels)
    elif element_type != ov.Type.u8:
        raise ConfigError(f"model {config.name!r}: takes {element_type.to_string()}; pixels are u8 or floating point")
    elif options.normalize is not None:
        logger.warning("model %s takes u8 pixels: config.preprocessing.normalize is not applied to it", config.name)
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
