"""Models that nobody vouches for, tried in a child process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from tests.sandbox import support

from openvino_llama.backends import vet as vet_module
from openvino_llama.backends.base import Encoding, Target
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.backends.vet import vet
from openvino_llama.errors import ModelLoadError


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.xml"
    ov.save_model(support.weighted(), path, compress_to_fp16=False)
    return path


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """A few hundred bytes whose constants fold to 16 GB; check_ir sees nothing wrong with it."""
    x = support.parameter("x", (1, 4))
    large = op.broadcast(op.constant(np.float32(1)), op.constant(np.array([1 << 16, 1 << 16], np.int64)))
    path = tmp_path / "bomb.xml"
    ov.save_model(support.model([x], y=op.relu(x), z=op.relu(large)), path, compress_to_fp16=False)
    return path


def test_a_good_model_passes(good: Path) -> None:
    """With its weights beside it, or named."""
    vet({"model": good})
    vet({"model": good, "weights": good.with_suffix(".bin")})


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\0" * 1000])
@pytest.mark.parametrize("suffix", [".xml", ".onnx", ".tflite", ".pb"])
def test_what_is_no_model(tmp_path: Path, content: bytes, suffix: str) -> None:
    """The reason comes out of the child, without a path."""
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        vet({"model": path})
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    """Is an error of the same kind."""
    for suffix in (".xml", ".onnx"):
        with pytest.raises(ModelLoadError):
            vet({"model": tmp_path / f"none{suffix}"})


@pytest.mark.skipif(sys.platform == "win32", reason="there are no resource limits")
def test_a_model_that_takes_all_memory(bomb: Path) -> None:
    """The child has no more than it is given, and this process goes on."""
    assert bomb.stat().st_size < 10_000
    started = time.monotonic()
    with pytest.raises(ModelLoadError):
        vet({"model": bomb}, memory_mib=2048)
    assert time.monotonic() - started < 30


def test_a_model_that_takes_for_ever(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is killed when its time is over."""
    shell = good.with_name("sleeping")
    shell.write_text("#!/bin/sh\nexec sleep 60\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    with pytest.raises(ModelLoadError, match="within 1 s"):
        vet({"model": good}, seconds=1)


def test_a_child_that_crashes(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash is an error; what the child said is in the cause, for the log."""
    shell = good.with_name("crashing")
    shell.write_text("#!/bin/sh\necho secret >&2\nkill -SEGV $$\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    with pytest.raises(ModelLoadError, match="OpenVINO failed") as caught:
        vet({"model": good})
    assert "secret" not in str(caught.value)
    assert "secret" in str(caught.value.__cause__)


def test_what_the_child_is_given_and_what_it_says(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the server that could be a key; of what it prints, the last line."""
    shell = good.with_name("talking")
    shell.write_text(
        '#!/bin/sh\necho noise of a library\necho "key: ${OVLLAMA_API_KEY:-none}, ${PATH:+a path}"\nexit 3\n'
    )
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    monkeypatch.setenv("OVLLAMA_API_KEY", "secret")
    with pytest.raises(ModelLoadError) as caught:
        vet({"model": good})
    assert str(caught.value) == "key: none, a path"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no resource limits")
def test_large_files_have_more_memory(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times their size, beside what every model is given."""
    shell, large = good.with_name("telling"), good.with_name("large.bin")
    shell.write_text('#!/bin/sh\necho "$4 MiB"\nexit 3\n')  # -P -m module memory
    shell.chmod(0o755)
    with large.open("wb") as file:
        file.truncate(2 << 30)  # sparse
    monkeypatch.setattr(sys, "executable", str(shell))
    with pytest.raises(ModelLoadError, match=r"^10240 MiB$"):
        vet({"model": good, "weights": large})


def test_a_guests_model_is_vetted(bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out of guest memory goes through the child before this process reads it."""
    seen = []

    def spy(files: dict[str, Path]) -> None:
        seen.append(set(files))
        vet_module.vet(files, memory_mib=2048)

    monkeypatch.setattr("openvino_llama.backends.openvino.vet", spy)
    builders = [memoryview(each.read_bytes()) for each in (bomb, bomb.with_suffix(".bin"))]
    with pytest.raises(ModelLoadError):
        OpenVINOBackend().load(builders, Encoding.OPENVINO, Target.CPU)
    assert seen == [{"model", "weights"}]
