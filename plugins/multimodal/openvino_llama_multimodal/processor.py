"""What the image processor's file beside a model says: how pictures come to the model's size, and what is made of them.

That is ``preprocessor_config.json``, or the member ``image_processor`` of ``processor_config.json``, as transformers
writes them. Knows nothing of pixels: what it finds is stated in the vision plugin's terms, and done there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from openvino_llama import DYNAMIC, ConfigError, ModelConfig, per_model
from openvino_llama_multimodal.config import vision_half
from openvino_llama_text.files import read_text
from openvino_llama_vision.config import Interpolation, Normalize, Preprocessing, ResizeMode, VisionConfig

__all__ = ["preprocessing_of", "vision_of"]

_FILES = ("preprocessor_config.json", "processor_config.json")
_INTERPOLATIONS = {2: Interpolation.BILINEAR, 3: Interpolation.BICUBIC}  # by Pillow's numbers

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CLIP: dict[str, Any] = {"resample": 3, "do_center_crop": True, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD}
_KINDS: dict[str, dict[str, Any]] = {
    "CLIP": _CLIP | {"default_to_square": False},
    "Blip": _CLIP | {"size": {"height": 384, "width": 384}, "do_center_crop": False},
    "DeiT": {"resample": 3, "size": {"height": 256, "width": 256}, "do_center_crop": True},
    "Siglip": {"resample": 3},
    "ViT": {},
}
"""What the kinds that are known here do where their files say nothing, as far as it differs from ``_Processor``."""

_ENDINGS = ("Pil", "Fast", "ImageProcessor", "FeatureExtractor")


class _Size(msgspec.Struct, frozen=True):
    """In pixels."""

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None


class _Kind(msgspec.Struct, frozen=True):
    """What a file says of its own kind."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None


class _Processor(msgspec.Struct, frozen=True):
    """The fields that count, and what they are for most kinds where they are not stated."""

    size: int | _Size = 224
    default_to_square: bool = True
    """Whether a size that is a number is that of both sides, or of the short one."""
    crop_size: int | _Size = 224
    do_resize: bool = True
    do_center_crop: bool = False
    do_rescale: bool = True
    do_normalize: bool = True
    resample: int = 2
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)


@per_model
def vision_of(config: ModelConfig) -> ModelConfig:
    """The model as the vision plugin knows models, completed by what the processor's file says.

    What the registry states in ``config.vision`` wins; ``preprocessing``, where it is stated, as a whole. ConfigError
    names the file and the field that cannot be honoured; a file is missing only if the registry states nothing.
    """
    half = vision_half(config)
    stated: VisionConfig = half.config
    completed: dict[str, Any] = {"layout": stated.layout or "NCHW"}
    if stated.preprocessing == Preprocessing():
        completed |= _found(config)
    if stated.input_shape is not None:
        completed["input_shape"] = stated.input_shape
    return msgspec.structs.replace(half, config=msgspec.structs.replace(stated, **completed))


def preprocessing_of(config: ModelConfig) -> Preprocessing:
    """How pictures come to a model; ConfigError as for ``vision_of``."""
    found: Preprocessing = vision_of(config).config.preprocessing
    return found


def _found(config: ModelConfig) -> dict[str, Any]:
    """The fields of VisionConfig that the processor's file settles."""
    for name in _FILES:
        source = read_text(config, name)
        try:
            described = msgspec.json.decode(source or "{}", type=dict[str, Any])
            own = described if name == _FILES[0] else described.get("image_processor")
            if own:
                return _Reading(config, name, own).fields()
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"model {config.name!r}, file {name}: {error}") from error
    raise ConfigError(
        f"model {config.name!r}: no {_FILES[0]} beside the model, nor an image_processor in {_FILES[1]}; without one, "
        "state 'config.vision.preprocessing'"
    )


class _Reading:
    """One processor's file, and the errors in it."""

    def __init__(self, config: ModelConfig, file: str, described: dict[str, Any]) -> None:
        self._model, self._file = config.name, file
        given = {name: value for name, value in described.items() if value is not None}
        self._processor = msgspec.convert(self._defaults(given) | given, _Processor)

    def fields(self) -> dict[str, Any]:
        """The fields of VisionConfig."""
        height, width, short = self._sizes()
        mode = ResizeMode.CROP if short else ResizeMode.STRETCH
        preprocessing = Preprocessing(
            resize=(short, short) if short else None,
            mode=mode,
            interpolation=self._interpolation(),
            normalize=self._normalize(),
        )
        return {"input_shape": (DYNAMIC, 3, height, width), "preprocessing": preprocessing}

    def _defaults(self, given: dict[str, Any]) -> dict[str, Any]:
        kind = msgspec.convert(given, _Kind)
        name = kind.image_processor_type or kind.feature_extractor_type or ""
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        if name not in _KINDS:
            raise self._error("image_processor_type", f"one of the kinds {', '.join(_KINDS)}", name or "none")
        return _KINDS[name]

    def _sizes(self) -> tuple[int, int, int | None]:
        """Height and width of the model's pictures, and the short side before the centre is cut out; None without."""
        processor = self._processor
        if not processor.do_center_crop:
            return *self._sides("size", self._size()), None
        height, width = self._sides("crop_size", processor.crop_size)
        if not processor.do_resize:
            raise self._error("do_resize", "true, where the centre is cut out", "false")
        size = self._size()
        if (size.height, size.width) == (height, width):
            return height, width, None  # nothing is left to be cut off
        if size.shortest_edge is None or size.longest_edge is not None or size.shortest_edge < max(height, width):
            raise self._error("size", f"shortest_edge, at least the {max(height, width)} that is cut out", size)
        return height, width, size.shortest_edge

    def _size(self) -> _Size:
        size = self._processor.size
        if isinstance(size, _Size):
            return size
        return _Size(size, size) if self._processor.default_to_square else _Size(shortest_edge=size)

    def _sides(self, field: str, size: int | _Size) -> tuple[int, int]:
        if isinstance(size, int):
            size = _Size(size, size)
        if not size.height or not size.width or min(size.height, size.width) < 1:
            raise self._error(field, "height and width in pixels", size)
        return size.height, size.width

    def _interpolation(self) -> Interpolation:
        found = _INTERPOLATIONS.get(self._processor.resample)
        if found is None:
            raise self._error("resample", "2 (bilinear) or 3 (bicubic)", self._processor.resample)
        return found

    def _normalize(self) -> Normalize | None:
        processor = self._processor
        if not processor.do_rescale and not processor.do_normalize:
            return None
        if processor.rescale_factor <= 0:
            raise self._error("rescale_factor", "a positive number", processor.rescale_factor)
        if not all(processor.image_std):
            raise self._error("image_std", "numbers that can be divided by", list(processor.image_std))
        scale = 1 / processor.rescale_factor if processor.do_rescale else 1.0
        if not processor.do_normalize:
            return Normalize(scale=scale)
        return Normalize(processor.image_mean, processor.image_std, scale)

    def _error(self, field: str, expected: str, got: object) -> ConfigError:
        if isinstance(got, _Size):
            got = {name: value for name, value in msgspec.structs.asdict(got).items() if value is not None}
        return ConfigError(
            f"model {self._model!r}, file {self._file}, field {field!r}: expected {expected}, got {got}; "
            "'config.vision.preprocessing' may state it in its place"
        )
