"""From scores to named classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama import ModelConfig
from openvino_llama_vision.config import VisionParameters
from openvino_llama_vision.labels import labels_of
from openvino_llama_vision.results import Classification

__all__ = ["classify"]


def classify(config: ModelConfig, scores: NDArray[Any], parameters: VisionParameters) -> list[Classification]:
    """The best classes, best first; of equal ones, the lower id.

    ``scores``: (1, classes) probabilities, u8 ones being 255ths.
    """
    flat = scores.reshape(-1)
    labels = labels_of(config)
    unit = 255 if flat.dtype == np.uint8 else 1
    best = _top(flat, parameters.top_k or config.config.top_k)
    least = parameters.threshold or 0.0
    return [
        Classification(labels[class_id], round(float(flat[class_id]) / unit, 6), class_id)
        for class_id in best.tolist()
        if flat[class_id] >= least * unit
    ]


def _top(scores: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Indices of the highest, highest first, without sorting all."""
    count = min(count, scores.size)
    least = np.partition(scores, scores.size - count)[scores.size - count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.lexsort((candidates, -scores[candidates].astype(np.float64)))][:count]
