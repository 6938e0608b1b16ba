"""Class maps in the picture's pixels, and the two ways in which they are written."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openvino_llama_vision.labels import Labels
from openvino_llama_vision.placement import Placement
from openvino_llama_vision.results import ClassRuns, Mask

__all__ = ["as_png", "as_run_lengths", "run_lengths", "to_picture_pixels"]


def to_picture_pixels(class_map: NDArray[Any], placement: Placement, outside: int) -> NDArray[Any]:
    """The map (height, width) of the model's input, at the nearest pixels, in the picture's size.

    What the model has not seen of the picture (a crop) has the class ``outside``.
    """
    rows = _nearest(class_map.shape[0], placement, 1)
    columns = _nearest(class_map.shape[1], placement, 0)
    seen_rows, seen_columns = rows >= 0, columns >= 0
    picture: NDArray[Any] = class_map[np.ix_(rows.clip(0), columns.clip(0))]
    if not (seen_rows.all() and seen_columns.all()):
        picture[~seen_rows] = outside
        picture[:, ~seen_columns] = outside
    return picture


def _nearest(length: int, placement: Placement, axis: int) -> NDArray[np.intp]:
    """For each pixel along one side of the picture (0: x), the map's pixel; -1 where there is none."""
    centres = np.arange(placement.picture[axis]) + 0.5
    on_canvas = centres * placement.resized[axis] / placement.picture[axis] + placement.offset[axis]
    indices = np.floor(on_canvas * length / placement.canvas[axis]).astype(np.intp)
    return np.where((indices >= 0) & (indices < length), indices, -1)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of False and True in turn, column by column, beginning with False (COCO's uncompressed RLE)."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts: list[int] = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def as_run_lengths(class_map: NDArray[Any], labels: Labels, background: int | None) -> Mask:
    """Each class that occurs, but the background and ignored pixels (-1)."""
    present = [each for each in np.unique(class_map).tolist() if each not in (background, -1)]
    runs = [ClassRuns(labels[each], each, run_lengths(class_map == each)) for each in present]
    return Mask("rle", _size(class_map), classes=runs)


def as_png(class_map: NDArray[Any]) -> Mask:
    """A greyscale PNG of class ids: 8 bits, or 16 where they need them. Ignored pixels (-1) have the highest value."""
    highest = int(class_map.max()) + (class_map.min() < 0)
    kind = np.uint8 if highest < 256 else np.uint16
    file = io.BytesIO()
    Image.fromarray(class_map.astype(kind)).save(file, "PNG", compress_level=3)
    return Mask("png", _size(class_map), data=base64.b64encode(file.getvalue()).decode())


def _size(class_map: NDArray[Any]) -> tuple[int, int]:
    return class_map.shape[0], class_map.shape[1]
