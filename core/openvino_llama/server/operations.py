"""``/health``, ``/plugins`` and ``/metrics``."""

from __future__ import annotations

import re

import msgspec
from litestar import Response, get
from litestar.openapi import ResponseSpec
from litestar.types import ControllerRouterHandler

from openvino_llama.plugins import PluginReport
from openvino_llama.server.access import ANYBODY, PUBLIC
from openvino_llama.server.state import Server

__all__ = ["operation_routes"]

_METRICS_TYPE = "text/plain; version=0.0.4"  # Litestar adds the charset


class Health(msgspec.Struct, frozen=True):
    """Whether the server lives, or is ready."""

    status: str


class PluginInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plugin without the traceback of its failure, which is the operator's terminal's."""

    name: str
    distribution: str
    version: str
    status: str
    model_types: tuple[str, ...] = ()
    reason: str = ""


class PluginList(msgspec.Struct, frozen=True):
    """All that were found."""

    plugins: list[PluginInfo]


def operation_routes(server: Server) -> list[ControllerRouterHandler]:
    """The routes for operators and their tools."""

    @get("/health/live", opt=PUBLIC, security=ANYBODY, summary="Whether the process answers", tags=["operations"])
    async def live() -> Health:
        return Health("alive")

    unready = ResponseSpec(Health, description="Not ready, and why", generate_examples=False)

    @get(
        "/health/ready",
        opt=PUBLIC,
        security=ANYBODY,
        responses={503: unready},
        summary="Whether requests are served",
        tags=["operations"],
    )
    async def ready() -> Response[Health]:
        reason = server.unready_reason()
        return Response(Health(reason or "ready"), status_code=503 if reason else 200)

    @get("/plugins", summary="Plugins that are loaded, and those that are not", tags=["operations"])
    async def plugins() -> PluginList:
        return PluginList([_shown(report) for report in server.plugins.reports])

    @get("/metrics", summary="Prometheus metrics", tags=["operations"], media_type="text/plain")
    async def metrics() -> Response[bytes]:
        return Response(server.metrics.exposition(), media_type=_METRICS_TYPE)

    return [live, ready, plugins, metrics]


_PATH = re.compile(r"(?<![\w/])(/|[A-Za-z]:\\)[^\s:,;'\")<>]*")


def _shown(report: PluginReport) -> PluginInfo:
    """The report for clients: the text of an exception may name files of this machine."""
    info = msgspec.convert(report, PluginInfo, from_attributes=True)
    return msgspec.structs.replace(info, reason=_PATH.sub("...", info.reason))
