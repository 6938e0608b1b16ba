"""Engines that are killed, closed, and left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.plugins.text.engine.runs import PROMPT, config, context, generate, prompts, pull, together, wait_until

from openvino_llama import InferenceError, Step, UnavailableError
from openvino_llama_text.engine import process
from openvino_llama_text.engine.backend import EngineBackend, EngineGraph

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

_SERVER = """
import sys
from pathlib import Path
from openvino_llama_text.engine.backend import EngineBackend
from tests.plugins.text.engine.runs import PROMPT, config, context
graph = EngineBackend().open(config(Path(sys.argv[1])), None)
made = context(graph, PROMPT, max_tokens=900, ignore_eos=True)
made.compute_single()
print(graph.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def own(smollm2: Path) -> Iterator[EngineGraph]:
    """An engine of the test's own."""
    graph = EngineBackend().open(config(smollm2), None)
    yield graph
    graph.close()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_engine_comes_again(own: EngineGraph) -> None:
    """Its sequences fail with a clear message, further ones are told to wait, and then it serves."""
    expected = generate(own, PROMPT, max_tokens=60)
    made = [context(own, prompt, max_tokens=900, ignore_eos=True) for prompt in prompts(4)]
    assert [each.compute_single() for each in made] == [Step.OUTPUT] * 4
    pid = own.process.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    for failed in together([partial(pull, each) for each in made]):
        assert isinstance(failed, InferenceError)
        assert "has ended unexpectedly" in str(failed)
    with pytest.raises(UnavailableError, match="restarting"):
        generate(own, PROMPT)
    assert "restarting" in own.unready_reason()
    wait_until(lambda: not own.unready_reason())
    assert generate(own, PROMPT, max_tokens=60) == expected
    assert own.gauges()["restarts"] == 1
    assert not _exists(pid)


def test_pauses_grow_while_no_start_succeeds(
    own: EngineGraph, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long a start takes before it fails: a large model that does not fit any more is not loaded for ever."""
    monkeypatch.setattr(process, "_STEADY_SECONDS", 0.0)
    killed: set[int | None] = {None}
    for _ in range(3):
        wait_until(lambda: own.process.pid not in killed)
        pid = own.process.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    wait_until(lambda: own.process.pid not in killed)
    paused = [float(found) for found in re.findall(r"starts in (\S+) s", caplog.text)]
    assert paused == [0.25, 0.5, 1.0]


def test_close_ends_what_runs(own: EngineGraph) -> None:
    """Sequences that run fail; the process is gone and buried; nothing is taken any more."""
    made = [context(own, prompt, max_tokens=900, ignore_eos=True) for prompt in prompts(4)]
    assert [each.compute_single() for each in made] == [Step.OUTPUT] * 4
    pid = own.process.pid
    assert pid
    own.close()
    for each in made:
        with pytest.raises(InferenceError, match="closed"):
            pull(each)
    assert not _exists(pid)
    with pytest.raises(UnavailableError, match="closed"):
        generate(own, PROMPT)


def test_a_stopped_engine_is_killed(own: EngineGraph) -> None:
    """Nor does cancelling wait for an engine that does not answer."""
    made = context(own, PROMPT, max_tokens=900, ignore_eos=True)
    assert made.compute_single() is Step.OUTPUT
    pid = own.process.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    made.cancel()
    with pytest.raises(InferenceError, match="cancelled"):
        pull(made)
    own.close()
    assert not _exists(pid)


def test_a_hundred_at_once(own: EngineGraph) -> None:
    """More than the engine takes at a time wait for their turn, and all come to their end."""
    asked = prompts(100, 8)
    results = together([partial(generate, own, each, max_tokens=4, ignore_eos=True) for each in asked])
    assert [(len(tokens), step) for tokens, step in results] == [(4, Step.END_OF_SEQUENCE)] * 100


def test_ctrl_c_is_the_servers(own: EngineGraph) -> None:
    """An interrupt does not end the engine: what runs is drained first."""
    made = context(own, PROMPT, max_tokens=60)
    assert made.compute_single() is Step.OUTPUT
    pid = own.process.pid
    assert pid
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    assert pull(made)[1] is Step.END_OF_SEQUENCE


@pytest.mark.parametrize("stopped", [False, True])
def test_no_engine_outlives_its_server(smollm2: Path, stopped: bool) -> None:
    """A server that is killed takes its engine along, also one that does not notice."""
    command = [sys.executable, "-c", _SERVER, str(smollm2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        pid = int(server.stdout.readline())
        if stopped and sys.platform == "linux":
            os.kill(pid, signal.SIGSTOP)
        server.kill()
    wait_until(lambda: not _exists(pid))
