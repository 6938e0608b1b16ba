"""Folders that hold an OpenVINO model already: as optimum exports them, and as they lie on the hub."""

from __future__ import annotations

from pathlib import Path

from openvino_llama import ModelLoadError
from openvino_llama_text.convert.job import Job, Step
from openvino_llama_text.convert.sources import gather

__all__ = ["GRAPHS", "check_readable", "convert_exported", "roles"]

GRAPHS = ("openvino_model", "openvino_language_model", "openvino_encoder_model")
"""The graph that stands for the model, under the name that it has for its architecture: one of these."""

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
    graph = next(name for name in GRAPHS if (folder / f"{name}.xml").is_file())
    found = {"model": f"{graph}.xml", "weights": f"{graph}.bin"}
    tokenizer = next((name for name in _TOKENIZERS if (folder / name).is_file()), None)
    return found | ({"tokenizer": tokenizer} if tokenizer else {})


def check_readable(folder: Path) -> None:
    """Raise ModelLoadError unless the models there are whole: who wrote them may not have noticed a full disk."""
    import openvino as ov
    import openvino_tokenizers  # noqa: F401 - makes its operations known to every Core

    if not any((folder / f"{name}.xml").is_file() for name in GRAPHS):
        raise ModelLoadError(f"there is none of {', '.join(f'{name}.xml' for name in GRAPHS)}")
    core = ov.Core()
    for path in sorted(folder.glob("openvino_*.xml")):
        try:
            core.read_model(path)
        except RuntimeError as error:
            raise ModelLoadError(f"{path.name} cannot be read; is the disk full?") from error
