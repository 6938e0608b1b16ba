"""``ovllama chat`` and ``ovllama infer`` as they are typed: at the end of a pipe, and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .support import STORY, Served, await_true, entry

OVLLAMA = (sys.executable, "-m", "openvino_llama")
SHORT = ("--max-tokens", "8", "--temperature", "0")


def run(*arguments: str, stdin: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    given = stdin.encode() if isinstance(stdin, str) else stdin
    command = [*OVLLAMA, *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, timeout=90, check=False, env=os.environ | environment
    )


def answer(served: Served, *messages: str) -> str:
    """What the server says itself: messages are the user's and the assistant's in turn."""
    chat = [{"role": ("user", "assistant")[place % 2], "content": each} for place, each in enumerate(messages)]
    return str(served.infer({"messages": chat, "max_tokens": 8, "temperature": 0})["generated_text"])


def test_a_chat_through_a_pipe(served: Served) -> None:
    """Each line is a message, the answers are all that is on stdout; what was said before counts until /clear."""
    first = answer(served, "What is a cat?")
    second = answer(served, "What is a cat?", first, "And a dog?")
    lines = "What is a cat?\n\nAnd a dog?\n/clear\nWhat is a cat?\n/exit\nnot read\n"
    done = run("chat", "smol", "--url", served.address, *SHORT, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{first}\n{second}\n{first}\n"


def test_a_system_message_stays(served: Served) -> None:
    """It is the first one after /clear, too."""
    arguments = ("chat", "smol", "--system", "You only say yes.", *SHORT)
    done = run(*arguments, stdin="Hi\n/clear\nHi\n", OVLLAMA_URL=served.address)
    chat = [{"role": "system", "content": "You only say yes."}, {"role": "user", "content": "Hi"}]
    expected = served.infer({"messages": chat, "max_tokens": 8, "temperature": 0})["generated_text"]
    assert done.stdout.decode() == f"{expected}\n" * 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody",), 1, ("there is no model 'nobody'", "smol, crowded", "ovllama models")),
        (("--url", "http://127.0.0.1:9"), 1, ("http://127.0.0.1:9: no answer", "refused")),
        (("--url", "foo"), 2, ("--url", "expected http://HOST:PORT, got 'foo'")),
        (("--url", "http://a:x"), 2, ("--url", "expected http://HOST:PORT")),
        (("--max-tokens", "0"), 2, ("--max-tokens", "0 is not in the range")),
        (("--temperature", "3"), 2, ("--temperature", "3.0 is not in the range")),
        (("--temperature", "nan"), 2, ("--temperature", "finite")),
    ],
)
def test_what_is_wrong_is_said_at_once(
    served: Served, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    """Before anything is read: which server, which model, which option, and what there is instead."""
    done = run("chat", "--url", served.address, *arguments, stdin="Hi\n")
    said = done.stderr.decode()
    assert done.returncode == code, said
    for word in words:
        assert word in said
    assert "Type a message" not in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("minilm")
def test_a_model_that_is_not_for_a_chat(served: Served) -> None:
    """Its task says why."""
    done = run("chat", "--url", served.address, "minilm", stdin="Hi\n")
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "model 'minilm' is not for a chat, its task is 'embedding'" in said
    assert "smol, crowded" in said


def test_what_goes_wrong_with_a_message_is_said(served: Served) -> None:
    """The chat goes on, and its exit code says that not everything was answered."""
    done = run("chat", "smol", "--url", served.address, *SHORT, stdin="word " * 2000 + "\nWhat is a cat?\n")
    assert done.returncode == 1
    assert "tokens" in done.stderr.decode()
    assert done.stdout.decode() == answer(served, "What is a cat?") + "\n"


def test_commands(served: Served) -> None:
    """An unknown one is no message; with a blank before it, it is."""
    done = run("chat", "smol", "--url", served.address, *SHORT, stdin="/help\n /x\n/foo bar\n")
    assert done.returncode == 1
    said = done.stderr.decode()
    assert said.count("/clear begins anew") == 2
    assert "there is no command '/foo bar'" in said
    assert done.stdout.decode() == answer(served, "/x") + "\n"


@pytest.mark.parametrize("line", [b"a\0b\n", b"\xff\xfe\n", b"\xed\xa0\x80\n", "🙂\n".encode()])
def test_odd_lines(served: Served, line: bytes) -> None:
    """Bytes that are no text do not end the chat."""
    done = run("chat", "smol", "--url", served.address, *SHORT, stdin=line + b"Hi\n")
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode().endswith("\n")
    assert done.returncode == 0


class Terminal:
    """A chat in a pseudo-terminal."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def await_text(self, pattern: str, seconds: float = 60) -> str:
        """What is shown until the pattern has been; what comes after it is for the next call."""
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            if not select.select([self._leader], [], [], seconds)[0]:
                raise AssertionError(f"{pattern} has not been shown: {self.seen!r}")
            self.seen += os.read(self._leader, 4096).decode("utf-8", "replace")
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    leader, follower = pty.openpty()
    # Its controlling terminal, so that Ctrl-C becomes an interrupt. The tests may run under nohup or in a shell's
    # background, where these signals are ignored; a chat does not.
    command = (
        "import fcntl, os, signal, sys, termios; "
        "[signal.signal(each, signal.SIG_DFL) for each in (signal.SIGHUP, signal.SIGINT)]; "
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command, *OVLLAMA, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    ) as process:
        os.close(follower)
        try:
            yield Terminal(leader), process
        finally:
            process.kill()
            os.close(leader)


