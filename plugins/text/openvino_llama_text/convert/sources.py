"""Putting a Hugging Face folder together from what was fetched: single files, or an archive with the folder in it.

Only files of known kinds come into it: no code, and of the weights' formats only safetensors, because the others can
run code when they are read. An archive is unpacked no further than it says, and nothing leaves the folder.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from openvino_llama import ModelLoadError
from openvino_llama_text.convert.job import Job

__all__ = ["check_weights", "gather"]

_TAKEN = {".safetensors", ".json", ".txt", ".model", ".jinja", ".xml", ".spm", ".tiktoken"}
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"}
_MAX_MEMBERS = 10_000
_MAX_RATIO = 64
"""How many times larger than the archive its members may be in all."""


def gather(job: Job, folder: Path) -> None:
    """Fill the folder; ModelLoadError if what was fetched is no such folder."""
    archives = [path for path in job.files.values() if PurePosixPath(path).suffix == ".zip"]
    if archives and len(job.files) > 1:
        raise ModelLoadError("expected one archive or single files, got both")
    if archives:
        _unpack(job.sources / archives[0], folder)
        return
    for path in job.files.values():
        if _is_taken(path):
            to = folder / path
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.sources / path, to)


def check_weights(job: Job, folder: Path) -> None:
    """Raise ModelLoadError unless the folder has weights that can be read safely."""
    if any(folder.glob("*.safetensors")):
        return
    offered = sorted(_offered(job))
    pickled = next((name for name in offered if PurePosixPath(name).suffix in _PICKLED), None)
    if pickled:
        raise ModelLoadError(
            f"{PurePosixPath(pickled).name!r} is not read, because reading it can run code that is hidden in it; "
            "the weights must be *.safetensors"
        )
    raise ModelLoadError("there are no weights: expected *.safetensors")


def _offered(job: Job) -> list[str]:
    """Names of all files, those that were not taken too."""
    names = list(job.files.values())
    for path in names:
        if PurePosixPath(path).suffix == ".zip":
            with zipfile.ZipFile(job.sources / path) as archive:
                return archive.namelist()
    return names


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            _check_members(members, path.stat().st_size)
            top = _top(members)
            for member in members:
                if member.filename.startswith(top) and _is_taken(member.filename):
                    _unpack_one(archive, member, folder / member.filename.removeprefix(top))
    except ModelLoadError:
        raise
    except OSError as error:
        raise ModelLoadError(f"the archive cannot be unpacked: {error.strerror}") from error
    except Exception as error:  # damaged, encrypted, unknown compression: each has an exception of its own
        raise ModelLoadError("the archive is damaged") from error


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > _MAX_MEMBERS:
        raise ModelLoadError(f"the archive has {len(members)} members; at most {_MAX_MEMBERS} are unpacked")
    total = sum(each.file_size for each in members)
    if total > _MAX_RATIO * size:
        raise ModelLoadError(f"the archive says that its {size} bytes become {total}, which is not believed")
    for each in members:
        name = each.orig_filename
        parts = PurePosixPath(name).parts
        outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in parts
        if outside or "\\" in name or "\0" in name:
            raise ModelLoadError(f"the archive's member {name[:80]!r} would leave the folder")
        if stat.S_ISLNK(each.external_attr >> 16):
            raise ModelLoadError(f"the archive's member {name[:80]!r} is a link")


def _top(members: list[zipfile.ZipInfo]) -> str:
    """What the names of the model's files begin with: the folder of the outermost config.json."""
    configs = [each.filename for each in members if PurePosixPath(each.filename).name == "config.json"]
    if not configs:
        raise ModelLoadError("the archive has no config.json in it")
    outermost = min(configs, key=lambda name: (name.count("/"), name))
    return outermost.removesuffix("config.json")


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    # zipfile stops at the size that the member states, and compares the checksum.
    with archive.open(member) as source, to.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _is_taken(path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix in _TAKEN or (name.suffix == ".bin" and name.name.startswith("openvino_"))
