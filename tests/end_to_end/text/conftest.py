"""A server with SmolLM2, and with all-MiniLM-L6-v2 where it can be had, that the tests of a session share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MIRROR
from tests.plugins.text.conftest import minilm, smollm2

from .support import GENERATION, Served, entry, serving, vision_entry

__all__ = ["minilm", "smollm2"]

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
"""Nothing is rounded: at the precision that the engine chooses, a text depends on what else it generates meanwhile."""
CROWDED: dict[str, Any] = {
    "limits": {"workers": 4, "queue_size": 3},
    "config": GENERATION | {"engine": {"max_num_seqs": 4, "kv_cache_mib": 64}},
}
"""Where five requests are too many, and what breaks disturbs nobody else."""


@pytest.fixture(scope="session")
def served(smollm2: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``smol``, which is active and exact, ``crowded``, and ``minilm`` and ``mobilenet`` where they are."""
    folder = tmp_path_factory.mktemp("served")
    models: dict[str, Any] = {
        "smol": entry(folder, smollm2, config=GENERATION, properties=EXACT),
        "crowded": entry(folder, smollm2, **CROWDED),
    }
    if (found := _if_there(request)) is not None:
        models["minilm"] = entry(folder, found, "embedding")
    if (MIRROR / "mobilenet_v2").is_dir():
        models["mobilenet"] = vision_entry(folder, MIRROR / "mobilenet_v2")
    with serving(folder, models, DEFAULT_TEXT_MODEL="smol") as running:
        yield running


def _if_there(request: pytest.FixtureRequest) -> Path | None:
    try:
        found: Path = request.getfixturevalue("minilm")
    except pytest.skip.Exception:
        return None
    return found
