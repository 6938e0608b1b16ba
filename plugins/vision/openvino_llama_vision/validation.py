"""The checks of a loaded model: everything that a request will need is there and fits.

They also work out, before the first request, what is remembered for each model.
"""

from __future__ import annotations

import importlib
import math

from openvino_llama import ConfigError, DataType, ModelConfig
from openvino_llama_vision.anchors import anchors_of
from openvino_llama_vision.config import BlazeFace
from openvino_llama_vision.decoders import decoder_of
from openvino_llama_vision.labels import labels_of
from openvino_llama_vision.pixels import input_plan

__all__ = ["validate"]


def validate(config: ModelConfig) -> None:
    """Raise ConfigError if the model cannot be served."""
    input_plan(config)
    labels_of(config)
    _CHECKS[config.task](config)


def _check_classification(config: ModelConfig) -> None:
    classes = config.config.output_classes
    shape = config.outputs[0].shape
    if len(shape) < 2:
        raise ConfigError(f"model {config.name!r}: expected an output (batch, classes), got one of {list(shape)}")
    found = math.prod(shape[1:])
    if classes is not None and min(shape[1:]) > 0 and classes != found:
        raise ConfigError(
            f"model {config.name!r}, field 'config.output_classes': the model has {found} classes, not {classes}"
        )


def _check_detection(config: ModelConfig) -> None:
    if isinstance(decoder_of(config), BlazeFace):
        anchors_of(config)


def _check_segmentation(config: ModelConfig) -> None:
    spec = config.outputs[0]
    if len(spec.shape) not in (3, 4) or spec.data_type not in (DataType.U8, DataType.I32):
        raise ConfigError(
            f"model {config.name!r}: expected a map of classes or probabilities, got an output {list(spec.shape)}"
        )
    for module in ("skimage.measure", "skimage.segmentation"):  # slow to import: not during the first request
        importlib.import_module(module)


_CHECKS = {
    "classification": _check_classification,
    "detection": _check_detection,
    "segmentation": _check_segmentation,
}
