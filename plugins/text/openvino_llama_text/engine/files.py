"""The files of a model under the names that openvino-genai looks for. Knows nothing of what is in them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["lay_out", "link"]

_BESIDE = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("openvino_tokenizer.xml", "openvino_tokenizer.bin", "openvino_detokenizer.xml", "openvino_detokenizer.bin"),
)


def lay_out(files: Mapping[str, Path], folder: Path, role: str = "model") -> Path:
    """The model as openvino-genai takes it: a GGUF file, its own folder, or ``folder`` filled with links.

    Only what has a known name is linked: it may stand in one folder with everything else that there is.
    """
    model = files[role]
    if model.suffix == ".gguf":
        return model
    weights = files.get("weights" if role == "model" else f"{role}_weights", model.with_suffix(".bin"))
    if model.name == "openvino_model.xml" and weights == model.with_suffix(".bin"):
        return model.parent
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"openvino_model.xml": model, "openvino_model.bin": weights}
    wanted |= {name: model.parent / name for name in _BESIDE}
    for name, path in wanted.items():
        if path.is_file():
            link(path, folder / name)
    return folder


def link(path: Path, link: Path) -> None:
    """Have the file under another name, too."""
    try:
        link.symlink_to(path.resolve())
    except OSError:  # not everybody may on Windows
        shutil.copyfile(path, link)
