"""openvino-genai called directly: ``python -m benchmarks.text_engine FOLDER STREAMS TOKENS``.

The engine alone in its process, with the scheduling that the server's engine has: no server, no sandbox, no text. For
each line on stdin, the number of a turn, it prints a line of JSON with its tokens per second and the median time to a
stream's first token.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai

from benchmarks.text_prompts import prompts
from openvino_llama_text.config import EngineConfig

__all__ = ["answer", "follow", "greedy", "open_pipeline", "run"]


def run(pipeline: genai.ContinuousBatchingPipeline, ids: list[ov.Tensor], tokens: int) -> tuple[float, list[float]]:
    """Generate for all prompts at once; the seconds that took, and those to each first token."""
    config = greedy(tokens)
    started = time.perf_counter()
    return follow(pipeline, [pipeline.add_request(number, each, config) for number, each in enumerate(ids)], started)


def greedy(tokens: int) -> genai.GenerationConfig:
    """So many tokens, whatever they are."""
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.apply_chat_template = tokens, True, False
    config.eos_token_id = 2
    return config


def follow(
    pipeline: genai.ContinuousBatchingPipeline, handles: Sequence[genai.GenerationHandle], started: float
) -> tuple[float, list[float]]:
    """Step to the end of all; the seconds since ``started``, and those to each first token."""
    first: list[float | None] = [None] * len(handles)
    while pipeline.has_non_finished_requests():
        pipeline.step()
        now = time.perf_counter() - started
        for number, handle in enumerate(handles):
            if handle.can_read():
                handle.read()
                first[number] = first[number] or now
    return time.perf_counter() - started, [each for each in first if each is not None]


def open_pipeline(folder: Path) -> genai.ContinuousBatchingPipeline:
    """The engine as the server sets it up."""
    engine = EngineConfig()
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 4096
    scheduler.max_num_seqs = engine.max_num_seqs
    scheduler.max_num_batched_tokens = engine.max_num_batched_tokens
    scheduler.enable_prefix_caching = engine.prefix_caching
    return genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", {})


def answer(turn: Callable[[int], tuple[float, list[float]]], all_tokens: int) -> None:
    """Measure and print as often as asked; ``turn`` gives the seconds of all tokens, and those to each first one."""
    for line in sys.stdin:
        spent, first = turn(int(line))
        print(json.dumps({"tps": all_tokens / spent, "ttft_ms": statistics.median(first) * 1000}), flush=True)


def main() -> None:
    """Read the arguments; measure and print as often as asked."""
    folder, streams, tokens = Path(sys.argv[1]), *map(int, sys.argv[2:4])
    pipeline = open_pipeline(folder)
    tokenizer = pipeline.get_tokenizer()

    def turn(number: int) -> tuple[float, list[float]]:
        ids = [tokenizer.encode(each).input_ids.data for each in prompts(streams, number)]
        return run(pipeline, [ov.Tensor(np.asarray(each, np.int64)) for each in ids], tokens)

    answer(turn, streams * tokens)


if __name__ == "__main__":
    main()
