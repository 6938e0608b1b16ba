"""Plugins: found by entry point, loaded one by one, and called through a typed facade over pluggy.

A plugin that fails to import, has the wrong API version, misspells a hook, has hooks that would never run, lacks some
that its models need, or clashes with another's model type is reported and left out; everything else runs. pluggy's
``Any`` stops here. Knows nothing of what the hooks are about.
"""

from __future__ import annotations

import difflib
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy

from openvino_llama import hookspecs
from openvino_llama.config import ModelConfig, ModelType
from openvino_llama.errors import ConfigError, PluginError
from openvino_llama.hookspecs import API_VERSION, PROJECT, Preprocessed

if TYPE_CHECKING:
    import click
    import openvino as ov

    from openvino_llama.backends.base import Backend

__all__ = ["LoadedPlugin", "ModelHooks", "PluginReport", "Plugins", "load_plugins"]

logger = logging.getLogger(__name__)

_PIPELINE = ("prepare_model", "validate_model", "inferencer_module", "preprocess", "postprocess")
"""Hooks that are called for one model, and the only ones that can be wrapped."""
_NEEDED = ("preprocess", "postprocess")
"""Hooks that whoever registers a model type must have."""


class PluginReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One plugin that was found, as operators are shown it."""

    name: str
    """Name of its entry point: what ``OVLLAMA_DISABLED_PLUGINS`` takes."""
    distribution: str
    version: str
    status: str
    """``loaded``, ``failed`` or ``disabled``."""
    model_types: tuple[str, ...] = ()
    reason: str = ""
    """Why it failed, in a line; of an import that failed, the exception as Python has it."""
    traceback: str = ""
    """Where it failed, for the operator's terminal and log."""


class LoadedPlugin(msgspec.Struct, frozen=True):
    """A plugin that runs."""

    report: PluginReport
    module: Any
    types: tuple[ModelType, ...]


class ModelHooks:
    """The pipeline hooks for the models of one type: the owner's implementations and everybody's wrappers."""

    def __init__(self, manager: pluggy.PluginManager, owner: Any) -> None:
        def bound(hook: str) -> Any:
            excluded = _excluded(manager, hook, owner)
            return _direct(manager, hook, excluded) or manager.subset_hook_caller(hook, excluded)

        self.prepare_model: Callable[..., ov.Model | None] = bound("prepare_model")
        self.validate_model: Callable[..., None] = bound("validate_model")
        self.inferencer_module: Callable[..., Path | bytes | None] = bound("inferencer_module")
        self.preprocess: Callable[..., Preprocessed | Sequence[Preprocessed]] = bound("preprocess")
        self.postprocess: Callable[..., Any] = bound("postprocess")


def _excluded(manager: pluggy.PluginManager, hook: str, owner: Any) -> list[Any]:
    """Plugins that are not the owner and whose implementation of the hook is not a wrapper."""
    implementations = getattr(manager.hook, hook).get_hookimpls()
    return [each.plugin for each in implementations if each.plugin is not owner and not _wraps(each)]


def _direct(manager: pluggy.PluginManager, hook: str, excluded: Sequence[Any]) -> Callable[..., Any] | None:
    """The hook's only implementation; None if there are wrappers, or none. It is called for each token of a stream."""
    left = [each for each in getattr(manager.hook, hook).get_hookimpls() if each.plugin not in excluded]
    if len(left) != 1 or _wraps(left[0]):
        return None
    function, names = left[0].function, left[0].argnames

    def call(**arguments: Any) -> Any:
        return function(*[arguments[name] for name in names])

    return call


def _wraps(implementation: pluggy.HookImpl) -> bool:
    return bool(implementation.wrapper or implementation.hookwrapper)


