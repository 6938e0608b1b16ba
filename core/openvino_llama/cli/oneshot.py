"""One inference without a server: the same plugins, sandbox and runner, no HTTP."""

from __future__ import annotations

import mimetypes
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from openvino_llama.cli.registry import open_registry
from openvino_llama.config import ModelType, RegistryEntry
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

__all__ = ["Task", "infer_once"]

PLAIN = "text/plain"
_TEXTUAL = re.compile(r"text/|application/(.*\+)?json$")
_FILE_NAME = re.compile(r"\S*[^\s.]\.[A-Za-z]\w{0,4}")
"""What hardly anybody means as a text: one word with a short suffix."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for on the command line."""

    model: str
    given: str
    """A file (``-`` is stdin), or a text if there is no such file."""
    parameters: Mapping[str, str]
    media_type: str | None = None
    accept: str | None = None
    to_terminal: bool = False
    """Whether the answer will be shown, which refuses one that is no text."""


def infer_once(settings: Settings, task: Task) -> bytes:
    """Run a model of the registry; the answer is JSON or of the type that was asked for."""
    entry = _entry(settings, task.model)
    plugins = load_plugins(settings.disabled_plugins)
    request = _request(plugins.model_type(entry.type), task)
    with open_models(plugins, SilentObserver(), settings.cache_dir, settings.model_defaults()) as models:
        model = models.load(task.model, entry, partial(locate, registry=settings.registry))
        job = model.serving.runner.submit(Job(request, Deadline(entry.limits.deadline_s)))
        result = job.future.result()
    if isinstance(result, Reply):
        return result.body
    return msgspec.json.encode({"model_type": entry.type, "task": entry.task, "results": result}) + b"\n"


def _entry(settings: Settings, name: str) -> RegistryEntry:
    registry = open_registry(settings.registry)
    if name in registry.problems:
        raise ModelNotFoundError(registry.problems[name])
    if name not in registry.entries:
        known = ", ".join(registry.entries) or "none"
        raise ModelNotFoundError(f"the registry {registry.path} has no model {name!r}; it has {known}")
    return registry.entries[name]


def _request(model_type: ModelType, task: Task) -> InferenceRequest:
    file = Path(task.given)
    is_text = task.given != "-" and PLAIN in model_type.accepts and not _is_file(file)
    if is_text and _FILE_NAME.fullmatch(task.given):
        click.echo(f"there is no file {task.given!r}: taken as a text", err=True)
    if not is_text:
        click.Path(exists=True, dir_okay=False, allow_dash=True).convert(task.given, None, None)
    guessed = mimetypes.guess_type(file.name)[0]
    if model_type.parts:
        return _in_parts(model_type, file, task.parameters, task.media_type or guessed)
    media_type = task.media_type or (PLAIN if is_text else guessed or "")
    _check_types(model_type, task, file.name, media_type)
    body = task.given.encode("utf-8", "surrogateescape") if is_text else _content(file)
    if not body:
        raise InvalidInputError(f"{task.given or 'the text'} is empty")
    values = read_parameters(model_type, task.parameters)
    return InferenceRequest(body, media_type, values, task.accept or model_type.produces[0])


def _check_types(model_type: ModelType, task: Task, name: str, media_type: str) -> None:
    """Raise for a file, or for an answer, of a type that the model does not have or the terminal cannot show."""
    if media_type not in model_type.accepts:
        found = media_type or "of an unknown type, which --media-type states"
        raise UnsupportedMediaTypeError(f"{name} is {found}; expected {', '.join(model_type.accepts)}")
    wanted = task.accept or model_type.produces[0]
    if wanted not in model_type.produces:
        raise NotAcceptableError(f"--accept: expected one of {', '.join(model_type.produces)}; got {wanted!r}")
    if task.to_terminal and not _TEXTUAL.match(wanted):
        raise NotAcceptableError(f"the answer is {wanted}, which is not for a terminal: -o FILE writes it")


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
