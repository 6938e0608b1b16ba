"""Short ways to have an engine generate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openvino_llama import ModelConfig, Step
from openvino_llama_text.config import EngineConfig, TextConfig
from openvino_llama_text.engine.backend import EngineContext, EngineGraph

PROMPT = [1, 4093, 198, 36218, 15876, 30, 2, 198, 1, 520, 9531, 198]
"""``<|im_start|>user\\nSay hi.<|im_end|>\\n<|im_start|>assistant\\n`` in SmolLM2's tokens."""


def config(folder: Path, context: int = 1024, **engine: Any) -> ModelConfig:
    """SmolLM2 in f32 throughout: rounded further, tokens depend on how many sequences share a step."""
    return ModelConfig(
        name="smol",
        type="text",
        task="generation",
        files={"model": folder / "openvino_model.xml"},
        properties={
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        },
        config=TextConfig(context_window=context, engine=EngineConfig(**engine)),
    )


def prompts(count: int, length: int = 30) -> list[list[int]]:
    return [[(7919 * row + 31 * column) % 40_000 + 100 for column in range(length)] for row in range(count)]


def context(graph: EngineGraph, tokens: Sequence[int], **parameters: Any) -> EngineContext:
    """A context with its inputs set."""
    made = graph.create_context()
    made.set_input(0, np.array([tokens], np.int64), borrow=False)
    text = msgspec.json.encode({"max_tokens": 16} | parameters)
    made.set_input(1, np.frombuffer(text, np.uint8), borrow=False)
    return made


def pull(made: EngineContext) -> tuple[list[int], Step]:
    """All tokens of a sequence, and how it ended."""
    tokens: list[int] = []
    while (step := made.compute_single()) is Step.OUTPUT:
        tokens += made.output(0).tolist()
    made.finish()
    return tokens, step


def generate(graph: EngineGraph, tokens: Sequence[int], **parameters: Any) -> tuple[list[int], Step]:
    made = context(graph, tokens, **parameters)
    try:
        return pull(made)
    finally:
        made.close()


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call gave, or raised, when all ran at the same time."""
    results: list[Any] = [None] * len(calls)

    def call(number: int) -> None:
        try:
            results[number] = calls[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that other threads or processes bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
