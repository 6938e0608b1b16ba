"""What ``ovllama pull`` and ``ovllama demo`` have in common: the known models, and fetching them into one registry.

Knows nothing of options of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from openvino_llama.cli.progress import Bar
from openvino_llama.config import RegistryEntry
from openvino_llama.errors import SourceError
from openvino_llama.plugins import Plugins
from openvino_llama.sources import IndexedModel, check_convertible, describe, pull, read_index

__all__ = ["Shelf"]


class Shelf(msgspec.Struct, frozen=True):
    """Where models come from and where they go."""

    plugins: Plugins
    registry: Path
    mirror: Path | None = None

    def known(self) -> dict[str, IndexedModel]:
        """The models of all plugins' indexes."""
        return read_index(self.plugins.model_indexes())

    def starters(self, echo: Callable[[str], None]) -> dict[str, IndexedModel]:
        """Those that can be pulled here; the others are said to be left out."""
        starters = {name: model for name, model in self.known().items() if model.starter}
        return {name: model for name, model in starters.items() if self._can_pull(name, model, echo)}

    def pull(self, name: str, model: IndexedModel) -> RegistryEntry:
        """Fetch one, with a progress bar; its entry in the registry."""
        with Bar(name) as bar:
            return pull(
                model,
                name,
                self.registry.parent,
                mirror=self.mirror,
                progress=bar,
                registry_name=self.registry.name,
                converters=self.plugins.model_converter,
            )

    def what_it_takes(self, entry: RegistryEntry) -> str:
        """What ``ovllama infer`` is given for such a model."""
        model_type = self.plugins.model_types.get(entry.type)
        return "TEXT" if model_type and "text/plain" in model_type.accepts else "FILE"

    def describe(self, name: str, source: str, entry: Mapping[str, str]) -> IndexedModel:
        """A model that no index knows."""
        with Bar(name) as bar:
            return describe(source, entry, bar)

    def _can_pull(self, name: str, model: IndexedModel, echo: Callable[[str], None]) -> bool:
        try:
            check_convertible(model, name, self.registry.parent, self.plugins.model_converter)
        except SourceError as error:
            echo(f"{name} is left out: {error}")
            return False
        return True
