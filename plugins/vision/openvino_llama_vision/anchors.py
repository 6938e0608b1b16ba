"""BlazeFace's anchors: the part of MediaPipe's SsdAnchorsCalculator that its face detectors use.

Anchors of fixed size only: an anchor is a point, a cell of a layer has one or two of it for each layer of its stride.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, ModelConfig, per_model
from openvino_llama_vision.config import BlazeFace

__all__ = ["anchors_of", "generate_anchors"]

_KNOWN: dict[int, tuple[tuple[int, ...], float]] = {
    128: ((8, 16, 16, 16), 1.0),
    192: ((4,), 0.0),
    256: ((16, 32, 32, 32), 1.0),
}
"""Input size -> strides and interpolated_scale_aspect_ratio of MediaPipe's models."""


@per_model
def anchors_of(config: ModelConfig) -> NDArray[np.float32]:
    """The anchors of a model, (anchors, 2), x and y in 0..1; ConfigError if their number is not that of its outputs."""
    _, height, width, _ = config.inputs[0].shape
    decoder: BlazeFace = config.config.decoder or BlazeFace()
    strides, ratio = _KNOWN.get(width, (None, 1.0))
    strides = decoder.strides or strides
    if strides is None or min(height, width) < 1:
        raise ConfigError(
            f"model {config.name!r}, field 'config.decoder.strides': must be stated for an input of {width} x {height}"
        )
    if decoder.interpolated_scale_aspect_ratio is not None:
        ratio = decoder.interpolated_scale_aspect_ratio
    anchors = generate_anchors((width, height), strides, 2 if ratio == 1.0 else 1, decoder.anchor_offset)
    expected = config.outputs[0].shape[1]
    if len(anchors) != expected:
        raise ConfigError(
            f"model {config.name!r}, field 'config.decoder.strides': {list(strides)} make {len(anchors)} anchors, "
            f"the model has {expected}"
        )
    return anchors


def generate_anchors(
    size: tuple[int, int], strides: Sequence[int], per_layer: int, offset: tuple[float, float]
) -> NDArray[np.float32]:
    """Anchors row by row, those of neighbouring layers of one stride together; ``size`` is width and height."""
    layers = [
        _grid((size[0] // stride, size[1] // stride), per_layer * len(list(same)), offset)
        for stride, same in itertools.groupby(strides)
    ]
    return np.concatenate(layers)


def _grid(cells: tuple[int, int], repeats: int, offset: tuple[float, float]) -> NDArray[np.float32]:
    x, y = np.meshgrid((np.arange(cells[0]) + offset[0]) / cells[0], (np.arange(cells[1]) + offset[1]) / cells[1])
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0).astype(np.float32)
