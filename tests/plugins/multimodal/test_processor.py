"""What the files of image processors say, in the vision plugin's terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_multimodal.config import MATCH, MultimodalConfig
from openvino_llama_multimodal.processor import preprocessing_of, vision_of
from openvino_llama_vision.config import Interpolation, Normalize, Preprocessing, ResizeMode, VisionConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
NOTHING = VisionConfig()


def config(folder: Path, vision: VisionConfig = NOTHING) -> ModelConfig:
    files = {"model": folder / "openvino_model.xml"}
    return ModelConfig(name="m", type="multimodal", task=MATCH, files=files, config=MultimodalConfig(vision=vision))


def found(folder: Path, described: dict[str, Any], file: str = "preprocessor_config.json") -> VisionConfig:
    (folder / file).write_text(json.dumps(described), "utf-8")
    completed: VisionConfig = vision_of(config(folder)).config
    return completed


def test_clips_first_form(tmp_path: Path) -> None:
    """As OpenAI's models have it: sizes are numbers, and what CLIP always does is not stated."""
    described = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "resample": 3,
        "size": 224,
    }
    assert found(tmp_path, described) == VisionConfig(
        input_shape=(-1, 3, 224, 224),
        layout="NCHW",
        preprocessing=Preprocessing(
            resize=(224, 224),
            mode=ResizeMode.CROP,
            interpolation=Interpolation.BICUBIC,
            normalize=Normalize(CLIP_MEAN, CLIP_STD),
        ),
    )


def test_the_processors_file_of_newer_exports(tmp_path: Path) -> None:
    """It has the same thing as one of its members; the older file wins where both are there."""
    described = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 48, "width": 64}}
    whole = found(tmp_path, {"image_processor": described}, "processor_config.json")
    assert whole.input_shape == (-1, 3, 48, 64)
    assert whole.preprocessing == Preprocessing(interpolation=Interpolation.BICUBIC, normalize=Normalize(HALF, HALF))
    described["size"] = {"height": 32, "width": 32}
    assert found(tmp_path, described).input_shape == (-1, 3, 32, 32)


@pytest.mark.parametrize(
    ("described", "shape", "preprocessing"),
    [
        (
            {"image_processor_type": "CLIPImageProcessorFast"},
            (224, 224),
            Preprocessing((224, 224), ResizeMode.CROP, Interpolation.BICUBIC, normalize=Normalize(CLIP_MEAN, CLIP_STD)),
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "size": 384},
            (384, 384),
            Preprocessing(normalize=Normalize(HALF, HALF)),
        ),
        (
            {"image_processor_type": "DeiTImageProcessorPil", "do_center_crop": False, "size": 384},
            (384, 384),
            Preprocessing(interpolation=Interpolation.BICUBIC, normalize=Normalize(HALF, HALF)),
        ),
        (
            {"image_processor_type": "BlipImageProcessor"},
            (384, 384),
            Preprocessing(interpolation=Interpolation.BICUBIC, normalize=Normalize(CLIP_MEAN, CLIP_STD)),
        ),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": 32},
            (32, 32),
            Preprocessing((40, 40), ResizeMode.CROP, Interpolation.BICUBIC, normalize=Normalize(CLIP_MEAN, CLIP_STD)),
        ),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"height": 224, "width": 224}},
            (224, 224),
            Preprocessing(interpolation=Interpolation.BICUBIC, normalize=Normalize(CLIP_MEAN, CLIP_STD)),
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
            (224, 224),
            Preprocessing(normalize=Normalize()),
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "do_rescale": False},
            (224, 224),
            Preprocessing(normalize=Normalize(HALF, HALF, 1.0)),
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "rescale_factor": 0.0078125},
            (224, 224),
            Preprocessing(normalize=Normalize(HALF, HALF, 128.0)),
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False},
            (224, 224),
            Preprocessing(),
        ),
    ],
)
def test_what_is_not_stated_is_the_kinds_own(
    tmp_path: Path, described: dict[str, Any], shape: tuple[int, int], preprocessing: Preprocessing
) -> None:
    """As transformers' classes have it; members that are null are not stated either."""
    completed = found(tmp_path, described | {"image_mean": None, "crop_size": described.get("crop_size")})
    assert completed.input_shape == (-1, 3, *shape)
    assert completed.preprocessing == preprocessing


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"resample": 1}, "resample", "expected 2 (bilinear) or 3 (bicubic), got 1"),
        ({"do_resize": False}, "do_resize", "expected true, where the centre is cut out, got false"),
        ({"size": {"shortest_edge": 200}}, "size", "got {'shortest_edge': 200}"),
        ({"size": {"shortest_edge": 240, "longest_edge": 300}}, "size", "'longest_edge': 300"),
        ({"size": {"height": 256, "width": 256}}, "size", "expected shortest_edge, at least the 224"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size", "expected height and width in pixels"),
        ({"crop_size": 0}, "crop_size", "expected height and width in pixels"),
        ({"do_center_crop": False}, "size", "expected height and width in pixels, got {'shortest_edge': 224}"),
        ({"rescale_factor": 0}, "rescale_factor", "expected a positive number"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std", "expected numbers that can be divided by"),
        ({"image_processor_type": "Idefics3ImageProcessor"}, "image_processor_type", "got Idefics3"),
        ({"image_processor_type": None}, "image_processor_type", "got none"),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path: Path, fields: dict[str, Any], field: str, message: str) -> None:
    """File and field, and where else it may be said."""
    described = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}
    with pytest.raises(ConfigError) as raised:
        found(tmp_path, described | fields)
    assert str(raised.value).startswith(f"model 'm', file preprocessor_config.json, field '{field}': expected")
    assert message in str(raised.value)
    assert "'config.vision.preprocessing' may state it" in str(raised.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"image_processor_type": "CLIPImageProcessor", "size": "big"}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    """What is wrong with it is msgspec's to say."""
    (tmp_path / "preprocessor_config.json").write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=r"model 'm', file preprocessor_config\.json: "):
        vision_of(config(tmp_path))


def test_no_file_is_an_error_unless_the_registry_speaks(tmp_path: Path) -> None:
    """What the registry states of preprocessing is taken whole, and no file is asked."""
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json beside the model, nor an image_processor"):
        preprocessing_of(config(tmp_path))
    stated = Preprocessing(mode=ResizeMode.LETTERBOX)
    own = VisionConfig(input_shape=(-1, 3, 64, 64), preprocessing=stated)
    completed: VisionConfig = vision_of(config(tmp_path, own)).config
    assert (completed.preprocessing, completed.input_shape) == (stated, (-1, 3, 64, 64))


def test_the_registrys_size_and_layout_win(tmp_path: Path) -> None:
    """The rest is the file's."""
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}', "utf-8")
    own = VisionConfig(input_shape=(-1, 3, 64, 64), layout="NHWC", labels=("a",))
    completed: VisionConfig = vision_of(config(tmp_path, own)).config
    assert (completed.input_shape, completed.layout, completed.labels) == ((-1, 3, 64, 64), "NHWC", ("a",))
    assert completed.preprocessing.normalize == Normalize(HALF, HALF)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    """What lies elsewhere is none of a model's business."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.json").write_text("{}", "utf-8")
    (folder / "preprocessor_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ConfigError, match="a link out of the model's folder"):
        preprocessing_of(config(folder))
