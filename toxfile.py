"""Lets tox find the interpreters that pyenv keeps but does not put on PATH; those on PATH it finds by itself."""

from __future__ import annotations

import os
from pathlib import Path

from tox.config.cli.parser import ToxParser
from tox.plugin import impl


@impl
def tox_add_option(parser: ToxParser) -> None:
    """Called before the command line is read: say where else to look, unless the caller does."""
    del parser
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(str(each) for each in root.glob("versions/*/bin/python3"))
    if found:
        os.environ.setdefault("TOX_DISCOVER", os.linesep.join(found))
