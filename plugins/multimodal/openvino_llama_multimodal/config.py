"""What a registry says of a multimodal model. What it does not state is read from the files beside the model.

The two halves are the vision and the text plugin's own; here is only what puts them together.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec

from openvino_llama import ConfigError, ModelConfig, per_model
from openvino_llama_text.config import TextConfig
from openvino_llama_vision.config import VisionConfig

__all__ = ["DESCRIBE", "MATCH", "Fusion", "MultimodalConfig", "fusion_of", "text_half", "vision_half"]

DESCRIBE = "vision_language"
"""Task of models that answer in words."""
MATCH = "zero_shot_classification"
"""Task of models that tell how well texts fit a picture."""


class Fusion(Enum):
    """Where picture and text meet."""

    EARLY = "early"
    """Image embeddings stand among the tokens' (LLaVA and its kin)."""
    LATE = "late"
    """Two encoders, whose vectors are compared (CLIP and its kin)."""
    CROSS_ATTENTION = "cross_attention"
    """A text decoder attends to what an image encoder gives (TrOCR, ViT-GPT2 and their kin)."""


class MultimodalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``config`` of a registry entry of type ``multimodal``."""

    vision: VisionConfig = VisionConfig()
    """How pictures come to the model. Early fusion uses of its ``preprocessing`` no more than ``max_side``: the rest is
    read from the model's own files."""
    text: TextConfig = TextConfig()
    fusion: Fusion | None = None
    """None is what the model's files and task say."""
    max_images: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Pictures that a request of early fusion may have; the others take one."""


@per_model
def fusion_of(config: ModelConfig) -> Fusion:
    """How a model puts picture and text together; ConfigError if its task is another one's."""
    stated: Fusion | None = config.config.fusion
    found = stated or _by_files(config.files["model"])
    if (found is Fusion.LATE) != (config.task == MATCH):
        expected = MATCH if found is Fusion.LATE else DESCRIBE
        raise ConfigError(
            f"model {config.name!r}, field 'task': a model of the fusion {found.value!r} has the task {expected!r}, "
            f"not {config.task!r}"
        )
    return found


@per_model
def text_half(config: ModelConfig) -> ModelConfig:
    """The same model as the text plugin knows models."""
    return msgspec.structs.replace(config, config=config.config.text)


@per_model
def vision_half(config: ModelConfig) -> ModelConfig:
    """The same model as the vision plugin knows models."""
    return msgspec.structs.replace(config, config=config.config.vision)


def _by_files(model: Path) -> Fusion:
    """By the names that optimum gives a model's graphs."""
    if model.name == "openvino_language_model.xml":
        return Fusion.EARLY
    if model.name == "openvino_encoder_model.xml":
        return Fusion.CROSS_ATTENTION
    return Fusion.LATE
