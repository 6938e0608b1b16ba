"""The path of a request: find the model, let its runner work, wait without blocking the event loop.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from openvino_llama.config import ModelType
from openvino_llama.errors import DeadlineExceededError, InvalidInputError, ModelNotFoundError
from openvino_llama.hookspecs import InferenceRequest
from openvino_llama.jobs import Finish
from openvino_llama.models import Model, Models
from openvino_llama.sandbox.deadline import Deadline

__all__ = ["Pipeline", "read_parameters"]

_GRACE_SECONDS = 0.25
"""The watchdog ends a running inference at its deadline; this is what that may take."""


class Pipeline:
    """What serves requests."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def choose(self, model_type: ModelType, name: str | None = None) -> Model:
        """The named model, or the active one of the model type's endpoint."""
        if name is None:
            return self.models.active(model_type.endpoint)
        model = self.models.get(name)
        if model.entry.type != model_type.name:
            raise ModelNotFoundError(f"model {name!r} is of type {model.entry.type!r}, not {model_type.name!r}")
        return model

    async def infer(self, model: Model, request: InferenceRequest, deadline: Deadline, *finish: Finish) -> Any:
        """Preprocess, infer, postprocess and finish on one of the model's workers.

        Raises what went wrong there, QueueFullError or DeadlineExceededError. If the awaiting task is cancelled, the
        request gives its place free.
        """
        runner = model.serving.runner
        job = runner.submit(request, deadline, *finish)
        try:
            async with asyncio.timeout(deadline.remaining() + _GRACE_SECONDS):
                return await asyncio.wrap_future(job.future)
        except (TimeoutError, asyncio.CancelledError) as error:
            runner.cancel(job)
            if isinstance(error, TimeoutError):
                raise DeadlineExceededError(f"model {model.name!r} did not answer in time") from None
            raise


def read_parameters(model_type: ModelType, given: Mapping[str, str]) -> Any:
    """The parameters of a request as the model type's Struct; InvalidInputError names one that is wrong."""
    if model_type.parameters is None:
        if given:
            raise InvalidInputError(f"the endpoint {model_type.endpoint!r} takes no parameters; got {sorted(given)}")
        return None
    try:
        return msgspec.convert(dict(given), model_type.parameters, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"query parameters: {error}") from error
