"""The registry as a whole: its entries, what is wrong with the others, and changing one of them.

Knows nothing of model types: the ``config`` of an entry is read by ``config.typed_config``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama.config import RegistryEntry
from openvino_llama.errors import ConfigError
from openvino_llama.reading import field_error
from openvino_llama.registry.documents import dump_document, read_document
from openvino_llama.registry.durable import locked, write_file
from openvino_llama.registry.names import check_name, check_unique, shown

__all__ = ["Registry", "read_entry", "read_registry", "remove_entry", "save_entry"]


class Registry(msgspec.Struct, frozen=True):
    """What a registry file says."""

    path: Path
    entries: dict[str, RegistryEntry]
    """Name of the model -> its entry, in the order of the file."""
    problems: dict[str, str]
    """Name of the model -> what is wrong with its entry: file, model, field."""


def read_registry(path: Path) -> Registry:
    """Read a registry in JSON or YAML.

    A wrong entry is a problem of its own and leaves the others as they are. Raises ConfigError if the file cannot be
    read as a registry at all.
    """
    registry = Registry(path, {}, {})
    for name, raw in _models(path).items():
        try:
            _check_new(name, registry)
            registry.entries[name] = read_entry(name, raw)
        except ConfigError as error:
            registry.problems[str(name)] = f"{path.name}: {error}"
    return registry


def read_entry(name: str, raw: Any) -> RegistryEntry:
    """The entry that this JSON object is; ConfigError naming model and field if it is none."""
    try:
        return msgspec.convert(raw, RegistryEntry)
    except msgspec.ValidationError as error:
        raise ConfigError(f"model {shown(name)}, {field_error(error, raw, RegistryEntry)}") from error


def save_entry(registry: Path, name: str, entry: RegistryEntry) -> None:
    """Add an entry to a registry or replace it, leaving the others as they are; a missing registry is made."""
    check_name(name)

    def put(models: dict[str, Any]) -> None:
        check_unique(name, map(str, models))  # YAML has numbers for names, too
        models[name] = msgspec.to_builtins(entry)

    _change(registry, put)


def remove_entry(registry: Path, name: str) -> None:
    """Take an entry out of a registry; ConfigError if it is not there."""

    def take(models: dict[str, Any]) -> None:
        if name not in models:
            raise ConfigError(f"{registry.name}: there is no model {shown(name)}")
        del models[name]

    _change(registry, take)


def _check_new(name: Any, registry: Registry) -> None:
    if not isinstance(name, str):
        raise ConfigError(f"model {name!r}: a name must be text; put it in quotes")
    check_name(name)
    check_unique(name, [*registry.entries, *registry.problems])


def _models(path: Path) -> dict[Any, Any]:
    document = read_document(path, path.name)
    if not isinstance(document, dict) or "models" not in document:
        raise ConfigError(f"{path.name}: expected an object with the field 'models'")
    unknown = [str(key) for key in document if key != "models"]
    if unknown:
        raise ConfigError(f"{path.name}: expected the field 'models' only, got {', '.join(map(shown, unknown))} too")
    models = document["models"]
    if not isinstance(models, dict):
        raise ConfigError(f"{path.name}, field 'models': expected an object, got {type(models).__name__}")
    return models


def _change(registry: Path, change: Callable[[dict[str, Any]], None]) -> None:
    try:
        with locked(registry):
            models = _models(registry) if registry.exists() else {}
            change(models)
            write_file(registry, dump_document(registry, {"models": models}))
    except OSError as error:
        raise ConfigError(f"{registry.name}: cannot be written: {error.strerror}") from error
