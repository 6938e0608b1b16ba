"""What keeps a server's memory bounded beside its queues, and what plugins' routes are given."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
from litestar import get
from litestar.di import NamedDependency
from tests.server.support import GOOD, Live, check_problem, live_server

from openvino_llama import hookimpl
from openvino_llama.plugins import Plugins
from openvino_llama.server.settings import Settings
from tests import tiny


def test_bodies_that_take_all_the_memory(settings: Settings) -> None:
    """While the bodies in progress fill what they may, the next one is told to come again; then there is room again."""
    tight = msgspec.structs.replace(settings, max_bodies_bytes=300)
    with live_server(tight) as live:
        gate = "room"
        held = live.infer_later(GOOD | {"gate": gate, "padding": "x" * 150})
        tiny.GATES.await_waiting(gate)
        answer = live.infer(GOOD | {"padding": "x" * 150})
        check_problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        tiny.GATES.open(gate)
        assert held.result().status_code in (200, 400)
        assert live.infer().status_code == 200


def test_gzip_of_several_streams(live: Live) -> None:
    """What follows the first stream is not dropped in silence."""
    good = gzip.compress(json.dumps(GOOD).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert live.http.post("/infer/tiny", content=good, headers=headers).status_code == 200
    check_problem(live.http.post("/infer/tiny", content=good + good, headers=headers), 400)


def test_plugins_routes_get_the_pipeline(settings: Settings) -> None:
    """A route of a plugin takes the pipeline by the name that the hook's documentation gives."""

    @get("/names")
    async def names(pipeline: NamedDependency[Any]) -> list[str]:
        return sorted(model.name for model in pipeline.models.all())

    @hookimpl
    def route_handlers() -> Sequence[Any]:
        return [names]

    plugins = Plugins()
    plugins.add(tiny, name="tiny")
    plugins.add(SimpleNamespace(OPENVINO_LLAMA_API=1, route_handlers=route_handlers), name="routes")
    with live_server(settings, plugins) as live:
        assert "double" in live.http.get("/names").json()
