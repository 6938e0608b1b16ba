"""What a registry says of a multimodal model, and what its files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_multimodal.config import (
    DESCRIBE,
    MATCH,
    Fusion,
    MultimodalConfig,
    fusion_of,
    text_half,
    vision_half,
)
from openvino_llama_text.config import TextConfig
from openvino_llama_vision.config import VisionConfig


def model(graph: str = "openvino_language_model.xml", task: str = DESCRIBE, **stated: Any) -> ModelConfig:
    files = {"model": Path("/models") / graph}
    return ModelConfig(name="m", type="multimodal", task=task, files=files, config=MultimodalConfig(**stated))


def test_nothing_has_to_be_stated() -> None:
    """All of it is in the model's files, or has a default."""
    assert msgspec.convert({}, MultimodalConfig) == MultimodalConfig(VisionConfig(), TextConfig(), None, 8)


def test_the_halves_are_the_other_plugins_own() -> None:
    """As they stand in a registry."""
    stated = {
        "vision": {"preprocessing": {"max_side": 640}},
        "text": {"context_window": 1024, "engine": {"kv_cache_mib": 64}},
        "fusion": "cross_attention",
        "max_images": 2,
    }
    found = msgspec.convert(stated, MultimodalConfig)
    assert (found.vision.preprocessing.max_side, found.text.engine.kv_cache_mib) == (640, 64)
    assert (found.fusion, found.max_images) == (Fusion.CROSS_ATTENTION, 2)
    config = msgspec.structs.replace(model(), config=found)
    assert (text_half(config).config, vision_half(config).config) == (found.text, found.vision)
    assert text_half(config).files == config.files
    assert text_half(config) is text_half(config)


@pytest.mark.parametrize(
    "stated",
    [
        {"fusion": "middle"},
        {"max_images": 0},
        {"max_images": 65},
        {"surprise": 1},
        {"text": {"surprise": 1}},
        {"vision": {"surprise": 1}},
    ],
)
def test_what_is_wrong_is_an_error(stated: dict[str, Any]) -> None:
    """In the halves, too."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(stated, MultimodalConfig)


@pytest.mark.parametrize(
    ("graph", "task", "fusion"),
    [
        ("openvino_language_model.xml", DESCRIBE, Fusion.EARLY),
        ("openvino_encoder_model.xml", DESCRIBE, Fusion.CROSS_ATTENTION),
        ("openvino_model.xml", MATCH, Fusion.LATE),
        ("clip.onnx", MATCH, Fusion.LATE),
    ],
)
def test_the_fusion_by_the_files(graph: str, task: str, fusion: Fusion) -> None:
    """By the names that optimum gives them."""
    assert fusion_of(model(graph, task)) is fusion


def test_what_is_stated_comes_first() -> None:
    """For files that have names of their own."""
    assert fusion_of(model("mine.xml", fusion=Fusion.EARLY)) is Fusion.EARLY


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (model(task=MATCH), "the fusion 'early' has the task 'vision_language', not 'zero_shot_classification'"),
        (
            model("openvino_model.xml"),
            "the fusion 'late' has the task 'zero_shot_classification', not 'vision_language'",
        ),
        (model(task=MATCH, fusion=Fusion.CROSS_ATTENTION), "'cross_attention' has the task 'vision_language'"),
    ],
)
def test_a_task_that_is_another_fusions(config: ModelConfig, expected: str) -> None:
    """Is an error that says which it should be."""
    with pytest.raises(ConfigError, match=rf"^model 'm', field 'task': .*{expected}"):
        fusion_of(config)
