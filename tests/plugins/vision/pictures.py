"""Pictures that scikit-image brings along: those of ``skimage.data``, whose functions have no types."""

from __future__ import annotations

import importlib.resources
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["astronaut", "coffee", "page", "sample"]


def sample(name: str) -> NDArray[np.uint8]:
    """The picture of that name as an array."""
    with importlib.resources.as_file(importlib.resources.files("skimage") / "data" / f"{name}.png") as path:
        return np.asarray(Image.open(path))


astronaut, coffee, page = (partial(sample, name) for name in ("astronaut", "coffee", "page"))
