"""A plugin for tests: a model type whose requests say themselves what is to go wrong, and where.

The body is JSON: ``{"x": [[1, 2, 3, 4]]}``; ``sleep``: seconds that preprocess takes; ``gate``: the name of a gate
that preprocess waits for; ``raises``: the name of an exception, ``where``: the hook that raises it; ``reply``: the
answer is no JSON.
"""

from __future__ import annotations

import builtins
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import (
    InferenceRequest,
    InvalidInputError,
    ModelConfig,
    ModelType,
    Preprocessed,
    Reply,
    hookimpl,
)

OPENVINO_LLAMA_API = 1


class TinyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an entry states."""

    refuse: str = ""
    """The exception that validate_model raises."""
    prepare_seconds: float = 0.0
    """What prepare_model takes."""
    guest: str = ""
    """A guest of its own, as hexadecimal digits."""


class TinyParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the query may ask."""

    digits: int = 6


class Gates:
    """Named events: a request that waits for one tells that it has come to it."""

    def __init__(self) -> None:
        self.opened: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self.reached: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))

    def wait(self, name: str) -> None:
        """Wait until the gate is open."""
        self.reached[name].release()
        assert self.opened[name].wait(20), f"nobody opened the gate {name}"

    def open(self, name: str) -> None:
        """Let everybody pass from now on."""
        self.opened[name].set()

    def await_waiting(self, name: str, count: int = 1) -> None:
        """Return when so many requests have come to the gate."""
        for _ in range(count):
            assert self.reached[name].acquire(timeout=20), f"nobody came to the gate {name}"


GATES = Gates()
TOLD: list[tuple[str, str]] = []
"""What the life-cycle hooks were told: (hook, model)."""


@hookimpl
def model_types() -> Sequence[ModelType]:
    return [
        ModelType(
            name="tiny",
            config=TinyConfig,
            tasks=("double",),
            endpoint="tiny",
            accepts=("application/json", "multipart/form-data"),
            produces=("application/json", "text/plain"),
            parameters=TinyParameters,
        )
    ]


@hookimpl
def prepare_model(config: ModelConfig, model: Any) -> Any:
    time.sleep(config.config.prepare_seconds)


@hookimpl
def validate_model(config: ModelConfig) -> None:
    if config.config.refuse:
        _raise(config.config.refuse)


@hookimpl
def inferencer_module(config: ModelConfig) -> bytes | None:
    return bytes.fromhex(config.config.guest) or None


@hookimpl
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    content = request.parts[0].body if request.parts else request.body
    try:
        asked = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        raise InvalidInputError("the body is not a JSON object") from None
    if "gate" in asked:
        GATES.wait(asked["gate"])
    time.sleep(asked.get("sleep", 0))
    if "raises" in asked and asked.get("where", "preprocess") == "preprocess":
        _raise(asked["raises"])
    try:
        array = np.array(asked.get("x", [[0.0]]), dtype=np.float32)
    except ValueError:
        raise InvalidInputError("field 'x': expected rows of numbers of one length") from None
    asked["digits"] = request.parameters.digits if request.parameters else 6
    asked["produces"] = request.produces
    if asked.get("returns") == "nothing":
        return None  # type: ignore[return-value]
    return Preprocessed({spec.name: array for spec in config.input_specs()}, asked)


@hookimpl
def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
    if "raises" in context and context.get("where") == "postprocess":
        _raise(context["raises"])
    if context.get("where") == "encode":
        return {"y": object()}
    values = {name: np.round(array, context["digits"]).tolist() for name, array in outputs.items()}
    if context["produces"] == "text/plain":
        return Reply(str(values).encode(), "text/plain")
    return values


@hookimpl
def model_loaded(config: ModelConfig) -> None:
    TOLD.append(("loaded", config.name))


@hookimpl
def model_activated(config: ModelConfig, endpoint: str) -> None:
    TOLD.append(("activated", config.name))


@hookimpl
def model_unloaded(config: ModelConfig) -> None:
    TOLD.append(("unloaded", config.name))


def _raise(name: str) -> None:
    import asyncio

    from openvino_llama import errors

    kind = getattr(builtins, name, None) or getattr(errors, name, None) or getattr(asyncio, name)
    raise kind(f"{name} of /a/secret/path at 0xdeadbeef")
