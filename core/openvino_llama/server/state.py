"""What the routes of one server share. Made with the app, filled in its lifespan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openvino_llama.errors import ConfigError, HookError, OpenVINOLlamaError
from openvino_llama.models import Models, open_models
from openvino_llama.pipeline import Pipeline
from openvino_llama.plugins import Plugins
from openvino_llama.registry import Registry, locate, read_registry
from openvino_llama.server.bodies import BodyRoom
from openvino_llama.server.metrics import Metrics
from openvino_llama.server.settings import Settings

if TYPE_CHECKING:
    from openvino_llama.server.uploads import Upload

__all__ = ["Server"]

logger = logging.getLogger(__name__)


class Server:
    """One server: its settings and plugins; from start to stop, its pipeline too."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.settings = settings
        self.plugins = plugins
        self.metrics = Metrics()
        self.bodies = BodyRoom(settings.max_bodies_bytes, settings.max_body_bytes)
        self.loaded = asyncio.Event()
        """Set when every model of the registry has been tried."""
        self.stopping = False
        self.registry_problems: dict[str, str] = {}
        """What is wrong with entries of the registry."""
        self._told: frozenset[str] = frozenset()
        """What was wrong with the registry when it was last read: the log has it."""
        self._uploads: dict[str, Upload] = {}
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        """What serves requests."""
        if self._pipeline is None:
            raise RuntimeError("the server has not been started")
        return self._pipeline

    @property
    def models(self) -> Models:
        """The models."""
        return self.pipeline.models

    def unready_reason(self) -> str:
        """Why requests should go elsewhere; empty if they should not."""
        if self.stopping:
            return "stopping"
        if not self.loaded.is_set():
            return "loading models"
        reasons = ((model.name, model.unready_reason()) for model in self.models.all())
        return "; ".join(f"{name}: {reason}" for name, reason in reasons if reason)

    def keep_upload(self, name: str, upload: Upload) -> None:
        """Keep a model's uploaded files until it is unloaded."""
        self._uploads[name] = upload

    def drop_upload(self, name: str) -> None:
        """Delete a model's uploaded files, if it has any."""
        upload = self._uploads.pop(name, None)
        if upload:
            upload.remove()

    def locate(self, path: str) -> Path:
        """A file of an entry that the registry has."""
        return locate(path, self.settings.registry)

    def locate_for_client(self, path: str) -> Path:
        """A file of an entry that a client sent: in the models folder itself, and not in its parent."""
        return locate(path, self.settings.registry, own_folder_only=True)

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Make engine, backends and models; load the registry's models in the background; at the end, drain."""
        opened = self._open_models()
        models = await asyncio.to_thread(opened.__enter__)
        self._pipeline = Pipeline(models)
        self.metrics.watch(models.all)
        loading = asyncio.create_task(self._load_registry())
        try:
            yield
        finally:
            self.stopping = True
            await loading
            await asyncio.to_thread(opened.__exit__, None, None, None)
            for name in list(self._uploads):
                self.drop_upload(name)

    def _open_models(self) -> AbstractContextManager[Models]:
        return open_models(self.plugins, self.metrics, self.settings.cache_dir, self.settings.model_defaults())

    async def _load_registry(self) -> None:
        try:
            registry = await asyncio.to_thread(self.read_registry)
            self.registry_problems = dict(registry.problems)
            self.models.expect(registry.entries)
            for name, entry in registry.entries.items():
                if self.stopping:
                    break
                await asyncio.to_thread(self._load, name, entry)
            self._note_missing_defaults()
        except Exception:
            logger.exception("the registry's models could not be loaded")
        finally:
            self.loaded.set()

    def _note_missing_defaults(self) -> None:
        """An endpoint that waits for a default model which does not come answers nobody: say so."""
        for name, problem in self.models.missing_defaults().items():
            logger.error("%s", problem)
            self.registry_problems.setdefault(name, problem)
        for kind in self.settings.default_models.keys() - self.plugins.model_types.keys():
            logger.warning("a default model is set for %r models, which no installed plugin serves", kind)

    def _load(self, name: str, entry: Any) -> None:
        """Load one model; what goes wrong is the model's state from then on and does not stop the others."""
        try:
            self.models.load(name, entry, self.locate)
        except OpenVINOLlamaError as error:
            logger.error("model %s failed to load: %s%s", name, error, _where_the_cause_is(error))
        except Exception:
            logger.exception("model %s failed to load", name)

    def read_registry(self) -> Registry:
        """The registry as it is on disk now; empty if there is none. Logs what was not wrong the last time."""
        path = self.settings.registry
        if not path.exists():
            self._tell([f"there is no registry {path}: no models are loaded"], logging.WARNING)
            return Registry(path, {}, {})
        try:
            registry = read_registry(path)
        except ConfigError as error:
            registry = Registry(path, {}, {path.name: str(error)})
        self._tell(registry.problems.values(), logging.ERROR)
        return registry

    def _tell(self, problems: Collection[str], level: int) -> None:
        """Log problems of the registry that are new: it is read whenever a client names a model of it."""
        for problem in problems:
            if problem not in self._told:
                logger.log(level, "%s", problem)
        self._told = frozenset(problems)


def _where_the_cause_is(error: OpenVINOLlamaError) -> str:
    """The models log it themselves, at a level that only ``-v`` shows; an error of this project says all itself."""
    if isinstance(error, HookError) or isinstance(error.__cause__, OpenVINOLlamaError | None):
        return ""
    return "; ovllama -v serve logs the cause"
