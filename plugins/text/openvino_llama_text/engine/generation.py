"""What openvino-genai wants to be told, made of what a model's entry and a request state. In the engine's process only.

Facts about 2026.4: a stop token is among the generated ones, as their last. ``ignore_eos`` ignores every stop token.
With a ``rng_seed`` of its own each request draws its own numbers, yet a batch of another size computes slightly
other logits. Log-probabilities are those of the token that was taken, no others.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from openvino_llama_text.engine.frames import Load, Picture
from openvino_llama_text.engine.parameters import EngineParameters

__all__ = [
    "BLOCK_TOKENS",
    "cache_blocks",
    "generation_config",
    "ir_path",
    "load_failure",
    "open_pipeline",
    "picture_tensor",
    "prompt_tensor",
    "read_ir",
    "takes_pictures",
    "vocabulary",
]

BLOCK_TOKENS = 32
"""Tokens of one block of the cache on a CPU."""
_UNBOUNDED_SHARE = 4
"""The cache takes at most one part in so many of the machine's memory, if the entry states nothing."""
_LANGUAGE_MODEL = "openvino_language_model.xml"
"""Its name beside a model that encodes pictures."""
_UNKNOWN = re.compile(r"Unsupported '([\w.-]{1,64})' VLM model type")
_COLDEST = 1e-4
"""Logits divided by less overflow; the most likely token is all that is left long before."""


def open_pipeline(load: Load, blocks: int) -> genai.ContinuousBatchingPipeline:
    """Load the model; RuntimeError if that fails. ``blocks`` is the size of the cache, 0 lets it grow for ever."""
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 0
    scheduler.num_kv_blocks = blocks
    scheduler.dynamic_split_fuse = True
    scheduler.max_num_seqs = load.max_num_seqs
    scheduler.max_num_batched_tokens = load.max_num_batched_tokens
    scheduler.enable_prefix_caching = load.prefix_caching
    properties: dict[str, Any] = dict(load.properties)
    if load.draft_model:
        properties["draft_model"] = genai.draft_model(load.draft_model, load.draft_device)
    if load.adapters:
        pairs = [(genai.Adapter(path), alpha) for path, alpha in load.adapters]
        # In the other modes adapters take part only in what ``generate`` is asked, not in ``add_request``.
        properties["adapters"] = genai.AdapterConfig(pairs, mode=genai.AdapterConfig.Mode.MODE_STATIC)
    return genai.ContinuousBatchingPipeline(load.model, scheduler, load.device, properties)


def load_failure(error: Exception) -> str:
    """What may be told of why a model could not be loaded; the log has the rest."""
    unknown = _UNKNOWN.search(str(error))
    if unknown:
        return f"openvino-genai {genai.__version__.partition('-')[0]} does not know the architecture {unknown[1]!r}"
    return "openvino-genai could not load the model; the log has its reasons"


def generation_config(parameters: EngineParameters, max_tokens: int, assistant_tokens: int) -> genai.GenerationConfig:
    """The parameters of one sequence; ``assistant_tokens`` is 0 without a draft model."""
    config = genai.GenerationConfig()
    config.max_new_tokens = max_tokens
    config.min_new_tokens = min(parameters.min_tokens, max_tokens)
    config.ignore_eos = parameters.ignore_eos
    config.repetition_penalty = parameters.repetition_penalty
    config.presence_penalty = parameters.presence_penalty
    config.frequency_penalty = parameters.frequency_penalty
    config.logprobs = int(parameters.logprobs)
    config.apply_chat_template = False
    if parameters.temperature >= _COLDEST:
        _sample(config, parameters)
    if parameters.stop_token_ids:
        config.stop_token_ids = set(parameters.stop_token_ids)
        config.eos_token_id = parameters.stop_token_ids[0]
    if parameters.form:
        kind, source = parameters.form
        config.structured_output_config = genai.StructuredOutputConfig(**{kind: source})
    if assistant_tokens:
        config.num_assistant_tokens = assistant_tokens
    return config


def _sample(config: genai.GenerationConfig, parameters: EngineParameters) -> None:
    config.do_sample = True
    config.temperature = parameters.temperature
    config.top_p = parameters.top_p
    config.top_k = parameters.top_k or sys.maxsize
    config.min_p = parameters.min_p
    # genai's own default is the same seed for every request.
    config.rng_seed = secrets.randbits(32) if parameters.seed is None else parameters.seed


def cache_blocks(load: Load, model: ov.Model | None) -> int:
    """How many blocks the cache has; 0 if that is not known, or the device's business.

    On a CPU a block takes memory only when it is first used, so a large number costs nothing. Without any, genai lets
    the cache grow as long as requests ask for more, and never shrinks it.
    """
    token_bytes = _token_bytes(model, str(load.properties.get("KV_CACHE_PRECISION", "u8"))) if model else 0
    if not token_bytes or not (load.device.startswith("CPU") or load.kv_cache_mib):
        return 0
    budget = load.kv_cache_mib << 20 or _memory() // _UNBOUNDED_SHARE
    blocks = max(2, budget // (token_bytes * BLOCK_TOKENS))
    if load.kv_cache_mib or load.max_context is None:
        return int(blocks)
    return int(min(blocks, load.max_num_seqs * (load.max_context // BLOCK_TOKENS + 2)))


def vocabulary(model: ov.Model | None) -> int | None:
    """How many tokens the model knows."""
    size = model.outputs[0].partial_shape[-1] if model else None
    return int(size.get_length()) if size is not None and size.is_static else None


def read_ir(load: Load) -> ov.Model | None:
    """The model's graph, to look at; None for a GGUF."""
    path = ir_path(load.model)
    return ov.Core().read_model(path) if path else None


def ir_path(model: str) -> Path | None:
    """The graph of what genai is given as a model; None for a GGUF."""
    paths = (Path(model) / name for name in ("openvino_model.xml", _LANGUAGE_MODEL))
    return next((path for path in paths if path.is_file()), None)


def takes_pictures(model: str) -> bool:
    """Whether the prompts of what genai is given as a model are texts with pictures, and not tokens."""
    path = ir_path(model)
    return path is not None and path.name == _LANGUAGE_MODEL


def _token_bytes(model: ov.Model, precision: str) -> int:
    """Memory of one token's keys and values, in all layers."""
    total = 0.0
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            shape = node.get_output_partial_shape(0)
            if len(shape) == 4 and shape[1].is_static and shape[3].is_static:
                total += shape[1].get_length() * _head_bytes(shape[3].get_length(), precision)
    return int(total)


def _head_bytes(size: int, precision: str) -> float:
    """Memory of one head's key or value; 8-bit ones come with a scale and a zero point (8 bytes)."""
    plain = {"f32": 4, "f16": 2, "bf16": 2}.get(precision)
    if plain:
        return float(size * plain)
    by_channel = size * (BLOCK_TOKENS + 8) / BLOCK_TOKENS  # keys: one scale for each channel of a block
    by_token = size + 8  # values: one scale for each token
    return (by_channel + by_token) / 2


def _memory() -> int:
    """The machine's memory, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 8 << 30


def prompt_tensor(tokens: bytes) -> ov.Tensor:
    """A prompt as genai takes it: i64 [1, n]."""
    return ov.Tensor(np.frombuffer(tokens, "<i8")[np.newaxis])


def picture_tensor(picture: Picture) -> ov.Tensor:
    """A picture as genai takes it: u8 [1, height, width, 3]."""
    return ov.Tensor(np.frombuffer(picture.pixels, np.uint8).reshape(1, picture.height, picture.width, 3))
