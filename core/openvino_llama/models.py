"""Models that come and go: load, activate, unload.

Loading one never interrupts the others; activating is atomic; unloading drains first and then really gives the
memory back. Knows nothing of HTTP and of the registry's file.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from openvino_llama.backends.base import Backend, Graph, LivingGraph
from openvino_llama.backends.properties import check_properties
from openvino_llama.config import Batching, Defaults, Isolation, ModelConfig, ModelType, RegistryEntry, typed_config
from openvino_llama.errors import (
    ConfigError,
    HookError,
    MissingFileError,
    ModelConflictError,
    ModelNotFoundError,
    OpenVINOLlamaError,
    UnavailableError,
)
from openvino_llama.memory import give_memory_back
from openvino_llama.observer import Observer
from openvino_llama.registry import check_unique
from openvino_llama.runner import Runner, Workers
from openvino_llama.sandbox.guest import BUILT_IN, Guest
from openvino_llama.sandbox.wasi_nn import WasiNN
from openvino_llama.specs import TensorSpec

if TYPE_CHECKING:
    import openvino as ov

    from openvino_llama.plugins import ModelHooks, Plugins
    from openvino_llama.sandbox.engine import GuestModule, Sandbox

__all__ = ["Locate", "Model", "Models", "State", "open_models"]

logger = logging.getLogger(__name__)

Locate = Callable[[str], Path]
"""A file's path as an entry has it -> an absolute path; ConfigError if it is not allowed."""


class State(Enum):
    """Where a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


class Model:
    """One model that was asked for, loaded or not."""

    def __init__(self, name: str, entry: RegistryEntry) -> None:
        self.name = name
        self.entry = entry
        self.state = State.LOADING
        self.reason = ""
        """Why it failed."""
        self.is_expected = False
        """Whether its loading has been announced and has not begun."""
        self._serving: _Serving | None = None

    @property
    def serving(self) -> _Serving:
        """What serves it; UnavailableError while it is loaded or unloaded, ModelConflictError if it failed."""
        serving = self._serving  # once: other threads may take it away at any time
        if self.state is State.FAILED:
            raise ModelConflictError(f"model {self.name!r} has failed to load: {self.reason}")
        if self.state is not State.READY or serving is None:
            raise UnavailableError(f"model {self.name!r} is {self.state.value}")
        return serving

    @property
    def config(self) -> ModelConfig | None:
        """Its configuration with the final specs, once it is ready."""
        serving = self._serving
        return serving.config if serving else None

    @property
    def model_type(self) -> ModelType | None:
        """Its type, once it is ready."""
        serving = self._serving
        return serving.model_type if serving else None

    @property
    def queue_length(self) -> int:
        """Requests that wait for it."""
        serving = self._serving
        return serving.runner.queue_length if serving else 0

    def unready_reason(self) -> str:
        """Why it answers nobody although it is loaded; empty if it does."""
        serving = self._serving
        if serving is None:
            return ""
        if serving.runner.is_stuck:
            return "stuck: an inference does not come to its end"
        if not isinstance(serving.graph, LivingGraph):
            return ""
        try:
            return serving.graph.unready_reason()
        except Exception:  # a plugin's code, in the middle of everybody's health check
            logger.exception("model %s does not tell whether it is ready", self.name)
            return "it does not tell whether it is ready"

    def gauges(self) -> Mapping[str, float]:
        """What its graph shows of itself."""
        serving = self._serving
        if serving is None or not isinstance(serving.graph, LivingGraph):
            return {}
        try:
            return {name: float(value) for name, value in serving.graph.gauges().items()}
        except Exception:  # nor may it take the others' metrics away
            logger.exception("model %s does not tell its gauges", self.name)
            return {}

    def become_ready(self, serving: _Serving) -> None:
        """It serves from now on."""
        self._serving = serving
        self.state = State.READY

    def fail(self, reason: str) -> None:
        """It could not be loaded."""
        self.reason = reason
        self.state = State.FAILED

    def release(self) -> None:
        """Drain it and free everything that it holds; what a plugin's backend raises is logged."""
        serving = self._serving
        try:
            if serving:
                serving.runner.close()
                serving.graph.close()
        except Exception:
            logger.exception("model %s could not be freed", self.name)
        self._serving = None


class _Serving(msgspec.Struct, frozen=True):
    """What a ready model consists of."""

    config: ModelConfig
    model_type: ModelType
    graph: Graph
    runner: Runner


