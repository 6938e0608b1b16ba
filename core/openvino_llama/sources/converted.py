"""Models whose files are made of others: sources fetched, converted beside the model's folder, and moved there as one.

The folder is there whole or not at all. It says in ``conversion.json`` what it was made of, so that a second pull
finds nothing to do. Until then everything is in a hidden folder, of which a break leaves the fetched sources for the
next pull, and an error nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama.errors import ConfigError, SourceError
from openvino_llama.registry.durable import sync_folder
from openvino_llama.registry.paths import check_relative
from openvino_llama.sources.child import Job, run_converter
from openvino_llama.sources.index import Convert, IndexedModel
from openvino_llama.sources.transfer import Progress

__all__ = ["Converters", "Workshop", "converter_for", "made_before"]

Converters = Callable[[str, Mapping[str, Any]], str | None]
"""The hook ``model_converter`` of all plugins."""

_RECORD = "conversion.json"
_FULL = 1 << 24
"""Bytes that are free, at most, when a writer has just found too few."""


class _Record(msgspec.Struct, frozen=True):
    """What a folder was made of."""

    by: str
    options: dict[str, Any]
    sources: dict[str, str]
    """Role -> sha256."""
    files: dict[str, str]
    """Role -> path in the folder."""


class Workshop(msgspec.Struct, frozen=True):
    """Where one model is made."""

    name: str
    models_dir: Path

    @property
    def final(self) -> Path:
        """The model's folder."""
        return self.models_dir / self.name

    @property
    def scratch(self) -> Path:
        """Everything that is not finished."""
        return self.models_dir / f".{self.name}.pull"

    @property
    def sources(self) -> Path:
        """Where the fetched files go."""
        return self.scratch / "sources"

    @property
    def target(self) -> Path:
        """What the converter makes."""
        return self.scratch / "target"

    def check(self, registry: Path) -> None:
        """Raise SourceError if the model's folder cannot go where it shall."""
        taken = self.final.exists() and _read_record(self.final) is None and not _is_empty(self.final)
        if taken or self.final.is_symlink() or self.final == registry:
            raise SourceError(f"{self.name!r} in the models folder is in the way, and was not made by a pull")
        if self.scratch.is_symlink():
            self.scratch.unlink()

    def make(self, model: IndexedModel, converter: str, progress: Progress) -> dict[str, str]:
        """Convert the sources, which are there, and put the model's folder in its place; role -> path in it."""
        convert = _conversion(model)
        try:
            shutil.rmtree(self.target, ignore_errors=True)
            self.target.mkdir()
            files = run_converter(converter, self._job(model, convert), lambda step: self._tell(step, progress))
            self._check_made(files)
            record = _Record(convert.by, convert.options, _hashes(model), files)
            (self.target / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
            self._publish()
        except Exception as error:
            full = shutil.disk_usage(self.models_dir).free < _FULL
            self.clear()
            if full:  # which a library that writes does not always say
                raise SourceError(f"no room on the disk to convert it: {error}") from error
            raise
        except BaseException:  # Ctrl-C: the sources are good
            shutil.rmtree(self.target, ignore_errors=True)
            raise
        self.clear()
        return files

    def clear(self) -> None:
        """Leave nothing behind but the model's folder."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _job(self, model: IndexedModel, convert: Convert) -> Job:
        files = {role: file.path for role, file in model.files.items()}
        sources, target = str(self.sources.resolve()), str(self.target.resolve())
        return Job(convert.by, convert.options, str(model.entry["task"]), sources, files, target)

    def _tell(self, step: str, progress: Progress) -> None:
        # Not rglob, which fails if the converter removes a folder while it looks there; os.walk passes over it.
        folders = os.walk(self.target)
        written = sum(_size(Path(at, name)) for at, _, names in folders for name in names)
        progress(f"{self.name}: {step}", written, None)

    def _check_made(self, files: Mapping[str, str]) -> None:
        for role, path in files.items():
            check_relative(path)
            if not (self.target / path).is_file():
                raise SourceError(f"the conversion has not made the file of role {role!r}")
        if "model" not in files:
            raise SourceError("the conversion has made no file of role 'model'")

    def _publish(self) -> None:
        """Move the folder in place of an older one, if there is one."""
        _sync(self.target)
        old = self.scratch / "old"
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.rename(old)
        try:
            self.target.rename(self.final)
        except BaseException:
            if old.exists():
                old.rename(self.final)
            raise
        sync_folder(self.models_dir)


def made_before(model: IndexedModel, name: str, models_dir: Path) -> dict[str, str] | None:
    """Role -> path in the model's folder, if it was made of the same sources in the same way; else None."""
    record = _read_record(models_dir / name)
    convert = _conversion(model)
    if record is None or record.by != convert.by or record.sources != _hashes(model):
        return None
    # An option that nobody states now may have been stated then.
    same = convert.options.items() <= record.options.items()
    whole = all((models_dir / name / path).is_file() for path in record.files.values())
    return record.files if same and whole else None


def converter_for(model: IndexedModel, converters: Converters) -> str:
    """The module that converts the model; SourceError if it cannot be converted here."""
    convert = _conversion(model)
    try:
        found = converters(convert.by, convert.options)
    except ConfigError as error:
        raise SourceError(str(error)) from error
    if found is None:
        raise SourceError(f"no installed plugin knows the conversion {convert.by!r}")
    return found


def _conversion(model: IndexedModel) -> Convert:
    if model.convert is None:
        raise SourceError("the model is not one that is converted")
    return model.convert


def _hashes(model: IndexedModel) -> dict[str, str]:
    return {role: file.sha256 for role, file in model.files.items()}


def _read_record(folder: Path) -> _Record | None:
    try:
        return msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _sync(folder: Path) -> None:
    """Make what is in the folder last through a power cut."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # the converter has removed it
        return 0
