"""One inference without a server: the same plugins, sandbox and runner, no HTTP."""

from __future__ import annotations

import mimetypes
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from openvino_llama.cli.registry import open_registry
from openvino_llama.config import ModelType
from openvino_llama.errors import InvalidInputError, ModelNotFoundError, NotAcceptableError, UnsupportedMediaTypeError
from openvino_llama.hookspecs import InferenceRequest, Part, Reply
from openvino_llama.jobs import Job
from openvino_llama.models import open_models
from openvino_llama.observer import SilentObserver
from openvino_llama.pipeline import read_parameters, told_apart
from openvino_llama.plugins import load_plugins
from openvino_llama.registry import locate
from openvino_llama.sandbox.deadline import Deadline

if TYPE_CHECKING:
    from openvino_llama.server.settings import Settings

__all__ = ["infer_once"]

PLAIN = "text/plain"


def infer_once(
    settings: Settings,
    name: str,
    given: str,
    parameters: Mapping[str, str],
    *,
    media_type: str | None = None,
    accept: str | None = None,
) -> bytes:
    """Run the registry's model over a file (``-`` is stdin), or over a text if there is no such file.

    The answer is JSON or of the type that was asked for.
    """
    registry = open_registry(settings.registry)
    if name in registry.problems:
        raise ModelNotFoundError(registry.problems[name])
    if name not in registry.entries:
        known = ", ".join(registry.entries) or "none"
        raise ModelNotFoundError(f"the registry {registry.path} has no model {name!r}; it has {known}")
    entry = registry.entries[name]
    plugins = load_plugins(settings.disabled_plugins)
    request = _request(plugins.model_type(entry.type), given, parameters, media_type, accept)
    with open_models(plugins, SilentObserver(), settings.cache_dir, settings.model_defaults()) as models:
        model = models.load(name, entry, partial(locate, registry=settings.registry))
        job = model.serving.runner.submit(Job(request, Deadline(entry.limits.deadline_s)))
        result = job.future.result()
    if isinstance(result, Reply):
        return result.body
    return msgspec.json.encode({"model_type": entry.type, "task": entry.task, "results": result}) + b"\n"


def _request(
    model_type: ModelType, given: str, parameters: Mapping[str, str], media_type: str | None, accept: str | None
) -> InferenceRequest:
    file = Path(given)
    is_text = given != "-" and PLAIN in model_type.accepts and not _is_file(file)
    if not is_text:
        click.Path(exists=True, dir_okay=False, allow_dash=True).convert(given, None, None)
    if model_type.parts:
        return _in_parts(model_type, file, parameters, media_type or mimetypes.guess_type(file.name)[0])
    media_type = media_type or (PLAIN if is_text else mimetypes.guess_type(file.name)[0] or "")
    if media_type not in model_type.accepts:
        expected = ", ".join(model_type.accepts)
        raise UnsupportedMediaTypeError(f"{file.name} is {media_type or 'of an unknown type'}; expected {expected}")
    if accept and accept not in model_type.produces:
        raise NotAcceptableError(f"--accept: expected one of {', '.join(model_type.produces)}; got {accept!r}")
    body = given.encode("utf-8", "surrogateescape") if is_text else _content(file)
    if not body:
        raise InvalidInputError(f"{given or 'the text'} is empty")
    values = read_parameters(model_type, parameters)
    return InferenceRequest(body, media_type, values, accept or model_type.produces[0])


def _in_parts(model_type: ModelType, file: Path, given: Mapping[str, str], media_type: str | None) -> InferenceRequest:
    """A body of several parts: the file, and what of the parameters the query would not take."""
    values, fields = told_apart(model_type, given)
    name = "file" if str(file) == "-" else file.name
    part = next(each for each, kind in model_type.parts.items() if kind == "file")
    parts = [Part(part, _content(file), media_type or "application/octet-stream", name)]
    parts += [Part(field, value.encode("utf-8", "surrogateescape")) for field, value in fields.items()]
    return InferenceRequest(b"", "multipart/form-data", values, model_type.produces[0], tuple(parts))


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # too long for a name, or no name at all
        return False


def _content(file: Path) -> bytes:
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
