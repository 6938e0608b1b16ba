"""openvino-genai called directly, in a process of its own: JSON on stdin, JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Greedy tokens of each prompt, one after the other."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    asked: dict[str, Any] = json.load(sys.stdin)
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 512
    scheduler.max_num_batched_tokens = 256
    scheduler.enable_prefix_caching = False
    pipeline = genai.ContinuousBatchingPipeline(asked["model"], scheduler, "CPU", asked.get("properties", {}))
    config = genai.GenerationConfig()
    config.max_new_tokens = asked["max_tokens"]
    config.apply_chat_template = False
    config.stop_token_ids = {asked["eos"]}
    config.eos_token_id = asked["eos"]
    answers = []
    for number, ids in enumerate(asked["prompts"]):
        handle = pipeline.add_request(number, ov.Tensor(np.array([ids], np.int64)), config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        answers.append(next(iter(handle.read_all())).generated_ids)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
