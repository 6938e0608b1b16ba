"""What the OpenAPI document says of routes that read their bodies themselves, and the page that shows it.

The page's files come from an installed package, not from the internet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from litestar import Request, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, Operation, Reference, SecurityScheme
from litestar.params import FromPath
from litestar.response import Redirect, Response

from openvino_llama.config import ModelType
from openvino_llama.server.bodies import FORM, MULTIPART
from openvino_llama.server.problems import Problem
from openvino_llama.server.schemas import Schema, as_text, schema_of

__all__ = [
    "home_page",
    "inference_operation",
    "managing_operation",
    "openapi_config",
    "operation",
    "page_files",
    "stream_operation",
    "upload_operation",
]

_ASSETS = {"swagger_bundle.js": "text/javascript", "swagger_style.css": "text/css"}
_JSON = "application/json"
_EVENTS = "text/event-stream"
_TEXT = {"type": "string"}
_BINARY = {"type": "string", "format": "binary"}
_PATH = "/schema"
_ASSET_ROUTE = "/schema-page/"
_MODEL = {"name": "model", "in": "query", "schema": _TEXT, "description": "The model, if not the active one."}


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


def openapi_config(version: str, *, wants_key: bool) -> OpenAPIConfig:
    """The document, and Swagger UI at ``/schema``; how a key is given, if the server wants one."""
    schemes: dict[str, SecurityScheme | Reference] = {
        "bearer": SecurityScheme(type="http", scheme="bearer"),
        "header": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
    }
    return OpenAPIConfig(
        title="OpenVINO-Llama",
        version=version,
        path=_PATH,
        render_plugins=[_Page()],
        use_handler_docstrings=True,
        components=Components(security_schemes=schemes if wants_key else None),
        security=[{name: []} for name in schemes] if wants_key else None,
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
    answers = _content({media_type: _answer_schema(media_type) for media_type in model_type.produces})
    return _described(
        lambda: {
            "parameters": [_MODEL, *_query_parameters(model_type)],
            "requestBody": _request_body(model_type, model_type.tasks),
            "responses": {"200": {"description": "The answer", **answers}, "default": _problem()},
        }
    )


def stream_operation(model_type: ModelType, *, by_query: bool = False) -> type[Operation]:
    """The operation of ``/infer/<endpoint>/stream``; ``by_query`` what a form's fields would be is in the query."""

    def members() -> Schema:
        described = {
            "parameters": [_MODEL, *_query_parameters(model_type)],
            "responses": {"200": {"description": "Events", **_content({_EVENTS: _TEXT})}, "default": _problem()},
        }
        if by_query:
            return described | {"parameters": [*described["parameters"], *_form_parameters(model_type)]}
        return described | {"requestBody": _request_body(model_type, model_type.streaming)}

    return _described(members)


def upload_operation(entry: Any) -> type[Operation]:
    """The operation of ``POST /models/load``: an entry under a name, or a name alone, or an entry and its files."""
    parts = {"entry": _TEXT, "model": _BINARY}
    form = {"type": "object", "properties": parts, "required": ["entry"], "additionalProperties": _BINARY}

    def members() -> Schema:
        stated = schema_of(entry) | {"required": ["name"], "examples": [{"name": "mine"}]}
        return {"requestBody": {"required": True, **_content({_JSON: stated, MULTIPART: form})}}

    return _described(members, _problems(400, 404, 409, 413, 415, 422))


def managing_operation(*statuses: int) -> type[Operation]:
    """The operation of a route that manages a model, and the statuses of its problems."""
    return _described(dict, _problems(*statuses))


def operation(body: Any = None, answer: Any = None, error: Any = None, *, events: bool = False) -> type[Operation]:
    """The operation of a plugin's route: JSON of the type ``body`` in; of ``answer``, or of ``error``, out.

    What is None is described by the handler's own signature; errors are then problems. ``events``: the answer may be a
    stream of events, too. Where the types have examples (``msgspec.Meta``), these are shown.
    """

    def members() -> Schema:
        return {"requestBody": {"required": True, **_content({_JSON: schema_of(body)})}} if body else {}

    def responses() -> Schema:
        refused = {"description": "An error", **_content({_JSON: schema_of(error)})} if error else _problem()
        if answer is None:
            return {"default": refused}
        answers = {_JSON: schema_of(answer)} | ({_EVENTS: _TEXT} if events else {})
        return {"200": {"description": "The answer", **_content(answers)}, "default": refused}

    return _described(members, responses)


