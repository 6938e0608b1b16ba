"""openvino-genai called directly: ``python -m benchmarks.multimodal_engine FOLDER STREAMS TOKENS``.

As ``text_engine``, each stream with a picture, which is decoded already, and a text. Prints the same lines of JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import openvino as ov
import openvino_genai as genai

from benchmarks.multimodal_prompts import Question, questions
from benchmarks.text_engine import answer, follow, open_pipeline

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
    """Read the arguments; measure and print as often as asked."""
    folder, streams, tokens = Path(sys.argv[1]), *map(int, sys.argv[2:4])
    pipeline = open_pipeline(folder)
    answer(lambda number: run(pipeline, questions(streams, number), tokens), streams * tokens)


if __name__ == "__main__":
    main()
