"""openvino-genai called directly: ``python -m benchmarks.multimodal_engine FOLDER STREAMS TOKENS ROUNDS``.

As ``text_engine``, each stream with a picture, which is decoded already, and a text. Prints the same line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import openvino as ov
import openvino_genai as genai

from benchmarks.multimodal_prompts import Question, questions
from benchmarks.text_engine import follow, open_pipeline

__all__ = ["run"]


def run(
    pipeline: genai.ContinuousBatchingPipeline, asked: Sequence[Question], tokens: int
) -> tuple[float, list[float]]:
    """Generate for all questions at once; the seconds that took, and those to each first token."""
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.apply_chat_template = tokens, True, True
    config.eos_token_id = pipeline.get_tokenizer().get_eos_token_id()
    pictures = [[ov.Tensor(each.pixels())] for each in asked]
    started = time.perf_counter()
    handles = [
        pipeline.add_request(number, each.text, picture, config)
        for number, (each, picture) in enumerate(zip(asked, pictures, strict=True))
    ]
    return follow(pipeline, handles, started)


def main() -> None:
    """Read the arguments, measure, print."""
    folder, streams, tokens, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    pipeline = open_pipeline(folder)
    rates, firsts = [], []
    for number in range(rounds + 1):
        spent, first = run(pipeline, questions(streams, number), tokens)
        if number:  # the first round warms up
            rates.append(streams * tokens / spent)
            firsts += first
    print(json.dumps({"tps": statistics.median(rates), "ttft_ms": statistics.median(firsts) * 1000}))


if __name__ == "__main__":
    main()
