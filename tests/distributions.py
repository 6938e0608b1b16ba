"""Throw-away distributions: what pip would have installed, written into a folder that is put on the path."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_distribution", "write_tiny"]


def write_distribution(folder: Path, name: str, code: str, *, version: str = "1.0", entry: str | None = None) -> None:
    """A distribution ``openvino-llama-<name>`` with one module and one entry point."""
    module = f"ovllama_test_{name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(code)
    info = folder / f"openvino_llama_{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: openvino-llama-{name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[openvino_llama]\n{entry or name} = {module}\n")


def write_tiny(folder: Path) -> None:
    """The tiny plugin of these tests as a distribution."""
    write_distribution(folder, "tiny", Path(__file__).with_name("tiny.py").read_text())
