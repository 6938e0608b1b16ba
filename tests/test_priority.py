"""Threads that make way, and a process whose threads do not interrupt each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from openvino_llama import make_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def test_a_thread_makes_way() -> None:
    """It alone: the others keep their priority."""
    own: Future[int] = Future()

    def work() -> None:
        make_way()
        own.set_result(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    threading.Thread(target=work).start()
    assert own.result(10) >= 10
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_threads_that_let_others_finish() -> None:
    """Those that run already, and those started from then on; in a process of its own, since few may take it back."""
    code = (
        "import os, threading\n"
        "from openvino_llama.priority import let_others_finish\n"
        "go, found = threading.Event(), []\n"
        "tell = lambda: found.append(go.wait() and os.sched_getscheduler(0))\n"
        "threads = [threading.Thread(target=tell), threading.Thread(target=tell)]\n"
        "threads[0].start()\n"
        "let_others_finish()\n"
        "threads[1].start()\n"
        "go.set()\n"
        "[each.join() for each in threads]\n"
        "print(found == [os.SCHED_BATCH] * 2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
