"""One inference without a server: the same plugins, sandbox and runner, no HTTP."""

from __future__ import annotations

import mimetypes
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from openvino_llama.config import ModelType
from openvino_llama.errors import InvalidInputError, ModelNotFoundError, NotAcceptableError, UnsupportedMediaTypeError
from openvino_llama.hookspecs import InferenceRequest, Reply
from openvino_llama.jobs import Job
from openvino_llama.models import open_models
from openvino_llama.observer import SilentObserver
from openvino_llama.pipeline import read_parameters
from openvino_llama.plugins import load_plugins
from openvino_llama.registry import locate, read_registry
from openvino_llama.sandbox.deadline import Deadline

if TYPE_CHECKING:
    from openvino_llama.server.settings import Settings

__all__ = ["infer_file"]


def infer_file(
    settings: Settings,
    name: str,
    file: Path,
    parameters: Mapping[str, str],
    *,
    media_type: str | None = None,
    accept: str | None = None,
) -> bytes:
    """Run the registry's model over a file (``-`` is stdin); the answer is JSON or of the type that was asked for."""
    registry = read_registry(settings.registry)
    if name in registry.problems:
        raise ModelNotFoundError(registry.problems[name])
    if name not in registry.entries:
        known = ", ".join(registry.entries) or "none"
        raise ModelNotFoundError(f"the registry {registry.path} has no model {name!r}; it has {known}")
    entry = registry.entries[name]
    plugins = load_plugins(settings.disabled_plugins)
    request = _request(plugins.model_type(entry.type), file, parameters, media_type, accept)
    with open_models(plugins, SilentObserver(), settings.cache_dir, settings.model_defaults()) as models:
        model = models.load(name, entry, partial(locate, registry=settings.registry))
        job = model.serving.runner.submit(Job(request, Deadline(entry.limits.deadline_s)))
        result = job.future.result()
    if isinstance(result, Reply):
        return result.body
    return msgspec.json.encode({"model_type": entry.type, "task": entry.task, "results": result}) + b"\n"


def _request(
    model_type: ModelType, file: Path, parameters: Mapping[str, str], media_type: str | None, accept: str | None
) -> InferenceRequest:
    media_type = media_type or mimetypes.guess_type(file.name)[0] or ""
    if media_type not in model_type.accepts:
        expected = ", ".join(model_type.accepts)
        raise UnsupportedMediaTypeError(f"{file.name} is {media_type or 'of an unknown type'}; expected {expected}")
    if accept and accept not in model_type.produces:
        raise NotAcceptableError(f"--accept: expected one of {', '.join(model_type.produces)}; got {accept!r}")
    body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    if not body:
        raise InvalidInputError(f"{file.name} is empty")
    values = read_parameters(model_type, parameters)
    return InferenceRequest(body, media_type, values, accept or model_type.produces[0])
