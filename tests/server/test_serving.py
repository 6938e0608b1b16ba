"""How ``ovllama serve`` listens."""

from __future__ import annotations

import socket

import msgspec

from openvino_llama.server import serving
from openvino_llama.server.settings import Settings


def test_the_body_of_an_answer_does_not_wait(settings: Settings) -> None:
    """On any event loop: what is written after the head is sent at once, before the client acknowledges it."""
    with (
        serving._listen(msgspec.structs.replace(settings, port=0)) as listener,
        socket.create_connection(listener.getsockname()[:2]),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
