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
    placement: Placement

    def covered(self) -> tuple[int, int, int, int]:
        """The part that shows the picture and not the padding around it: left, top, right, bottom."""
        x, y = (found / given for found, given in zip(self._size(), self.placement.canvas, strict=True))
        left, top, right, bottom = self.placement.visible
        return math.floor(left * x), math.floor(top * y), math.ceil(right * x), math.ceil(bottom * y)

    def to_picture(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Points (..., 2) of the map, as x and y, in pixels of the picture; not clipped."""
        return self.placement.to_picture(points, self._size())

    def _size(self) -> tuple[int, int]:
        return self.classes.shape[1], self.classes.shape[0]


def read_map(config: ModelConfig, output: NDArray[Any], threshold: float | None, placement: Placement) -> ClassMap:
    """Read (1, height, width) of class ids, or (1, 1, height, width) of probabilities in 255ths."""
    options: Segmentation = config.config.segmentation
    if output.ndim == 3:
        return ClassMap(output[0], None, options, placement)
    probabilities = output[0, 0]
    least = max(1, math.ceil((options.threshold if threshold is None else threshold) * 255))
    classes = (probabilities >= least).astype(np.uint8)
    return ClassMap(classes, probabilities, msgspec.structs.replace(options, background=0), placement)


def segment(
    config: ModelConfig, output: NDArray[Any], parameters: VisionParameters, placement: Placement
) -> SegmentationResult:
    """The answer to one request."""
    found = read_map(config, output, parameters.threshold, placement)
    labels = labels_of(config)
    return SegmentationResult(
        regions=_regions(found, labels, parameters.max_results),
        mask=_mask(found, labels, parameters.mask),
    )


def picture_classes(found: ClassMap) -> NDArray[Any]:
    """Class ids (height, width) for every pixel of the picture."""
    return to_picture_pixels(found.classes, found.placement, found.options.background or 0)


def _regions(found: ClassMap, labels: Labels, limit: int) -> list[Region]:
    left, top, right, bottom = found.covered()
    probabilities = None if found.probabilities is None else found.probabilities[top:bottom, left:right]
    raw = find_regions(found.classes[top:bottom, left:right], probabilities, found.options, limit)
    return [_described(found, each, np.array((left, top)), labels) for each in raw]


def _described(found: ClassMap, raw: RawRegion, origin: NDArray[Any], labels: Labels) -> Region:
    """The region in pixels of the picture; ``origin`` is where its coordinates begin in the map."""
    clipped = found.placement.clipped
    (x0, y0), (x1, y1) = clipped(found.to_picture(raw.box + origin)).round(2).tolist()
    outline = clipped(found.to_picture(raw.outline + origin)).round(2).tolist()
    pixel = np.diff(found.to_picture(np.array([[0, 0], [1, 1]])), axis=0)  # width and height of one of the map
    return Region(
        label=labels[raw.class_id],
        class_id=raw.class_id,
        area=round(float(raw.area * np.prod(pixel)), 1),
        box=Box(x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)),
        polygon=[(x, y) for x, y in outline],
        confidence=None if raw.confidence is None else round(raw.confidence, 4),
    )


def _mask(found: ClassMap, labels: Labels, form: str) -> Mask | None:
    if form == "none":
        return None
    classes = picture_classes(found)
    return as_png(classes) if form == "png" else as_run_lengths(classes, labels, found.options.background)
