"""The way back from run lengths, as a client would go it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["runs_to_mask"]


def runs_to_mask(counts: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (height, width) of its run lengths."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size, order="F")
