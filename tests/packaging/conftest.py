"""Fixtures: the wheels of this repository, clean environments with them, and a server running in one."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = {
    "openvino_llama": ROOT,
    "openvino_llama_text": ROOT / "plugins" / "text",
    "openvino_llama_vision": ROOT / "plugins" / "vision",
    "openvino_llama_multimodal": ROOT / "plugins" / "multimodal",
    "openvino_llama_anomaly": ROOT / "examples" / "plugin-anomaly",
}
"""Name of the distribution, as its files have it -> the folder of its pyproject.toml."""

# A red pixel as BMP.
PIXEL = bytes.fromhex(
    "424d3a0000000000000036000000280000000100000001000000010018000000000004000000130b0000130b000000000000000000000000ff00"
)

_KEPT = (
    "HOME",
    "PATH",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
)


def clean_environment(**more: str) -> dict[str, str]:
    """The variables that a command needs, and nothing that would lead it to this checkout."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("PIP_")}
    return kept | more


class Environment:
    """A virtual environment that knows nothing of this checkout."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        self._programs = folder / "venv" / "bin"
        self.folder = folder

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """What a command prints; fails the test with what it said if it fails."""
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, *wheels: Path) -> None:
        """Install the wheels, and from the package index what they depend on."""
        self.run("pip", "install", "--quiet", "--disable-pip-version-check", *map(str, wheels))

    @contextmanager
    def serving(
        self, registry: Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Client]:
        """A client of ``ovllama serve``, which must stop by itself when told to."""
        command = [str(self._programs / "ovllama"), "serve", "--registry", str(registry), "--port", "0", *arguments]
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache")}
        process = subprocess.Popen(
            command,
            cwd=registry.parent.parent,
            env=clean_environment(**cache, **(environment or {})),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                line = stdout.readline()
                assert "serves on" in line, "the server did not start: its log is above"
                with httpx.Client(base_url=line.split()[-1], timeout=30, trust_env=False) as client:
                    yield client
            finally:
                process.terminate()
                code = process.wait(30)
        assert code == 0


def build(source: Path, output: Path, *formats: str) -> Path:
    """Build a distribution of a folder; gives the wheel, or the sdist if that is all that was asked for."""
    command = [sys.executable, "-m", "build", *formats, "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return next(output.iterdir())


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of all distributions by name."""
    return {name: build(source, tmp_path_factory.mktemp(name), "--wheel") for name, source in SOURCES.items()}


@pytest.fixture(scope="session")
def vision_environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The server and the vision plugin, as a user installs them."""
    environment = Environment(tmp_path_factory.mktemp("vision"))
    environment.install(wheels["openvino_llama"], wheels["openvino_llama_vision"])
    return environment


@pytest.fixture(scope="session")
def text_environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The server and the text plugin, without the vision plugin."""
    environment = Environment(tmp_path_factory.mktemp("text"))
    environment.install(wheels["openvino_llama"], wheels["openvino_llama_text"])
    return environment


@pytest.fixture(scope="session")
def all_environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The server and all plugins of this repository."""
    environment = Environment(tmp_path_factory.mktemp("all"))
    environment.install(*(wheels[f"openvino_llama{name}"] for name in ("", "_text", "_vision", "_multimodal")))
    return environment


@pytest.fixture(scope="session")
def third_party_environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The server and a plugin by somebody else, without the vision plugin."""
    environment = Environment(tmp_path_factory.mktemp("third-party"))
    environment.install(wheels["openvino_llama"], wheels["openvino_llama_anomaly"])
    return environment