class Models:
    """The models of this process. Every method may be called from any thread; load and unload block."""

    def __init__(
        self,
        plugins: Plugins,
        sandbox: Sandbox,
        backends: Sequence[Backend],
        observer: Observer,
        defaults: Defaults | None = None,
    ) -> None:
        """``backends`` ends with OpenVINO's, which serves what no other one does."""
        self._plugins = plugins
        self._sandbox = sandbox
        self._backends = backends
        self._observer = observer
        self._defaults = defaults or Defaults()
        wanted = self._defaults.active
        self._wanted = {
            each.endpoint: wanted[each.name] for each in plugins.model_types.values() if each.name in wanted
        }
        """Endpoint -> name of the model that is to be active."""
        self._models: dict[str, Model] = {}
        self._active: dict[str, str] = {}
        self._lock = threading.Lock()
        self._built_in = sandbox.compile(BUILT_IN)

    # ---- looking ------------------------------------------------------------------------------------------------

    def all(self) -> Sequence[Model]:
        """Every model, in the order in which they were asked for."""
        return list(self._models.values())

    def get(self, name: str) -> Model:
        """A model by name; ModelNotFoundError if there is none."""
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFoundError(f"there is no model {name!r}; GET /models lists those that there are") from None

    def active(self, endpoint: str) -> Model:
        """The active model of an endpoint; ModelNotFoundError if there is none, UnavailableError if one is coming."""
        try:
            return self._models[self._active[endpoint]]
        except KeyError:
            if any(model.is_expected for model in self.all()):
                raise UnavailableError("the registry's models are being loaded") from None
            raise ModelNotFoundError(f"no model is active for the endpoint {endpoint!r}") from None

    def active_for(self, name: str) -> str | None:
        """The endpoint that a model is active for."""
        return next((endpoint for endpoint, active in list(self._active.items()) if active == name), None)

    def missing_defaults(self) -> dict[str, str]:
        """Name of each default model that is not active -> what is wrong with it."""
        missing = [name for endpoint, name in self._wanted.items() if endpoint not in self._active]
        return {name: f"the default model {name!r} is not there, or could not be loaded" for name in missing}

    # ---- changing -----------------------------------------------------------------------------------------------

    def expect(self, entries: Mapping[str, RegistryEntry]) -> None:
        """Show models that are going to be loaded, so that requests for them are told to come again."""
        for name, entry in entries.items():
            self._reserve(name, entry).is_expected = True

    def load(self, name: str, entry: RegistryEntry, locate: Locate) -> Model:
        """Load a model. The error is raised, and kept with the model, if that fails."""
        model = self._reserve(name, entry)
        try:
            serving = self._serving(name, entry, locate)
        except OpenVINOLlamaError as error:
            model.fail(str(error))
            logger.info("model %s failed to load: %s", name, error, exc_info=error.__cause__)
            raise
        # Hooks of plugins ran: SystemExit and the like must not end whoever waits for this thread.
        except BaseException as error:
            model.fail("an unexpected error, which the log has")
            logger.exception("model %s failed to load", name)
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            raise HookError(f"model {name!r} failed to load: {model.reason}") from error
        with self._lock:
            model.become_ready(serving)
            activated = self._activate_if_wanted(name, serving.model_type.endpoint)
        self._plugins.model_loaded(serving.config)
        if activated:
            self._plugins.model_activated(serving.config, serving.model_type.endpoint)
        logger.info("model %s is ready", name)
        return model

    def activate(self, name: str) -> Model:
        """Make a ready model the active one of its endpoint."""
        with self._lock:
            model = self.get(name)
            serving = model.serving
            self._active[serving.model_type.endpoint] = name
        self._plugins.model_activated(serving.config, serving.model_type.endpoint)
        return model

    def unload(self, name: str) -> None:
        """Finish a model's requests and free it; ModelConflictError while it is being loaded or unloaded."""
        with self._lock:
            model = self.get(name)
            if model.state not in (State.READY, State.FAILED):
                raise ModelConflictError(f"model {name!r} is {model.state.value}")
            model.state = State.UNLOADING
            self._active = {endpoint: active for endpoint, active in self._active.items() if active != name}
        config = model.config
        model.release()
        with self._lock:
            del self._models[name]
        give_memory_back()
        if config:
            self._plugins.model_unloaded(config)
        logger.info("model %s is unloaded", name)

    def close(self) -> None:
        """Finish what was accepted and unload everything."""
        for model in self.all():
            model.release()
        self._models.clear()

    # ---- below --------------------------------------------------------------------------------------------------

    def _reserve(self, name: str, entry: RegistryEntry) -> Model:
        with self._lock:
            known = self._models.get(name)
            if known and known.state is not State.FAILED and not known.is_expected:
                raise ModelConflictError(f"model {name!r} is already there: it is {known.state.value}")
            check_unique(name, self._models)
            self._models[name] = model = Model(name, entry)
        return model

    def _activate_if_wanted(self, name: str, endpoint: str) -> bool:
        """Activate a model if its endpoint has none, and no other model is meant to be the endpoint's."""
        wanted = endpoint not in self._active and self._wanted.get(endpoint, name) == name
        if wanted:
            self._active[endpoint] = name
        return wanted

    def _serving(self, name: str, entry: RegistryEntry, locate: Locate) -> _Serving:
        model_type = self._plugins.model_type(entry.type)
        hooks = self._plugins.hooks_for(entry.type)
        config = self._config(name, entry, model_type, locate)
        if "model" not in config.files:
            raise ConfigError(f"model {name!r}, field 'files': the role 'model' is missing")
        graph = self._open(config, hooks)
        if not getattr(graph, "batches", False):  # a plugin's graph may not say
            config = msgspec.structs.replace(config, batching=Batching(max_batch_size=1))
        try:
            return self._start(_with_specs(config, graph.inputs, graph.outputs), model_type, hooks, graph)
        except BaseException:
            graph.close()
            raise

    def _config(self, name: str, entry: RegistryEntry, model_type: ModelType, locate: Locate) -> ModelConfig:
        """The configuration of an entry; where its files are not there, and can be pulled, the error says so."""
        try:
            return typed_config(name, entry, model_type, locate)
        except MissingFileError as error:
            from openvino_llama.sources import names_in  # nobody pays for it who lacks nothing

            if name not in names_in(self._plugins.model_indexes()):
                raise
            raise MissingFileError(f"{error}; `ovllama pull {name}` brings it") from error

    def _open(self, config: ModelConfig, hooks: ModelHooks) -> Graph:
        """Have the model's backend read it, with the plugin's changes to an OpenVINO graph."""

        def prepare(model: ov.Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> ov.Model:
            return hooks.prepare_model(config=_with_specs(config, inputs, outputs), model=model) or model

        check_properties(config.properties)
        return next(each for each in self._backends if each.serves(config)).open(config, prepare)

    def _start(self, config: ModelConfig, model_type: ModelType, hooks: ModelHooks, graph: Graph) -> _Serving:
        own = hooks.inferencer_module(config=config)
        module = self._sandbox.compile(own) if own else self._built_in
        config = self._completed(config, built_in=own is None)
        hooks.validate_model(config=config)

        def make_guest() -> Guest:
            return self._make_guest(module, graph, config, model_type)

        streams = config.task in model_type.streaming
        # Two more than infer at a time: they decode and answer while those do. A stream keeps its worker to its end.
        workers = Workers(
            number=config.limits.workers or graph.parallelism + (1 if streams else 2),
            stream=streams,
            make_way=isinstance(graph, LivingGraph),
        )
        runner = Runner(config, hooks, make_guest, workers, self._observer)
        return _Serving(config, model_type, graph, runner)

    def _completed(self, config: ModelConfig, *, built_in: bool) -> ModelConfig:
        """The configuration with the server's defaults in place of None."""
        size = config.batching.max_batch_size or self._defaults.max_batch_size
        isolation = config.isolation or (Isolation.POOLED if built_in else Isolation.PER_REQUEST)
        batching = msgspec.structs.replace(config.batching, max_batch_size=size)
        length = config.limits.max_sequence_length or self._defaults.max_sequence_length
        limits = msgspec.structs.replace(config.limits, max_sequence_length=length)
        return msgspec.structs.replace(config, batching=batching, limits=limits, isolation=isolation)

    def _make_guest(self, module: GuestModule, graph: Graph, config: ModelConfig, model_type: ModelType) -> Guest:
        # Only the built-in guest is known to leave its inputs alone during compute, and to do little itself.
        known = module is self._built_in
        nn = WasiNN(
            {config.name: graph},
            self._backends[-1].load,
            self._sandbox.watchdog,
            handles=config.limits.handles,
            borrow=known,
        )
        instance = self._sandbox.instantiate(module, nn, config.limits)
        return Guest(instance, config, streaming=config.task in model_type.streaming, quick=known)


@contextmanager
def open_models(
    plugins: Plugins,
    observer: Observer,
    cache_dir: Path | None = None,
    defaults: Defaults | None = None,
) -> Iterator[Models]:
    """Everything that models need, put together: sandbox, OpenVINO, the plugins' backends; at the end, all is drained.

    ``cache_dir`` is where compiled models are kept.
    """
    from openvino_llama.backends.openvino import OpenVINOBackend
    from openvino_llama.sandbox.engine import Sandbox

    sandbox = Sandbox()
    models = Models(plugins, sandbox, [*plugins.backends(), OpenVINOBackend(cache_dir)], observer, defaults)
    try:
        yield models
    finally:
        models.close()
        sandbox.close()


def _with_specs(config: ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> ModelConfig:
    return msgspec.structs.replace(config, inputs=tuple(inputs), outputs=tuple(outputs))
