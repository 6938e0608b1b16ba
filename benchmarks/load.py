"""A load generator in a process of its own: ``python -m benchmarks.load URL FILE MEDIA_TYPE CONNECTIONS SECONDS``.

Each connection sends its next request when the last one has been answered. Prints one line of JSON: requests per
second, errors, and the latencies in milliseconds. Bounded in time; sends to loopback addresses only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.report import percentile

__all__ = ["measure"]


class Client(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.errors = 0
        self._request = request
        self._until = until
        self._latencies = latencies
        self._received = bytearray()
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count a whole answer and send the next request."""
        self._received += data
        head, separator, body = bytes(self._received).partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        self._received.clear()
        now = time.perf_counter()
        self._latencies.append((now - self._started) * 1000)
        self.errors += not head.startswith(b"HTTP/1.1 200")
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """The end."""
        if not self.done.done():
            self.done.set_result(None)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def measure(url: str, body: bytes, media_type: str, connections: int, seconds: float) -> dict[str, float]:
    """Load one URL."""
    parts = urlsplit(url)
    assert parts.hostname in ("127.0.0.1", "::1", "localhost"), "loads this machine only"
    assert parts.port
    head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    latencies: list[float] = []
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(head.encode() + body, started + seconds, latencies), parts.hostname, parts.port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    spent = time.perf_counter() - started
    errors = sum(client.errors for client in clients)
    figures = {"rps": len(latencies) / spent, "errors": errors}
    return figures | {f"p{share}_ms": percentile(latencies, share / 100) for share in (50, 99)}


def main() -> None:
    """Read the arguments, load, print."""
    url, file, media_type, connections, seconds = sys.argv[1:]
    body = Path(file).read_bytes()
    print(json.dumps(asyncio.run(measure(url, body, media_type, int(connections), float(seconds)))))


if __name__ == "__main__":
    main()
