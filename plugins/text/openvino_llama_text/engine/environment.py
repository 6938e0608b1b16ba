"""The environment of our child processes: what they need to run, and no keys that the server may have there."""

from __future__ import annotations

import os

__all__ = ["environment"]

_NAMES = frozenset(
    {
        *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
        *("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE"),
    }
)
_PREFIXES = ("OV_", "OPENVINO_", "OMP_", "KMP_", "TBB_", "ONEDNN_", "MALLOC_", "ZE_", "NEO")


def environment() -> dict[str, str]:
    """What a child process is given."""
    return {name: value for name, value in os.environ.items() if name.upper() in _NAMES or name.startswith(_PREFIXES)}
