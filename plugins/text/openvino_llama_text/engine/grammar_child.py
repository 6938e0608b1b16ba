"""The process that tries forms of the output: compiles each as the engine will, on a model of no size.

openvino-genai gives no other way to xgrammar's compiler than to generate a token. The model here answers every prompt
with equal logits; its tokenizer is the real one. Knows nothing of time: who asks kills it when it takes too long.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino import opset13 as ops

from openvino_llama_text.engine.frames import Check, Checked, Frames, write_frame
from openvino_llama_text.engine.generation import ir_path, vocabulary
from openvino_llama_text.engine.orphan import take_pipes

__all__ = ["main"]

_MEMORY = 1 << 30
"""What compiling may take beside what this process has when it is ready, in bytes."""
_SECONDS = 60
_PROBLEMS = {
    "json_schema": "is not a JSON schema whose form can be enforced",
    "regex": "is not a regular expression that can be enforced",
    "grammar": "is not a grammar in EBNF with a rule named root",
}


def main(model: str) -> int:
    """Answer Checks until the pipe ends."""
    commands, events = take_pipes()
    try:
        pipeline = _pipeline(model)
        _try(pipeline, Check("regex", "a"))
    except Exception as error:
        print(f"no checker for this model: {error}", file=sys.stderr)
        write_frame(events, Checked("there is no tokenizer"))
        return 1
    _limit_memory()
    write_frame(events, Checked(""))
    frames: Frames[Check] = Frames(commands, Check)
    while (check := frames.read()) is not None:
        _limit_time()
        problem = _problem(pipeline, check)
        if sys.platform != "win32":
            signal.alarm(0)
        write_frame(events, Checked(problem))
    return 0


def _problem(pipeline: genai.LLMPipeline, check: Check) -> str:
    """What is wrong with a form; empty if nothing is."""
    try:
        _try(pipeline, check)
    except (RuntimeError, ValueError, TypeError):
        return _PROBLEMS[check.kind]
    return ""


def _try(pipeline: genai.LLMPipeline, check: Check) -> None:
    config = genai.GenerationConfig(max_new_tokens=2, apply_chat_template=False)
    config.structured_output_config = genai.StructuredOutputConfig(**{check.kind: check.source})
    pipeline.generate(ov.Tensor(np.zeros((1, 1), np.int64)), config)


def _pipeline(model: str) -> genai.LLMPipeline:
    tokenizer = genai.Tokenizer(model)
    path = ir_path(model)
    size = vocabulary(ov.Core().read_model(path)) if path else None
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(_uniform(size or len(tokenizer.get_vocab())), Path(folder, "openvino_model.xml"))
        return genai.LLMPipeline(folder, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")


def _uniform(vocab_size: int) -> ov.Model:
    """A language model without weights: every token is as likely as any other."""
    ids, mask, positions = (_parameter(name, 2, np.int64) for name in ("input_ids", "attention_mask", "position_ids"))
    beam = _parameter("beam_idx", 1, np.int32)
    row = ops.constant(np.zeros((1, 1, vocab_size), np.float32))
    logits = ops.multiply(ops.unsqueeze(ops.convert(ids, "f32"), ops.constant(2)), row)
    for unused in (mask, positions, beam):  # inputs have to lead somewhere
        total = ops.reduce_sum(ops.convert(unused, "f32"), ops.constant(np.arange(len(unused.partial_shape))))
        logits = ops.add(logits, ops.multiply(total, ops.constant(np.float32(0))))
    logits.output(0).set_names({"logits"})
    return ov.Model([ops.result(logits)], [ids, mask, positions, beam], "uniform")


def _parameter(name: str, rank: int, kind: type) -> Any:
    parameter = ops.parameter([-1] * rank, kind, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _limit_time() -> None:
    """Die some time after this form, if nobody is left to kill us: the server may have ended meanwhile."""
    if sys.platform != "win32":
        signal.alarm(_SECONDS)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, now + _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
