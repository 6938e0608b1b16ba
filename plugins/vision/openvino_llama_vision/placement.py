"""Where a picture lies in the model's input, and the way back. Knows nothing of pixels' values."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama_vision.config import Preprocessing, ResizeMode

__all__ = ["Placement", "dynamic_size", "place"]

Size = tuple[int, int]
"""Width and height in pixels."""


class Placement(msgspec.Struct, frozen=True):
    """A picture of size ``picture``, resized to ``resized``, lies with its upper left corner at ``offset`` of a
    canvas (the model's input) of size ``canvas``. All are (x, y) pairs in pixels; a negative offset is cut off.
    """

    picture: Size
    canvas: Size
    resized: Size
    offset: Size = (0, 0)

    @property
    def visible(self) -> tuple[int, int, int, int]:
        """The part of the canvas that the picture covers: left, top, right, bottom."""
        (x, y), (width, height) = self.offset, self.resized
        return max(x, 0), max(y, 0), min(x + width, self.canvas[0]), min(y + height, self.canvas[1])

    def to_picture(self, points: NDArray[Any], canvas: Size | None = None) -> NDArray[np.float64]:
        """Points (..., 2) of the canvas, as x and y, in pixels of the picture.

        ``canvas`` is the size in which the points are expressed, if it is not the canvas's own: (1, 1) for 0..1, or the
        size of a map that the model gives.
        """
        unit = _ratio(self.canvas, canvas or self.canvas)
        return np.asarray((points * unit - self.offset) * _ratio(self.picture, self.resized), dtype=np.float64)

    def clipped(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Points (..., 2) of the picture, moved to its edge where they lie outside."""
        return np.asarray(np.clip(points, 0.0, self.picture), dtype=np.float64)


def place(picture: Size, canvas: Size, preprocessing: Preprocessing) -> Placement:
    """Where a picture goes on a canvas."""
    if preprocessing.mode is ResizeMode.STRETCH:
        return Placement(picture, canvas, canvas)
    ratios = (canvas[0] / picture[0], canvas[1] / picture[1])
    if preprocessing.mode is ResizeMode.LETTERBOX:
        scale = min(ratios)
        resized = (min(_sized(picture[0], scale), canvas[0]), min(_sized(picture[1], scale), canvas[1]))
    else:
        resized = _covering(picture, canvas, min(preprocessing.resize or canvas))
    return Placement(picture, canvas, resized, (_centred(canvas[0], resized[0]), _centred(canvas[1], resized[1])))


def _covering(picture: Size, canvas: Size, short_side: int) -> Size:
    """The size of a picture whose short side has that length, or more if it would not cover the canvas.

    The other side is rounded down, as in torchvision and transformers.
    """
    sides = ((canvas[0], picture[0]), (canvas[1], picture[1]), (short_side, min(picture)))
    wanted, has = max(sides, key=lambda each: each[0] / each[1])
    return max(picture[0] * wanted // has, canvas[0]), max(picture[1] * wanted // has, canvas[1])


def dynamic_size(picture: Size, preprocessing: Preprocessing) -> Size:
    """The size of the canvas where the model leaves it open."""
    scale = max(1.0, preprocessing.min_side / min(picture))
    scale = min(scale, preprocessing.max_side / max(picture))
    step = preprocessing.multiple_of

    def rounded(side: int) -> int:
        return max(step, round(side * scale / step) * step)

    return rounded(picture[0]), rounded(picture[1])


def _ratio(size: Size, other: Size) -> NDArray[np.float64]:
    return np.array((size[0] / other[0], size[1] / other[1]))  # np.divide is three times slower


def _sized(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _centred(canvas: int, resized: int) -> int:
    """Offset of a side; what is cut off is rounded down at the upper left, as is what is padded."""
    return (canvas - resized) // 2 if canvas >= resized else -((resized - canvas) // 2)
