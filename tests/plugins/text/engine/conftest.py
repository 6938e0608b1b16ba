"""An engine that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.plugins.text.engine.runs import config

from openvino_llama_text.engine.backend import EngineBackend, EngineGraph


@pytest.fixture(scope="module")
def graph(smollm2: Path) -> Iterator[EngineGraph]:
    made = EngineBackend().open(config(smollm2), None)
    yield made
    made.close()
