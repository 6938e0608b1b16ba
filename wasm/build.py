"""Build the guest: ``python wasm/build.py``. With ``--check``, compare it with the artefact that is checked in.

The only place with compiler flags. The bytes are reproducible for one version of the compiler, the pinned ziglang
package.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "inferencer.c"
ARTEFACT = HERE.parent / "core" / "openvino_llama" / "sandbox" / "inferencer.wasm"
ZIG = "0.17.1"
FLAGS = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-std=c17", "-Oz", "-g0", "-Wall", "-Wextra", "-Werror"]
LINK = ["-Wl,--strip-all"]


def compile_guest(source: Path, output: Path) -> None:
    """Compile one C file to a WebAssembly reactor; raise CalledProcessError with the compiler's words on stderr."""
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{HERE}", *LINK, "-o", str(output), source.name]
    subprocess.run(command, check=True, cwd=source.parent, env=os.environ | {"SOURCE_DATE_EPOCH": "0"})  # noqa: S603


def main() -> int:
    """Build or check; the exit code is 1 if the artefact is not what its source compiles to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    if version("ziglang") != ZIG:
        print(f"the artefact is built with ziglang {ZIG}, here is {version('ziglang')}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / ARTEFACT.name
        compile_guest(SOURCE, built)
        content = built.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not arguments.check:
        ARTEFACT.write_bytes(content)
        print(f"{ARTEFACT.name}: {len(content)} bytes, sha256 {digest}")
        return 0
    if content != ARTEFACT.read_bytes():
        print(f"{ARTEFACT.name} is not what wasm/inferencer.c compiles to; run python wasm/build.py", file=sys.stderr)
        return 1
    print(f"{ARTEFACT.name} is what its source compiles to: sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
