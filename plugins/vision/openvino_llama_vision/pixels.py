"""From a decoded picture to the model's input tensor: u8 pixels of the model's size, channels last.

Everything after that (channel order, mean and std, element type, layout) is in the model's graph: see graph.py.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import DYNAMIC, ModelConfig, TensorSpec, per_model
from openvino_llama_vision.config import Interpolation, Preprocessing
from openvino_llama_vision.images import max_pixels_allowed
from openvino_llama_vision.placement import Placement, dynamic_size, place

__all__ = ["InputPlan", "input_plan", "plan_of"]

_RESAMPLING = {
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
}


class InputPlan(msgspec.Struct, frozen=True):
    """What is known of a model's input before any picture has come."""

    name: str
    mode: str
    """Pillow's mode: ``RGB``, or ``L`` for a model with one channel."""
    width: int
    """-1 if it is dynamic; likewise the height."""
    height: int
    preprocessing: Preprocessing
    max_pixels: int

    def place(self, picture: tuple[int, int]) -> Placement:
        """Where a picture of this width and height goes."""
        width, height = self.width, self.height
        if DYNAMIC in (width, height):
            free_width, free_height = dynamic_size(picture, self.preprocessing)
            width, height = (
                free_width if width == DYNAMIC else width,
                free_height if height == DYNAMIC else height,
            )
        return place(picture, (width, height), self.preprocessing)

    def render(self, image: Image.Image, placement: Placement) -> NDArray[np.uint8]:
        """The tensor, (1, height, width, channels); the image may be smaller than the placement's picture."""
        if self.mode == "L" and image.mode != "L":
            image = image.convert("L")
        left, top, right, bottom = placement.visible
        part = self._resize(image, placement, (right - left, bottom - top))
        if part.mode != self.mode:  # grey pictures are resized as such: they get equal channels only now
            part = part.convert(self.mode)
        pixels = np.asarray(part).reshape(1, part.height, part.width, -1)
        if part.size == placement.canvas:
            return pixels
        width, height = placement.canvas
        padded = np.full((1, height, width, pixels.shape[3]), self.preprocessing.pad, np.uint8)
        padded[:, top:bottom, left:right] = pixels
        return padded

    def _resize(self, image: Image.Image, placement: Placement, size: tuple[int, int]) -> Image.Image:
        """What is seen of the image, in that size. Cutting out and resizing are one step."""
        source = _source_box(image, placement, size)
        resampling = _RESAMPLING[self.preprocessing.interpolation]
        if self.preprocessing.antialias:
            return image.resize(size, resampling, source)
        return image.transform(size, Image.Transform.EXTENT, source, resampling)


def _source_box(image: Image.Image, placement: Placement, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of the image that is seen: left, top, right, bottom."""
    step_x, step_y = image.width / placement.resized[0], image.height / placement.resized[1]
    left, top = max(0, -placement.offset[0]), max(0, -placement.offset[1])
    # min: products of fractions may exceed the edge by an ulp, which Pillow refuses
    right, bottom = min(image.width, (left + size[0]) * step_x), min(image.height, (top + size[1]) * step_y)
    return left * step_x, top * step_y, right, bottom


@per_model
def input_plan(config: ModelConfig) -> InputPlan:
    """The plan of a model whose first input prepare_model has made one of u8, (batch, height, width, channels)."""
    return plan_of(config, config.inputs[0])


def plan_of(config: ModelConfig, spec: TensorSpec) -> InputPlan:
    """The plan of an input of u8, (batch, height, width, channels)."""
    _, height, width, channels = spec.shape
    return InputPlan(
        name=spec.name,
        mode="L" if channels == 1 else "RGB",
        width=width,
        height=height,
        preprocessing=config.config.preprocessing,
        max_pixels=max_pixels_allowed(),
    )
