"""The guest that is checked in is what its source compiles to, wherever it is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from wasm import build

from openvino_llama.sandbox.guest import BUILT_IN

ROOT = Path(build.__file__).parents[1]


def test_the_artefact_is_the_sources() -> None:
    """What ``python wasm/build.py --check`` says."""
    result = subprocess.run(
        [sys.executable, "wasm/build.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_changed_source_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails for an artefact of another source."""
    source = tmp_path / "inferencer.c"
    source.write_text(build.SOURCE.read_text().replace("#define MAX_MODELS 16", "#define MAX_MODELS 17"))
    monkeypatch.setattr(build, "SOURCE", source)
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.c", "none.wasm"], "there is no source "),
        (["guest.c", "no/folder/guest.wasm"], "there is no folder "),
        (["--check", "guest.c", "none.wasm"], "there is no artefact "),
        (["guest.c", "guest.wasm"], "guest.c does not compile"),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, arguments: list[str], said: str) -> None:
    """The last line says why; there is no traceback."""
    (tmp_path / "guest.c").write_text("int")
    command = [sys.executable, str(ROOT / "wasm" / "build.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_without_the_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """How to install it is said."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(build, "version", version)
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 1
    assert capsys.readouterr().err == f"the compiler is not installed: pip install ziglang=={build.ZIG}\n"


@pytest.mark.slow
def test_the_bytes_are_the_same_elsewhere(tmp_path: Path) -> None:
    """From another folder, with another home and an empty compiler cache."""
    shutil.copytree(ROOT / "wasm", tmp_path / "deep" / "er" / "wasm", ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ZIG_"))}
    environment |= {"HOME": str(home), "ZIG_GLOBAL_CACHE_DIR": str(home / "global"), "TZ": "Asia/Tokyo"}
    (tmp_path / "deep" / "er" / "core" / "openvino_llama" / "sandbox").mkdir(parents=True)
    subprocess.run(
        [sys.executable, "wasm/build.py"], cwd=tmp_path / "deep" / "er", env=environment, check=True, timeout=300
    )
    built = tmp_path / "deep" / "er" / "core" / "openvino_llama" / "sandbox" / BUILT_IN.name
    assert built.read_bytes() == BUILT_IN.read_bytes()


def test_the_guest_imports_nothing_else(tmp_path: Path) -> None:
    """The built-in guest can call WASI-NN and nothing of WASI: no files, no clock, no environment."""
    import wasmtime

    module = wasmtime.Module(wasmtime.Engine(), BUILT_IN.read_bytes())
    assert {each.module for each in module.imports} == {"wasi_ephemeral_nn"}
    assert {each.name for each in module.exports} >= {"memory", "alloc", "dealloc", "infer", "infer_next"}
