"""A real server, on a thread, and real clients for it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from openvino_llama.plugins import Plugins
from openvino_llama.server.app import create_app
from openvino_llama.server.serving import uvicorn_config
from openvino_llama.server.settings import Settings
from openvino_llama.server.state import Server
from tests import tiny

__all__ = ["Live", "check_problem", "live_server", "numbers", "write_registry"]

GOOD = {"x": [[1.0, 2.0, 3.0, 4.0]]}
SECRETS = (
    "Traceback",
    'File "',
    str(Path(__file__).parents[2]),  # this checkout
    str(Path.home()),
    "/tmp",
    "site-packages",
    "0x",
    "secret",
    "openvino.runtime",
)


class Live:
    """A running server."""

    def __init__(self, address: str, server: Server) -> None:
        self.address = address
        self.host, _, port = address.removeprefix("http://").partition(":")
        self.port = int(port)
        self.server = server
        self.http = httpx.Client(base_url=address, timeout=30, trust_env=False)
        self.pool = ThreadPoolExecutor(80)

    def infer(self, body: Mapping[str, Any] = GOOD, model: str | None = None, **options: Any) -> httpx.Response:
        """``POST /infer/tiny``."""
        params = {"model": model} if model else {}
        return self.http.post("/infer/tiny", json=body, params=params | options.pop("params", {}), **options)

    def infer_later(self, body: Mapping[str, Any] = GOOD, model: str | None = None) -> Future[httpx.Response]:
        """The same on a thread, over a connection of its own."""
        return self.later(
            lambda client: client.post("/infer/tiny", json=body, params={"model": model} if model else {})
        )

    def later(self, send: Callable[[httpx.Client], httpx.Response]) -> Future[httpx.Response]:
        """Send a request on a thread, over a connection of its own."""

        def work() -> httpx.Response:
            with httpx.Client(base_url=self.address, timeout=60, trust_env=False) as client:
                return send(client)

        return self.pool.submit(work)

    def load(self, name: str, file: str, **entry: Any) -> httpx.Response:
        """``POST /models/load`` with an entry."""
        entry = {"name": name, "type": "tiny", "task": "double", "files": {"model": file}} | entry
        return self.http.post("/models/load", json=entry)

    def unload(self, name: str) -> None:
        """``DELETE /models/{name}``, which works."""
        answer = self.http.delete(f"/models/{name}")
        assert answer.status_code == 204, answer.text

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((self.host, self.port), timeout=20)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 if it is not there."""
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(self.http.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0


@contextmanager
def live_server(settings: Settings, plugins: Plugins | None = None) -> Iterator[Live]:
    """Serve until the body ends, as ``ovllama serve`` does, on a thread."""
    app = create_app(settings, plugins or tiny_plugins())
    config = uvicorn_config(app, settings)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def run() -> None:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=run, name="server")
    thread.start()
    live = Live(address, app.state.server)
    try:
        _await_ready(live)
        yield live
    finally:
        server.should_exit = True
        live.http.close()
        thread.join(60)
        live.pool.shutdown()
        assert not thread.is_alive(), "the server does not stop"


def _await_ready(live: Live) -> None:
    for _ in range(600):
        try:
            if live.http.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(0.02)
    raise AssertionError("the server does not become ready")


def tiny_plugins(*others: Any) -> Plugins:
    """The tiny plugin, and others."""
    plugins = Plugins()
    for number, module in enumerate([tiny, *others]):
        plugins.add(module, name=f"tiny-{number}", distribution="openvino-llama-tiny", version="1.0")
    return plugins


def write_registry(folder: Path, **models: Mapping[str, Any]) -> Path:
    """A registry of tiny models: name -> what its entry has beside type and task."""
    entries = {name: {"type": "tiny", "task": "double", **entry} for name, entry in models.items()}
    path = folder / "registry.json"
    path.write_text(json.dumps({"models": entries}))
    return path


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer is a problem (RFC 9457) of this status that tells nothing it should not."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    for secret in SECRETS:
        assert secret not in answer.text, answer.text
    return problem


def numbers(answer: httpx.Response) -> Any:
    """The doubled rows of a good answer."""
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]["y"]
