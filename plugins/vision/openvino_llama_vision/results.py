"""What answers are made of. Coordinates are pixels of the picture that was sent, as it is displayed (after EXIF
rotation): x to the right and y down from its upper left corner, clipped to it.
"""

from __future__ import annotations

import msgspec

__all__ = ["Box", "ClassRuns", "Classification", "Detection", "Keypoint", "Mask", "Region", "SegmentationResult"]


class Classification(msgspec.Struct, frozen=True):
    """One class that the picture may show."""

    label: str
    confidence: float
    """0..1"""
    class_id: int


class Box(msgspec.Struct, frozen=True):
    """A rectangle by its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float


class Keypoint(msgspec.Struct, frozen=True):
    """A named point of an object."""

    label: str
    x: float
    y: float


class Detection(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object in the picture."""

    label: str
    confidence: float
    class_id: int
    box: Box
    keypoints: tuple[Keypoint, ...] = ()


class Region(msgspec.Struct, frozen=True, omit_defaults=True):
    """One connected area of a class."""

    label: str
    class_id: int
    area: float
    """Pixels of the picture."""
    box: Box
    polygon: list[tuple[float, float]]
    """Outer outline as (x, y) corners, not closed; holes are not in it."""
    confidence: float | None = None
    """Mean probability, where the model gives probabilities."""


class ClassRuns(msgspec.Struct, frozen=True):
    """One class's pixels as run lengths."""

    label: str
    class_id: int
    counts: list[int]
    """As in COCO's uncompressed RLE: lengths of runs of 0 and 1 in turn, column by column, beginning with 0."""


class Mask(msgspec.Struct, frozen=True, omit_defaults=True):
    """The class of every pixel of the picture."""

    format: str
    """``rle`` or ``png``."""
    size: tuple[int, int]
    """Height and width, those of the picture."""
    classes: list[ClassRuns] | None = None
    """For ``rle``."""
    data: str | None = None
    """For ``png``: the file in base64, greyscale, each pixel's value being its class id (probability maps: 1)."""


class SegmentationResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """``results`` of a segmentation model."""

    regions: list[Region]
    """The largest first."""
    mask: Mask | None = None
