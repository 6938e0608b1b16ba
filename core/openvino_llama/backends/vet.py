"""Reads and compiles a model that nobody vouches for in a child process, before this process does.

OpenVINO's readers believe what a file says: sizes that lie can take all memory, a graph that folds to a huge constant
too, and a crash takes the process along. The child has limits of its own and is thrown away. It is started anew and
told everything by its arguments: nothing is forked, nothing is unpickled. Knows nothing of requests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from openvino_llama.errors import ModelLoadError

__all__ = ["vet"]

_REFUSED = 3
"""Exit code of a child that understood what is wrong and said it in the last line on stdout."""
_ENVIRONMENT = frozenset(
    {
        *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
        *("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE"),
    }
)
"""What a child needs to run at all. The other variables of a server may be keys."""


def vet(files: Mapping[str, Path], memory_mib: int = 4096, seconds: int = 60) -> None:
    """Raise ModelLoadError unless OpenVINO reads and compiles the model within these limits.

    ``files`` is role -> path, as in ModelConfig. The memory is what there is beside three times the files' sizes:
    as they are read, as constants, and as the device wants them. It blocks for as long as the child works: a second or
    more.
    """
    beside = files["model"].with_suffix(".bin")  # where an IR's weights are if nobody names them
    paths = {beside, *files.values()}
    memory_mib += 3 * sum(path.stat().st_size for path in paths if path.is_file()) >> 20
    arguments = [str(memory_mib), str(seconds), *(f"{role}={path}" for role, path in files.items())]
    # -P: a file in the working directory must not be taken for a module.
    command = [sys.executable, "-P", "-m", "openvino_llama.backends.vet", *arguments]
    try:
        child = subprocess.run(  # noqa: S603 - our own interpreter and module; the paths are not a shell's
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, env=_environment()
        )
    except subprocess.TimeoutExpired as error:
        raise ModelLoadError(f"the model could not be read and compiled within {seconds} s") from error
    if child.returncode == _REFUSED:
        raise ModelLoadError(_last_line(child.stdout))
    if child.returncode != 0:
        cause = RuntimeError(f"exit code {child.returncode}: {child.stderr.decode(errors='replace')[-2000:]}")
        raise ModelLoadError(
            f"OpenVINO failed while it read the model with a limit of {memory_mib} MiB and {seconds} s"
        ) from cause


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper() in _ENVIRONMENT}


def _last_line(output: bytes) -> str:
    """What the child says; OpenVINO and its plugins may have printed something before."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "OpenVINO could not read the model"


def _limit(memory_mib: int, seconds: int) -> None:
    """Keep this process, and nothing else, to so much memory and time."""
    if sys.platform == "win32":
        return
    import resource

    cpu_seconds = seconds * (os.cpu_count() or 1)  # all threads' time together; the parent watches the clock
    for kind, value in (
        (resource.RLIMIT_AS, memory_mib << 20),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def main(arguments: Sequence[str]) -> int:
    """The child."""
    memory_mib, seconds, *named = arguments
    _limit(int(memory_mib), int(seconds))

    from openvino_llama.backends.openvino import OpenVINOBackend

    pairs = (each.split("=", 1) for each in named)
    try:
        OpenVINOBackend().try_out({role: Path(path) for role, path in pairs})
    except ModelLoadError as error:
        print(" ".join(str(error).split()))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
