"""What the OpenAPI document says of routes that read their bodies themselves, and the page that shows it.

The page's files come from an installed package, not from the internet.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Request, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Operation
from litestar.params import FromPath
from litestar.response import Redirect, Response

from openvino_llama.config import ModelType
from openvino_llama.server.bodies import MULTIPART

__all__ = [
    "home_page",
    "inference_operation",
    "openapi_config",
    "page_files",
    "stream_operation",
    "upload_operation",
]

_ASSETS = {"swagger_bundle.js": "text/javascript", "swagger_style.css": "text/css"}
_BINARY = {"type": "string", "format": "binary"}
_PATH = "/schema"
_ASSET_ROUTE = "/schema-page/"
_MODEL = {"name": "model", "in": "query", "schema": {"type": "string"}, "description": "A model that is not active."}


class _Page(SwaggerRenderPlugin):
    """Swagger UI with this server's own files, wherever a proxy has put the server."""

    def __init__(self) -> None:
        script, style = (_ASSET_ROUTE + name for name in _ASSETS)
        icon = "<link rel='icon' href='data:,'>"
        super().__init__(path="/swagger", js_url=script, standalone_preset_js_url=script, css_url=style, favicon=icon)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page, its files below the root path."""
        below = f'"{request.scope.get("root_path", "")}{_ASSET_ROUTE}'
        return super().render(request, openapi_schema).replace(f'"{_ASSET_ROUTE}'.encode(), below.encode())


def openapi_config(version: str) -> OpenAPIConfig:
    """The document, and Swagger UI at ``/schema``."""
    page = _Page()
    return OpenAPIConfig(
        title="OpenVINO-Llama", version=version, path=_PATH, render_plugins=[page], use_handler_docstrings=True
    )


@get("/", include_in_schema=False)
async def home_page(request: Request[Any, Any, Any]) -> Redirect:
    """Who opens the server's address is shown what it can do."""
    return Redirect(request.scope.get("root_path", "") + _PATH)


@get(_ASSET_ROUTE + "{name:str}", include_in_schema=False, sync_to_thread=True)
def _page_file(name: FromPath[str]) -> Response[bytes]:
    if name not in _ASSETS:
        raise NotFoundException
    content = (files("offapi") / name).read_bytes()
    return Response(content, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})


def page_files() -> Router:
    """The route of the page's files."""
    return Router("/", route_handlers=[_page_file])


def inference_operation(model_type: ModelType) -> type[Operation]:
    """The operation of ``POST /infer/<endpoint>``: its parameters, bodies and answers."""
    answers = {media_type: {"schema": _answer_schema(media_type)} for media_type in model_type.produces}
    bodies = {media_type: {"schema": _body_schema(media_type, model_type)} for media_type in model_type.accepts}
    return _operation(
        parameters=[_MODEL, *_query_parameters(model_type.parameters)],
        requestBody={"required": True, "content": bodies},
        responses={"200": {"description": "The answer", "content": answers}, "default": _problem()},
    )


def stream_operation(model_type: ModelType, *, by_query: bool = False) -> type[Operation]:
    """The operation of ``/infer/<endpoint>/stream``."""
    events = {"200": {"description": "Events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    bodies = {media_type: {"schema": _body_schema(media_type, model_type)} for media_type in model_type.accepts}
    body = {} if by_query else {"requestBody": {"required": True, "content": bodies}}
    parameters = [_MODEL, *_query_parameters(model_type.parameters)]
    return _operation(parameters=parameters, responses=events | {"default": _problem()}, **body)


def upload_operation(entry: type[msgspec.Struct]) -> type[Operation]:
    """The operation of ``POST /models/load``."""
    form = {"type": "object", "additionalProperties": _BINARY}
    bodies = {"application/json": {"schema": _inlined(entry)}, MULTIPART: {"schema": form}}
    return _operation(requestBody={"required": True, "content": bodies})


def _operation(**members: Any) -> type[Operation]:
    @dataclass
    class Described(Operation):
        def to_schema(self) -> dict[str, Any]:
            return super().to_schema() | members

    return Described


def _query_parameters(parameters: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    if parameters is None:
        return []
    schema = _inlined(parameters)
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": each, "description": _described(each)}
        for name, each in schema["properties"].items()
    ]


def _described(schema: dict[str, Any]) -> str:
    return str(schema.get("description", ""))


def _inlined(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a Struct without references."""
    document = msgspec.json.schema(kind)
    definitions = document.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict) and "$ref" in node:
            return resolve(definitions[node["$ref"].rpartition("/")[2]])
        if isinstance(node, dict):
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(document)
    return resolved


def _body_schema(media_type: str, model_type: ModelType) -> dict[str, Any]:
    if media_type == MULTIPART and model_type.parts:
        text = {"type": "string"}
        parts = {name: _BINARY if kind == "file" else text for name, kind in model_type.parts.items()}
        return {"type": "object", "properties": parts, "additionalProperties": text}
    return {"type": "object"} if media_type in ("application/json", MULTIPART) else _BINARY


def _answer_schema(media_type: str) -> dict[str, Any]:
    if media_type != "application/json":
        return _BINARY
    text = {"type": "string"}
    return {"type": "object", "properties": {"model_type": text, "task": text, "results": {}}}


def _problem() -> dict[str, Any]:
    return {
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"type": "object"}}},
    }
