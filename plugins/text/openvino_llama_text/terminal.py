"""``ovllama chat``: a chat with a model in the terminal, over HTTP with a server that runs, or with one of its own."""

from __future__ import annotations

import io
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec

from openvino_llama_text.terminal_input import read_line
from openvino_llama_text.terminal_server import check_model, open_client, own_server, told, unreachable

__all__ = ["chat"]

_CHAT = "/v1/chat/completions"
_DATA = "data: "
_HELP = """\
Type a message; /clear begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer, /help says this.
A message that begins with / needs a blank before it."""


def _address(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if not url:
        return None
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise click.BadParameter(f"expected http://HOST:PORT, got {url!r}: {error}") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise click.BadParameter(f"expected http://HOST:PORT, got {url!r}")
    return url


def _finite(_: click.Context, __: click.Parameter, number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"expected a finite number, got {number}")
    return number


@click.command()
@click.argument("model", required=False)
@click.option(
    "--url",
    envvar="OVLLAMA_URL",
    callback=_address,
    help="A server that runs; without it, one is started for this chat.",
)
@click.option("--api-key", envvar="OVLLAMA_API_KEY", help="The server's key.")
@click.option("--registry", type=click.Path(path_type=Path), help="The registry of the server that is started.")
@click.option("--system", help="What the model is told before the chat.")
@click.option("--max-tokens", type=click.IntRange(1, 1 << 24), help="Most tokens of an answer.")
@click.option("--temperature", type=click.FloatRange(0, 2), callback=_finite, help="0 is the same answer each time.")
def chat(model: str | None, url: str | None, registry: Path | None, **options: Any) -> None:
    """Chat with a model that generates text.

    MODEL is the name of a model; without it, the active one answers.
    """
    _leave_when_told()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is no text must not end the chat
    with ExitStack() as stack:
        address = url or stack.enter_context(own_server(registry))
        client = stack.enter_context(open_client(address, options.pop("api_key")))
        check_model(client, model)
        went_well = _Chat(client, model, **options).run()
    if not went_well and not sys.stdin.isatty():  # somebody at a terminal has seen it
        raise SystemExit(1)


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

    def run(self) -> bool:
        """Read messages and show answers, until the end of the input; whether everything went well."""
        went_well = True
        click.secho(_HELP, dim=True, err=True)
        while (line := read_line()) is not None:
            if line.rstrip() == "/exit":
                break
            try:
                self._do(line)
            except click.ClickException as error:
                went_well = False
                click.secho(error.message, fg="red", err=True)
        return went_well

    def _do(self, line: str) -> None:
        """What a line says: a command, or a message."""
        if not line.startswith("/"):
            if text := line.strip():
                self._answer(text)
        elif line.rstrip() == "/clear":
            self._messages = list(self._begin)
        elif line.rstrip() == "/help":
            click.secho(_HELP, dim=True, err=True)
        else:
            raise click.ClickException(f"there is no command {line.rstrip()!r}; /help says which there are")

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
            raise unreachable(self._client, error) if isinstance(error, httpx.HTTPError) else error from None
        click.echo()
        self._messages.append({"role": "assistant", "content": answer})

    def _pieces(self) -> Iterator[str]:
        with self._client.stream("POST", _CHAT, json=self._asked | {"messages": self._messages}) as response:
            if response.status_code != httpx.codes.OK:
                raise click.ClickException(told(response.read()))
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
