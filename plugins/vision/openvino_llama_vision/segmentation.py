"""From a map of classes or probabilities to the regions and the mask of the picture that was sent.

In a probability map what is found has the class 1, everything else the class 0, its background.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import ModelConfig
from openvino_llama_vision.config import Segmentation, VisionParameters
from openvino_llama_vision.labels import Labels, labels_of
from openvino_llama_vision.masks import as_png, as_run_lengths, to_picture_pixels
from openvino_llama_vision.placement import Placement
from openvino_llama_vision.regions import RawRegion, find_regions
from openvino_llama_vision.results import Box, Mask, Region, SegmentationResult

__all__ = ["ClassMap", "picture_classes", "read_map", "segment"]


class ClassMap(msgspec.Struct, frozen=True):
    """What a model's output says, at its own size."""

    classes: NDArray[Any]
    """(height, width) of class ids."""
    probabilities: NDArray[np.uint8] | None
    """Of the same shape in 255ths; None where the model gives class ids."""
    options: Segmentation

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.classes.shape[1], self.classes.shape[0]


def read_map(config: ModelConfig, output: NDArray[Any], threshold: float | None) -> ClassMap:
    """Read (1, height, width) of class ids, or (1, 1, height, width) of probabilities in 255ths."""
    options: Segmentation = config.config.segmentation
    if output.ndim == 3:
        return ClassMap(output[0], None, options)
    probabilities = output[0, 0]
    least = max(1, math.ceil((options.threshold if threshold is None else threshold) * 255))
    classes = (probabilities >= least).astype(np.uint8)
    return ClassMap(classes, probabilities, msgspec.structs.replace(options, background=0))


def segment(
    config: ModelConfig, output: NDArray[Any], parameters: VisionParameters, placement: Placement
) -> SegmentationResult:
    """The answer to one request."""
    found = read_map(config, output, parameters.threshold)
    labels = labels_of(config)
    return SegmentationResult(
        regions=_regions(found, labels, placement, parameters.max_results),
        mask=_mask(found, labels, placement, parameters.mask),
    )


def picture_classes(found: ClassMap, placement: Placement) -> NDArray[Any]:
    """Class ids (height, width) for every pixel of the picture."""
    return to_picture_pixels(found.classes, placement, found.options.background or 0)


def _regions(found: ClassMap, labels: Labels, placement: Placement, limit: int) -> list[Region]:
    left, top, right, bottom = _covered(placement, found.size)
    probabilities = None if found.probabilities is None else found.probabilities[top:bottom, left:right]
    raw = find_regions(found.classes[top:bottom, left:right], probabilities, found.options, limit)
    return [_described(each, np.array((left, top)), labels, placement, found.size) for each in raw]


def _covered(placement: Placement, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a map of that width and height that shows the picture and not the padding around it."""
    left, top, right, bottom = placement.visible
    x, y = size[0] / placement.canvas[0], size[1] / placement.canvas[1]
    return math.floor(left * x), math.floor(top * y), math.ceil(right * x), math.ceil(bottom * y)


def _described(
    raw: RawRegion, origin: NDArray[Any], labels: Labels, placement: Placement, size: tuple[int, int]
) -> Region:
    """The region in pixels of the picture."""
    corners = placement.clipped(placement.to_picture(raw.box + origin, size)).round(2)
    outline = placement.clipped(placement.to_picture(raw.outline + origin, size)).round(2)
    unit = placement.to_picture(np.array([[0, 0], [1, 1]]), size)  # one pixel of the map
    (x0, y0), (x1, y1) = corners.tolist()
    return Region(
        label=labels[raw.class_id],
        class_id=raw.class_id,
        area=round(float(raw.area * np.prod(unit[1] - unit[0])), 1),
        box=Box(x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)),
        polygon=[(x, y) for x, y in outline.tolist()],
        confidence=None if raw.confidence is None else round(raw.confidence, 4),
    )


def _mask(found: ClassMap, labels: Labels, placement: Placement, form: str) -> Mask | None:
    if form == "none":
        return None
    classes = picture_classes(found, placement)
    return as_png(classes) if form == "png" else as_run_lengths(classes, labels, found.options.background)
