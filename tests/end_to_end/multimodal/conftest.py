"""A server with the tiny LLaVA, and with SmolLM2 where it can be had, that the tests of a session share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import mirrored
from tests.end_to_end.text.support import GENERATION, Served, entry, serving
from tests.plugins.multimodal.llava import EXACT
from tests.plugins.text.conftest import smollm2

from .support import llava_entry

__all__ = ["smollm2"]

MAX_PIXELS = 9_000_000
"""What ``OVLLAMA_MAX_IMAGE_PIXELS`` is for the server."""


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``llava``, which is exact and active, ``few``, which takes two pictures, and ``smol`` where it is."""
    mirrored("tiny-llava")
    folder = tmp_path_factory.mktemp("served")
    models: dict[str, Any] = {
        "llava": llava_entry(folder, properties=EXACT),
        "few": llava_entry(folder, config={"max_images": 2, "text": {"generation": {"temperature": 0}}}),
    }
    try:
        text: Path = request.getfixturevalue("smollm2")
        models["smol"] = entry(folder, text, config=GENERATION)
    except pytest.skip.Exception:
        pass
    settings = {"DEFAULT_MULTIMODAL_MODEL": "llava", "OVLLAMA_MAX_IMAGE_PIXELS": str(MAX_PIXELS)}
    with serving(folder, models, **settings) as running:
        yield running
