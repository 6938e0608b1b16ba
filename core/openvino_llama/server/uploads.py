"""Model files that a client sends: kept in a folder of their own until the model is unloaded.

They are untrusted: read once in a child process with a memory limit before this process opens them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from litestar import Request
from litestar.datastructures import UploadFile

from openvino_llama.backends.vet import vet
from openvino_llama.errors import ConfigError, InvalidInputError

__all__ = ["Upload", "receive_upload"]

_ENTRY = "entry"
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class Upload:
    """Files of one multipart body."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ovllama-upload-"))
        self.entry = b""
        self.files: dict[str, str] = {}
        """Role -> name in the folder, made by us: what a client calls a file is never a path."""

    def add(self, role: str, file: UploadFile) -> None:
        """Keep one file."""
        if not _ROLE.fullmatch(role):
            raise InvalidInputError(f"part {role[:64]!r}: a file's part is named by its role, like 'model' or 'labels'")
        suffix = Path(file.filename).suffix
        name = role + (suffix if _SUFFIX.fullmatch(suffix) else "")
        if name in self.files.values() or role in self.files:
            raise InvalidInputError(f"part {role!r} comes twice")
        with (self._folder / name).open("wb") as target:
            shutil.copyfileobj(file.file, target, 1 << 20)
        self.files[role] = name

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


async def receive_upload(request: Request[Any, Any, Any]) -> Upload:
    """Read a multipart body: the part ``entry`` with JSON, and one part with a file for each role."""
    upload = Upload()
    try:
        for role, value in (await request.form()).multi_items():
            if isinstance(value, UploadFile) and role != _ENTRY:
                await asyncio.to_thread(upload.add, role, value)
            elif role != _ENTRY:
                raise InvalidInputError(f"part {role[:64]!r}: expected a file")
            elif upload.entry:
                raise InvalidInputError("part 'entry' comes twice")
            else:
                upload.entry = await value.read() if isinstance(value, UploadFile) else str(value).encode()
        if not upload.entry:
            raise InvalidInputError("the part 'entry' is missing: the model's registry entry, and its name, as JSON")
    except BaseException:
        upload.remove()
        raise
    return upload
