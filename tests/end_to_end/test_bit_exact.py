"""What comes out of the sandbox is, to the bit, what OpenVINO gives when it is called directly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins, load_plugins
from openvino_llama.registry import locate, read_registry
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import BUILT_IN, Guest, StreamEnd
from openvino_llama.sandbox.wasi_nn import WasiNN
from openvino_llama.specs import TensorSpec

DYNAMIC_SIZES = (64, 96)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def models(plugins: Plugins, sandbox: Sandbox) -> Iterator[Models]:
    models = Models(plugins, sandbox, [OpenVINOBackend()], SilentObserver())
    yield models
    models.close()


def direct(model: Model, plugins: Plugins) -> ov.InferRequest:
    """The model as the plugin prepares it, in an OpenVINO of its own."""
    config = model.config
    assert config
    core = ov.Core()
    read = core.read_model(config.files["model"])
    prepared = plugins.hooks_for(config.type).prepare_model(config=config, model=read) or read
    return core.compile_model(prepared, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"}).create_infer_request()


def random_tensor(spec: TensorSpec, seed: int) -> Any:
    sizes = iter(DYNAMIC_SIZES)
    batch, *rest = spec.shape
    shape = [max(1, batch), *[size if size > 0 else next(sizes) for size in rest]]
    return np.random.default_rng(seed).integers(0, 256, shape).astype(spec.data_type.numpy)


@pytest.mark.parametrize(
    "name",
    ["document_orientation", "face_detection", "face_detection_short", "text_regions", "mobilenet_v2", "deeplabv3"],
)
@pytest.mark.parametrize("borrow", [True, False], ids=["borrowed", "copied"])
def test_same_bits(name: str, borrow: bool, registry: Path, plugins: Plugins, sandbox: Sandbox, models: Models) -> None:
    """Three inferences of random pixels, each output equal to the last bit."""
    entries = read_registry(registry).entries
    if name not in entries:
        pytest.skip(f"no files of {name} here")
    model = models.load(name, entries[name], partial(locate, registry=registry))
    config, graph = model.serving.config, model.serving.graph
    nn = WasiNN({name: graph}, OpenVINOBackend().load, sandbox.watchdog, borrow=borrow)
    guest = Guest(sandbox.instantiate(sandbox.compile(BUILT_IN), nn, config.limits), config)
    request = direct(model, plugins)
    for seed in range(3):
        tensors = {spec.name: random_tensor(spec, seed) for spec in config.inputs}
        outputs = guest.infer([tensors])
        request.infer({index: tensors[spec.name] for index, spec in enumerate(config.inputs)})
        assert not isinstance(outputs, StreamEnd)
        for index, spec in enumerate(config.outputs):
            expected = request.get_output_tensor(index).data
            assert outputs[spec.name].shape == expected.shape
            assert outputs[spec.name].tobytes() == expected.tobytes()
    guest.close()
    models.unload(name)
