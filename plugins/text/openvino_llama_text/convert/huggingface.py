"""Hugging Face folders to OpenVINO IR, by optimum-intel: needs the extra ``convert``.

Code that comes with a model is never run, nothing is fetched, and only safetensors are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from openvino_llama import ModelLoadError
from openvino_llama_text.convert.exported import check_readable, roles
from openvino_llama_text.convert.job import Job, Step
from openvino_llama_text.convert.sources import check_weights, gather

__all__ = ["convert_huggingface"]

_TASKS: Mapping[str, str] = {
    "generation": "text-generation-with-past",
    "embedding": "feature-extraction",
    "classification": "text-classification",
    "rerank": "text-classification",
    "vision_language": "image-text-to-text",
    "zero_shot_classification": "zero-shot-image-classification",
}
"""Task of the registry's entry -> of optimum."""


class _Config(msgspec.Struct, frozen=True):
    """``config.json``."""

    model_type: str = ""


_GENERATING = ("openvino_model", "openvino_language_model")
"""Graphs that may have weights of four bits; what only sees, or looks up a token's vector, has eight."""

_GROUP_SIZE = 128
"""Weights of four bits that share a scale."""


def convert_huggingface(job: Job, step: Step) -> dict[str, str]:
    """See ``docs/models.md`` ("Conversions")."""
    if job.task not in _TASKS:
        raise ModelLoadError(f"models of task {job.task!r} cannot be converted; those of {', '.join(_TASKS)} can")
    with TemporaryDirectory(prefix=".source-", dir=job.target) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        step("unpacking")
        gather(job, folder)
        check_weights(job, folder)
        step("converting")
        weights = job.options.get("weights")
        _export(folder, job.target, _task(job, folder), weights)
        for path in folder.rglob("*.safetensors"):
            path.unlink()
        # As they were published, and not as transformers would write them today.
        shutil.copytree(folder, job.target, dirs_exist_ok=True)
    if weights in {"int8", "int4"}:
        for graph in sorted(job.target.glob("openvino_*model.xml")):
            kept = weights if graph.stem in _GENERATING else "int8"
            step(f"compressing {graph.stem.removeprefix('openvino_')} to {kept}")
            _compress(graph, kept)
    check_readable(job.target)
    return roles(job.target)


def _task(job: Job, folder: Path) -> str:
    """The task as optimum calls it."""
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelLoadError("config.json cannot be read") from error
    is_captioner = job.task == "vision_language" and config.model_type == "vision-encoder-decoder"
    return "image-to-text-with-past" if is_captioner else _TASKS[job.task]


def _export(folder: Path, target: Path, task: str, weights: str | None) -> None:
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    kept = {"fp16": "fp16", "fp32": "fp32", "int8": "fp32", "int4": "fp32"}.get(weights or "")
    try:
        main_export(
            str(folder),
            target,
            task=task,
            framework="pt",
            library_name="transformers",  # of a sentence-transformers folder, too, the model without the pooling
            ov_config=OVConfig(dtype=kept) if kept else None,
            local_files_only=True,
            trust_remote_code=False,
            convert_tokenizer=True,
        )
    except Exception as error:  # of all kinds
        raise ModelLoadError(f"optimum cannot convert the model for {task}; 'ovllama -v pull' shows why") from error


def _compress(xml: Path, weights: str) -> None:
    import nncf
    import openvino as ov

    options: dict[str, Any] = {"mode": nncf.CompressWeightsMode.INT8_ASYM}
    if weights == "int4":
        fallback = nncf.GroupSizeFallbackMode.ADJUST  # where a layer is narrower than a group
        advanced = nncf.AdvancedCompressionParameters(group_size_fallback_mode=fallback)
        mode = nncf.CompressWeightsMode.INT4_ASYM
        options = {"mode": mode, "group_size": _GROUP_SIZE, "ratio": 1.0, "advanced_parameters": advanced}
    small = xml.with_name("compressed.xml")
    model = nncf.compress_weights(ov.Core().read_model(xml), **options)
    ov.save_model(model, small, compress_to_fp16=False)
    del model  # it has the old weights mapped
    small.with_suffix(".bin").replace(xml.with_suffix(".bin"))
    small.replace(xml)
