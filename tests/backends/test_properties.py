"""What an entry may tell OpenVINO."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openvino_llama.backends.properties import PROPERTIES, check_properties
from openvino_llama.errors import ConfigError


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"PERFORMANCE_HINT": "LATENCY", "ENABLE_HYPER_THREADING": False},
        {"NUM_STREAMS": "AUTO", "INFERENCE_NUM_THREADS": 2, "PERFORMANCE_HINT_NUM_REQUESTS": "1024"},
    ],
)
def test_what_is_allowed(properties: dict[str, object]) -> None:
    """Whatever says how a model computes."""
    check_properties(properties)


@pytest.mark.parametrize(
    "name", ["CACHE_DIR", "CONFIG_FILE", "WEIGHTS_PATH", "ENABLE_MMAP", "CACHE_MODE", "LOG_LEVEL", "", "num_streams"]
)
def test_what_is_not(name: str) -> None:
    """Files, the process, and what nobody knows; the message names it."""
    with pytest.raises(ConfigError, match=f"{name!r} is not a property"):
        check_properties({"NUM_STREAMS": 1, name: "x"})


def test_a_misspelt_property() -> None:
    """The nearest one is named."""
    with pytest.raises(ConfigError, match="is PERFORMANCE_HINT meant"):
        check_properties({"PERFORMANCE_HIN": "LATENCY"})


@pytest.mark.parametrize("value", [1025, 10**12, "9" * 5000, "many", 2.5, True, -2])
def test_numbers_of_threads_and_streams_are_bounded(value: str | float) -> None:
    """A million threads would take the process down."""
    with pytest.raises(ConfigError, match=r"'properties.NUM_STREAMS': expected a number up to 1024"):
        check_properties({"NUM_STREAMS": value})


def test_the_documentation_lists_them() -> None:
    """All of them, and no others."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    section = text.partition("### Properties")[2].partition("###")[0].partition("\n\n`")[2].partition(".\n")[0]
    assert set(re.findall(r"[A-Z_]{5,}", section)) == PROPERTIES
