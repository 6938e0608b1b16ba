"""The least that streams of a language model cost over HTTP: ``python -m benchmarks.bare_text FOLDER``.

One Litestar route and openvino-genai in a process of its own, with a line of JSON for each prompt and for each step. A
prompt is tokenized and passed on, each token becomes an event: no sandbox, no plugins, no queue, no deadlines, no
cancelling, no metrics, and half characters come as they are. What it lacks to the engine called directly is the share
of HTTP in Python; what the server lacks to it is the server's own. Prints its address; stops at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
import uvicorn
from litestar import Litestar, Request, post
from litestar.response import Stream
from tokenizers import Tokenizer

from benchmarks.text_engine import greedy, open_pipeline

__all__ = ["bare_app"]

_ENGINE = "--engine"


class Engine:
    """The process, and who waits for its tokens."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.bare_text", _ENGINE, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.readline()  # it is ready
        self._waiting: dict[int, asyncio.Queue[list[int]]] = {}
        self._last = 0

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass what comes on to the loop, until the end."""
        assert self._process.stdout
        for line in self._process.stdout:
            loop.call_soon_threadsafe(self._hand_out, line)

    def _hand_out(self, line: bytes) -> None:
        for number, tokens in json.loads(line):
            self._waiting[number].put_nowait(tokens)

    async def tokens(self, prompt: list[int], most: int) -> AsyncGenerator[list[int]]:
        """Those of one prompt, as they come."""
        self._last = number = self._last + 1
        came: asyncio.Queue[list[int]] = asyncio.Queue()
        self._waiting[number] = came
        assert self._process.stdin
        self._process.stdin.write(json.dumps([number, prompt, most]).encode() + b"\n")
        self._process.stdin.flush()
        while most > 0:
            tokens = await came.get()
            most -= len(tokens)
            yield tokens
        del self._waiting[number]


def bare_app(folder: Path) -> Litestar:
    """An app with one route, at the path of the server's own."""
    tokenizer, engine = Tokenizer.from_file(str(folder / "tokenizer.json")), Engine(folder)

    async def events(prompt: list[int], most: int) -> AsyncGenerator[bytes]:
        async for tokens in engine.tokens(prompt, most):
            yield b"data: " + json.dumps({"text": tokenizer.decode(tokens)}).encode() + b"\n\n"
        yield b'event: done\ndata: {"tokens_generated":%d,"finish_reason":"length"}\n\n' % most

    @post("/infer/text/stream", status_code=200)
    async def route(request: Request[Any, Any, Any]) -> Stream:
        asked = json.loads(await request.body())
        prompt = tokenizer.encode(asked["prompt"]).ids
        return Stream(events(prompt, asked["max_tokens"]), media_type="text/event-stream")

    async def listen() -> None:
        threading.Thread(target=engine.listen, args=(asyncio.get_running_loop(),), daemon=True).start()

    return Litestar([route], on_startup=[listen], openapi_config=None, logging_config=None)


def generate(folder: Path) -> None:
    """The engine's process: read prompts, step, write what came of each step; until stdin ends."""
    pipeline, lines = open_pipeline(folder), Lines()
    handles: dict[int, genai.GenerationHandle] = {}
    print("ready", flush=True)
    while True:
        for line in lines.read(wait=not pipeline.has_non_finished_requests()):
            number, prompt, most = json.loads(line)
            handles[number] = pipeline.add_request(number, ov.Tensor(np.array([prompt])), greedy(most))
        if not pipeline.has_non_finished_requests():  # woken without a line: the end
            return
        pipeline.step()
        came = [
            (number, [token for output in handle.read().values() for token in output.generated_ids])
            for number, handle in handles.items()
            if handle.can_read()
        ]
        print(json.dumps(came), flush=True)
        if not pipeline.has_non_finished_requests():
            handles.clear()


class Lines:
    """The lines of stdin, as many as there are."""

    def __init__(self) -> None:
        self._rest = b""

    def read(self, *, wait: bool) -> list[bytes]:
        """Those that have come; none at the end, or where there is nothing to wait for."""
        lines: list[bytes] = []
        while not lines and select.select([0], [], [], None if wait else 0)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                break
            *lines, self._rest = (self._rest + read).split(b"\n")
        return lines


def main() -> None:
    """Serve until told to stop, or be the engine."""
    if sys.argv[1] == _ENGINE:
        generate(Path(sys.argv[2]))
        return
    app = bare_app(Path(sys.argv[1]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
