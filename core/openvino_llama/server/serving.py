"""The app under uvicorn, as ``ovllama serve`` runs it: one process, a socket of its own, signals.

Under another ASGI server this module is not needed: ``openvino_llama.server.app:create_app`` is the factory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from openvino_llama.errors import ConfigError
from openvino_llama.server.app import create_app
from openvino_llama.server.settings import Settings

__all__ = ["serve"]


class _Uvicorn(uvicorn.Server):
    """Stops gracefully at the first signal and at once at the second; exits with 0 after the first."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but without raising the signals again afterwards: a graceful stop is a success."""
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def serve(settings: Settings, on_ready: Callable[[str], None], *, leave: bool = False) -> int:
    """Serve until a signal comes; the exit code.

    ``on_ready`` is called with the address, on a thread of its own, when the registry's models have been tried.
    ``leave`` stops the server when it returns. ConfigError if the address cannot be listened on.
    """
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        root_path=settings.root_path,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could claim to be this host
        lifespan="on",
        ws="none",
    )
    server = _Uvicorn(config)

    async def run() -> None:
        announcing = asyncio.create_task(announce())
        await server.serve(sockets=[listener])
        announcing.cancel()

    async def announce() -> None:
        await app.state.server.loaded.wait()
        await asyncio.to_thread(on_ready, address)
        server.should_exit = server.should_exit or leave

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
    return 0 if server.started else 3


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
