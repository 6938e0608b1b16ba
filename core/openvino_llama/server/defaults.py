"""Whether the default models that an operator names can ever be active: looked at before anything is started.

A default model that the registry has, and that then cannot be loaded, is another thing: it is reported, and the others
are served.
"""

from __future__ import annotations

from openvino_llama.errors import ConfigError
from openvino_llama.plugins import Plugins
from openvino_llama.registry import Registry, read_registry
from openvino_llama.server.settings import Settings

__all__ = ["check_defaults"]


def check_defaults(settings: Settings, plugins: Plugins) -> None:
    """Raise ConfigError for a default model that the registry has not, or has as a model of another type.

    Without a registry all models come over HTTP later, the default ones too. Of one that cannot be read, and of types
    that no plugin serves, the server says so itself.
    """
    served = {kind: name for kind, name in settings.default_models.items() if kind in plugins.model_types}
    registry = _registry(settings) if served else None
    if registry is None:
        return
    for kind, name in served.items():
        objection = _objection(kind, name, registry)
        if objection:
            raise ConfigError(f"setting DEFAULT_{kind.upper()}_MODEL (--default-model {kind}=NAME): {objection}")


def _registry(settings: Settings) -> Registry | None:
    try:
        return read_registry(settings.registry) if settings.registry.exists() else None
    except ConfigError:
        return None


def _objection(kind: str, name: str, registry: Registry) -> str:
    if name in registry.problems:
        return ""  # which is what is said of it
    if name not in registry.entries:
        known = ", ".join(each for each, entry in registry.entries.items() if entry.type == kind) or "none"
        return f"the registry {registry.path} has no model {name!r}; its {kind} models: {known}"
    found = registry.entries[name].type
    return f"{name!r} is a model of type {found!r}, not {kind!r}" if found != kind else ""
