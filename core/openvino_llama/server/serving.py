"""The app under uvicorn, as ``ovllama serve`` runs it: one process, a socket of its own, signals.

Under another ASGI server this module is not needed: ``openvino_llama.server.app:create_app`` is the factory.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

import uvicorn
from litestar import Litestar

from openvino_llama.errors import ConfigError
from openvino_llama.memory import keep_freed_memory, spare_what_is_there
from openvino_llama.priority import let_others_finish
from openvino_llama.server.app import create_app
from openvino_llama.server.settings import Settings
from openvino_llama.server.state import Server

__all__ = ["serve", "uvicorn_config"]

logger = logging.getLogger(__name__)

_GAVE_UP = 1
"""Exit code when something did not come to its end."""
_GRACE_SECONDS = 5.0
"""Beyond the time that requests have left: for models to be freed."""


class _Uvicorn(uvicorn.Server):
    """Stops gracefully at the first signal and at once at the second; exits with 0 after the first."""

    def __init__(self, config: uvicorn.Config, state: Server) -> None:
        super().__init__(config)
        self._state = state
        self._signal = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            os._exit(128 + sig)
        self._signal = sig
        self.should_exit = True
        self._state.stopping = True
        self._give_up_later()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; whoever waits for the end of requests is told so (not in the handler: it may interrupt)."""
        running = len(self.server_state.tasks)
        if running:
            what = "1 request" if running == 1 else f"{running} requests"
            again = "Ctrl-C again" if self._signal == signal.SIGINT else "a second signal"
            logger.warning("finishing %s; %s ends at once", what, again)
        await super().shutdown(sockets)

    def _give_up_later(self) -> None:
        """What never comes to its end (a wedged device, a plugin's hook) must not keep the process."""

        def give_up() -> None:
            logger.error("not everything came to its end in time; leaving all the same")
            os._exit(_GAVE_UP)

        timer = threading.Timer(self._state.settings.stop_seconds + _GRACE_SECONDS, give_up)
        timer.daemon = True
        timer.start()

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
    keep_freed_memory()
    let_others_finish()
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    app = create_app(settings)
    spare_what_is_there()
    config = uvicorn_config(app, settings)
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    server = _Uvicorn(config, app.state.server)

    async def run() -> None:
        announcing = asyncio.create_task(announce())
        await server.serve(sockets=[listener])
        announcing.cancel()

    async def announce() -> None:
        await app.state.server.loaded.wait()
        if server.should_exit:
            return
        try:
            await asyncio.to_thread(on_ready, address)
        except Exception:
            logger.exception("the server runs, but could not say so")
        server.should_exit = server.should_exit or leave

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
    return 0 if server.started else 3


def uvicorn_config(app: Litestar, settings: Settings) -> uvicorn.Config:
    """How the app is to be run by uvicorn."""
    return uvicorn.Config(
        app,
        http=_protocol(),
        root_path=settings.root_path,
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,  # a client could claim to be this host
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=settings.stop_seconds,
    )


def _protocol() -> type[asyncio.Protocol] | Literal["auto"]:
    try:
        from openvino_llama.server.protocol import Protocol
    except ImportError:  # no httptools on Windows: uvicorn takes h11, which has a limit of its own
        return "auto"
    return Protocol


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # its own text names the address once more
        hint = "; --port chooses another port, 0 a free one" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {reason}{hint}") from error
    # For its connections, which asyncio's own loop does not take for TCP's (their protocol is 0): without it the body
    # of each answer waits 40 ms for the client to acknowledge the head. uvloop sets it itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
