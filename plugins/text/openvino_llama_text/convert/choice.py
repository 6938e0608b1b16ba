"""Which conversions this plugin knows, and what each needs. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from openvino_llama import ConfigError

__all__ = ["MODULE", "WEIGHTS", "converter"]

MODULE = "openvino_llama_text.convert"
"""What is run for every conversion."""

WEIGHTS = ("fp32", "fp16", "int8", "int4")
"""Formats that the weights of a Hugging Face model can be stored in."""

_OPTIONS: Mapping[str, tuple[str, ...]] = {"exported": (), "gguf": (), "huggingface": ("weights",)}
"""Conversion -> its options."""

_EXTRA = ("optimum-intel", "torch", "nncf")
"""What the extra ``convert`` brings."""


def converter(by: str, options: Mapping[str, Any]) -> str | None:
    """What the hook ``model_converter`` answers; ConfigError if the conversion cannot be done so, or not here."""
    if by not in _OPTIONS:
        return None
    for option in options:
        if option not in _OPTIONS[by]:
            raise ConfigError(f"the conversion {by!r} has no option {option!r}: the weights stay as they are")
    if "weights" in options and options["weights"] not in WEIGHTS:
        raise ConfigError(f"option 'weights': expected one of {', '.join(WEIGHTS)}, got {options['weights']!r}")
    if by == "huggingface":
        _check_extra()
    return MODULE


def _check_extra() -> None:
    missing = [name for name in _EXTRA if not _is_installed(name)]
    if missing:
        raise ConfigError(
            f"converting it needs {' and '.join(missing)}, which this environment does not have; "
            "install it with: pip install 'openvino-llama-text[convert]'"
        )


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
