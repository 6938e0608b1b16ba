"""One conversion, in a process of its own: heavy libraries leave no memory behind, and may print and crash.

The child is a Python module. It is told its job in a line of JSON on stdin, which stays open: where it ends, nobody
waits for the child any more. It answers with lines of JSON on stdout; what else it, or a library, prints is logged.
The protocol is in ``docs/models.md``. Knows nothing of where the sources come from, nor of what they are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec

from openvino_llama.errors import SourceError

__all__ = ["Job", "run_converter"]

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_LOGGED = 4000
"""Characters of what a child printed that an error's cause holds."""


class Job(msgspec.Struct, frozen=True):
    """What a converter is told."""

    by: str
    options: dict[str, Any]
    task: str
    """Of the registry's entry."""
    sources: str
    """Absolute path of the folder that the fetched files are in; they stay as they are."""
    files: dict[str, str]
    """Role -> path below that folder."""
    target: str
    """Absolute path of an empty folder, which becomes the model's."""


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a converter's stdout; one of the three."""

    step: str = ""
    """What it does now, in a few words."""
    files: dict[str, str] | None = None
    """Done: role -> path below the target."""
    error: str = ""
    """Why it cannot be done, in a sentence."""


def run_converter(module: str, job: Job, told: Callable[[str], None]) -> dict[str, str]:
    """Run the module and return role -> path below the target, as it says.

    ``told`` is called several times a second with what the converter does. SourceError if it cannot convert, or ends
    without a word. However this ends, the child and what it has started have ended too.
    """
    with TemporaryFile() as log:
        try:
            return _Child(module, job, log).run(told)
        except SourceError as error:
            raise error from subprocess.SubprocessError(_text(log)[-_LOGGED:])
        finally:
            logger.info("python -m %s:\n%s", module, _text(log))


class _Child:
    def __init__(self, module: str, job: Job, log: IO[bytes]) -> None:
        self.log = log
        self.module = module
        self.job = job
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def run(self, told: Callable[[str], None]) -> dict[str, str]:
        # -P: a file in the working directory must not be taken for a module. A session of its own: Ctrl-C is for us.
        command = [sys.executable, "-P", "-m", self.module]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter; the module is a plugin's
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True
        )
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        with process:
            try:
                self._send(process)
                result = self._listen(told)
                status = process.wait()
            finally:
                _kill(process)
                reader.join()
        if result is None or status:
            raise SourceError(f"the conversion by {self.job.by!r} ended with exit code {status} and without a model")
        return result

    def _send(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 - for the type
        with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit code says more
            process.stdin.write(msgspec.json.encode(self.job) + b"\n")
            process.stdin.flush()

    def _read(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _listen(self, told: Callable[[str], None]) -> dict[str, str] | None:
        """What the converter has made, once its stdout ends."""
        step, made = "converting", None
        for message in self._messages():
            if message.error:
                raise SourceError(message.error)
            step = message.step or step
            made = message.files if message.files is not None else made
            told(step)
        return made

    def _messages(self) -> Iterator[_Message]:
        """What it says, and an empty message whenever it has said nothing for a while."""
        while True:
            try:
                line = self.lines.get(timeout=_POLL_S)
            except queue.Empty:
                yield _Message()
                continue
            if line is None:
                return
            try:
                yield msgspec.json.decode(line, type=_Message)
            except (msgspec.DecodeError, UnicodeDecodeError):
                logger.info("python -m %s: %s", self.module, line.decode(errors="replace").rstrip())


def _kill(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of one that has ended
            os.killpg(process.pid, signal.SIGKILL)  # whatever it has started, too, if itself has ended already


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")
