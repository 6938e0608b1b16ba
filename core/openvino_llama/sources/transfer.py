"""A file on its way: written beside its final name, and moved there when its size and sha256 are right.

A ``Part`` that a break has left is taken up again by the next pull; one with wrong bytes, or that the disk had no
room for, is deleted. Knows nothing of where the bytes come from.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from openvino_llama.errors import SourceError
from openvino_llama.registry.durable import sync_folder

__all__ = ["CHUNK", "Part", "Progress", "Source", "Transfer", "chunks_of", "sha256_of"]

CHUNK = 2**20
"""Bytes that are read and written at a time."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""No room on the disk, in the quota, under the limit of the process."""


class Progress(Protocol):
    """Told how far things are; a progress bar, usually."""

    def __call__(self, description: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes, which is None where it is not known."""


class Part:
    """The unfinished file, open for writing at its end."""

    def __init__(self, final: Path, size: int, sha256: str) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.part")
        self.size = size
        self.sha256 = sha256
        self.done = 0
        self.resumed = False
        """Whether its beginning is what an earlier pull left."""

    def __enter__(self) -> Self:
        if self.path.is_symlink():  # never write through somebody's link
            self.path.unlink()
        # Unbuffered: what is written is in the file when the process is killed, and no error waits for close().
        self._file = self.path.open("a+b", buffering=0)
        self._digest = hashlib.sha256()
        self._file.seek(0)
        for chunk in chunks_of(self._file):
            self._count(chunk)
        self.resumed = self.done > 0
        if self.done >= self.size and not self.complete:
            self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self.done == 0:
            self.path.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        """Whether all bytes are there and right."""
        return self.done == self.size and self._digest.hexdigest() == self.sha256

    def write(self, data: bytes) -> None:
        """Append; SourceError at the first byte too many, so that a source that does not end cannot fill the disk."""
        if self.done + len(data) > self.size:
            self._fail(f"expected {self.size} bytes, got more")
        with self._disk_errors():
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._count(data)

    def restart(self) -> None:
        """Forget what is there."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.done = 0
        self.resumed = False

    def finish(self) -> None:
        """Put the file under its final name; SourceError, and nothing is left, if it is not what was expected."""
        if self.done != self.size:
            self._fail(f"expected {self.size} bytes, got {self.done}")
        if not self.complete:
            self._fail(f"expected sha256 {self.sha256}, got {self._digest.hexdigest()}")
        with self._disk_errors():
            os.fsync(self._file.fileno())
            self._file.close()  # Windows moves no open file
            self.path.replace(self.final)
            sync_folder(self.final.parent)

    def _count(self, data: bytes) -> None:
        self._digest.update(data)
        self.done += len(data)

    def _fail(self, message: str) -> None:
        self.path.unlink(missing_ok=True)
        raise SourceError(f"file {self.final.name!r}: {message}")

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                self.path.unlink(missing_ok=True)
                raise SourceError(f"file {self.final.name!r}: no room for its {self.size} bytes on the disk") from error
            raise SourceError(f"file {self.final.name!r}: cannot be written: {error.strerror}") from error


class Transfer(msgspec.Struct, frozen=True):
    """What a source needs to bring one file."""

    part: Part
    scratch: Path
    """A folder for what is needed on the way, shared by all files of one pull and deleted at its end."""
    description: str
    progress: Progress

    def receive(self, chunks: Iterable[bytes]) -> None:
        """Append these bytes to the part and tell how far it is."""
        self.progress(self.description, self.part.done, self.part.size)
        for chunk in chunks:
            self.part.write(chunk)
            self.progress(self.description, self.part.done, self.part.size)


class Source(Protocol):
    """A place that one file comes from."""

    def fetch(self, transfer: Transfer) -> None:
        """Write the file into ``transfer.part``: all of it, or what its beginning lacks. SourceError if it cannot."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


def chunks_of(file: _Readable) -> Iterator[bytes]:
    """The rest of a file, piece by piece."""
    while chunk := file.read(CHUNK):
        yield chunk


def sha256_of(path: Path) -> str:
    """The file's sha256 in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
