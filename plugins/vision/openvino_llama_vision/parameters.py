"""Which of the query parameters concern a model: that is a matter of its task."""

from __future__ import annotations

from openvino_llama import InvalidInputError, ModelConfig
from openvino_llama_vision.config import VisionParameters

__all__ = ["PARAMETERS", "check_parameters"]

PARAMETERS = {
    "classification": ("top_k", "threshold"),
    "detection": ("threshold", "max_results"),
    "segmentation": ("threshold", "max_results", "mask"),
}
"""By task."""
_DEFAULTS = VisionParameters()


def check_parameters(config: ModelConfig, asked: VisionParameters) -> None:
    """Raise InvalidInputError for a parameter of other tasks; its default, which pages fill in, asks for nothing."""
    taken = PARAMETERS[config.task]
    for name in VisionParameters.__struct_fields__:
        if name not in taken and getattr(asked, name) != getattr(_DEFAULTS, name):
            raise InvalidInputError(
                f"query parameters: model {config.name!r} has the task {config.task}, which takes {', '.join(taken)}; "
                f"got {name!r}"
            )
