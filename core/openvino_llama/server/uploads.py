"""Model files that a client sends: kept in a folder of their own until the model is unloaded.

They are untrusted: read once in a child process with a memory limit before this process opens them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from litestar import Request
from multipart import MultipartSegment, PushMultipartParser

from openvino_llama.backends.vet import vet
from openvino_llama.errors import ConfigError, InputTooLargeError, InvalidInputError
from openvino_llama.server.bodies import MULTIPART, reading

__all__ = ["Upload", "receive_upload"]

_ENTRY = "entry"
_MAX_ENTRY_BYTES = 1 << 20
_MAX_PARTS = 64
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class Upload:
    """Files of one multipart body."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ovllama-upload-"))
        self.entry = b""
        self.files: dict[str, str] = {}
        """Role -> name in the folder, made by us: what a client calls a file is never a path."""

    def open(self, role: str, filename: str) -> BinaryIO:
        """A new file to write."""
        if not _ROLE.fullmatch(role):
            raise InvalidInputError(f"part {role[:64]!r}: a file's part is named by its role, like 'model' or 'labels'")
        suffix = Path(filename).suffix
        name = role + (suffix if _SUFFIX.fullmatch(suffix) else "")
        if name in self.files.values() or role in self.files:
            raise InvalidInputError(f"part {role!r} comes twice")
        self.files[role] = name
        return (self._folder / name).open("xb")

    def locate(self, name: str) -> Path:
        """The path of one of the files."""
        if name not in self.files.values():
            raise ConfigError(f"no file {name!r} was uploaded")
        return self._folder / name

    def vet(self) -> None:
        """Raise ModelLoadError unless a child process can read the model within its limits."""
        if "model" not in self.files:
            raise InvalidInputError("the part 'model' is missing")
        vet({role: self._folder / name for role, name in self.files.items() if role in ("model", "weights")})

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder, ignore_errors=True)


async def receive_upload(request: Request[Any, Any, Any], limit: int) -> Upload:
    """Read a multipart body: the part ``entry`` with JSON, and one part with a file for each role.

    What comes is written to disk as it comes; a file's bytes are never all in memory.
    """
    upload = Upload()
    try:
        with reading(limit):
            await _receive(request, upload)
        if not upload.entry:
            raise InvalidInputError("the part 'entry' is missing: the model's registry entry, and its name, as JSON")
    except BaseException:
        upload.remove()
        raise
    return upload


async def _receive(request: Request[Any, Any, Any], upload: Upload) -> None:
    boundary = request.content_type[1].get("boundary")
    if not boundary:
        raise InvalidInputError(f"Content-Type: {MULTIPART} needs a boundary")
    part = _Part(upload)
    try:
        with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
            async for chunk in request.stream():
                for event in () if parser.closed else parser.parse(chunk):
                    await part.feed(event)
    finally:
        part.close()


class _Part:
    """The part that is being received: the entry, or a file."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._file: BinaryIO | None = None

    async def feed(self, event: MultipartSegment | bytes | None) -> None:
        """A part's head, a piece of its content, or None, its end."""
        if isinstance(event, MultipartSegment):
            self._begin(event.name, event.filename)
        elif event is None:
            self.close()
        elif self._file:
            await asyncio.to_thread(self._file.write, event)
        else:
            self._upload.entry += event
            if len(self._upload.entry) > _MAX_ENTRY_BYTES:
                raise InputTooLargeError(f"part 'entry': larger than the limit of {_MAX_ENTRY_BYTES} bytes")

    def _begin(self, role: str, filename: str | None) -> None:
        if role != _ENTRY:
            if filename is None:
                raise InvalidInputError(f"part {role[:64]!r}: expected a file")
            self._file = self._upload.open(role, filename)
        elif self._upload.entry:
            raise InvalidInputError("part 'entry' comes twice")

    def close(self) -> None:
        """The part is over."""
        if self._file:
            self._file.close()
            self._file = None
