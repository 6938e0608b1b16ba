"""Streams of a server: ``python -m benchmarks.text_load ADDRESS MODEL STREAMS TOKENS``.

For each line on stdin, the number of a turn, it opens so many streams of Server-Sent Events at once, each over a
connection of its own, reads them to their end, and prints a line of JSON with the tokens per second of all together
and the median time to a stream's first event. Bounded in count; sends to loopback addresses only.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvicorn

from benchmarks.text_prompts import prompts

__all__ = ["load", "measure", "request"]


class Stream(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first = 0.0
        self.tail = b""
        self._request = request
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by their classes
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Remember when the first event came, and the last bytes."""
        if not self.first and b"data: " in data:
            self.first = time.perf_counter() - self._started
        self.tail = (self.tail + data)[-4096:]
        if self.tail.endswith(b"0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """The end."""
        if not self.done.done():
            self.done.set_result(None)


async def measure(address: str, requests: Sequence[bytes], tokens: int) -> tuple[float, list[float]]:
    """Read the streams of all requests at once; the seconds that took, and those to each first event."""
    parts = urlsplit(address)
    assert parts.hostname in ("127.0.0.1", "::1", "localhost"), "loads this machine only"
    assert parts.port
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = await asyncio.gather(
        *(loop.create_connection(partial(Stream, each), parts.hostname, parts.port) for each in requests)
    )
    await asyncio.gather(*(stream.done for _, stream in made))
    spent = time.perf_counter() - started
    for _, stream in made:
        assert f'"tokens_generated":{tokens},'.encode() in stream.tail, stream.tail.decode()
    return spent, [stream.first for _, stream in made]


def request(address: str, target: str, media_type: str, body: bytes) -> bytes:
    """A POST as it is sent."""
    head = f"POST {target} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def load(make: Callable[[str, str, int, int, int], Sequence[bytes]]) -> None:
    """Load and print as often as asked; ``make`` makes requests of address, model, streams, tokens and turn."""
    address, model = sys.argv[1:3]
    streams, tokens = map(int, sys.argv[3:5])
    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        for line in sys.stdin:
            requests = make(address, model, streams, tokens, int(line))
            spent, first = runner.run(measure(address, requests, tokens))
            print(json.dumps({"tps": streams * tokens / spent, "ttft_ms": statistics.median(first) * 1000}), flush=True)


def _requests(address: str, model: str, streams: int, tokens: int, seed: int) -> list[bytes]:
    asked = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    bodies = [json.dumps({"prompt": prompt, **asked}).encode() for prompt in prompts(streams, seed)]
    return [request(address, f"/infer/text/stream?model={model}", "application/json", body) for body in bodies]


if __name__ == "__main__":
    load(_requests)
