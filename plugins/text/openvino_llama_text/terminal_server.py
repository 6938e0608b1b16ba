"""The server that ``ovllama chat`` talks to: one that runs, or one of its own, and whether it can answer a chat."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx
import msgspec

__all__ = ["check_model", "open_client", "own_server", "told", "unreachable"]

_SERVES = re.compile(r"serves on (http://\S+)")
_CHAT = "chat/completions"
_PATIENCE = 30.0
"""Seconds that a server has to say which models it has."""


class _Served(msgspec.Struct):
    """A model that answers one of OpenAI's routes."""

    id: str
    answers: Sequence[str] = (_CHAT,)
    """What it can be asked; servers of others do not say."""
    active: bool = True


class _Listed(msgspec.Struct):
    data: Sequence[_Served]


class _Shown(msgspec.Struct):
    """Any model of the server."""

    task: str
    state: str
    reason: str = ""


def open_client(address: str, api_key: str | None) -> httpx.Client:
    """Of a server at an address."""
    headers = {b"Authorization": f"Bearer {api_key}".encode("utf-8", "surrogateescape")} if api_key else {}
    # An answer may take its time, a connection may not.
    timeout = httpx.Timeout(None, connect=10)
    return httpx.Client(base_url=address, headers=headers, timeout=timeout, trust_env=False)


@contextmanager
def own_server(registry: Path | None) -> Iterator[str]:
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


def check_model(client: httpx.Client, name: str | None) -> None:
    """Raise ClickException unless the server has that model, or an active one, for a chat."""
    able = [each for each in _served(client) if _CHAT in each.answers]
    others = ", ".join(each.id for each in able) or "none"
    if name is None and not any(each.active for each in able):
        problem = "no model for a chat is active, so name one"
    elif name is not None and name not in [each.id for each in able]:
        problem = _why_not(client, name)
    else:
        return
    raise click.ClickException(
        f"{_at(client)}: {problem}; models for a chat that it serves: {others}. "
        f"ovllama models lists those of the registry"
    )


def unreachable(client: httpx.Client, error: httpx.HTTPError) -> click.ClickException:
    """What is told when the server does not answer."""
    return click.ClickException(f"{_at(client)}: no answer ({str(error) or type(error).__name__})")


def told(body: bytes) -> str:
    """What the server says is wrong, in either of the shapes that it has for that."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "the server answered something that is not JSON"
    error = problem.get("error")
    return str(error.get("message") if isinstance(error, dict) else problem.get("detail") or problem.get("title"))


def _served(client: httpx.Client) -> Sequence[_Served]:
    answer = _get(client, "/v1/models")
    if answer.status_code != httpx.codes.OK:
        raise click.ClickException(f"{_at(client)}/v1/models: {answer.status_code}, {told(answer.content)}")
    try:
        return msgspec.json.decode(answer.content, type=_Listed).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise click.ClickException(f"{_at(client)}/v1/models: expected a list of models, got something else") from None


def _why_not(client: httpx.Client, name: str) -> str:
    """Why a model answers no chat."""
    answer = _get(client, f"/models/{quote(name, safe='')}")
    if answer.status_code != httpx.codes.OK:
        return f"there is no model {name!r}"
    found = msgspec.json.decode(answer.content, type=_Shown)
    if found.state != "ready":
        return f"model {name!r} is not ready: {found.state} {found.reason}".rstrip()
    return f"model {name!r} is not for a chat, its task is {found.task!r}"


def _get(client: httpx.Client, path: str) -> httpx.Response:
    try:
        return client.get(path, timeout=_PATIENCE)
    except httpx.HTTPError as error:
        raise unreachable(client, error) from None


def _at(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def _address(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        if found := _SERVES.search(line):
            return found[1]
    raise click.ClickException("the server did not start; ovllama serve says why")
