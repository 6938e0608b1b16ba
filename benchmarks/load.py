"""A load generator in a process of its own: ``python -m benchmarks.load URL FILE MEDIA_TYPE CONNECTIONS SECONDS``.

Each connection sends its next request when the last one has been answered. Prints one line of JSON: requests per
second, errors, and the latencies in milliseconds. Bounded in time; sends to loopback addresses only. It shares the
machine with the server, so it is plain sockets: what it takes itself is missing there.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.report import percentile

__all__ = ["measure"]

_PATIENCE_SECONDS = 60.0


class _Connection:
    """One keep-alive connection."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((host, port), timeout=_PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self._sent = 0.0

    def send(self) -> None:
        """Send the request."""
        self._received = b""
        self._sent = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> tuple[float, bool] | None:
        """Milliseconds that the answer took, and whether it is a good one; None if it is not whole yet."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed a connection")
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return None
        return (time.perf_counter() - self._sent) * 1000, head.startswith(b"HTTP/1.1 200")


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0] or 0)


def measure(url: str, body: bytes, media_type: str, connections: int, seconds: float) -> dict[str, float]:
    """Load one URL."""
    parts = urlsplit(url)
    assert parts.hostname in ("127.0.0.1", "::1", "localhost"), "loads this machine only"
    assert parts.port
    head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    opened = [_Connection(parts.hostname, parts.port, head.encode() + body) for _ in range(connections)]
    latencies: list[float] = []
    errors = 0
    started = time.perf_counter()
    with selectors.DefaultSelector() as waiting:
        for each in opened:
            waiting.register(each.socket, selectors.EVENT_READ, each)
            each.send()
        while waiting.get_map():
            ready = waiting.select(_PATIENCE_SECONDS)
            if not ready:
                raise TimeoutError("the server does not answer")
            for key, _ in ready:
                answered = key.data.receive()
                if answered is None:
                    continue
                latencies.append(answered[0])
                errors += not answered[1]
                if time.perf_counter() < started + seconds:
                    key.data.send()
                else:
                    waiting.unregister(key.fileobj)
                    key.data.socket.close()
    spent = time.perf_counter() - started
    figures = {"rps": len(latencies) / spent, "errors": float(errors)}
    return figures | {f"p{share}_ms": percentile(latencies, share / 100) for share in (50, 99)}


def main() -> None:
    """Read the arguments, load, print."""
    url, file, media_type, connections, seconds = sys.argv[1:]
    print(json.dumps(measure(url, Path(file).read_bytes(), media_type, int(connections), float(seconds))))


if __name__ == "__main__":
    main()
