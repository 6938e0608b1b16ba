"""From candidates in the model's input to objects in the picture that was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama import ModelConfig
from openvino_llama_vision.boxes import Candidates
from openvino_llama_vision.config import BlazeFace, VisionParameters
from openvino_llama_vision.decoders import Cut, decoder_of, find
from openvino_llama_vision.labels import labels_of
from openvino_llama_vision.placement import Placement
from openvino_llama_vision.results import Box, Detection, Keypoint

__all__ = ["detect"]


def detect(
    config: ModelConfig, outputs: Mapping[str, NDArray[Any]], parameters: VisionParameters, placement: Placement
) -> list[Detection]:
    """Objects, best first. What lies wholly outside of the picture is dropped, the rest clipped to it."""
    threshold = decoder_of(config).score_threshold if parameters.threshold is None else parameters.threshold
    found = find(config, outputs, Cut(threshold, parameters.max_results, placement.canvas))
    return _described(config, found, placement) if len(found) else []


def _described(config: ModelConfig, found: Candidates, placement: Placement) -> list[Detection]:
    labels = labels_of(config)
    corners = placement.clipped(placement.to_picture(found.boxes.reshape(-1, 2, 2), (1, 1))).round(2).tolist()
    keypoints = _keypoints(config, found, placement)
    return [
        Detection(labels[class_id], round(score, 6), class_id, _box(corners[i]), keypoints[i] if keypoints else ())
        for i, (class_id, score) in enumerate(zip(found.class_ids.tolist(), found.scores.tolist(), strict=True))
        if corners[i][0][0] < corners[i][1][0] and corners[i][0][1] < corners[i][1][1]
    ]


def _box(corners: list[list[float]]) -> Box:
    (x0, y0), (x1, y1) = corners
    return Box(x0, y0, round(x1 - x0, 2), round(y1 - y0, 2))


def _keypoints(config: ModelConfig, found: Candidates, placement: Placement) -> list[tuple[Keypoint, ...]]:
    """Named points; unlike boxes they may lie outside of the picture, where the model supposes them."""
    decoder = decoder_of(config)
    if found.keypoints is None or not isinstance(decoder, BlazeFace):
        return []
    points = np.asarray(placement.to_picture(found.keypoints, (1, 1)).round(2)).tolist()
    return [
        tuple(Keypoint(name, x, y) for name, (x, y) in zip(decoder.keypoints, each, strict=False)) for each in points
    ]
