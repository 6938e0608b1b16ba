"""Files that are here already: ``file:PATH``, ``package:MODULE/PATH``, and mirrors."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from openvino_llama.errors import SourceError
from openvino_llama.sources.index import Sample
from openvino_llama.sources.transfer import Part, Transfer, chunks_of, sha256_of

__all__ = ["FileSource", "PackageSource", "find_in_mirror", "is_wanted", "parse_file", "parse_package", "read_sample"]


class FileSource(msgspec.Struct, frozen=True):
    """A file of this machine."""

    path: Path

    def fetch(self, transfer: Transfer) -> None:
        """See ``Source``."""
        if not self.path.is_file():  # nor a pipe, which would wait for ever
            raise SourceError(f"file {self.path.name!r}: there is no such file to copy")
        _copy(self.path, transfer)


class PackageSource(msgspec.Struct, frozen=True):
    """A file that an installed package has in it."""

    module: str
    path: str

    def fetch(self, transfer: Transfer) -> None:
        """See ``Source``."""
        _copy(self.resource(), transfer)

    def resource(self) -> Traversable:
        """The file; SourceError if the package, or the file in it, is not here."""
        try:
            found = resources.files(self.module).joinpath(*self.path.split("/"))
        except Exception as error:  # it is imported, which runs its code
            raise SourceError(f"{self}: the package is not installed, or broken") from error
        if not found.is_file():
            raise SourceError(f"{self}: the package has no such file")
        return found

    def __str__(self) -> str:
        """The source as it is written."""
        return f"package:{self.module}/{self.path}"


def parse_file(text: str) -> FileSource:
    """The source of a path, absolute or from the current folder."""
    if not text.strip() or "\0" in text:
        raise SourceError("expected file:PATH, got no path")
    return FileSource(Path(text))


def parse_package(text: str) -> PackageSource:
    """The source of ``MODULE/PATH``, where the module's name may have dots in it."""
    module, _, path = text.partition("/")
    if not module or not path or ".." in path.split("/"):
        raise SourceError(f"expected package:MODULE/PATH, got {'package:' + text!r}")
    return PackageSource(module, path)


def read_sample(sample: Sample) -> bytes:
    """The body of a sample request."""
    if sample.body is not None:
        return msgspec.json.encode(sample.body)
    kind, _, rest = sample.source.partition(":")
    if kind == "package":
        return parse_package(rest).resource().read_bytes()
    if kind == "file":
        try:
            return parse_file(rest).path.read_bytes()
        except OSError as error:
            raise SourceError(f"sample {rest!r}: cannot be read: {error.strerror}") from error
    raise SourceError(f"a sample's source is package: or file:, not {sample.source!r}")


def find_in_mirror(mirror: Path, part: Part) -> FileSource | None:
    """The file that the part shall become, if it lies anywhere below this folder, under whatever name."""
    if not mirror.is_dir():
        raise SourceError(f"mirror {str(mirror)!r}: there is no such folder")
    candidates = (path for path in sorted(mirror.rglob("*")) if is_wanted(path, part))
    found = next(candidates, None)
    return FileSource(found) if found else None


def is_wanted(path: Path, part: Part) -> bool:
    """Whether this file is what the part shall become."""
    try:
        return path.is_file() and path.stat().st_size == part.size and sha256_of(path) == part.sha256
    except OSError:  # not for us to read: not what we are looking for
        return False


def _copy(file: Traversable, transfer: Transfer) -> None:
    transfer.part.restart()
    try:
        with file.open("rb") as opened:
            transfer.receive(chunks_of(opened))
    except OSError as error:
        raise SourceError(f"file {file.name!r}: cannot be read: {error.strerror}") from error
