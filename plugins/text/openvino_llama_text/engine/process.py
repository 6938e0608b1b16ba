"""The engine's process as the server sees it: started, listened to, started again when it dies.

One thread starts the process and stays for as long as it lives (the kernel binds a child to the thread that started
it), one listens to it, one copies stderr into the log, and one writes what a full pipe has refused (``outbox``). Knows
nothing of WASI-NN, nor of what tokens mean.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from openvino_llama import InferenceError, InvalidInputError, ModelLoadError, UnavailableError, make_way
from openvino_llama_text.engine.commands import widen
from openvino_llama_text.engine.environment import environment
from openvino_llama_text.engine.frames import (
    Add,
    Cancel,
    Event,
    Failed,
    Frames,
    Illustrated,
    Load,
    LoadFailed,
    Output,
    Ready,
    Stepped,
    Stop,
)
from openvino_llama_text.engine.outbox import Outbox
from openvino_llama_text.engine.parameters import EngineParameters
from openvino_llama_text.engine.sequence import Sequence

__all__ = ["EngineProcess"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 60.0
"""A process that served so long has not died of its start: the next one is started soon again."""
_LONGEST_LINE = 2000
_STOP_SECONDS = 5.0


class EngineProcess:
    """One model's engine. Every method may be called from any thread."""

    def __init__(self, name: str, load: Load, timeout: float = 600.0) -> None:
        """Start it and wait until the model is loaded; ModelLoadError if that fails or takes longer than timeout."""
        self._name = name
        self.load = load
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._sequences: dict[int, Sequence] = {}
        self._commands: Outbox | None = None
        """Leads to the process, while it is ready."""
        self._child: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._settled = threading.Event()
        self._load_error = ""
        self._last = Stepped([], 0, 0, 0.0, 0)
        self._restarts = -1
        self._ready_since = math.inf
        self.ready: Ready | None = None
        """What the model is; None before it was first loaded."""
        self._thread = threading.Thread(target=self._supervise, name=f"engine-{name}", daemon=True)
        self._thread.start()
        settled = self._settled.wait(timeout)
        if not settled or self._load_error:
            self.close()
            raise ModelLoadError(
                f"model {name!r}: {self._load_error or f'the engine was not ready within {timeout:g} s'}"
            )

    def sequence(self) -> Sequence:
        """A sequence that is yet to be submitted."""
        return Sequence(next(self._numbers), self.forget)

    def submit(self, sequence: Sequence, prompt: bytes | Illustrated, parameters: EngineParameters) -> None:
        """Have a sequence generated; UnavailableError while there is no engine."""
        with self._lock:
            commands = self._commands
            if commands is None:
                raise UnavailableError(self.unready_reason() or f"the engine of model {self._name!r} is ending")
            self._sequences[sequence.number] = sequence
            commands.put(Add(sequence.number, prompt, parameters))
        commands.send()  # without the lock, which others would wait for meanwhile
        if sequence.is_cancelled:  # meanwhile, when there was nothing to cancel yet
            self.forget(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Nobody waits for this sequence any more: free its memory within a step. Never blocks for long."""
        with self._lock:
            known = self._sequences.pop(sequence.number, None)
            commands = self._commands
            if known and commands:
                commands.put(Cancel(sequence.number))
        if commands:
            commands.send()

    def unready_reason(self) -> str:
        """Why no sequence is taken at the moment; empty if they are."""
        if self._commands is not None:
            return ""
        return f"the engine of model {self._name!r} is {'closed' if self._closing.is_set() else 'restarting'}"

    def gauges(self) -> Mapping[str, float]:
        """What is measured, by name; as of the last step, and zero where nothing runs."""
        last, running = self._last, len(self._sequences)
        scheduled = min(last.scheduled, running)
        return {
            "kv_cache_usage": last.cache_usage if running else 0.0,
            "kv_cache_bytes": float(last.cache_bytes),
            "running_sequences": float(scheduled),
            "waiting_sequences": float(running - scheduled),
            "restarts": float(max(self._restarts, 0)),
            "rss_bytes": float(_rss(self.pid)),
        }

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        child = self._child
        return child.pid if child and child.returncode is None else None

    def close(self) -> None:
        """End the process; sequences that still run fail."""
        self._closing.set()
        with self._lock:
            commands, self._commands = self._commands, None
            if commands:
                commands.put(Stop())
                commands.send()
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            self._kill()
            self._thread.join()

    # ---- on the supervising thread ------------------------------------------------------------------------------

    def _supervise(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            self._ready_since = math.inf
            self._restarts += 1
            try:
                self._live()
            except Exception:
                logger.exception("the engine of model %s could not be run", self._name)
                self._load_error = self._load_error or "the engine could not be started; the log has its reasons"
            if not self._settled.is_set():  # it never was ready: this is for whoever loads the model
                self._load_error = self._load_error or "the engine ended while it loaded the model"
                self._settled.set()
                return
            if self._closing.is_set():
                return
            steady = time.monotonic() - self._ready_since > _STEADY_SECONDS
            pause = _FIRST_PAUSE if steady else min(2 * pause, _LONGEST_PAUSE)
            logger.error("the engine of model %s has ended; the next one starts in %g s", self._name, pause / 2)
            self._closing.wait(pause / 2)

    def _live(self) -> None:
        """One life of the process, to its end."""
        child = _start()
        assert child.stdin is not None  # noqa: S101 - these are pipes
        assert child.stdout is not None  # noqa: S101
        assert child.stderr is not None  # noqa: S101
        widen(child.stdin)
        self._child = child
        commands = Outbox(child.stdin)
        log = threading.Thread(target=_copy_to_log, args=(self._name, child.stderr), daemon=True)
        # Not on this thread, which makes way for nobody: the next process would inherit it.
        listener = threading.Thread(target=self._hear, args=(Frames(child.stdout, Event), commands), daemon=True)
        for thread in (log, listener):
            thread.start()
        commands.put(self.load)
        commands.send()
        try:
            listener.join()
        finally:
            commands.close()
            self._fail_all()
            self._bury(child)
            commands.join()
            log.join()
            for pipe in (child.stdout, child.stderr):
                pipe.close()

    def _hear(self, frames: Frames[Event], commands: Outbox) -> None:
        make_way()
        try:
            self._listen(frames, commands)
        except Exception:
            logger.exception("the engine of model %s could not be understood", self._name)

    def _listen(self, frames: Frames[Event], commands: Outbox) -> None:
        while (event := frames.read()) is not None:
            if isinstance(event, Stepped):
                self._last = event
                for output in event.outputs:
                    self._deliver(output)
            elif isinstance(event, Failed):
                self._fail(event)
            elif isinstance(event, Ready):
                self._become_ready(event, commands)
            elif isinstance(event, LoadFailed):
                self._load_error = event.message

    def _become_ready(self, ready: Ready, commands: Outbox) -> None:
        with self._lock:
            if self._closing.is_set():
                commands.put(Stop())
                commands.send()
            else:
                self._commands = commands
        self.ready = ready
        self._ready_since = time.monotonic()
        self._load_error = ""
        self._settled.set()

    def _deliver(self, output: Output) -> None:
        sequences = self._sequences
        sequence = sequences.pop(output.id, None) if output.reason else sequences.get(output.id)
        if sequence:  # if not, it was cancelled meanwhile
            sequence.put(output)

    def _fail(self, failed: Failed) -> None:
        sequence = self._sequences.pop(failed.id, None)
        if sequence:
            sequence.put(InvalidInputError(failed.message))

    def _fail_all(self) -> None:
        with self._lock:
            self._commands = None
            lost, self._sequences = self._sequences, {}
        how = "was closed" if self._closing.is_set() else "has ended unexpectedly; it is being started again"
        for sequence in lost.values():
            sequence.put(InferenceError(f"the engine of model {self._name!r} {how}"))

    def _bury(self, child: subprocess.Popen[bytes]) -> None:
        """Its output has ended: so must the process."""
        try:
            status = child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        if status:
            logger.error("the engine of model %s has ended with status %d", self._name, status)

    def _kill(self) -> None:
        child = self._child
        if child:
            child.kill()


def _start() -> subprocess.Popen[bytes]:
    # -P: a file in the working directory must not be taken for a module.
    command = [sys.executable, "-P", "-m", "openvino_llama_text.engine", str(os.getpid())]
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,  # what is typed into the server's terminal is the server's
    )


def _copy_to_log(name: str, pipe: IO[bytes]) -> None:
    while line := pipe.readline(_LONGEST_LINE):
        logger.info("engine of model %s: %s", name, line.decode(errors="replace").rstrip())


def _rss(pid: int | None) -> int:
    """Memory of a process in bytes; 0 where the system does not tell."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
