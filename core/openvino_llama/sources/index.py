"""Indexes of models: JSON files, contributed by plugins, of what ``ovllama pull`` knows. Format: ``docs/models.md``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from openvino_llama.config import RegistryEntry
from openvino_llama.errors import ConfigError
from openvino_llama.reading import field_error
from openvino_llama.registry.documents import read_document
from openvino_llama.registry.entries import read_entry
from openvino_llama.registry.names import check_name, check_unique
from openvino_llama.registry.paths import check_relative

__all__ = ["Convert", "IndexedFile", "IndexedModel", "Sample", "check_path", "names_in", "read_index"]

logger = logging.getLogger(__name__)


class IndexedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model."""

    source: str
    """Where it comes from: ``pypi:``, ``hf:``, ``https:`` or ``file:``."""
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=1)]
    """Bytes."""
    path: str
    """Where it goes: a folder below the models folder (the model's name, by custom), and a name in it.

    Of a model that is converted: where it goes in the folder of sources that the converter finds.
    """


class Convert(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the files of a model are made of those that are fetched."""

    by: str
    """Name of the conversion: a plugin's hook ``model_converter`` knows it."""
    options: dict[str, Any] = {}
    """What the conversion shall know besides."""


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request that shows what the model does."""

    source: str = ""
    """``package:`` or ``file:``; empty if there is a body."""
    media_type: str = "application/json"
    body: dict[str, Any] | None = None
    """The body itself, where it is a JSON object."""
    part: str = ""
    """Of a multipart body: the name of the part that the source is, a file of that media type."""
    fields: dict[str, str] = {}
    """Of a multipart body: its other parts."""

    def __post_init__(self) -> None:
        if bool(self.source) == (self.body is not None):
            raise ValueError("a sample has either a source or a body")
        if (self.part and not self.source) or (self.fields and not self.part):
            raise ValueError("a sample with fields has a part, and that a source")


class IndexedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model that can be pulled."""

    description: str
    license: str
    """SPDX identifier."""
    files: dict[str, IndexedFile]
    """Role -> file, as in the registry's entry; the sources of a model that is converted."""
    entry: dict[str, Any]
    """The registry's entry, without ``files``."""
    convert: Convert | None = None
    """None if the files are the model's as they come."""
    sample: Sample | None = None
    starter: bool = False
    """Whether ``ovllama demo`` serves it."""

    def registry_entry(self, name: str, made: Mapping[str, str] | None = None) -> RegistryEntry:
        """The entry that makes the model, once pulled, a part of the registry.

        ``made`` is role -> path of the files that a conversion has made.
        """
        files = {role: file.path for role, file in self.files.items()} if made is None else dict(made)
        return read_entry(name, {**self.entry, "files": files})

    def with_options(self, options: Mapping[str, Any]) -> IndexedModel:
        """The same model, these options of its conversion over its own; ConfigError if there is no conversion."""
        if not options:
            return self
        if self.convert is None:
            raise ConfigError(f"{', '.join(options)}: only for models that are converted")
        changed = msgspec.structs.replace(self.convert, options={**self.convert.options, **options})
        return msgspec.structs.replace(self, convert=changed)


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


def names_in(paths: Iterable[Path]) -> frozenset[str]:
    """Names of the models of all these indexes; none if one of them is bad, as whoever pulls is told."""
    try:
        return frozenset(read_index(paths))
    except ConfigError:
        return frozenset()


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
            (check_relative if model.convert else check_path)(file.path)
    except ConfigError as error:
        raise ConfigError(f"{_label(path)}: {error}") from error
