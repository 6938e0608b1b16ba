"""Tries forms of the output (JSON schemas, regular expressions, grammars) before the engine meets them.

xgrammar compiles them inside a step of the engine, where a form that takes minutes would stop everybody's tokens, and
one that is wrong would end the step with an exception. So a process that may be killed compiles them first; what it
has said of a form is remembered. Knows nothing of sequences.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from openvino_llama import InferenceError, InvalidInputError, UnavailableError
from openvino_llama_text.engine.environment import environment
from openvino_llama_text.engine.frames import Check, Checked, Frames, write_frame
from openvino_llama_text.engine.parameters import EngineParameters

__all__ = ["GrammarChecker"]

_REMEMBERED = 1024
_FORGET_SECONDS = 60.0
"""Too complex is also what a busy machine makes of a form: another day it may compile in time."""
_START_SECONDS = 60.0
_TURN_SECONDS = 0.1
_SECONDS = 2.0
"""The engine takes as long as the checker, and everybody waits for it: no form may take longer."""


class _Verdict(NamedTuple):
    """What was said of a form."""

    problem: str
    """Empty if it compiles."""
    until: float = math.inf
    """When it is to be tried again, on the monotonic clock."""


class GrammarChecker:
    """One model's checker. Used by several threads; one form is tried at a time."""

    def __init__(self, model: str, seconds: float = _SECONDS, forget_seconds: float = _FORGET_SECONDS) -> None:
        """``model`` is what the engine is given too: its tokenizer is what forms are compiled for.

        A form that does not compile within ``seconds`` is refused, for ``forget_seconds`` without another try.
        """
        self._model = model
        self._seconds = seconds
        self._forget_seconds = forget_seconds
        self._known: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    def check(self, parameters: EngineParameters, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Raise InvalidInputError, naming the parameter, for a form that does not compile, or not soon.

        InferenceError if it has to wait for others and is not wanted any more meanwhile.
        """
        if parameters.form is None:
            return
        kind, source = parameters.form
        key = hashlib.sha256(f"{kind}\0{source}".encode()).digest()
        verdict = self._verdict(key)
        if verdict is None:
            with self._turn(is_wanted):
                verdict = self._verdict(key) or self._remember(key, self._try(Check(kind, source)))
        if verdict.problem:
            raise InvalidInputError(f"parameter {kind!r} {verdict.problem}")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            self._end()

    @contextlib.contextmanager
    def _turn(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """One form at a time; who has left does not wait for those before."""
        while not self._lock.acquire(timeout=_TURN_SECONDS):
            if not is_wanted():
                raise InferenceError("the generation was cancelled")
        try:
            yield
        finally:
            self._lock.release()

    def _verdict(self, key: bytes) -> _Verdict | None:
        """What is known of a form."""
        verdict = self._known.get(key)
        return verdict if verdict and time.monotonic() < verdict.until else None

    def _remember(self, key: bytes, verdict: _Verdict) -> _Verdict:
        self._known[key] = verdict
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return verdict

    def _try(self, check: Check) -> _Verdict:
        """Have a form compiled."""
        if self._child and self._child.poll() is not None:
            self._end()  # it died while it had nothing to do: that is no form's fault
        child = self._child or self._start()
        assert child.stdin is not None  # noqa: S101 - these are pipes
        assert child.stdout is not None  # noqa: S101
        try:
            write_frame(child.stdin, check)
            answer = _answer(child, child.stdout, self._seconds)
        except OSError:
            answer = None
        if answer is None:
            self._end()
            problem = f"is too complex: it does not compile within {self._seconds:g} s and the memory for it"
            return _Verdict(problem, time.monotonic() + self._forget_seconds)
        return _Verdict(answer.message)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise UnavailableError("the model is being unloaded")
        command = [
            sys.executable,
            "-P",
            "-m",
            "openvino_llama_text.engine.grammar_child",
            self._model,
        ]
        self._child = child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        ready = _answer(child, child.stdout, _START_SECONDS)
        if ready is None or ready.message:
            self._end()
            raise InvalidInputError("this model has no tokenizer of OpenVINO's beside it: its output can have no form")
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    _close(pipe)


def _answer(child: subprocess.Popen[bytes], pipe: IO[bytes], seconds: float) -> Checked | None:
    """The next answer; None if the process dies, or is killed because it takes too long."""
    timer = threading.Timer(seconds, child.kill)
    timer.start()
    try:
        return Frames[Checked](pipe, Checked).read()
    finally:
        timer.cancel()


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what was not written yet cannot be written any more
        pipe.close()