def _described(members: Callable[[], Schema], responses: Callable[[], Schema] | None = None) -> type[Operation]:
    """An Operation with these members, which are made when somebody asks for the document.

    ``responses`` take the place of the errors that Litestar supposes: it does not know what becomes of them.
    """

    @dataclass
    class Described(Operation):
        def to_schema(self) -> Schema:
            schema = super().to_schema()
            if responses is not None:
                good = {status: each for status, each in schema["responses"].items() if status.startswith("2")}
                schema["responses"] = good | responses()
            return schema | members()

    return Described


def _query_parameters(model_type: ModelType) -> list[Schema]:
    if model_type.parameters is None:
        return []
    return _parameters(schema_of(model_type.parameters))


def _form_parameters(model_type: ModelType) -> list[Schema]:
    """The fields of forms that are no query parameters anyhow; each may be that of one task only."""
    taken = {each["name"] for each in _query_parameters(model_type)}
    fields: dict[str, Schema] = {}
    for task in model_type.streaming:
        body = schema_of(model_type.bodies[task]) if task in model_type.bodies else {"properties": {}}
        for each in _parameters(body):
            fields.setdefault(each["name"], each | {"required": False} | _example(body, each["name"]))
    return [field for name, field in fields.items() if name not in taken]


def _example(body: Schema, name: str) -> Schema:
    """What the first example of a body says of a field."""
    example = body.get("examples", [{}])[0]
    return {"example": example[name]} if name in example else {}


def _parameters(schema: Schema) -> list[Schema]:
    """The properties of an object as query parameters, as far as they can be some."""
    described = []
    for name, field in schema["properties"].items():
        text = as_text(field)
        if text is not None:
            description = {"description": text.pop("description")} if "description" in text else {}
            required = name in schema.get("required", ())
            described.append({"name": name, "in": "query", "required": required, "schema": text, **description})
    return described


def _request_body(model_type: ModelType, tasks: Sequence[str]) -> Schema:
    bodies = {task: schema_of(model_type.bodies[task]) for task in tasks if task in model_type.bodies}
    content = {media_type: _body(media_type, model_type, bodies) for media_type in model_type.accepts}
    return {"required": True, "content": content}


def _body(media_type: str, model_type: ModelType, bodies: Mapping[str, Schema]) -> Schema:
    """A body of that media type: one for each of the tasks, where the plugin describes them."""
    if media_type in (_JSON, FORM) and bodies:
        examples = {task: {"value": body["examples"][0]} for task, body in bodies.items() if "examples" in body}
        schemas = list(bodies.values())
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        return {"schema": schema} | ({"examples": examples} if examples else {})
    if media_type == MULTIPART and model_type.parts:
        parts = {name: _BINARY if kind == "file" else _TEXT for name, kind in model_type.parts.items()}
        return {"schema": {"type": "object", "properties": parts, "additionalProperties": _TEXT}}
    return {"schema": {"type": "object"} if media_type in (_JSON, FORM, MULTIPART) else _raw(media_type)}


def _answer_schema(media_type: str) -> Schema:
    if media_type != _JSON:
        return _raw(media_type)
    return {"type": "object", "properties": {"model_type": _TEXT, "task": _TEXT, "results": {}}}


def _raw(media_type: str) -> Schema:
    return _TEXT if media_type.startswith("text/") else _BINARY


def _problems(*statuses: int) -> Callable[[], Schema]:
    named = {str(status): HTTPStatus(status).phrase for status in statuses}
    return lambda: {status: _problem(phrase) for status, phrase in named.items()} | {"default": _problem()}


def _problem(description: str = "A problem (RFC 9457)") -> Schema:
    return {"description": description, **_content({"application/problem+json": schema_of(Problem)})}


def _content(schemas: Mapping[str, Schema]) -> Schema:
    """The schemas of media types."""
    return {"content": {media_type: {"schema": schema} for media_type, schema in schemas.items()}}