def test_a_chat_in_a_terminal(served: Served) -> None:
    """Ctrl-C stops an answer, and the model with it, not the chat; at the prompt it does nothing; Ctrl-D leaves."""
    with terminal("chat", "smol", "--url", served.address, "--temperature", "0") as (screen, process):
        screen.await_text("> ")
        screen.type("Tell me a very long story about the sea.\r")
        screen.await_text(r"\n.{40}")
        await_true(lambda: served.running() == 1)  # the terminal may have shown the message twice, and no answer yet
        screen.type("\x03")
        screen.await_text(r"\[stopped\].*> ")
        served.await_idle()
        screen.type("\x03")
        screen.await_text(r"\n> ")
        screen.type("/clear\r")
        screen.await_text(r"/clear\r\n> ")
        screen.type("\x04")
        assert process.wait(20) == 0


def test_lines_are_edited(served: Served) -> None:
    """Arrows bring back what was typed before, and move in the line; a line typed ahead is not lost."""
    pytest.importorskip("readline")
    with terminal("chat", "smol", "--url", served.address, *SHORT) as (screen, process):
        screen.await_text("> ")
        screen.type("/nobdy\x1b[D\x1b[Do\r")
        screen.await_text("no command '/nobody'.*> ")
        screen.type("\x1b[A\r/typed ahead\r/and more\r")
        for command in ("/nobody", "/typed ahead", "/and more"):
            screen.await_text(f"no command '{command}'")
        screen.await_text(r"\n> ")
        screen.type("\x04")
        assert process.wait(20) == 0


def test_leaving_while_an_answer_is_shown(served: Served) -> None:
    """Ctrl-D leaves once it has come to its end."""
    with terminal("chat", "smol", "--url", served.address, "--max-tokens", "100") as (screen, process):
        screen.await_text("> ")
        screen.type("Tell me a story.\r")
        screen.await_text(r"story\.\r\n.{10}")
        screen.type("\x04")
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_chat_with_a_server_of_its_own(served: Served) -> None:
    """Without --url one is started, and ends with the chat."""
    done = run(
        "chat", "smol", "--registry", str(served.registry), *SHORT, stdin="What is a cat?\n", OVLLAMA_CACHE_DIR=""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == answer(served, "What is a cat?") + "\n"


def test_a_server_that_does_not_start() -> None:
    """Is told, and nothing is left waiting."""
    done = run("chat", stdin="Hi\n", OVLLAMA_HOST="192.0.2.1")
    assert done.returncode == 1
    assert b"did not start" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes there are")
@pytest.mark.parametrize("told", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_is_closed(smollm2: Path, tmp_path: Path, told: signal.Signals) -> None:
    """The server of a chat ends, too, when the terminal is closed or the chat is told to end."""
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"models": {"smol": entry(tmp_path, smollm2)}}))
    with terminal("chat", "--registry", str(registry)) as (screen, process):
        screen.await_text("> ")
        (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(told)
        assert process.wait(30) == 128 + told
    assert not Path("/proc", server).exists()


def test_one_text(served: Served) -> None:
    """``ovllama infer`` continues what stands on the command line."""
    command = ("infer", "smol", STORY, "max_tokens=8", "temperature=0", "--registry", str(served.registry))
    done = run(*command, OVLLAMA_CACHE_DIR="")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == served.infer({"prompt": STORY, "max_tokens": 8, "temperature": 0})
    assert b"no file" not in done.stderr


def test_a_text_that_looks_like_a_file(served: Served) -> None:
    """Is a text if there is no such file, and that is said."""
    command = ("infer", "smol", "photo.txt", "max_tokens=2", "--registry", str(served.registry))
    done = run(*command, OVLLAMA_CACHE_DIR="")
    assert done.returncode == 0, done.stderr
    assert b"there is no file 'photo.txt': taken as a text" in done.stderr
    assert json.loads(done.stdout)["results"]["usage"]
