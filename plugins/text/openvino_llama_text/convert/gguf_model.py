"""GGUF to OpenVINO IR, by openvino-genai, with the files beside it that say what the IR does not.

Knows nothing of Hugging Face. What genai cannot read is refused by name before it is tried.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama import ModelLoadError
from openvino_llama_text.convert.byte_level import byte_level_json
from openvino_llama_text.convert.exported import check_readable, roles
from openvino_llama_text.convert.gguf_header import Header, read_header
from openvino_llama_text.convert.job import Job, Step

__all__ = ["ARCHITECTURES", "convert_gguf"]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""``general.architecture`` of what openvino-genai reads."""

_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Kind of a token in a tokenizer_config.json -> in GGUF."""
_ENDS = ("eos", "eot", "eom")
"""Tokens that end a sequence, a turn, a message: each ends what is generated."""


def convert_gguf(job: Job, step: Step) -> dict[str, str]:
    """See ``docs/models.md`` ("Conversions")."""
    if len(job.files) != 1:
        raise ModelLoadError(f"expected one GGUF file, got {len(job.files)} files; split ones have to be merged first")
    (source,) = (job.sources / path for path in job.files.values())
    step("checking")
    header = read_header(source)
    architecture = _architecture(header)
    step("converting")
    _convert(source, job.target)
    check_readable(job.target)
    step("describing the tokenizer")
    _describe_tokenizer(job.target)
    for name, content in _companions(header, architecture).items():
        (job.target / name).write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    if template := header.metadata.get("tokenizer.chat_template"):
        (job.target / "chat_template.jinja").write_text(str(template), "utf-8")
    return roles(job.target)


def _architecture(header: Header) -> str:
    architecture = header.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelLoadError(
            f"GGUF files of architecture {str(architecture)[:80]!r} cannot be converted; "
            f"those of {', '.join(ARCHITECTURES)} can"
        )
    return str(architecture)


def _convert(source: Path, target: Path) -> None:
    import openvino_genai

    name = target / "model.gguf"  # genai writes beside what it reads
    _link(source, name)
    try:
        openvino_genai.LLMPipeline(str(name), "CPU", enable_save_ov_model=True)
    except Exception as error:  # of all kinds, even for what is only missing
        raise ModelLoadError("openvino-genai cannot convert the GGUF file; 'ovllama -v pull' shows why") from error
    finally:
        name.unlink()


def _describe_tokenizer(target: Path) -> None:
    """Put a ``tokenizer.json`` beside the tokenizer's graph, if there is one that does the same."""
    content = byte_level_json(target / "openvino_tokenizer.xml", target / "openvino_detokenizer.xml")
    if content:
        (target / "tokenizer.json").write_bytes(content)


def _link(source: Path, name: Path) -> None:
    try:
        name.symlink_to(source)
    except OSError:  # Windows, without the right to
        try:
            os.link(source, name)
        except OSError:
            shutil.copyfile(source, name)


def _companions(header: Header, architecture: str) -> dict[str, Mapping[str, Any]]:
    """Name of a file that Hugging Face models have beside them -> its content."""
    metadata = header.metadata
    tokens = metadata.get("tokenizer.ggml.tokens")
    tokens = tokens if isinstance(tokens, list) else []
    ids = {kind: _token_id(metadata, stem, len(tokens)) for kind, stem in _SPECIAL.items()}
    ends = [_token_id(metadata, stem, len(tokens)) for stem in _ENDS]
    config: dict[str, Any] = {
        "model_type": architecture,
        "max_position_embeddings": metadata.get(f"{architecture}.context_length"),
        "vocab_size": len(tokens) or metadata.get(f"{architecture}.vocab_size"),
        "hidden_size": metadata.get(f"{architecture}.embedding_length"),
        "num_hidden_layers": metadata.get(f"{architecture}.block_count"),
    }
    generation: dict[str, Any] = {
        "bos_token_id": ids["bos"],
        "eos_token_id": list(dict.fromkeys(each for each in ends if each is not None)) or None,
        "pad_token_id": ids["pad"],
    }
    tokenizer: dict[str, Any] = {f"{kind}_token": tokens[each] for kind, each in ids.items() if each is not None}
    tokenizer["add_bos_token"] = metadata.get("tokenizer.ggml.add_bos_token")
    files = {"config.json": config, "generation_config.json": generation, "tokenizer_config.json": tokenizer}
    return {name: {key: value for key, value in each.items() if value is not None} for name, each in files.items()}


def _token_id(metadata: Mapping[str, Any], stem: str, count: int) -> int | None:
    found = metadata.get(f"tokenizer.ggml.{stem}_token_id")
    return found if isinstance(found, int) and 0 <= found < count else None
