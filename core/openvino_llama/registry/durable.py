"""Files that are written whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["locked", "sync_folder", "write_file"]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep everybody else who locks this path out: other threads and, where the system can, other processes.

    The lock is a file beside it, which is there only while somebody holds it. ``path`` itself need not exist, its
    folder must.
    """
    if sys.platform == "win32":
        yield
    else:
        lock = path.with_name(f".{path.name}.lock")
        descriptor = _acquire(lock)
        try:
            yield
        finally:
            # Removed while it is held: whoever waits for it finds another file, or none, and begins anew.
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Put this data under the path. After a break, whenever it comes, the old content is there or the new."""
    path = path.resolve()  # a link stays a link
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a file's new name last through a power cut, where the system can."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _acquire(lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if _hold(descriptor, lock):
            return descriptor
        os.close(descriptor)


def _hold(descriptor: int, lock: Path) -> bool:
    """Wait for the lock; False if it was removed while we waited."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False
    except BaseException:  # Ctrl-C while waiting
        os.close(descriptor)
        raise
