"""What plugins work out once for each model."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from openvino_llama import ModelConfig, per_model


def model(config: object = None) -> ModelConfig:
    return ModelConfig(name="m", type="t", task="t", files={}, config=config)


def test_once_for_each_model() -> None:
    """Whatever the number of threads that ask, until the model is gone."""
    called = []

    @per_model
    def slowly(config: ModelConfig) -> int:
        called.append(config.name)
        time.sleep(0.05)
        return len(called)

    first, second = model(), model()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(slowly, [first] * 4)) == [1] * 4
    assert (slowly(second), slowly(first), len(called)) == (2, 1, 2)
    del first
    gc.collect()
    assert slowly(model()) == 3


def test_an_exception_is_not_remembered() -> None:
    """The next one who asks tries again."""
    called = []

    @per_model
    def moody(config: ModelConfig) -> int:
        called.append(config.name)
        if len(called) == 1:
            raise LookupError
        return 7

    config = model()
    with pytest.raises(LookupError):
        moody(config)
    assert moody(config) == 7


def test_a_function_may_ask_for_another_model() -> None:
    """Without waiting for itself for ever; for its own model it is an error."""

    @per_model
    def depth(config: ModelConfig) -> int:
        return 0 if config.config is None else 1 + depth(config.config)

    @per_model
    def endless(config: ModelConfig) -> int:
        return endless(config)

    found: list[object] = []

    def ask() -> None:
        found.append(depth(model(model(model()))))
        with pytest.raises(RecursionError):
            endless(model())
        found.append("done")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(20)
    assert found == [2, "done"]
