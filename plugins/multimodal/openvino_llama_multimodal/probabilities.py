"""Probabilities of logits, without overflow. Knows nothing of what they are the probabilities of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["sigmoid", "softmax"]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of things that exclude each other: they sum to 1."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of things that do not: each 0 to 1."""
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))
