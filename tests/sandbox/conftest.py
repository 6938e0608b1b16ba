"""Both calling conventions, and the graphs that the guests of these tests name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import openvino as ov
import pytest
from tests.sandbox import support
from tests.sandbox.support import CountingGraph, ForeignGraph, Prober, probe
from wasm.build import compile_guest

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import ModelConfig
from openvino_llama.sandbox.calls import BoxedCalls, RawCalls
from openvino_llama.sandbox.engine import Sandbox

Open = Callable[[ov.Model], Graph]
CompileC = Callable[..., Path]


@pytest.fixture(scope="session", params=[RawCalls, BoxedCalls], ids=["raw", "boxed"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    sandbox = Sandbox(request.param())
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="session")
def backend() -> OpenVINOBackend:
    """Without the child process for each model of a guest: the tests of the backend show that one."""
    return OpenVINOBackend(vet_guests=False)


@pytest.fixture(scope="session")
def open_model(backend: OpenVINOBackend, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Opens a model that was made in memory, as if it came from files."""

    def open_(model: ov.Model) -> Graph:
        path = Path(tmp_path_factory.mktemp("model")) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        config = ModelConfig(
            name="m", type="t", task="t", files={"model": path}, config=None, properties={"PERFORMANCE_HINT": "LATENCY"}
        )
        return backend.open(config, lambda read, _inputs, _outputs: read)

    return open_


@pytest.fixture(scope="session")
def graphs(open_model: Open) -> Mapping[str, Graph]:
    made = {
        "relu": support.relu(),
        "dynamic": support.relu((-1, 4)),
        "bounded": support.relu((ov.Dimension(1, 4), 3)),
        "weighted": support.weighted(),
        "two": support.two_inputs(),
        "scalar": support.relu(()),
    } | {kind: support.same_type(kind) for kind in support.TYPES}
    return {name: open_model(each) for name, each in made.items()} | {
        "count": CountingGraph(),
        "foreign": ForeignGraph(),
    }


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> CompileC:
    """Compiles a guest of ``tests/sandbox/guests``, once: the compiler takes a while when it has not run before."""
    folder = tmp_path_factory.mktemp("guests")

    @cache
    def compile_(name: str, model: str = "command") -> Path:
        output = folder / f"{name}.wasm"
        compile_guest(Path(__file__).with_name("guests") / f"{name}.c", output, model)
        return output

    return compile_


@pytest.fixture
def prober(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> Iterator[Prober]:
    guest = probe(sandbox, graphs, backend.load)
    yield guest
    guest.instance.close()
