"""The checker of forms: who waits for it, and what it remembers."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.plugins.text.engine.runs import PROMPT, context, wait_until

from openvino_llama import InferenceError, InvalidInputError
from openvino_llama_text.engine.backend import EngineGraph
from openvino_llama_text.engine.grammar import GrammarChecker
from openvino_llama_text.engine.parameters import EngineParameters

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

SIMPLE = EngineParameters(max_tokens=1, regex="[ab]")


def _stop(checker: GrammarChecker) -> None:
    """Have its process do nothing, as on a machine that is busy otherwise."""
    assert checker._child is not None
    os.kill(checker._child.pid, signal.SIGSTOP)


@pytest.fixture
def checker(smollm2: Path) -> Iterator[GrammarChecker]:
    made = GrammarChecker(str(smollm2), seconds=2, forget_seconds=0)
    yield made
    made.close()


def test_a_busy_machine_is_not_held_against_a_form(checker: GrammarChecker) -> None:
    """What did not compile in time is tried again later."""
    checker.check(EngineParameters(max_tokens=1, regex="c"))
    _stop(checker)
    with pytest.raises(InvalidInputError, match="too complex"):
        checker.check(SIMPLE)
    checker.check(SIMPLE)


def test_who_leaves_does_not_wait_for_the_checker(graph: EngineGraph) -> None:
    """A sequence that is cancelled while another's form is being checked ends, and not only after that."""
    made = context(graph, PROMPT, regex="[0-9]")
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            made.compute_single()
        except InferenceError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    with graph.checker._lock:
        waiting.start()
        wait_until(lambda: made._sequence is not None)
        made.cancel()
        waiting.join(30)
        assert [str(each) for each in failures] == ["the generation was cancelled"]
    made.close()
