"""Runs a WASI command: any preview1 module, compiled by anyone, that uses ``wasi_ephemeral_nn``.

The guest is given what the command names and nothing else: its arguments, its environment, its directories, its
graphs, and this process's standard streams. Knows nothing of command lines: ``ovllama run`` makes the ``Command``.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from openvino_llama.config import Limits, ModelConfig
from openvino_llama.errors import ConfigError, DeadlineExceededError, GuestTrapError
from openvino_llama.sandbox.calls import GuestExitError
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Instance, Sandbox
from openvino_llama.sandbox.wasi_nn import WasiNN

if TYPE_CHECKING:
    import wasmtime

    from openvino_llama.backends.base import Backend, Graph

__all__ = ["DEADLINE_EXIT", "TRAP_EXIT", "Command", "Directory", "run_command"]

TRAP_EXIT = 134
"""Exit code of a guest that trapped: what a shell shows for a process that aborted."""
DEADLINE_EXIT = 124
"""Exit code of a guest that was stopped at its deadline, as of timeout(1)."""


class Directory(msgspec.Struct, frozen=True):
    """A directory of the host that a guest may open."""

    host: Path
    guest: str
    """Where the guest sees it."""
    writable: bool = False

    @classmethod
    def parse(cls, text: str) -> Directory:
        """Read ``HOST``, ``HOST::GUEST`` or ``HOST::GUEST::rw``; without ``rw`` it can only be read."""
        host, *rest = text.split("::")
        guest = rest[0] if rest else host
        if not host or not guest or rest[1:] not in ([], ["rw"]):
            raise ConfigError(f"a directory is HOST, HOST::GUEST or HOST::GUEST::rw, not {text!r}")
        return cls(Path(host), guest, writable=bool(rest[1:]))


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A module, and everything that it is given."""

    module: Path
    arguments: tuple[str, ...] = ()
    """What follows the module's name in its ``argv``."""
    directories: tuple[Directory, ...] = ()
    environment: Mapping[str, str] = {}
    graphs: Mapping[str, Path] = {}
    """Name for ``load_by_name`` -> model file; an IR's weights are beside it."""
    limits: Limits = Limits(memory_mib=4096)
    early_tensor_types: bool = False
    """Whether the guest numbers tensor types as the first wasi-nn did: u8 2, i32 3."""
    deadline_s: float | None = None
    """Time that the guest may take, in seconds; None is for ever."""


def run_command(command: Command) -> int:
    """Run a command to its end and give its exit code.

    A trap or an overrun deadline is told on stderr and gives TRAP_EXIT or DEADLINE_EXIT. When the guest ends with
    another code than 0, so is the last error of its WASI-NN calls. Raises ConfigError or ModelLoadError for what was
    wrong before it could start. Ctrl-C ends the process.
    """
    from openvino_llama.backends.openvino import OpenVINOBackend

    # The user who names the module also names its files: the child that tries untrusted models is not needed.
    backend = OpenVINOBackend(vet_guests=False)
    sandbox = Sandbox()
    try:
        nn = WasiNN(
            _open_graphs(command, backend),
            backend.load,
            sandbox.watchdog,
            handles=command.limits.handles,
            early_types=command.early_tensor_types,
        )
        module = sandbox.compile(command.module)
        instance = sandbox.instantiate(module, nn, command.limits, _wasi(command))
        with _interruptible():
            code = _run(instance, Deadline(command.deadline_s) if command.deadline_s else None)
        if code and nn.last_error:
            _tell(f"the last error of a WASI-NN call: {nn.last_error}")
        instance.close()
        return code
    finally:
        sandbox.close()


def _run(instance: Instance, deadline: Deadline | None) -> int:
    start = instance.function("_start")
    sys.stdout.flush()
    try:
        instance.call(start, deadline=deadline)
    except GuestExitError as error:
        return error.code
    except DeadlineExceededError as error:
        _tell(str(error))
        return DEADLINE_EXIT
    except GuestTrapError as error:
        # wasmtime ends its text with the reason, after a backtrace.
        reason = str(error.__cause__ or "").strip().splitlines()[-1:]
        _tell(": ".join([str(error), *(line.strip() for line in reason)]))
        return TRAP_EXIT
    return 0


def _open_graphs(command: Command, backend: Backend) -> dict[str, Graph]:
    graphs = {}
    for name, path in command.graphs.items():
        if not path.is_file():
            raise ConfigError(f"graph {name!r}: there is no file {str(path)!r}")
        config = ModelConfig(name=name, type="", task="", files={"model": path}, config=None, limits=command.limits)
        graphs[name] = backend.open(config, lambda model, _inputs, _outputs: model)
    return graphs


def _wasi(command: Command) -> wasmtime.WasiConfig:
    """What the guest sees of this machine."""
    import wasmtime

    wasi = wasmtime.WasiConfig()
    wasi.argv = [command.module.name, *command.arguments]
    wasi.env = list(command.environment.items())
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for directory in command.directories:
        try:
            wasi.preopen_dir(str(directory.host), directory.guest, directory.writable)
        except wasmtime.WasmtimeError as error:
            raise ConfigError(f"the directory {str(directory.host)!r} cannot be opened") from error
    return wasi


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the process at once: Python would not see it while the guest runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(text: str) -> None:
    print(f"ovllama: {text}", file=sys.stderr)
