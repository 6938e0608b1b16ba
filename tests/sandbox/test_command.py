"""Commands that others compiled, run as ``ovllama run`` does: what they are given, and what comes out."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from tests.sandbox import support
from tests.sandbox.conftest import CompileC
from tests.sandbox.support import wat

from openvino_llama.errors import ConfigError, ModelLoadError
from openvino_llama.sandbox.command import DEADLINE_EXIT, TRAP_EXIT, Command, Directory, run_command

RUN = """
import sys
from pathlib import Path, PosixPath
from openvino_llama.sandbox.command import Command, Directory, run_command
sys.exit(run_command(Command(**{fields!r})))
"""


def run(module: Path, *arguments: str, stdin: str = "", **fields: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, since it inherits the standard streams."""
    code = RUN.replace("{fields!r}", repr({"module": module, "arguments": arguments} | fields))
    return subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="session")
def behave(compile_c: CompileC) -> Path:
    return compile_c("behave")


@pytest.fixture(scope="session")
def classify(compile_c: CompileC) -> Path:
    return compile_c("classify")


def top(values: NDArray[Any]) -> str:
    """The five best classes as the guest prints them."""
    order = np.argsort(-values.astype(np.float64), kind="stable")[:5]
    return "".join(f"{index} {values[index]:.4f}\n" for index in order)


# ---- what a guest is given ------------------------------------------------------------------------------------------


def test_arguments(behave: Path) -> None:
    """Argv is the module's name and what was given, unchanged."""
    assert run(behave, "arguments", "-x", "--", "ä b").stdout == "behave.wasm\narguments\n-x\n--\nä b\n"


