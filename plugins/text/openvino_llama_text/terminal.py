"""``ovllama chat``: a chat with a model in the terminal, over HTTP with a server that runs, or with one of its own."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec

__all__ = ["chat"]

_CHAT = "/v1/chat/completions"
_SERVES = re.compile(r"serves on (http://\S+)")
_DATA = "data: "
_HELP = "Type a message; /clear begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer."


@click.command()
@click.argument("model", required=False)
@click.option("--url", envvar="OVLLAMA_URL", help="A server that runs; without it, one is started for this chat.")
@click.option("--api-key", envvar="OVLLAMA_API_KEY", help="The server's key.")
@click.option("--registry", type=click.Path(path_type=Path), help="The registry of the server that is started.")
@click.option("--system", help="What the model is told before the chat.")
@click.option("--max-tokens", type=int, help="Most tokens of an answer.")
@click.option("--temperature", type=float, help="0 is the same answer each time.")
def chat(model: str | None, url: str | None, registry: Path | None, **options: Any) -> None:
    """Chat with a model that generates text.

    MODEL is the name of a model; without it, the active one answers.
    """
    _leave_when_told()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is no text must not end the chat
    with ExitStack() as stack:
        address = url or stack.enter_context(_own_server(registry))
        client = stack.enter_context(_client(address, options.pop("api_key")))
        _Chat(client, model, **options).run()


class _Chat:
    """One chat: what has been said so far."""

    def __init__(
        self,
        client: httpx.Client,
        model: str | None,
        system: str | None,
        max_tokens: int | None,
        temperature: float | None,
    ) -> None:
        self._client = client
        stated = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        self._asked = {name: value for name, value in stated.items() if value is not None} | {"stream": True}
        self._begin = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._begin)

    def run(self) -> None:
        """Read messages and show answers, until the end of the input."""
        click.secho(_HELP, dim=True, err=True)
        while (text := _read()) is not None:
            if text == "/exit":
                return
            if text == "/clear":
                self._messages = list(self._begin)
            elif text:
                self._answer(text)

    def _answer(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text})
        answer = ""
        try:
            for piece in self._pieces():
                answer += piece
                click.echo(piece, nl=False)
        except KeyboardInterrupt:  # leaving the connection is what stops the model
            click.secho(" [stopped]", dim=True, nl=False)
        except (httpx.HTTPError, click.ClickException) as error:
            self._messages.pop()
            if answer:
                click.echo()
            click.secho(str(error) or type(error).__name__, fg="red", err=True)
            return
        click.echo()
        self._messages.append({"role": "assistant", "content": answer})

    def _pieces(self) -> Iterator[str]:
        with self._client.stream("POST", _CHAT, json=self._asked | {"messages": self._messages}) as response:
            if response.status_code != httpx.codes.OK:
                raise click.ClickException(_told(response.read()))
            for line in response.iter_lines():
                if line.startswith(_DATA) and line != _DATA + "[DONE]":
                    yield _content(line.removeprefix(_DATA))


def _leave_when_told() -> None:
    """Closing the terminal ends the chat, too, in an orderly way: else a server of its own would stay behind."""
    for name in ("SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)  # not everywhere
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, lambda got, _: sys.exit(128 + got))


def _content(data: str) -> str:
    news = msgspec.json.decode(data)
    if "error" in news:
        raise click.ClickException(news["error"]["message"])
    return "".join(choice["delta"].get("content") or "" for choice in news["choices"])


def _told(body: bytes) -> str:
    """What the server says is wrong, in either of the shapes that it has for that."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return "the server answered something that is not JSON"
    error = problem.get("error")
    return str(error["message"] if isinstance(error, dict) else problem.get("detail"))


def _read() -> str | None:
    try:
        if sys.stdin.isatty():
            click.echo("> ", nl=False)
            _await_line()
        return input().strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        click.echo()
        return ""


def _await_line() -> None:
    """Wait until there is something to read: a signal that comes just before ``input`` reads would wait for it, too."""
    if os.name != "posix":
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell)
    try:
        select.select([sys.stdin, told], [], [])
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        os.close(tell)


def _client(address: str, api_key: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # An answer may take its time, a connection may not.
    timeout = httpx.Timeout(None, connect=10)
    return httpx.Client(base_url=address, headers=headers, timeout=timeout, trust_env=False)


@contextmanager
def _own_server(registry: Path | None) -> Iterator[str]:
    """The address of a server that lives as long as the chat."""
    command = [sys.executable, "-m", "openvino_llama", "serve", "--port", "0"]
    command += ["--registry", str(registry)] if registry else []
    environment = {name: value for name, value in os.environ.items() if name != "OVLLAMA_API_KEY"}
    click.secho("Loading...", dim=True, err=True)
    # In a session of its own, so that Ctrl-C stops an answer and not the server.
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        command, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True
    )
    with process:
        try:
            yield _address(process)
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        if found := _SERVES.search(line):
            return found[1]
    raise click.ClickException("the server did not start; ovllama serve says why")
