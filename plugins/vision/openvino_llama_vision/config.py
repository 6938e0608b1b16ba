"""What a registry states of a vision model, and what a request may ask of one.

Only declared here: what the fields do stands beside them, the code that does it is elsewhere. Sizes are in pixels;
pairs of sizes are (height, width), like ``input_shape``.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import msgspec

from openvino_llama import DYNAMIC

__all__ = [
    "BlazeFace",
    "ChannelOrder",
    "Decoder",
    "Interpolation",
    "Normalize",
    "Preprocessing",
    "ResizeMode",
    "Segmentation",
    "Ssd",
    "VisionConfig",
    "VisionParameters",
    "Yolo",
    "YoloNms",
]

Positive = Annotated[int, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ResizeMode(Enum):
    """How a picture comes to the model's size."""

    STRETCH = "stretch"
    """Both sides on their own; the aspect ratio is lost."""
    CROP = "crop"
    """Until the short side fits, then the centre is cut out."""
    LETTERBOX = "letterbox"
    """Until the long side fits; the rest is padded on both sides."""


class Interpolation(Enum):
    """How pixels between pixels are computed."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class ChannelOrder(Enum):
    """The order of colours that the model was trained with."""

    RGB = "RGB"
    BGR = "BGR"


class Normalize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``(pixel / scale - mean) / std`` for each channel, in the model's channel order."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    """What pixels are divided by first: 255 puts them into 0..1, where mean and std are customarily stated."""

    def __post_init__(self) -> None:
        if self.scale == 0 or 0 in self.std:
            raise ValueError("neither scale nor std may be 0: pixels are divided by them")


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From the picture that was sent to the model's pixels."""

    resize: tuple[Positive, Positive] | None = None
    """Height and width to resize to: the model's own, or what it leaves open. For ``crop``: before the centre is cut
    out, its smaller number being the short side. It need not be stated where the model's own size is meant."""
    mode: ResizeMode = ResizeMode.STRETCH
    interpolation: Interpolation = Interpolation.BILINEAR
    antialias: bool = True
    """Whether all pixels of a picture that shrinks count (as in Pillow), or only the nearest (as in OpenCV)."""
    normalize: Normalize | None = None
    """None gives the model pixels of 0..255. Not applied to models that take u8: theirs is inside."""
    channel_order: ChannelOrder = ChannelOrder.RGB
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    """Grey level around a letterboxed picture."""
    multiple_of: Positive = 32
    """Models of dynamic size: the sides are multiples of this."""
    min_side: Positive = 1
    """Models of dynamic size: smaller pictures are enlarged until their short side has this size."""
    max_side: Positive = 1280
    """Models of dynamic size: larger pictures are made smaller until their long side has this size."""


class Ssd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="ssd"):
    """OpenVINO's DetectionOutput, (1, 1, boxes, 7): image, class, score, x0, y0, x1, y1 in 0..1."""

    score_threshold: Fraction = 0.5


class Yolo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="yolo"):
    """YOLOv8 and its kin, (batch, 4 + classes, boxes): centre x, centre y, width, height, a score for each class."""

    score_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.45
    objectness: bool = False
    """Whether a score for "any object" stands between the box and the classes (YOLOv5)."""
    normalized: bool = False
    """Whether boxes are in 0..1 and not in pixels of the model's input."""


class YoloNms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="yolo_nms"):
    """YOLO whose suppression is inside, (batch, boxes, 6): x0, y0, x1, y1, score, class (YOLOv10; ``nms=True``)."""

    score_threshold: Fraction = 0.25
    normalized: bool = False
    """As for ``yolo``."""


class BlazeFace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="blazeface"):
    """MediaPipe's face detectors, (batch, anchors, 16) and (batch, anchors, 1); options of its SsdAnchorsCalculator."""

    score_threshold: Fraction = 0.5
    iou_threshold: Fraction = 0.3
    strides: tuple[Positive, ...] | None = None
    """One for each layer; None is that of MediaPipe's own model of this input size (128, 192 or 256)."""
    interpolated_scale_aspect_ratio: float | None = None
    """1 gives a cell two anchors for each layer, 0 one; None as for ``strides``."""
    anchor_offset: tuple[float, float] = (0.5, 0.5)
    """Where in its cell an anchor lies, as (x, y)."""
    weighted: bool = True
    """Whether overlapping boxes are averaged by their scores, or all but the best dropped."""
    keypoints: tuple[str, ...] = (
        "right_eye",
        "left_eye",
        "nose_tip",
        "mouth_center",
        "right_ear_tragion",
        "left_ear_tragion",
    )


Decoder = Ssd | Yolo | YoloNms | BlazeFace


class Segmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a map of classes or probabilities to regions."""

    threshold: Fraction = 0.5
    """Probability maps: from which probability on a pixel belongs to a region."""
    min_area: Annotated[int, msgspec.Meta(ge=0)] = 16
    """Regions of fewer pixels of the model's map are dropped."""
    background: int | None = 0
    """Class that is no region, as are negative ids; None if every class is one. Probability maps have no such class."""
    unclip_ratio: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Text detectors (DB) mark only the core of a line: each region grows by area * ratio / perimeter."""
    min_confidence: Fraction = 0.0
    """Probability maps: regions whose mean probability is lower are dropped."""


class VisionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``config`` of a registry entry of type ``vision``."""

    input_shape: tuple[int, int, int, int] | None = None
    """[N, C, H, W] whatever the model's own layout; -1 is dynamic. Fixes the H and W that the model leaves open."""
    output_classes: Positive | None = None
    preprocessing: Preprocessing = Preprocessing()
    layout: Literal["NCHW", "NHWC"] | None = None
    """The model's own; None deduces it from the dimension of 3 or 1."""
    labels: tuple[str, ...] | None = None
    """Names by class id; otherwise the lines of the file with the role ``labels``, otherwise the ids."""
    logits: Literal["auto"] | bool = "auto"
    """Whether scores still need softmax (classes) or sigmoid (one map); ``auto`` looks at the graph's end."""
    top_k: Positive = 5
    decoder: Decoder | None = None
    """Detection; None deduces its type from the shapes of the outputs."""
    segmentation: Segmentation = Segmentation()

    def __post_init__(self) -> None:
        for size in self.input_shape or ():
            if size < DYNAMIC or size == 0:
                raise ValueError(f"a size in input_shape is -1 (dynamic) or positive, not {size}")


class VisionParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of ``POST /infer/image``; ``parameters`` knows which of them a task takes."""

    top_k: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    """Classification: how many classes; the model's ``top_k`` where nothing is stated."""
    threshold: Fraction | None = None
    """Results of a lower confidence are left out; for probability maps, pixels of a lower probability."""
    max_results: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    """Detection and segmentation: how many boxes or regions at most, the best or largest first."""
    mask: Literal["none", "rle", "png"] = "none"
    """Segmentation: whether the mask of the whole picture comes along, and how it is written."""