def test_only_named_variables_are_seen(behave: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of this process is not the guest's."""
    monkeypatch.setenv("SECRET", "1")
    assert run(behave, "environment").stdout == ""
    assert run(behave, "environment", environment={"A": "1", "B": "x=y"}).stdout == "A=1\nB=x=y\n"


def test_standard_streams(behave: Path) -> None:
    """stdin, stdout and stderr are those of the process, byte for byte."""
    assert run(behave, "echo", stdin="two\nlines ä\n").stdout == "two\nlines ä\n"
    complained = run(behave, "complain")
    assert (complained.stdout, complained.stderr) == ("", "to stderr\n")


@pytest.mark.parametrize("code", [0, 1, 7, 125])
def test_exit_codes(behave: Path, code: int) -> None:
    """What the guest exits with is what the command exits with."""
    assert run(behave, "exit", str(code)).returncode == code


def test_exit_codes_that_wasi_has_not(behave: Path) -> None:
    """Wasmtime takes 0 to 125; above, a line says why the command ends with 134."""
    result = run(behave, "exit", "126")
    assert result.returncode == TRAP_EXIT
    assert result.stderr.endswith("exit with invalid exit status outside of [0..126)\n")
    assert result.stderr.count("\n") == 1


def test_only_named_directories_are_seen(behave: Path, tmp_path: Path) -> None:
    """A file is read through a directory that was named; neither without it, nor out of it, nor by a link."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.txt").write_text("good")
    (outside / "b.txt").write_text("secret")
    (inside / "link.txt").symlink_to(outside / "b.txt")
    fields: dict[str, Any] = {"directories": (Directory(inside, "/data"),)}
    assert run(behave, "read", "/data/a.txt", **fields).stdout == "good"
    assert run(behave, "read", "/data/a.txt").returncode == 1
    refused = ["/data/../outside/b.txt", str(outside / "b.txt"), "/data/link.txt", "../outside/b.txt", "/etc/passwd"]
    for path in refused:
        result = run(behave, "read", path, **fields)
        assert result.returncode == 1, path
        assert "secret" not in result.stdout


def test_directories_are_read_only_unless_said(behave: Path, tmp_path: Path) -> None:
    """``rw`` lets a guest write."""
    assert run(behave, "write", "/data/new", directories=(Directory(tmp_path, "/data"),)).returncode == 1
    assert not (tmp_path / "new").exists()
    assert run(behave, "write", "/data/new", directories=(Directory(tmp_path, "/data", True),)).returncode == 0
    assert (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".", Directory(Path(), ".")),
        ("models::/m", Directory(Path("models"), "/m")),
        ("a:b::c", Directory(Path("a:b"), "c")),
        ("out::/out::rw", Directory(Path("out"), "/out", writable=True)),
    ],
)
def test_directories_as_they_are_written(text: str, expected: Directory) -> None:
    """HOST, HOST::GUEST, HOST::GUEST::rw."""
    assert Directory.parse(text) == expected


@pytest.mark.parametrize("text", ["", "::", "a::", "::b", "a::b::", "a::b::ro", "a::b::rw::rw"])
def test_directories_that_are_written_wrong(text: str) -> None:
    """Anything else says how it is done."""
    with pytest.raises(ConfigError, match="HOST::GUEST"):
        Directory.parse(text)


# ---- how it ends ----------------------------------------------------------------------------------------------------


def test_a_trap(behave: Path) -> None:
    """134, and a line that says which trap."""
    result = run(behave, "trap")
    assert result.returncode == TRAP_EXIT
    assert result.stderr == "ovllama: the guest trapped: unreachable\n"


def test_a_deadline(behave: Path) -> None:
    """124, when the guest was given a time."""
    started = time.monotonic()
    result = run(behave, "spin", deadline_s=0.5)
    assert result.returncode == DEADLINE_EXIT
    assert "deadline" in result.stderr
    assert time.monotonic() - started < 10


def test_control_c(behave: Path) -> None:
    """A guest that spins is ended by SIGINT at once, as a native program is."""
    code = RUN.replace("{fields!r}", repr({"module": behave, "arguments": ("spin",)}))
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        time.sleep(2)
        process.send_signal(2)
        assert process.wait(10) == -2


def test_the_last_error_is_shown(classify: Path, tmp_path: Path) -> None:
    """A guest that gives up after a WASI-NN error only knows its number: the text is shown beside it."""
    (tmp_path / "x").write_bytes(bytes(16))
    result = run(classify, "name:nobody", "-", "/d/x", directories=(Directory(tmp_path, "/d"),))
    assert result.returncode == 18
    assert result.stderr == (
        "load_by_name: error 8\novllama: the last error of a WASI-NN call: there is no graph named 'nobody'\n"
    )


@pytest.mark.parametrize("content", [b"", b"nonsense", wat('(import "env" "f" (func))'), wat("(func)")])
def test_no_command(tmp_path: Path, content: bytes) -> None:
    """No module, unknown imports, no _start."""
    path = tmp_path / "bad.wasm"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError):
        run_command(Command(module=path))


def test_what_is_named_must_be_there(behave: Path, tmp_path: Path) -> None:
    """A missing module, directory or graph is said before anything runs."""
    with pytest.raises(ModelLoadError):
        run_command(Command(module=tmp_path / "none.wasm"))
    with pytest.raises(ConfigError, match="directory"):
        run_command(Command(module=behave, directories=(Directory(tmp_path / "none", "/x"),)))
    with pytest.raises(ConfigError, match="graph 'm'"):
        run_command(Command(module=behave, graphs={"m": tmp_path / "none.xml"}))


# ---- inference ------------------------------------------------------------------------------------------------------


def test_an_ir_through_preopened_files(classify: Path, tmp_path: Path) -> None:
    """Model, weights and tensor as files: the guest prints what OpenVINO gives for them."""
    support.serialized(support.weighted(), tmp_path)
    array = np.array([[1, -2, 3, -4]], np.float32)
    (tmp_path / "tensor").write_bytes(array.tobytes())
    compiled = ov.Core().compile_model(tmp_path / "model.xml", "CPU")
    expected = top(compiled([array])[0][0])
    directories = (Directory(tmp_path, "fixture"),)
    shape = ("1", "1", "4")
    files = ("fixture/model.xml", "fixture/model.bin", "fixture/tensor")
    result = run(classify, *files, *shape, directories=directories)
    assert (result.stdout, result.stderr) == (expected, "")

    named = ("name:small", "-", "fixture/tensor")
    result = run(classify, *named, *shape, directories=directories, graphs={"small": tmp_path / "model.xml"})
    assert (result.stdout, result.stderr) == (expected, "")


@pytest.mark.parametrize("name", ["m.onnx", "m.pb"])
def test_graphs_of_one_file(classify: Path, tmp_path: Path, name: str) -> None:
    """ONNX and TensorFlow, through load and by name."""
    (tmp_path / name).write_bytes(support.onnx_relu() if name == "m.onnx" else support.tensorflow_relu())
    (tmp_path / "tensor").write_bytes(np.array([[1, -2, 3, 2]], np.float32).tobytes())
    fields: dict[str, Any] = {"directories": (Directory(tmp_path, "d"),), "graphs": {"m": tmp_path / name}}
    for model in (f"d/{name}", "name:m"):
        result = run(classify, model, "-", "d/tensor", "1", "1", "4", **fields)
        assert result.stdout == "2 3.0000\n3 2.0000\n0 1.0000\n1 0.0000\n", result.stderr


@pytest.mark.skipif(not support.MOBILENET.exists(), reason="the shared models are not here")
def test_mobilenet(classify: Path, tmp_path: Path) -> None:
    """MobileNetV2 as TensorFlow Lite, by encoding, detected and by name: the classes of OpenVINO called directly."""
    pixels = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), np.uint8)
    (tmp_path / "tensor").write_bytes(pixels.tobytes())
    content = support.MOBILENET.read_bytes()
    (tmp_path / "m.tflite").write_bytes(content)
    (tmp_path / "m").write_bytes(content)
    expected = top(ov.Core().compile_model(support.MOBILENET, "CPU")([pixels])[0][0])
    fields: dict[str, Any] = {
        "directories": (Directory(tmp_path, "d"),),
        "graphs": {"mobilenet": support.MOBILENET},
    }
    for model in ("d/m.tflite", "d/m", "name:mobilenet"):
        result = run(classify, model, "-", "d/tensor", "3", "1", "224", "224", "3", **fields)
        assert (result.stdout, result.stderr) == (expected, "")


def test_early_tensor_types(classify: Path, tmp_path: Path) -> None:
    """A guest that calls u8 2 is told how it can be run, and then it can."""
    support.serialized(support.same_type("u8"), tmp_path)
    (tmp_path / "tensor").write_bytes(bytes([1, 2, 3]))
    fields: dict[str, Any] = {"directories": (Directory(tmp_path, "d"),)}
    arguments = ("d/model.xml", "d/model.bin", "d/tensor", "2", "3")
    result = run(classify, *arguments, **fields)
    assert result.returncode == 11
    assert "early tensor types" in result.stderr
    result = run(classify, *arguments, **fields, early_tensor_types=True)
    assert (result.returncode, result.stderr) == (0, "")
