"""Memory that requests freed is there for the next ones; modules are left out of the collector's rounds."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, threading
import numpy as np
from openvino_llama.memory import keep_freed_memory

def request():
    pictures = [np.ones(600 << 10, np.uint8) for _ in range(6)]

def work():
    request()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        request()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 100)

{}
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(first: str) -> int:
    """Pages that have to be asked of the system for each request."""
    done = subprocess.run([sys.executable, "-c", CODE.format(first)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told what to keep")
def test_freed_memory_is_kept() -> None:
    """Without a word, malloc gives it back between two requests."""
    assert faults("") > 100
    assert faults("keep_freed_memory()") < 10


def test_what_stays_is_not_looked_through() -> None:
    """Garbage is none of it; in a process of its own, since it is for ever."""
    code = (
        "import gc, weakref\n"
        "from openvino_llama.memory import spare_what_is_there\n"
        "class Garbage: pass\n"
        "garbage = Garbage()\n"
        "garbage.itself, watched = garbage, weakref.ref(garbage)\n"
        "del garbage\n"
        "spare_what_is_there()\n"
        "print(watched() is None, len(gc.get_objects()) < gc.get_freeze_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
