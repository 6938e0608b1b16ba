"""What is behind the objects: one colour, noise, or a piece of a photograph.

The photographs are those inside the wheel of scikit-image, so nothing is fetched. Evaluation uses photographs of its
own, which training never sees.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import skimage.data
from PIL import Image

Kind = Literal["plain", "noise", "photograph"]
KINDS: tuple[Kind, ...] = ("plain", "noise", "photograph")
TRAINING_PHOTOGRAPHS = (
    "astronaut", "coffee", "hubble_deep_field", "retina", "immunohistochemistry",
    "camera", "brick", "gravel", "coins", "moon",
)  # fmt: skip
STRANGE_PHOTOGRAPHS = ("chelsea", "rocket", "stereo_motorcycle", "grass")


def background(rng: np.random.Generator, kind: Kind, photographs: tuple[str, ...], side: int) -> np.ndarray:
    """A background of `(side, side, 3)`, float32 from 0 to 1."""
    if kind == "plain":
        return np.broadcast_to(rng.random(3, np.float32), (side, side, 3)).copy()
    if kind == "noise":
        return _noise(rng, side)
    return _crop(rng, photograph(photographs[rng.integers(len(photographs))]), side)


@cache
def photograph(name: str) -> Image.Image:
    """One of scikit-image's own pictures, its shorter side at most 400 pixels."""
    pixels = getattr(skimage.data, name)()
    picture = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")
    scale = min(1.0, 400 / min(picture.size))
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """A colour under grains of two sizes, coloured or grey."""
    pixels = np.broadcast_to(rng.random(3, np.float32), (side, side, 3)).copy()
    for cells in (int(rng.integers(4, 24)), int(rng.integers(32, 97))):
        grain = rng.standard_normal((cells, cells, 3 if rng.random() < 0.7 else 1), np.float32)
        rows = np.arange(side) * cells // side
        pixels += float(rng.uniform(0.02, 0.16)) * grain[rows][:, rows]
    return np.clip(pixels, 0, 1)


def _crop(rng: np.random.Generator, picture: Image.Image, side: int) -> np.ndarray:
    """A square piece, as large as the picture or down to a quarter of it, perhaps mirrored."""
    length = int(min(picture.size) * rng.uniform(0.25, 1))
    left, top = rng.integers(0, picture.width - length + 1), rng.integers(0, picture.height - length + 1)
    box = (int(left), int(top), int(left) + length, int(top) + length)
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box), np.float32) / 255
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    return np.ascontiguousarray(pixels)
