"""Memory for what a plugin works out once for each model. Knows nothing of what is remembered."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from openvino_llama.config import ModelConfig

__all__ = ["per_model"]

Result = TypeVar("Result")


def per_model(function: Callable[[ModelConfig], Result]) -> Callable[[ModelConfig], Result]:
    """Remember what ``function(config)`` returned until that model is unloaded.

    For labels, anchors, tokenizers, resize plans. The function runs once for each loaded model, whatever the number of
    threads that ask; an exception is not remembered. It may ask for another model's result, but not for its own.
    """
    results: weakref.WeakKeyDictionary[ModelConfig, Result] = weakref.WeakKeyDictionary()
    lock = threading.RLock()  # the function may come back here, for another model

    @functools.wraps(function)
    def remembered(config: ModelConfig) -> Result:
        try:
            return results[config]
        except KeyError:
            with lock:
                if config not in results:
                    results[config] = function(config)
                return results[config]

    return remembered
