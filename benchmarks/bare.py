"""The least that a Litestar server of this model costs: ``python -m benchmarks.bare REGISTRY MODEL THREADS``.

One route: the body goes to a pool of threads, which decode, resize and infer as in ``inprocess``, and an empty answer
comes back: no sandbox, no plugins' answers, no queue's limit, no deadline, no metrics. What it lacks to the limit is
the share of HTTP in Python; what the server lacks to it is the server's own. Prints its address; stops at SIGTERM.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar, Request, post
from litestar.response.base import ASGIResponse

from benchmarks.inprocess import infer_once, open_model
from openvino_llama.hookspecs import InferenceRequest
from openvino_llama.pipeline import read_parameters

__all__ = ["bare_app"]


def bare_app(registry: Path, name: str, threads: int) -> Litestar:
    """An app with one route, at the path of the server's own."""
    config, graph, plugins = open_model(registry, name)
    hooks = plugins.hooks_for(config.type)
    parameters = read_parameters(plugins.model_type(config.type), {})
    pool, own = ThreadPoolExecutor(threads), threading.local()

    def work(request: InferenceRequest) -> None:
        if not hasattr(own, "infer"):
            own.infer = graph.compiled.create_infer_request()
        infer_once(config, hooks, own.infer, request)

    @post("/infer/image", status_code=200)
    async def route(request: Request[Any, Any, Any]) -> ASGIResponse:
        asked = InferenceRequest(await request.body(), request.headers["content-type"], parameters)
        await asyncio.get_running_loop().run_in_executor(pool, work, asked)
        return ASGIResponse(body=b"{}", media_type="application/json")

    return Litestar([route], openapi_config=None, logging_config=None)


def main() -> None:
    """Serve until told to stop."""
    registry, name, threads = sys.argv[1:]
    app = bare_app(Path(registry), name, int(threads))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
