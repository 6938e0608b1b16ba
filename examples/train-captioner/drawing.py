"""From placed objects to pixels, anti-aliased.

Each shape is a signed distance to its outline, positive inside; a pixel's share of the object is that distance,
clipped, over the softness of the edge. What the objects are called is of no concern here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grammar import Colour, Shape
from layout import Placed

Pixels = NDArray[np.floating[Any]]

# The lowest and highest red, green and blue that go by a colour's name.
PALETTE: dict[Colour, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "red": ((190, 0, 0), (255, 55, 55)),
    "orange": ((235, 118, 0), (255, 165, 45)),
    "yellow": ((235, 212, 0), (255, 255, 90)),
    "green": ((0, 125, 0), (70, 230, 95)),
    "blue": ((0, 0, 185), (65, 105, 255)),
    "purple": ((112, 0, 125), (165, 65, 200)),
    "white": ((238, 238, 238), (255, 255, 255)),
    "black": ((0, 0, 0), (28, 28, 28)),
}
STANDS_OUT = 0.5  # mean distance of an object's colour to what it covers, in units of the RGB cube
LOOKS_ALIKE = 0.28  # a covered pixel this near to the colour may hide the object's outline
MOST_ALIKE = 0.12  # share of such pixels


def colour_of(rng: np.random.Generator, name: Colour) -> np.ndarray:
    """A shade that goes by `name`: `(3,)`, float32 from 0 to 1."""
    low, high = PALETTE[name]
    return (rng.uniform(low, high) / 255).astype(np.float32)


@dataclass(frozen=True)
class Stamp:
    """The part of the picture that an object may cover."""

    rows: slice
    columns: slice
    covered: np.ndarray  # (rows, columns) float32 from 0 to 1: the share of each pixel that is the object's

    def stands_out(self, pixels: np.ndarray, colour: np.ndarray) -> bool:
        """Whether an object of `colour` can be told from the `(side, side, 3)` pixels it is about to cover."""
        difference = pixels[self.rows, self.columns][self.covered > 0.5] - colour
        distance = np.sqrt(np.einsum("pc,pc->p", difference, difference))
        return bool(distance.mean() > STANDS_OUT and (distance < LOOKS_ALIKE).mean() < MOST_ALIKE)

    def paint(self, pixels: np.ndarray, colour: np.ndarray) -> None:
        """Puts the object over the pixels, in place."""
        window = pixels[self.rows, self.columns]
        window += self.covered[..., None] * (colour - window)

    def whole(self, side: int) -> np.ndarray:
        """What is covered of the whole picture, `(side, side)`."""
        covered = np.zeros((side, side), np.float32)
        covered[self.rows, self.columns] = self.covered
        return covered


def stamp(placed: Placed, side: int, softness: float = 1.0) -> Stamp:
    """An object's pixels in a picture of `side`; its edge is `softness` pixels wide."""
    reach = placed.radius * 1.2 + 2 / side
    rows, columns = (slice(max(0, int((c - reach) * side)), int((c + reach) * side) + 1) for c in (placed.y, placed.x))
    middles = (np.arange(side, dtype=np.float32) + 0.5) / side
    y, x = middles[rows, None] - placed.y, middles[None, columns] - placed.x
    cos, sin = np.cos(placed.turn), np.sin(placed.turn)
    inside = _distance(placed.thing.shape, x * cos + y * sin, y * cos - x * sin, placed.radius)
    return Stamp(rows, columns, np.clip(0.5 + inside * side / softness, 0, 1).astype(np.float32))


def _distance(shape: Shape, x: Pixels, y: Pixels, radius: float) -> Pixels:
    """How far inside a shape around the origin the points are (y points down), roughly Euclidean near the outline."""
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return radius - np.hypot(x, y)
    if shape == "square":
        return 0.9 * radius - np.maximum(ax, ay)
    if shape == "cross":
        arm, length = 0.3 * radius, radius
        return np.maximum(np.minimum(arm - ax, length - ay), np.minimum(length - ax, arm - ay))
    slope = float(np.hypot(1.85, 1.0))
    sides: Pixels = np.minimum(0.85 * radius - y, (y + radius - 1.85 * ax) / slope)
    return sides
