"""Which model a request means."""

from __future__ import annotations

from openvino_llama import InvalidInputError, ModelConfig
from openvino_llama.web import Exchange

__all__ = ["choose"]


def choose(exchange: Exchange, name: str | None, *tasks: str) -> ModelConfig:
    """The named model, or the active one; ModelNotFoundError, or InvalidInputError if it is for something else."""
    model = exchange.choose("text", name)
    if model.entry.task not in tasks:
        expected = " or ".join(tasks)
        which = f"{model.name!r}" if name else f"name one; the active one, {model.name!r},"
        raise InvalidInputError(f"model: {which} has the task {model.entry.task!r}, not {expected}")
    return model.serving.config
