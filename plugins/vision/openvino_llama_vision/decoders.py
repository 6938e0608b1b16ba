"""From the raw outputs of detection models to candidates in 0..1 of the model's input.

Each decoder first drops what is below the threshold, so that a picture with few objects costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, ModelConfig, per_model
from openvino_llama_vision.anchors import anchors_of
from openvino_llama_vision.boxes import NOTHING, Candidates, blend, suppress
from openvino_llama_vision.config import BlazeFace, Decoder, Ssd, Yolo, YoloNms
from openvino_llama_vision.labels import class_count

__all__ = [
    "Cut",
    "decoder_of",
    "deduced_decoder",
    "find",
    "find_faces",
    "find_ssd",
    "find_yolo",
    "find_yolo_nms",
    "fits",
    "misfit",
]

Outputs = Mapping[str, NDArray[Any]]


class Cut(msgspec.Struct, frozen=True):
    """Which candidates count, and how large the model's input was."""

    threshold: float
    """Lowest score, 0..1."""
    limit: int
    """How many at most."""
    canvas: tuple[int, int]
    """Width and height of the input, in pixels."""


def find(config: ModelConfig, outputs: Outputs, cut: Cut) -> Candidates:
    """Objects in one picture, best first, in 0..1 of the model's input."""
    decoder = decoder_of(config)
    if isinstance(decoder, BlazeFace):
        return find_faces(decoder, anchors_of(config), outputs, cut)
    if isinstance(decoder, Yolo):
        return find_yolo(decoder, outputs, cut)
    if isinstance(decoder, YoloNms):
        return find_yolo_nms(decoder, outputs, cut)
    return find_ssd(outputs, cut)


@per_model
def decoder_of(config: ModelConfig) -> Decoder:
    """The decoder of a model: stated, or deduced from its outputs."""
    shapes = [spec.shape for spec in config.outputs]
    decoder: Decoder | None = config.config.decoder or deduced_decoder(shapes, class_count(config))
    if decoder is None or not fits(decoder, shapes):
        raise misfit(config, shapes)
    return decoder


def deduced_decoder(shapes: Sequence[Sequence[int]], classes: int | None) -> Decoder | None:
    """The decoder that fits outputs of these shapes; None if none does.

    Six numbers for a box are those after a suppression, unless there are two classes: 4 + 2.
    """
    candidates: Sequence[Decoder] = (BlazeFace(), Ssd(), Yolo() if classes == 2 else YoloNms(), Yolo())
    return next((each for each in candidates if fits(each, shapes)), None)


def fits(decoder: Decoder, shapes: Sequence[Sequence[int]]) -> bool:
    """Whether a decoder can read outputs of these shapes."""
    ranks = [len(shape) for shape in shapes]
    if isinstance(decoder, BlazeFace):
        return ranks == [3, 3] and {shape[2] for shape in shapes} == {16, 1}
    if isinstance(decoder, Ssd):
        return ranks == [4] and shapes[0][3] == 7
    if isinstance(decoder, YoloNms):
        return ranks == [3] and shapes[0][2] == 6
    return ranks == [3]


def misfit(config: ModelConfig, shapes: Sequence[Sequence[int]]) -> ConfigError:
    """The error for outputs that the decoder cannot read."""
    stated = config.config.decoder
    tag = "" if stated is None else stated.__struct_config__.tag
    wanted = f"no decoder of type {tag}" if tag else "none of ssd, yolo, yolo_nms and blazeface"
    return ConfigError(
        f"model {config.name!r}, field 'config.decoder': outputs {[list(each) for each in shapes]} fit {wanted}"
    )


def find_ssd(outputs: Outputs, cut: Cut) -> Candidates:
    """Read DetectionOutput's list, which needs no suppression any more."""
    rows = next(iter(outputs.values())).reshape(-1, 7)  # (boxes, image, class, score, x0, y0, x1, y1)
    ends = np.flatnonzero(rows[:, 0] < 0)  # the first image of -1 ends the list
    rows = rows[: ends[0]] if len(ends) else rows
    rows = rows[rows[:, 2] >= cut.threshold]
    found = Candidates(rows[:, 3:7], rows[:, 2], rows[:, 1].astype(np.int64))
    return found.best_first().take(slice(0, cut.limit))


def find_yolo(decoder: Yolo, outputs: Outputs, cut: Cut) -> Candidates:
    """Read (1, 6, boxes), to which the graph has reduced the scores of all classes, and suppress."""
    rows = next(iter(outputs.values()))[0]  # centre x, centre y, width, height, score, class
    rows = rows[:, np.flatnonzero(rows[4] >= cut.threshold)]
    unit = np.array((1, 1) if decoder.normalized else cut.canvas, np.float32)
    centres, halves = rows[0:2].T / unit, rows[2:4].T / unit / 2
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return suppress(Candidates(boxes, rows[4], rows[5].astype(np.int64)), decoder.iou_threshold, cut.limit)


def find_yolo_nms(decoder: YoloNms, outputs: Outputs, cut: Cut) -> Candidates:
    """Read (1, boxes, 6), which needs no suppression any more."""
    rows = next(iter(outputs.values()))[0]  # x0, y0, x1, y1, score, class
    rows = rows[rows[:, 4] >= cut.threshold].astype(np.float32)
    unit = np.array((1, 1) if decoder.normalized else cut.canvas, np.float32)
    found = Candidates(rows[:, :4] / np.tile(unit, 2), rows[:, 4], rows[:, 5].astype(np.int64))
    return found.best_first().take(slice(0, cut.limit))


def find_faces(decoder: BlazeFace, anchors: NDArray[np.float32], outputs: Outputs, cut: Cut) -> Candidates:
    """Read boxes and keypoints relative to their anchors, and average those that overlap."""
    regressors, logits = sorted(outputs.values(), key=lambda each: -each.shape[2])  # (1, anchors, 16), (1, anchors, 1)
    least = _logit(cut.threshold)
    if logits.max() < least:  # most pictures that a camera sends
        return NOTHING
    likely = np.flatnonzero(logits[0, :, 0] >= least)
    points = regressors[0].reshape(regressors.shape[1], -1, 2)[likely] / np.array(cut.canvas, np.float32)
    centres, halves = points[:, 0] + anchors[likely], points[:, 1] / 2
    found = Candidates(
        np.concatenate([centres - halves, centres + halves], axis=1),
        1 / (1 + np.exp(-logits[0, likely, 0])),
        np.zeros(len(likely), np.int64),
        points[:, 2:] + anchors[likely][:, None],
    )
    return (blend if decoder.weighted else suppress)(found, decoder.iou_threshold, cut.limit)


def _logit(probability: float) -> float:
    """What the sigmoid turns into that probability."""
    if probability in (0.0, 1.0):
        return float("inf") if probability else float("-inf")
    return float(np.log(probability / (1 - probability)))
