"""The hooks of the vision plugin: images in, classes, objects or regions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import InferenceRequest, ModelConfig, ModelType, Preprocessed, Reply, hookimpl
from openvino_llama_vision.classification import classify
from openvino_llama_vision.config import VisionConfig, VisionParameters
from openvino_llama_vision.detection import detect
from openvino_llama_vision.drawing import draw_classes, draw_detections, draw_regions, png
from openvino_llama_vision.images import MEDIA_TYPES, open_picture
from openvino_llama_vision.parameters import check_parameters
from openvino_llama_vision.pixels import input_plan
from openvino_llama_vision.placement import Placement
from openvino_llama_vision.segmentation import picture_classes, read_map, segment
from openvino_llama_vision.validation import validate

if TYPE_CHECKING:
    import openvino as ov

OPENVINO_LLAMA_API = 1

_PNG = "image/png"
_NO_PARAMETERS = VisionParameters()


class Context(msgspec.Struct, frozen=True):
    """What postprocess needs to know of a request."""

    parameters: VisionParameters
    placement: Placement
    picture: Image.Image | None
    """The whole picture, where the answer is drawn over it."""


@hookimpl
def model_types() -> Sequence[ModelType]:
    """``vision``, served as ``POST /infer/image``."""
    return [
        ModelType(
            name="vision",
            config=VisionConfig,
            tasks=("classification", "detection", "segmentation"),
            endpoint="image",
            accepts=MEDIA_TYPES,
            produces=("application/json", _PNG),
            parameters=VisionParameters,
        )
    ]


@hookimpl
def model_index() -> Path:
    """The models that ``ovllama pull`` can fetch for this plugin."""
    return Path(__file__).with_name("index.json")


@hookimpl
def prepare_model(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Fuse the conversion of pixels, and the reduction of outputs, into the graph."""
    from openvino_llama_vision.graph import prepare

    return prepare(config, model)


@hookimpl
def validate_model(config: ModelConfig) -> None:
    """Refuse a model whose outputs, labels or anchors do not fit."""
    validate(config)


@hookimpl
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    """Decode the picture and bring it to the model's size."""
    parameters = request.parameters or _NO_PARAMETERS
    check_parameters(config, parameters)
    plan = input_plan(config)
    opened = open_picture(request.body, request.media_type, plan.max_pixels)
    placement = plan.place(opened.size)
    drawn = request.produces == _PNG
    image = opened.decode(None if drawn else placement.resized)
    context = Context(parameters, placement, image if drawn else None)
    return Preprocessed({plan.name: plan.render(image, placement)}, context)


@hookimpl
def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Context) -> Any:
    """Name what the model has found, in pixels of the picture that was sent."""
    return _TASKS[config.task](config, outputs, context)


def _classification(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Context) -> Any:
    results = classify(config, _first(outputs), context.parameters)
    return results if context.picture is None else _drawn(draw_classes(context.picture, results))


def _detection(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Context) -> Any:
    results = detect(config, outputs, context.parameters, context.placement)
    return results if context.picture is None else _drawn(draw_detections(context.picture, results))


def _segmentation(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Context) -> Any:
    results = segment(config, _first(outputs), context.parameters, context.placement)
    if context.picture is None:
        return results
    found = read_map(config, _first(outputs), context.parameters.threshold, context.placement)
    drawing = draw_regions(context.picture, picture_classes(found), results.regions, found.options.background)
    return _drawn(drawing)


_TASKS = {"classification": _classification, "detection": _detection, "segmentation": _segmentation}


def _first(outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return next(iter(outputs.values()))


def _drawn(image: Image.Image) -> Reply:
    return Reply(png(image), _PNG)
