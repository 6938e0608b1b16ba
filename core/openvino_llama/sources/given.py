"""Models that no index knows: a GGUF file or a model's folder that an operator names.

What is given becomes what an index would have said. Its hashes are those of what is there now, so they tell damage on
the way from then on, but not who made the files. Knows which conversion a source calls for, not how it is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from openvino_llama.errors import SourceError
from openvino_llama.sources.hub import Listed, download_small, list_repository
from openvino_llama.sources.index import Convert, IndexedFile, IndexedModel
from openvino_llama.sources.transfer import Progress, sha256_of

__all__ = ["describe"]

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(#(?P<path>.+))?", re.ASCII)

_EXPORTED = frozenset({"openvino_model.xml", "openvino_language_model.xml", "openvino_encoder_model.xml"})
"""Graphs as optimum names them: the first of these that is there is the model's."""

_OTHER_FORMATS = frozenset(
    {
        *(".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pb", ".pt", ".pth", ".tflite"),
        *(".md", ".png"),
    }
)
"""What lies beside safetensors in a folder of the hub, and is not needed with them."""


def describe(source: str, entry: Mapping[str, str], progress: Progress) -> IndexedModel:
    """The model that ``file:PATH``, a path, or ``hf:OWNER/REPO[@REVISION][#PATH]`` is; SourceError if it is none.

    ``entry`` is the registry's, without files. Every local file is read once, for its hash.
    """
    kind, _, rest = source.partition(":")
    files = _from_hub(rest) if kind == "hf" else _from_here(Path(rest if kind == "file" else source), progress)
    convert = Convert(_conversion([file.path for file in files.values()]))
    return IndexedModel(f"from {source}", "", files, dict(entry), convert)


def _conversion(paths: Iterable[str]) -> str:
    names = set(paths)
    if len(names) == 1 and PurePosixPath(*names).suffix == ".gguf":
        return "gguf"
    if names & _EXPORTED:
        return "exported"
    if "config.json" in names:
        return "huggingface"
    raise SourceError(
        "expected a GGUF file, or a folder with an openvino_model.xml, openvino_language_model.xml, "
        "openvino_encoder_model.xml or a config.json in it; "
        "models of other formats need no pull, but an entry in the registry"
    )


def _from_here(path: Path, progress: Progress) -> dict[str, IndexedFile]:
    if path.is_file():
        return {"source": _local(path, path.name, progress)}
    if not path.is_dir():
        raise SourceError(f"{path.name!r}: there is no such file or folder")
    found = {each.relative_to(path).as_posix(): each for each in sorted(path.rglob("*")) if each.is_file()}
    return {name: _local(found[name], name, progress) for name in _wanted(found)}


def _local(path: Path, name: str, progress: Progress) -> IndexedFile:
    size = path.stat().st_size
    progress(f"hashing {name}", 0, size)
    return IndexedFile(f"file:{path.resolve()}", sha256_of(path), size, name)


def _from_hub(text: str) -> dict[str, IndexedFile]:
    match = _HUB.fullmatch(text)
    if not match:
        raise SourceError(f"expected hf:OWNER/REPO, with @REVISION and #PATH if they matter, got {'hf:' + text!r}")
    repo, wanted = match["repo"], match["path"]
    commit, listed = list_repository(repo, match["revision"])
    if wanted and wanted not in listed:
        raise SourceError(f"hf:{repo}: there is no file {wanted!r}")
    names = [wanted] if wanted else _wanted(listed)
    return {name: _on_hub(repo, commit, name, listed[name]) for name in names}


def _on_hub(repo: str, commit: str, name: str, listed: Listed) -> IndexedFile:
    """The hub states the hashes of large files; small ones are taken into its cache and hashed there."""
    sha256, size = listed.sha256, listed.size
    if not sha256:
        here = download_small(repo, commit, name)
        sha256, size = sha256_of(here), here.stat().st_size
    return IndexedFile(f"hf:{repo}@{commit}#{name}", sha256, size, name)


def _wanted(names: Iterable[str]) -> list[str]:
    """Files that a conversion may need: nothing hidden, no empty promises of other formats beside safetensors."""
    visible = [name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)]
    exported = bool(_EXPORTED.intersection(visible))
    if not exported and not any(name.endswith(".safetensors") for name in visible):
        return visible
    return [name for name in visible if _is_needed(PurePosixPath(name), exported=exported)]


def _is_needed(name: PurePosixPath, *, exported: bool) -> bool:
    if exported and name.name.startswith("openvino_"):
        return True
    return name.suffix not in _OTHER_FORMATS