class Plugins:
    """The plugins of this process."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reports: list[PluginReport] = []
        self._owners: dict[str, LoadedPlugin] = {}
        self._types: dict[str, ModelType] = {}

    @property
    def reports(self) -> Sequence[PluginReport]:
        """Every plugin that was found, those that failed included, in the order of loading."""
        return tuple(self._reports)

    @property
    def model_types(self) -> Mapping[str, ModelType]:
        """Model types by name."""
        return self._types

    def add(self, module: Any, *, name: str, distribution: str = "", version: str = "") -> None:
        """Register one plugin; raise PluginError, and leave nothing registered, if it cannot be used."""
        _check_api(module)
        if self._manager.has_plugin(name) or self._manager.is_registered(module):
            raise PluginError(f"a plugin named {name!r}, or the same one under another name, is loaded already")
        try:
            self._manager.register(module, name)
            own = self._own_hooks(module)
            _check_wrappers(own)
            types = self._own_types(own)
            _check_pipeline(own, types)
        except BaseException:
            self._manager.unregister(name=name)
            raise
        report = PluginReport(
            name=name,
            distribution=distribution,
            version=version,
            status="loaded",
            model_types=tuple(each.name for each in types),
        )
        self._reports.append(report)
        for each in types:
            self._types[each.name] = each
            self._owners[each.name] = LoadedPlugin(report, module, types)

    def note(self, report: PluginReport) -> None:
        """Remember a plugin that was not loaded."""
        self._reports.append(report)

    def model_type(self, name: str) -> ModelType:
        """The model type of that name; PluginError if no plugin serves it."""
        if name not in self._types:
            known = ", ".join(sorted(self._types)) or "none"
            raise PluginError(
                f"no installed plugin serves models of type {name!r} (served: {known}); "
                f"is the package openvino-llama-{name} installed?"
            )
        return self._types[name]

    def hooks_for(self, model_type: str) -> ModelHooks:
        """The pipeline hooks bound to the plugin that registered the model type."""
        return ModelHooks(self._manager, self._owners[self.model_type(model_type).name].module)

    def backends(self) -> Sequence[Backend]:
        """Every WASI-NN backend that plugins contribute."""
        return self._contributions("backends")

    def model_indexes(self) -> Sequence[Path]:
        """Every index of models that plugins contribute."""
        return [Path(each) for each in self._answers("model_index")]

    def model_converter(self, by: str, options: Mapping[str, Any]) -> str | None:
        """The module that converts so, None if no plugin knows how; see the hook. ConfigError if it cannot be."""
        given = {"by": by, "options": options}
        for implementation in getattr(self._manager.hook, "model_converter").get_hookimpls():  # noqa: B009 - as others
            try:
                answer: str | None = implementation.function(*(given[name] for name in implementation.argnames))
            except ConfigError:
                raise
            except (Exception, SystemExit):
                logger.exception("hook model_converter of plugin %s failed", implementation.plugin_name)
            else:
                if answer is not None:
                    return answer
        return None

    def route_handlers(self) -> Sequence[Any]:
        """Every route handler that plugins contribute."""
        return self._contributions("route_handlers")

    def commands(self) -> Sequence[click.Command]:
        """Every command that plugins contribute."""
        return self._contributions("commands")

    def model_loaded(self, config: ModelConfig) -> None:
        """Tell every plugin; see the hook."""
        self._tell("model_loaded", config=config)

    def model_activated(self, config: ModelConfig, endpoint: str) -> None:
        """Tell every plugin; see the hook."""
        self._tell("model_activated", config=config, endpoint=endpoint)

    def model_unloaded(self, config: ModelConfig) -> None:
        """Tell every plugin; see the hook."""
        self._tell("model_unloaded", config=config)

    def _tell(self, hook: str, **arguments: Any) -> None:
        """Call a hook of every plugin, one by one, so that one that raises does not silence the others."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except (Exception, SystemExit):
                logger.exception("hook %s of plugin %s failed", hook, implementation.plugin_name)

    def _contributions(self, hook: str) -> list[Any]:
        return [item for answer in self._answers(hook) for item in answer]

    def _answers(self, hook: str) -> Iterator[Any]:
        """What each plugin answers; one that raises is logged and passed over."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                yield implementation.function()
            except (Exception, SystemExit):
                logger.exception("hook %s of plugin %s failed", hook, implementation.plugin_name)

    def _own_types(self, own: Mapping[str, pluggy.HookImpl]) -> tuple[ModelType, ...]:
        if "model_types" not in own:
            return ()
        answer: Any = own["model_types"].function()
        types: tuple[ModelType, ...] = tuple(answer)
        owners = {name: loaded.report.distribution or loaded.report.name for name, loaded in self._owners.items()}
        endpoints = {each.endpoint: each.name for each in self._types.values()}
        for each in types:
            _check_type(each)
            if each.name in owners:
                raise PluginError(f"model type {each.name!r} is already served by {owners[each.name]}")
            if each.endpoint in endpoints:
                raise PluginError(
                    f"endpoint {each.endpoint!r} already belongs to model type {endpoints[each.endpoint]!r}"
                )
            owners[each.name] = "this plugin"
            endpoints[each.endpoint] = each.name
        return types

    def _own_hooks(self, module: Any) -> dict[str, pluggy.HookImpl]:
        """The module's hooks by name; PluginError for a function that is marked as a hook and is none."""
        own = {
            name: implementation
            for name, caller in vars(self._manager.hook).items()
            if not name.startswith("_")
            for implementation in caller.get_hookimpls()
            if implementation.plugin is module
        }
        known = [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), f"{PROJECT}_spec")]
        for name in own:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; is {close[0]!r} meant?" if close else ""
                raise PluginError(f"there is no hook {name!r}{hint}")
        return own


