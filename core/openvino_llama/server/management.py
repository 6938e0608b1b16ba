"""``/models``: list, load, activate, unload."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from openvino_llama.config import RegistryEntry
from openvino_llama.errors import ModelNotFoundError
from openvino_llama.models import Model, State
from openvino_llama.reading import decode_object, read_fields
from openvino_llama.registry import check_name, check_unique, read_entry
from openvino_llama.server.access import guard_management
from openvino_llama.server.bodies import MULTIPART, media_type_of, read_body
from openvino_llama.server.openapi import managing_operation, upload_operation
from openvino_llama.server.state import Server
from openvino_llama.server.uploads import Upload, receive_upload
from openvino_llama.specs import TensorSpec

__all__ = ["management_routes"]

_MAX_ENTRY_BYTES = 1 << 20


class LoadRequest(RegistryEntry, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A registry entry under a name."""

    name: str
    activate: bool = False


class _Asked(msgspec.Struct, frozen=True):
    """What a request to load a model says besides the entry."""

    name: str
    activate: bool = False


class ModelInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model as clients are shown it."""

    id: str
    type: str
    task: str
    state: State
    route: str
    """Where requests for it go, with ``?model=ID`` unless it is the active one."""
    device: str
    files: dict[str, str]
    active_for: str | None = None
    reason: str = ""
    config: Any = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    queue_length: int = 0


class ModelList(msgspec.Struct, frozen=True):
    """All models, and what is wrong with entries of the registry that are none."""

    models: list[ModelInfo]
    problems: dict[str, str]


def management_routes(server: Server) -> list[ControllerRouterHandler]:
    """The routes of model management."""
    guards = guard_management(server.settings.api_key, server.settings.cors_origins)

    def info(model: Model) -> ModelInfo:
        model_type = server.plugins.model_types.get(model.entry.type)
        route = f"/infer/{model_type.endpoint}" if model_type else ""
        return _info(model, route, server.models.active_for(model.name))

    @get("/models", summary="List models", tags=["models"])
    async def list_models() -> ModelList:
        return ModelList([info(model) for model in server.models.all()], server.registry_problems)

    @get("/models/{model_id:str}", operation_class=managing_operation(404), summary="Show a model", tags=["models"])
    async def show_model(model_id: FromPath[str]) -> ModelInfo:
        return info(server.models.get(model_id))

    @post(
        "/models/load",
        status_code=201,
        guards=guards,
        request_max_body_size=server.settings.max_upload_bytes,
        operation_class=upload_operation(LoadRequest),
        summary="Load a model: an entry whose files are in the models folder, or the files themselves",
        tags=["models"],
    )
    async def load_model(request: Request[Any, Any, Any]) -> Response[ModelInfo]:
        if media_type_of(request, ("application/json", MULTIPART)) == MULTIPART:
            model = await _load_upload(server, await receive_upload(request, server.settings.max_upload_bytes))
        else:
            model = await _load_entry(server, await read_body(request, _MAX_ENTRY_BYTES))
        location = f"{request.scope.get('root_path', '')}/models/{quote(model.name)}"
        return Response(info(model), status_code=201, headers={"Location": location})

    @put(
        "/models/{model_id:str}/activate",
        guards=guards,
        operation_class=managing_operation(404, 409, 503),
        summary="Make a model the active one",
        tags=["models"],
    )
    async def activate_model(model_id: FromPath[str]) -> ModelInfo:
        return info(await asyncio.to_thread(server.models.activate, model_id))

    @delete(
        "/models/{model_id:str}",
        guards=guards,
        operation_class=managing_operation(404, 409),
        summary="Unload a model, after its requests",
        tags=["models"],
    )
    async def unload_model(model_id: FromPath[str]) -> None:
        await asyncio.to_thread(server.models.unload, model_id)
        server.drop_upload(model_id)

    return [list_models, show_model, load_model, activate_model, unload_model]


def _info(model: Model, route: str, active_for: str | None) -> ModelInfo:
    config, entry = model.config, model.entry
    return ModelInfo(
        id=model.name,
        type=entry.type,
        task=entry.task,
        state=model.state,
        route=route,
        device=entry.device,
        files=entry.files,
        active_for=active_for,
        reason=model.reason,
        config=config.config if config else entry.config,
        inputs=config.inputs if config else entry.inputs,
        outputs=config.outputs if config else entry.outputs,
        queue_length=model.queue_length,
    )


async def _load_entry(server: Server, body: bytes) -> Model:
    name, entry, activate = await asyncio.to_thread(_read_load_request, server, body)
    registry = await asyncio.to_thread(server.read_registry)
    locate = server.locate if registry.entries.get(name) == entry else server.locate_for_client
    model = await asyncio.to_thread(server.models.load, name, entry, locate)
    return await asyncio.to_thread(server.models.activate, name) if activate else model


async def _load_upload(server: Server, upload: Upload) -> Model:
    """Vet and load what was uploaded; it stays on disk for as long as the model is there."""
    try:
        name, entry, activate = await asyncio.to_thread(_read_load_request, server, upload.entry)
        entry = msgspec.structs.replace(entry, files=upload.files)
        await asyncio.to_thread(upload.vet)
        model = await asyncio.to_thread(server.models.load, name, entry, upload.locate)
    except BaseException:
        upload.remove()
        raise
    if model not in server.models.all():  # unloaded already
        upload.remove()
    else:
        server.keep_upload(name, upload)
    return await asyncio.to_thread(server.models.activate, name) if activate else model


def _read_load_request(server: Server, body: bytes) -> tuple[str, RegistryEntry, bool]:
    """A whole entry, or the name of one that the registry has."""
    raw = decode_object(body)
    asked = read_fields(raw, _Asked)
    rest = {field: value for field, value in raw.items() if field not in _Asked.__struct_fields__}
    check_name(asked.name)
    check_unique(asked.name, [model.name for model in server.models.all()])
    return asked.name, read_entry(asked.name, rest) if rest else _from_registry(server, asked.name), asked.activate


def _from_registry(server: Server, name: str) -> RegistryEntry:
    registry = server.read_registry()
    if name not in registry.entries:
        expected = "one that it does not have needs the fields 'type', 'task' and 'files', too"
        raise ModelNotFoundError(registry.problems.get(name, f"the registry has no model {name!r}; {expected}"))
    return registry.entries[name]
