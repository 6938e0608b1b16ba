"""What is compared lives at the same time, each in a process of its own, and is measured in turns.

A shared machine is faster and slower by a tenth from one second to the next: only what is measured side by side can be
compared. Of two processes with the same model the one that was started first may be slower, by up to a tenth: so all
are started anew in each round, and each round begins with another one; there are as many rounds as contestants, or a
multiple.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Contestant", "Figures", "Turn", "asked", "in_turns", "loaded", "run_json", "served", "started"]

ROOT = Path(__file__).resolve().parent.parent

Figures = dict[str, Any]
Turn = Callable[[int], Figures]
"""Measures for some seconds; gets the number of the turn, for inputs that nobody has seen before. 0 warms up."""
Contestant = Callable[[], AbstractContextManager[Turn]]
"""Starts a process."""


def in_turns(contestants: Mapping[str, Contestant], rounds: int, turns: int) -> dict[str, list[Figures]]:
    """Start all ``rounds`` times, and give each so many turns; their figures, which belong together by their index."""
    figures: dict[str, list[Figures]] = {name: [] for name in contestants}
    names = list(contestants)
    for _ in range(rounds):
        with ExitStack() as running:
            ready = {name: running.enter_context(contestants[name]()) for name in names}
            for number in range(turns + 1):
                for name in random.sample(names, len(names)):
                    measured = ready[name](number)
                    if number:
                        figures[name].append(measured)
        names.append(names.pop(0))
    return figures


@contextlib.contextmanager
def started(module: str, *arguments: object) -> Iterator[str]:
    """A server of its own, until SIGTERM; its address, the last word of the first line that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout
        yield process.stdout.readline().split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        _await_end(process)


def served(registry: Path) -> AbstractContextManager[str]:
    """The server of this project with the models of a registry; its address."""
    return started("openvino_llama", "serve", "--registry", registry, "--port", "0")


@contextlib.contextmanager
def loaded(server: AbstractContextManager[str], path: str, *arguments: object) -> Iterator[Turn]:
    """A server under ``benchmarks.load``, with these arguments after the URL; AssertionError if it gives errors."""
    with server as address:

        def turn(_: int) -> Figures:
            figures = run_json("benchmarks.load", f"{address}{path}", *arguments)
            assert not figures["errors"], f"{path} was answered with errors"
            return figures

        yield turn


@contextlib.contextmanager
def asked(module: str, *arguments: object) -> Iterator[Callable[..., Figures]]:
    """A process that answers each line of its stdin with a line of JSON, and ends with it: a function that asks it."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin
    assert process.stdout
    into, out = process.stdin, process.stdout

    def ask(*words: object) -> Figures:
        print(*words, file=into, flush=True)
        answer = out.readline()
        if not answer:
            raise RuntimeError(f"{module} ended with {process.wait(60)}")
        figures: Figures = json.loads(answer)
        return figures

    try:
        yield ask
    finally:
        with contextlib.suppress(BrokenPipeError):
            into.close()
        _await_end(process)


def _await_end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_json(module: str, *arguments: object) -> Figures:
    """Run a benchmark's part in a process of its own, to its end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures
