"""What the connection's own protocol does with an answer on its way out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from openvino_llama.server.protocol import Protocol

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
BODY = {"type": "http.response.body", "body": b"hello"}


class Wire(asyncio.Transport):
    """A connection that keeps what one call writes together."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.written.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def served(app: Any) -> Wire:
    """A connection on which one request has been received."""
    protocol = Protocol(uvicorn.Config(app, log_config=None, server_header=False), ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(REQUEST)
    return wire


async def turns(number: int = 3) -> None:
    """Let the event loop turn."""
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_whole_answer_is_one_write() -> None:
    """Head and body are one packet, and one system call."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(HEAD)
        await send(BODY)

    async def run() -> list[bytes]:
        wire = served(app)
        await turns()
        return wire.written

    (written,) = asyncio.run(run())
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\n\r\nhello")


def test_a_head_does_not_wait_for_its_body() -> None:
    """The first piece of a stream may take its time."""
    reached = []

    async def run() -> list[bytes]:
        later = asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(HEAD)
            await later.wait()
            await send(BODY)

        wire = served(app)
        await turns()
        reached.extend(wire.written)
        later.set()
        await turns()
        return wire.written

    head, body = asyncio.run(run())
    assert reached == [head]
    assert head.endswith(b"\r\n\r\n")
    assert body == b"hello"


@pytest.mark.parametrize("wait", [False, True])
def test_an_answer_that_breaks_off(wait: bool) -> None:
    """The head comes, then the connection is closed."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(HEAD)
        if wait:
            await turns()
        raise RuntimeError("the app fails")

    async def run() -> Wire:
        wire = served(app)
        await turns(8)
        return wire

    wire = asyncio.run(run())
    assert len(wire.written) == 1
    assert wire.written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.closed
