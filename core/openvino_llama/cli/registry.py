"""The registry as commands read and show it: where there is none they say so, and whether models' files are there.

Loads no model, and plugins only where files are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from openvino_llama.config import RegistryEntry, locate_files
from openvino_llama.errors import ConfigError, MissingFileError
from openvino_llama.registry import Registry, locate, read_registry

__all__ = ["Listing", "list_models", "open_registry"]

Known = Callable[[], frozenset[str]]
"""Names of the models that can be pulled."""


class Listing(msgspec.Struct, frozen=True):
    """What is told of a registry."""

    lines: list[str]
    """One for each entry."""
    problems: list[str]
    """What is wrong with entries, or with their files."""
    to_pull: list[str]
    """Names of the models whose files are not there, and can be pulled."""


def open_registry(path: Path) -> Registry:
    """The registry; ConfigError says what to do if there is none."""
    if not path.exists():
        raise ConfigError(f"there is no registry {path}; ovllama pull makes one, --registry names another")
    return read_registry(path)


def list_models(registry: Registry, known: Known) -> Listing:
    """The entries of a registry, each with what keeps it from being used."""
    errors = {name: _error(name, entry, registry.path) for name, entry in registry.entries.items()}
    missing = [name for name, error in errors.items() if isinstance(error, MissingFileError)]
    pullable = known() if missing else frozenset()
    states = {name: "unusable" for name, error in errors.items() if error}
    states |= {name: "not pulled" for name in missing if name in pullable}
    return Listing(
        lines=[_line(name, entry, states.get(name, "")) for name, entry in registry.entries.items()],
        problems=[*registry.problems.values(), *(str(errors[name]) for name in states if states[name] == "unusable")],
        to_pull=[name for name in states if states[name] == "not pulled"],
    )


def _line(name: str, entry: RegistryEntry, state: str) -> str:
    return f"{name:<28} {entry.type:<12} {entry.task:<16} {entry.device:<6} {state}".rstrip()


def _error(name: str, entry: RegistryEntry, registry: Path) -> ConfigError | None:
    try:
        locate_files(name, entry, partial(locate, registry=registry))
    except ConfigError as error:
        return error
    return None
