"""Build the guest: ``python wasm/build.py``. With ``--check``, compare it with the artefact that is checked in.

``python wasm/build.py SOURCE ARTEFACT`` does the same for a plugin's own guest. The only place with compiler flags.
The bytes are reproducible for one version of the compiler, the pinned ziglang package.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "inferencer.c"
ARTEFACT = HERE.parent / "core" / "openvino_llama" / "sandbox" / "inferencer.wasm"
ZIG = "0.17.1"
FLAGS = ["-target", "wasm32-wasi", "-std=c17", "-Oz", "-g0", "-Wall", "-Wextra", "-Werror"]
LINK = ["-Wl,--strip-all", "-Wl,-z,stack-size=65536"]  # zig's own stack would be 16 MiB of every instance


def compile_guest(source: Path, output: Path, model: str = "reactor") -> None:
    """Compile one C file to a ``reactor`` or a ``command``; the compiler's words are on stderr if that fails."""
    flags = [*FLAGS, f"-mexec-model={model}", f"-I{HERE}", *LINK]
    command = [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(output), source.name]
    subprocess.run(command, check=True, cwd=source.parent, env=os.environ | {"SOURCE_DATE_EPOCH": "0"})  # noqa: S603


def _compiled(source: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "built.wasm"
        compile_guest(source, built)
        return built.read_bytes()


def _problem(source: Path, artefact: Path, *, check: bool) -> str:
    """What keeps it from being built; empty if nothing does."""
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        return f"the compiler is not installed: pip install ziglang=={ZIG}"
    if found != ZIG:
        return f"the artefact is built with ziglang {ZIG}, here is {found}: pip install ziglang=={ZIG}"
    if not source.is_file():
        return f"there is no source {source}"
    if check and not artefact.is_file():
        return f"there is no artefact {artefact} to compare with"
    return "" if artefact.parent.is_dir() else f"there is no folder {artefact.parent} for {artefact.name}"


def main() -> int:
    """Build or check; the exit code is 1 if that cannot be done, or the artefact is not what its source compiles to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("source", type=Path, nargs="?", default=SOURCE, help="a C file")
    parser.add_argument("artefact", type=Path, nargs="?", default=ARTEFACT, help="the module made of it")
    arguments = parser.parse_args()
    source, artefact = arguments.source.resolve(), arguments.artefact
    problem = _problem(source, artefact, check=arguments.check)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    try:
        content = _compiled(source)
    except subprocess.CalledProcessError:
        print(f"{source.name} does not compile: the compiler's words are above", file=sys.stderr)
        return 1
    digest = hashlib.sha256(content).hexdigest()
    if not arguments.check:
        artefact.write_bytes(content)
        print(f"{artefact.name}: {len(content)} bytes, sha256 {digest}")
        return 0
    if content != artefact.read_bytes():
        print(f"{artefact.name} is not what {source.name} compiles to; run python wasm/build.py", file=sys.stderr)
        return 1
    print(f"{artefact.name} is what its source compiles to: sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
