"""Paths of model files: from what a registry says to a file that may be opened.

Relative paths are taken from the registry's own folder, then from its parent (the specification's registry lies in
``models/`` and says ``models/x.xml``). Nothing outside these two is ever opened, whatever the path says and
wherever symbolic links lead.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from openvino_llama.errors import ConfigError, MissingFileError
from openvino_llama.registry.names import shown

__all__ = ["check_relative", "locate"]


def check_relative(path: str) -> None:
    """Raise ConfigError unless the path, as written, goes down from where it starts, on every operating system."""
    objection = _objection(path)
    if objection:
        raise ConfigError(f"file {shown(path)}: {objection}")


def locate(path: str, registry: Path, *, own_folder_only: bool = False) -> Path:
    """The absolute path of a file, or of a folder of files, that a registry names.

    ``own_folder_only`` leaves the parent out: for entries that a client sent, not the operator wrote. Raises
    MissingFileError, with the path as written and no other, if there is no such file; ConfigError if it must not be
    opened.
    """
    check_relative(path)
    folder = registry.parent.resolve()
    roots = [folder] if own_folder_only else _roots(folder)
    for base in (folder, folder.parent):
        target = _target(path, base)
        if target is not None:
            _check_target(path, target, roots)
            # Not the target itself: what lies behind a link may have lost the suffix that says its format.
            return base / path
    raise MissingFileError(f"file {shown(path)}: there is no such file in the models folder")


def _objection(path: str) -> str | None:
    if not path.strip():
        return "a path must not be empty or blank"
    if "\0" in path or not _encodable(path):
        return "a path must not have NUL or half characters in it"
    if "\\" in path:
        return "the separator is '/' on every system"
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        return "a path must be relative to the registry's folder"
    parts = PurePosixPath(path).parts
    if not parts:
        return "that is the folder itself"
    # Blanks at the end of a part do not count on Windows.
    return "a path must not have '..' in it" if any(part.strip() == ".." for part in parts) else None


def _encodable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _roots(folder: Path) -> list[Path]:
    """The folder and its parent; the parent is not one if it is the whole file system (``/models/registry.json``)."""
    return [folder] if folder.parent == Path(folder.anchor) else [folder, folder.parent]


def _target(path: str, base: Path) -> Path | None:
    """What the path leads to; None if there is nothing."""
    try:
        return (base / path).resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:  # a circle of links, a name too long, no permission
        raise ConfigError(f"file {shown(path)}: cannot be opened") from error


def _check_target(path: str, target: Path, roots: list[Path]) -> None:
    if not _is_inside(target, roots):
        raise ConfigError(f"file {shown(path)}: lies outside the models folder")
    if target.is_dir():
        _check_folder(path, target, roots)
    elif not stat.S_ISREG(target.stat().st_mode):
        raise ConfigError(f"file {shown(path)}: is a device, pipe or socket, not a file")


def _check_folder(path: str, folder: Path, roots: list[Path]) -> None:
    """Whoever opens a folder (of a TensorFlow model, say) opens what is in it."""
    if folder in roots:
        raise ConfigError(f"file {shown(path)}: is the models folder itself")
    for each in folder.rglob("*"):
        if each.is_symlink() and not _is_inside(each.resolve(), roots):
            raise ConfigError(f"file {shown(path)}: has links in it that lead out of the models folder")


def _is_inside(target: Path, roots: list[Path]) -> bool:
    return any(target.is_relative_to(root) for root in roots)