def _check_wrappers(own: Mapping[str, pluggy.HookImpl]) -> None:
    """Raise PluginError for a wrapper that nothing would call."""
    for name, implementation in own.items():
        if _wraps(implementation) and name not in _PIPELINE:
            raise PluginError(f"hook {name!r} cannot be wrapped; only {', '.join(_PIPELINE)} can")


def _check_pipeline(own: Mapping[str, pluggy.HookImpl], types: Sequence[ModelType]) -> None:
    """Raise PluginError for model types that could not answer, and for hooks of models that there are none of."""
    answering = [name for name in _PIPELINE if name in own and not _wraps(own[name])]
    missing = [name for name in _NEEDED if name not in answering]
    if types and missing:
        raise PluginError(f"it registers model type {types[0].name!r}, but has no hook {missing[0]!r}")
    if answering and "model_types" not in own:
        raise PluginError(
            f"hook {answering[0]!r} would never be called: the plugin registers no model type, and it is no wrapper"
        )


def load_plugins(disabled: Iterable[str] = ()) -> Plugins:
    """Load every installed plugin but the disabled ones (names of entry points or distributions)."""
    plugins = Plugins()
    blocked = set(disabled)
    for entry in sorted(entry_points(group=PROJECT), key=lambda each: each.name):
        distribution, version = _origin(entry)
        found = PluginReport(name=entry.name, distribution=distribution, version=version, status="disabled")
        if blocked & {entry.name, distribution}:
            plugins.note(found)
            continue
        try:
            plugins.add(entry.load(), name=entry.name, distribution=distribution, version=version)
        except KeyboardInterrupt:
            raise
        # A plugin's import runs its code: SystemExit and the like must not end the host either.
        except BaseException as error:
            text = f"{type(error).__name__}: {error}" if not isinstance(error, PluginError) else str(error)
            reason = " ".join(text.split())
            logger.error("plugin %s (%s %s) left out: %s", entry.name, distribution, version, reason)
            where = traceback.format_exc()
            plugins.note(msgspec.structs.replace(found, status="failed", reason=reason, traceback=where))
    _warn_of_unknown(blocked, plugins.reports)
    return plugins


def _warn_of_unknown(blocked: Iterable[str], found: Sequence[PluginReport]) -> None:
    """A plugin that is not here is out in any case, but whoever misspelt its name has it running."""
    for name in sorted(set(blocked) - {each.name for each in found} - {each.distribution for each in found}):
        installed = ", ".join(each.name for each in found) or "none"
        logger.warning("there is no plugin %r to disable; installed: %s", name, installed)


def _origin(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("", "")


_ENDPOINT = re.compile(r"[a-z0-9][a-z0-9_-]*")


def _check_type(model_type: Any) -> None:
    """Raise PluginError for what the server could not make a route of."""
    if not isinstance(model_type, ModelType):
        raise PluginError(f"model_types() must give ModelType objects, not {type(model_type).__name__}")
    name, parameters = model_type.name, model_type.parameters
    if not _ENDPOINT.fullmatch(model_type.endpoint):
        raise PluginError(
            f"model type {name!r}: an endpoint is lower-case letters, digits, '-' and '_', not {model_type.endpoint!r}"
        )
    if not model_type.accepts or not model_type.produces:
        raise PluginError(f"model type {name!r}: accepts and produces must each name a media type")
    unknown = [task for task in model_type.streaming if task not in model_type.tasks]
    if unknown:
        raise PluginError(f"model type {name!r}: streaming names {unknown[0]!r}, which is none of its tasks")
    if parameters is None:
        return
    if "model" in {field.encode_name for field in msgspec.structs.fields(parameters)}:
        raise PluginError(f"model type {name!r}: the parameter 'model' is the server's own")
    try:
        msgspec.json.schema(parameters)
    except TypeError as error:
        raise PluginError(f"model type {name!r}: its parameters cannot be described: {error}") from error


def _check_api(module: Any) -> None:
    stated = getattr(module, "OPENVINO_LLAMA_API", None)
    if stated != API_VERSION:
        raise PluginError(
            f"OPENVINO_LLAMA_API must be {API_VERSION}, the version of this host's hooks; it is {stated!r}"
        )
