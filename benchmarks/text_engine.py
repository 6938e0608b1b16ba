"""openvino-genai called directly: ``python -m benchmarks.text_engine FOLDER STREAMS TOKENS ROUNDS``.

The engine alone in its process, with the scheduling that the server's engine has: no server, no sandbox, no text.
Prints a line of JSON with its tokens per second and the median time to a stream's first token.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai

from benchmarks.text_prompts import prompts
from openvino_llama_text.config import EngineConfig

__all__ = ["follow", "open_pipeline", "run"]


def run(pipeline: genai.ContinuousBatchingPipeline, ids: list[ov.Tensor], tokens: int) -> tuple[float, list[float]]:
    """Generate for all prompts at once; the seconds that took, and those to each first token."""
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.apply_chat_template = tokens, True, False
    config.eos_token_id = 2
    started = time.perf_counter()
    return follow(pipeline, [pipeline.add_request(number, each, config) for number, each in enumerate(ids)], started)


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


def main() -> None:
    """Read the arguments, measure, print."""
    folder, streams, tokens, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    pipeline = open_pipeline(folder)
    tokenizer = pipeline.get_tokenizer()
    rates, firsts = [], []
    for number in range(rounds + 1):
        ids = [
            ov.Tensor(np.asarray(tokenizer.encode(each).input_ids.data, np.int64)) for each in prompts(streams, number)
        ]
        spent, first = run(pipeline, ids, tokens)
        if number:  # the first round warms up
            rates.append(streams * tokens / spent)
            firsts += first
    print(json.dumps({"tps": statistics.median(rates), "ttft_ms": statistics.median(firsts) * 1000}))


if __name__ == "__main__":
    main()
