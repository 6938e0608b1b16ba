"""``ovllama serve`` with a watch on its event loop: ``python -m benchmarks.watched REGISTRY``.

For each line on stdin it prints a line of JSON with its address and the loop's longest stall since the last one, in
milliseconds; it ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

import uvicorn

from openvino_llama.server.app import create_app
from openvino_llama.server.serving import uvicorn_config
from openvino_llama.server.settings import Settings

__all__ = ["Watch"]

_PERIOD = 0.002


class Watch:
    """Wakes up again and again, and remembers by how much it was late."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            due = time.perf_counter() + _PERIOD
            await asyncio.sleep(_PERIOD)
            self.longest = max(self.longest, time.perf_counter() - due)

    def answer(self, server: uvicorn.Server, address: str) -> None:
        """Tell whoever asks, and end the server when nobody is there any more."""
        for _ in sys.stdin:
            print(json.dumps({"address": address, "stall_ms": self.longest * 1000}), flush=True)
            self.longest = 0.0
        server.should_exit = True


async def serve(registry: Path) -> None:
    """Serve on a free port."""
    settings = Settings.from_environment(registry=registry, port=0)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn_config(app, settings))
    server.config.port = 0
    watch = Watch()
    serving = asyncio.create_task(server.serve())
    watching = asyncio.create_task(watch.run())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    await app.state.server.loaded.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    threading.Thread(target=watch.answer, args=(server, f"http://127.0.0.1:{port}"), daemon=True).start()
    await serving
    watching.cancel()


def main() -> None:
    """Read the argument and serve, on the same kind of event loop as the command's."""
    config = uvicorn.Config("")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
