"""Which model a request means."""

from __future__ import annotations

import msgspec

from openvino_llama import ModelConfig
from openvino_llama.web import Exchange

__all__ = ["choose"]


def choose(exchange: Exchange, name: str | None, kind: type[msgspec.Struct]) -> ModelConfig:
    """The named model, or an active one, of any plugin that answers such requests.

    ModelNotFoundError if there is none, InvalidInputError if it is for something else.
    """
    return exchange.choose_for(kind, name, first="text").serving.config
