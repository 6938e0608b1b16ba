"""One conversion as its process sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Job", "Step", "read_job"]

Step = Callable[[str], None]
"""Told in a few words what is being done."""


class Job(msgspec.Struct, frozen=True):
    """What ``ovllama pull`` wants."""

    by: str
    task: str
    """Of the registry's entry."""
    sources: Path
    """Folder of the fetched files, which stay as they are."""
    files: dict[str, str]
    """Role -> path below ``sources``."""
    target: Path
    """Folder that the model's files go into."""
    options: dict[str, Any] = {}


def read_job(line: bytes) -> Job:
    """The job that this line of JSON states."""
    return msgspec.json.decode(line, type=Job, dec_hook=lambda kind, value: kind(value))
