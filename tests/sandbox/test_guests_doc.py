"""``docs/guests.md`` says what is so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tests.sandbox.support import config_of
from wasm.build import ZIG, compile_guest

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Limits
from openvino_llama.sandbox import engine, guest, wasi_nn
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import Guest, StreamEnd
from openvino_llama.sandbox.wasi_nn import FUNCTIONS, Errno, WasiNN

TEXT = (Path(__file__).parents[2] / "docs" / "guests.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that begins with this line."""
    lines = TEXT[TEXT.index(heading) :].splitlines()[2:]
    table = lines[: lines.index("")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]


def test_every_import_is_described() -> None:
    """With as many parameters as it takes."""
    described = rows("| import | parameters |\n") + rows("| import | parameters | |")
    assert {name: len(parameters.split(",")) for name, parameters, *_ in described} == {
        name: count for name, (count, _) in FUNCTIONS.items()
    }


def test_every_errno_is_described() -> None:
    """By number and name."""
    described = {int(number): name for number, name, _ in rows("| errno | name |")}
    assert described == {int(errno): errno.name.lower() for errno in Errno}


def test_every_export_is_described(sandbox: Sandbox) -> None:
    """With as many parameters as the built-in guest's have."""
    described = {name: len(parameters.split(",")) for name, parameters, _ in rows("| function | parameters")}
    functions = sandbox.compile(guest.BUILT_IN).functions
    assert {name: (functions[name] or (0,))[0] for name in described} == described


def test_the_structs_are_described() -> None:
    """Their sizes are those that are packed."""
    sizes = dict(re.findall(r"^`(\w+)`, (\d+) bytes", TEXT, flags=re.MULTILINE))
    packed = {"model_config": guest._CONFIG, "tensor_spec": guest._SPEC, "tensor": guest._TENSOR}
    assert {name: int(size) for name, size in sizes.items()} == {
        name: layout.size for name, layout in (packed | {"infer_result": guest._RESULT}).items()
    }


def test_the_limits_are_described() -> None:
    """The defaults are those of the code."""
    limits = {what: default for what, default, _ in rows("| what | default |")}
    default = Limits()
    assert limits["linear memory"] == f"{default.memory_mib} MiB"
    assert limits["table elements"] == f"{default.table_elements:,}"
    assert limits["graphs, and contexts, at a time"] == f"{default.handles} each"
    assert limits["stack"] == f"{engine._STACK_BYTES >> 10} KiB"
    assert limits["time to start"] == f"{engine._START_SECONDS:g} s"
    assert limits["bytes of models loaded from guest memory"].startswith(f"{wasi_nn._MAX_LOADED_BYTES >> 20} MiB")
    assert f"ziglang=={ZIG}" in TEXT


def test_the_guest_in_it_works(
    sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend, tmp_path: Path
) -> None:
    """It compiles without a warning, and doubles what the model gives."""
    source = tmp_path / "my_guest.c"
    source.write_text(re.findall(r"```c\n(.*?)```", TEXT, flags=re.DOTALL)[0])
    compile_guest(source, source.with_suffix(".wasm"))
    nn, config = WasiNN({"m": graphs["relu"]}, backend.load, sandbox.watchdog), config_of(graphs["relu"])
    mine = Guest(sandbox.instantiate(sandbox.compile(source.with_suffix(".wasm")), nn, config.limits), config)
    outputs = mine.infer([{"x": np.array([[-1, 2, -3, 4]], np.float32)}])
    assert not isinstance(outputs, StreamEnd)
    assert outputs["y"].tolist() == [[0, 4, 0, 8]]
    mine.close()
