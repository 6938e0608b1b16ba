"""Indexes of models: JSON files, contributed by plugins, of what ``ovllama pull`` knows. Format: ``docs/models.md``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from openvino_llama.config import RegistryEntry
from openvino_llama.errors import ConfigError
from openvino_llama.registry.documents import read_document
from openvino_llama.registry.entries import field_error, read_entry
from openvino_llama.registry.names import check_name, check_unique
from openvino_llama.registry.paths import check_relative

__all__ = ["IndexedFile", "IndexedModel", "Sample", "check_path", "read_index"]

logger = logging.getLogger(__name__)


class IndexedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model."""

    source: str
    """Where it comes from: ``pypi:``, ``hf:``, ``https:`` or ``file:``."""
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=1)]
    """Bytes."""
    path: str
    """Where it goes: a folder below the models folder (the model's name, by custom), and a name in it."""


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request that shows what the model does."""

    source: str
    """``package:`` or ``file:``"""
    media_type: str


class IndexedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model that can be pulled."""

    description: str
    license: str
    """SPDX identifier."""
    files: dict[str, IndexedFile]
    """Role -> file, as in the registry's entry."""
    entry: dict[str, Any]
    """The registry's entry, without ``files``."""
    sample: Sample | None = None
    starter: bool = False
    """Whether ``ovllama demo`` serves it."""

    def registry_entry(self, name: str) -> RegistryEntry:
        """The entry that makes the model, once pulled, a part of the registry."""
        return read_entry(name, {**self.entry, "files": {role: file.path for role, file in self.files.items()}})


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, IndexedModel]


def read_index(paths: Iterable[Path]) -> dict[str, IndexedModel]:
    """The models of all these indexes, of two with one name the first; ConfigError names an index that is bad."""
    models: dict[str, IndexedModel] = {}
    for path in paths:
        for name, model in _read(path).items():
            if name in models:
                logger.warning("%s: model %r is in another index already", _label(path), name)
            else:
                _check(path, name, model, models)
                models[name] = model
    return models


def check_path(path: str) -> None:
    """Raise ConfigError unless a file may go there. Beside the registry itself none may."""
    check_relative(path)
    if len(PurePosixPath(path).parts) < 2:
        raise ConfigError(f"file {path!r}: expected FOLDER/NAME")


def _read(path: Path) -> dict[str, IndexedModel]:
    try:
        return msgspec.convert(read_document(path, _label(path)), _Index).models
    except msgspec.ValidationError as error:
        raise ConfigError(f"{_label(path)}: {field_error(error)}") from error


def _label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"  # they are all called index.json


def _check(path: Path, name: str, model: IndexedModel, others: Iterable[str]) -> None:
    try:
        check_name(name)
        check_unique(name, others)
        model.registry_entry(name)
        for file in model.files.values():
            check_path(file.path)
    except ConfigError as error:
        raise ConfigError(f"{_label(path)}: {error}") from error
