"""Folders that hold an OpenVINO model already: as optimum exports them, and as they lie on the hub."""

from __future__ import annotations

from pathlib import Path

from openvino_llama import ModelLoadError
from openvino_llama_text.convert.job import Job, Step
from openvino_llama_text.convert.sources import gather

__all__ = ["check_readable", "convert_exported", "roles"]

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "openvino_tokenizer.xml")
"""The better ones first."""


def convert_exported(job: Job, step: Step) -> dict[str, str]:
    """See ``docs/models.md`` ("Conversions")."""
    step("copying")
    gather(job, job.target)
    check_readable(job.target)
    return roles(job.target)


def roles(folder: Path) -> dict[str, str]:
    """Role -> name of the files that a registry's entry names."""
    found = {"model": "openvino_model.xml", "weights": "openvino_model.bin"}
    tokenizer = next((name for name in _TOKENIZERS if (folder / name).is_file()), None)
    return found | ({"tokenizer": tokenizer} if tokenizer else {})


def check_readable(folder: Path) -> None:
    """Raise ModelLoadError unless the models there are whole: who wrote them may not have noticed a full disk."""
    import openvino as ov
    import openvino_tokenizers  # noqa: F401 - makes its operations known to every Core

    if not (folder / "openvino_model.xml").is_file():
        raise ModelLoadError("there is no openvino_model.xml")
    core = ov.Core()
    for path in sorted(folder.glob("openvino_*.xml")):
        try:
            core.read_model(path)
        except RuntimeError as error:
            raise ModelLoadError(f"{path.name} cannot be read; is the disk full?") from error
