"""How an engine's process gets its commands, of both kinds: polled, and by a thread."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from openvino_llama_text.engine.backend import EngineGraph
from openvino_llama_text.engine.commands import PIPE_BYTES, PolledCommands, ThreadedCommands, widen
from openvino_llama_text.engine.frames import Add, Cancel, Illustrated, Picture, write_frame
from openvino_llama_text.engine.parameters import EngineParameters

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes of another system")

KINDS = (PolledCommands, ThreadedCommands)


def picture(size: int) -> Add:
    """A sequence about a picture of so many bytes."""
    prompt = Illustrated("<ov_genai_image_0>", [Picture(1, size // 3, bytes(size))])
    return Add(1, prompt, EngineParameters(max_tokens=1))


def frame(command: Any) -> bytes:
    """What is written of it."""
    content = io.BytesIO()
    write_frame(content, command)
    return content.getvalue()


@pytest.fixture
def pipe() -> tuple[IO[bytes], IO[bytes]]:
    """Where commands come out, and where they are put in; never closed, since its end would end this process."""
    out, into = os.pipe()
    pipe = os.fdopen(out, "rb", closefd=False), os.fdopen(into, "wb", 0, closefd=False)
    widen(pipe[1])
    return pipe


@pytest.mark.parametrize("kind", KINDS)
def test_one_after_another(kind: Any, pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    """Whole, and in their order, however many come at once and wherever they are cut."""
    commands, into = kind(pipe[0]), pipe[1]
    assert commands.poll() is None
    assert commands.poll(0.01) is None
    assert commands.poll(-1.0) is None
    sent = [Cancel(1), picture(30_000), Cancel(2), Cancel(3)]
    content = b"".join(map(frame, sent))
    for begin, end in ((0, 2), (2, 9_000), (9_000, len(content))):
        threading.Timer(begin / 100_000, into.write, [content[begin:end]]).start()
    assert [commands.wait() for _ in sent] == sent
    assert commands.poll() is None


@pytest.mark.parametrize("kind", KINDS)
def test_larger_than_the_pipe(kind: Any, pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    commands, sent = kind(pipe[0]), picture(9 << 20)
    threading.Thread(target=write_frame, args=(pipe[1], sent)).start()
    assert commands.wait() == sent


@pytest.mark.parametrize("kind", KINDS)
def test_within_a_time(kind: Any, pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    commands, into = kind(pipe[0]), pipe[1]
    threading.Timer(0.05, into.write, [frame(Cancel(1))]).start()
    assert commands.poll(30) == Cancel(1)


def test_what_is_there_is_there_at_once(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    """A picture in the pipe needs no thread's turn; one that has begun to come is awaited."""
    commands, into = PolledCommands(pipe[0]), pipe[1]
    content = frame(picture(900_000))
    into.write(content)
    assert commands.poll() == picture(900_000)
    into.write(content[:5])
    threading.Timer(0.05, into.write, [content[5:]]).start()
    assert commands.poll() == picture(900_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [b"", b"\x05", frame(Cancel(1))[:-1]])
@pytest.mark.parametrize("ask", ["wait()", "poll(30)"])
def test_the_end_of_the_pipe_ends_the_process(kind: Any, last: bytes, ask: str) -> None:
    code = (
        "import os, sys\n"
        f"from openvino_llama_text.engine.commands import {kind.__name__} as kind\n"
        "commands = kind(os.fdopen(os.dup(0), 'rb'))\n"
        f"while True: commands.{ask}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=frame(Cancel(7)) + last, timeout=30, check=False)
    assert done.returncode == 0


def test_the_engines_own(graph: EngineGraph) -> None:
    """The pipe has room for a picture: the server need not wait for a step to have one written."""
    child = graph.process._child
    assert child
    assert child.stdin
    assert fcntl.fcntl(child.stdin, fcntl.F_GETPIPE_SZ) == PIPE_BYTES


def test_a_system_that_grants_no_more() -> None:
    """Then the pipe stays as it is: /dev/null is none at all."""
    with Path(os.devnull).open("rb") as nothing:
        widen(nothing)
