"""What an operator may set, from the environment or from ``ovllama serve``'s options."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from openvino_llama.config import Defaults
from openvino_llama.errors import ConfigError

__all__ = ["Settings"]

Positive = Annotated[int, Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one server."""

    registry: Path = Path("models/registry.json")
    """``MODEL_REGISTRY_PATH``. Where it does not exist, the server starts without models."""
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """``OVLLAMA_HOST``."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 3000
    """``OVLLAMA_PORT``; 0 picks a free one."""
    root_path: str = ""
    """``OVLLAMA_ROOT_PATH``: what a proxy in front takes off the path."""
    max_batch_size: Positive = 8
    """``MAX_BATCH_SIZE``: requests in one inference, where the model's batch dimension is dynamic."""
    max_sequence_length: Positive = 2048
    """``MAX_SEQUENCE_LENGTH``: tokens of an input, for model types whose inputs are sequences."""
    max_body_bytes: Positive = 32 << 20
    """``OVLLAMA_MAX_BODY_BYTES``: of an inference request, after decompression too."""
    max_bodies_bytes: Positive = 1 << 30
    """``OVLLAMA_MAX_BODIES_BYTES``: of all inference requests in progress together."""
    max_upload_bytes: Positive = 4 << 30
    """``OVLLAMA_MAX_UPLOAD_BYTES``: of ``POST /models/load`` with files."""
    cors_origins: tuple[str, ...] = ("http://localhost:8000",)
    """``OVLLAMA_CORS_ORIGINS``, separated by commas."""
    stop_seconds: Positive = 60
    """``OVLLAMA_STOP_SECONDS``: what accepted requests have left to end after SIGTERM."""
    access_log: bool = False
    """``OVLLAMA_ACCESS_LOG``: a line on stderr for each request."""
    api_key: Annotated[str, Meta(min_length=1)] | None = None
    """``OVLLAMA_API_KEY``: when set, every route but ``/health/*`` wants it."""
    disabled_plugins: tuple[str, ...] = ()
    """``OVLLAMA_DISABLED_PLUGINS``: names of entry points or distributions, separated by commas."""
    cache_dir: Path | None = None
    """``OVLLAMA_CACHE_DIR``: where compiled models are kept; empty switches the cache off."""
    default_models: dict[str, str] = {}
    """Model type -> name of the model that is active at start: ``DEFAULT_VISION_MODEL`` is that of ``vision``."""

    def model_defaults(self) -> Defaults:
        """Those of them that hold where a registry entry states nothing."""
        return Defaults(self.max_batch_size, self.max_sequence_length, self.default_models)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **options: Any) -> Settings:
        """Read the environment; options that are not None win. ConfigError names the one that is wrong."""
        environment = os.environ if environment is None else environment
        given = {field: environment[name] for name, field in _VARIABLES.items() if name in environment}
        values: dict[str, Any] = {"cache_dir": str(_default_cache_dir(environment))}
        values |= {field: _split(text) if field in _LISTS else text for field, text in given.items()}
        values |= {field: value for field, value in options.items() if value is not None}
        values["cache_dir"] = values["cache_dir"] or None
        values["default_models"] = _default_models(environment) | values.get("default_models", {})
        try:
            return msgspec.convert(values, cls, strict=False, dec_hook=_decode)
        except msgspec.ValidationError as error:
            field = str(error).rpartition("`$.")[2].rstrip("`").partition("[")[0]
            name = _variable(field) if options.get(field) is None else _option(field)
            raise ConfigError(f"setting {name}: {str(error).partition(' - ')[0]}") from error


_VARIABLES = {
    "MODEL_REGISTRY_PATH": "registry",
    "MAX_BATCH_SIZE": "max_batch_size",
    "MAX_SEQUENCE_LENGTH": "max_sequence_length",
    "OVLLAMA_ACCESS_LOG": "access_log",
    "OVLLAMA_API_KEY": "api_key",
    "OVLLAMA_CACHE_DIR": "cache_dir",
    "OVLLAMA_CORS_ORIGINS": "cors_origins",
    "OVLLAMA_DISABLED_PLUGINS": "disabled_plugins",
    "OVLLAMA_HOST": "host",
    "OVLLAMA_MAX_BODIES_BYTES": "max_bodies_bytes",
    "OVLLAMA_MAX_BODY_BYTES": "max_body_bytes",
    "OVLLAMA_MAX_UPLOAD_BYTES": "max_upload_bytes",
    "OVLLAMA_PORT": "port",
    "OVLLAMA_ROOT_PATH": "root_path",
    "OVLLAMA_STOP_SECONDS": "stop_seconds",
}
_LISTS = frozenset({"cors_origins", "disabled_plugins"})
_OPTIONS = {"cors_origins": "cors_origin", "disabled_plugins": "disable_plugin", "default_models": "default_model"}
"""Those that are called otherwise than their fields."""


def _default_models(environment: Mapping[str, str]) -> dict[str, str]:
    """Every ``DEFAULT_<TYPE>_MODEL``: plugins may bring types that nobody has thought of yet."""
    found = ((re.fullmatch(r"DEFAULT_(\w+)_MODEL", name), value) for name, value in environment.items())
    return {match[1].lower(): value for match, value in found if match}


def _variable(field: str) -> str:
    return next((name for name, each in _VARIABLES.items() if each == field), field)


def _option(field: str) -> str:
    """As ``ovllama serve`` has it."""
    return "--" + _OPTIONS.get(field, field).replace("_", "-")


def _default_cache_dir(environment: Mapping[str, str]) -> Path:
    root = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "openvino-llama" / "compiled"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        if not value:
            raise ValueError("expected a path, not nothing")
        return Path(value)
    raise TypeError(f"cannot read a {kind}")
