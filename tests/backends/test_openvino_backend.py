"""The OpenVINO backend, called directly: opening, shapes, inputs, outputs, cancelling, closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from tests.sandbox import support

from openvino_llama.backends.base import Encoding, Target
from openvino_llama.backends.openvino import OpenVINOBackend, OpenVINOGraph
from openvino_llama.config import Limits, ModelConfig
from openvino_llama.errors import (
    ConfigError,
    InferenceError,
    InvalidTensorError,
    ModelLoadError,
    UnsupportedTargetError,
)
from openvino_llama.specs import DataType, TensorLayout, TensorSpec

FOUR = np.array([[-1, 2, -3, 4]], np.float32)
Open = Callable[..., OpenVINOGraph]


def unchanged(model: ov.Model, _inputs: object, _outputs: object) -> ov.Model:
    return model


@pytest.fixture(scope="module")
def backend() -> OpenVINOBackend:
    return OpenVINOBackend(vet_guests=False)


@pytest.fixture
def open_model(backend: OpenVINOBackend, tmp_path: Path) -> Open:
    def open_(model: ov.Model, **fields: Any) -> OpenVINOGraph:
        support.serialized(model, tmp_path)
        files = {"model": tmp_path / "model.xml"}
        config = ModelConfig(name="m", type="t", task="t", config=None, **({"files": files} | fields))
        return backend.open(config, unchanged)

    return open_


def test_specs_are_the_models(open_model: Open) -> None:
    """Names, shapes and types in the model's order; -1 for what is dynamic."""
    graph = open_model(support.two_inputs())
    assert [(spec.name, spec.shape, spec.data_type) for spec in graph.inputs] == [
        ("a", (2,), DataType.F32),
        ("b", (2,), DataType.F32),
    ]
    assert [spec.name for spec in graph.outputs] == ["sum", "difference"]
    assert open_model(support.relu((-1, 4))).inputs[0].shape == (-1, 4)
    assert graph.parallelism >= 1


def test_a_layout_is_read(open_model: Open) -> None:
    """Where the model states one that has a name here."""
    model = support.relu((1, 3, 8, 8))
    model.get_parameters()[0].layout = ov.Layout("NCHW")
    assert open_model(model).inputs[0].layout is TensorLayout.NCHW


def test_stated_shapes_are_given_to_the_model(open_model: Open) -> None:
    """A registry entry may fix what the model leaves open; a tensor that the model has not is an error."""
    stated = TensorSpec("x", (2, 4), DataType.F32)
    graph = open_model(support.relu((-1, 4)), inputs=(stated,))
    assert graph.inputs[0].shape == (2, 4)
    assert graph.outputs[0].shape == (2, 4)
    for wrong in (TensorSpec("z", (2, 4), DataType.F32), TensorSpec("x", (2, 4), DataType.U8)):
        with pytest.raises(ConfigError, match=r"the model has x \(f32\)"):
            open_model(support.relu((-1, 4)), inputs=(wrong,))
    with pytest.raises(ConfigError):
        open_model(support.relu(), outputs=(TensorSpec("z", (1, 4), DataType.F32),))
    with pytest.raises(ModelLoadError, match="reshape"):
        open_model(support.weighted(), inputs=(TensorSpec("x", (1, 5), DataType.F32),))


def test_prepare_changes_the_graph(backend: OpenVINOBackend, tmp_path: Path) -> None:
    """What prepare gives back is what is compiled; its errors that OpenVINO raised are load errors."""
    support.serialized(support.weighted(), tmp_path)
    config = ModelConfig(name="m", type="t", task="t", files={"model": tmp_path / "model.xml"}, config=None)

    def take_u8(model: ov.Model, inputs: Any, outputs: Any) -> ov.Model:
        assert [spec.name for spec in (*inputs, *outputs)] == ["x", "y"]
        steps = ov.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8)
        return steps.build()

    assert backend.open(config, take_u8).inputs[0].data_type is DataType.U8

    def break_(model: ov.Model, _inputs: object, _outputs: object) -> ov.Model:
        model.reshape([1, 5])  # its weights are for 4
        return model

    with pytest.raises(ModelLoadError, match="could not prepare"):
        backend.open(config, break_)


@pytest.mark.parametrize("name", ["none.xml", "none.onnx", "none.tflite", "none.what"])
def test_files_that_are_not_there(backend: OpenVINOBackend, tmp_path: Path, name: str) -> None:
    """A load error without a path in its text."""
    config = ModelConfig(name="m", type="t", task="t", files={"model": tmp_path / name}, config=None)
    with pytest.raises(ModelLoadError) as caught:
        backend.open(config, unchanged)
    assert str(tmp_path) not in str(caught.value)


def test_a_device_that_is_not_here(open_model: Open, backend: OpenVINOBackend, tmp_path: Path) -> None:
    """For a registry's model it is a load error that says what there is; a guest is told that it is unsupported."""
    if set(backend.devices) - {"CPU"}:
        pytest.skip("this machine has more than a CPU")
    for device in ("GPU", "GPU.1", "TOASTER", "cpu"):
        with pytest.raises(ModelLoadError, match=f"no device '{device}' on this machine; there is CPU"):
            open_model(support.relu(), device=device)
    for virtual in ("AUTO", "AUTO:CPU", "HETERO:CPU"):
        assert open_model(support.relu(), device=virtual)
    builders = [memoryview(each) for each in support.serialized(support.relu(), tmp_path)]
    with pytest.raises(UnsupportedTargetError, match="there is CPU"):
        backend.load(builders, Encoding.OPENVINO, Target.TPU)


def test_a_model_that_no_guest_could_hold(open_model: Open) -> None:
    """Is refused before it is compiled, with what it needs; sizes that nobody knows are not counted."""
    with pytest.raises(ModelLoadError, match=r"take 2 MiB; its guest has 1 \(limits.memory_mib\)"):
        open_model(support.relu((1, 1 << 18)), limits=Limits(memory_mib=1))
    open_model(support.relu((-1, 1 << 18)), limits=Limits(memory_mib=1))
    open_model(support.relu((1, 1 << 18)), limits=Limits(memory_mib=2))


def test_a_graph_says_whether_it_batches(open_model: Open) -> None:
    """It does if its outputs have one row for each of the inputs' rows."""
    assert open_model(support.relu((-1, 4))).batches
    assert not open_model(support.relu((1, 4))).batches


def test_properties_reach_openvino(open_model: Open) -> None:
    """And a wrong one is a load error."""
    graph = open_model(support.relu(), properties={"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1})
    assert graph.compiled.get_property("INFERENCE_NUM_THREADS") == 1
    with pytest.raises(ModelLoadError, match="compile"):
        open_model(support.relu(), properties={"PERFORMANCE_HINT": "SLOW"})


def test_the_cache_is_for_registry_models_only(tmp_path: Path) -> None:
    """A guest cannot fill the disk with compiled models."""
    cache = tmp_path / "cache"
    backend = OpenVINOBackend(cache, vet_guests=False)
    files = support.serialized(support.weighted(), tmp_path)
    backend.load([memoryview(each) for each in files], Encoding.OPENVINO, Target.CPU)
    assert not list(cache.iterdir())
    config = ModelConfig(name="m", type="t", task="t", files={"model": tmp_path / "model.xml"}, config=None)
    backend.open(config, unchanged)
    assert list(cache.iterdir())


def test_weights_that_change_on_disk_do_not_matter(open_model: Open, tmp_path: Path) -> None:
    """A model that is served does not read its files again."""
    graph = open_model(support.weighted())
    (tmp_path / "model.bin").write_bytes(b"")
    context = graph.create_context()
    context.set_input(0, FOUR, borrow=False)
    context.compute()
    assert (context.output(0) == FOUR @ np.arange(12, dtype=np.float32).reshape(4, 3)).all()


def test_types_that_wasi_nn_has_not(open_model: Open) -> None:
    """A model with such a tensor is refused by name."""
    x = ov.opset13.parameter([3], ov.Type.boolean, name="flags")
    with pytest.raises(ModelLoadError, match="'y' has elements of type boolean"):
        open_model(support.model([x], y=ov.opset13.logical_not(x)))


def test_a_context_is_used_again_and_again(open_model: Open) -> None:
    """Requests go back to the graph; the next context sees no input of the one before."""
    graph = open_model(support.relu())
    first = graph.create_context()
    first.set_input(0, FOUR, borrow=False)
    first.compute()
    assert (first.output(0) == np.maximum(FOUR, 0)).all()
    first.close()
    second = graph.create_context()
    with pytest.raises(InferenceError, match="'x' has not been set"):
        second.compute()
    with pytest.raises(InferenceError, match="no output"):
        second.output(0)
    second.cancel()
    second.close()
    second.close()
    second.cancel()
    graph.close()


def test_borrowed_tensors_are_read_where_they_are(open_model: Open) -> None:
    """Copied ones are not."""
    graph = open_model(support.relu())
    for borrow, expected in ((True, 5), (False, 4)):
        context, array = graph.create_context(), FOUR.copy()
        context.set_input(0, array, borrow=borrow)
        array[0, 3] = 5
        context.compute()
        assert context.output(0)[0, 3] == expected


def test_bad_tensors(open_model: Open) -> None:
    """Type, rank, dimensions and index are checked here, since OpenVINO would convert in silence."""
    context = open_model(support.relu()).create_context()
    for array in (FOUR.astype(np.float64), FOUR[0], np.zeros((1, 5), np.float32)):
        with pytest.raises(InvalidTensorError):
            context.set_input(0, array, borrow=False)
    for index in (-1, 1):
        with pytest.raises(InvalidTensorError, match="out of range"):
            context.set_input(index, FOUR, borrow=False)
    context.set_input(0, FOUR, borrow=False)
    context.compute()
    for index in (-1, 1):
        with pytest.raises(InvalidTensorError, match="out of range"):
            context.output(index)


def test_an_inference_that_fails(open_model: Open) -> None:
    """Shapes that only disagree inside the graph; the context is good for the next one."""
    a, b = support.parameter("a", (-1,)), support.parameter("b", (-1,))
    context = open_model(support.model([a, b], y=ov.opset13.add(a, b))).create_context()
    context.set_input(0, np.ones(2, np.float32), borrow=False)
    context.set_input(1, np.ones(3, np.float32), borrow=False)
    with pytest.raises(InferenceError, match="could not run"):
        context.compute()
    with pytest.raises(InferenceError):
        context.output(0)
    context.set_input(1, np.ones(2, np.float32), borrow=False)
    context.compute()
    assert context.output(0).tolist() == [2, 2]


def test_cancel(open_model: Open) -> None:
    """A running inference ends long before its time, and the request can be used again."""
    context = open_model(support.slow(), properties={"PERFORMANCE_HINT": "LATENCY"}).create_context()
    context.set_input(0, np.zeros((1500, 1500), np.float32), borrow=False)
    for _ in range(2):
        timer = threading.Timer(0.2, context.cancel)
        timer.start()
        started = time.monotonic()
        with pytest.raises(InferenceError):
            context.compute()
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        (Encoding.ONNX, support.onnx_relu()),
        (Encoding.TENSORFLOW, support.tensorflow_relu()),
        (Encoding.AUTODETECT, support.onnx_relu()),
    ],
    ids=["onnx", "tensorflow", "autodetect"],
)
def test_models_of_one_builder(backend: OpenVINOBackend, encoding: Encoding, content: bytes) -> None:
    """Each format gives the graph that was written down."""
    context = backend.load([memoryview(content)], encoding, Target.CPU).create_context()
    context.set_input(0, FOUR, borrow=False)
    context.compute()
    assert (context.output(0) == np.maximum(FOUR, 0)).all()


@pytest.mark.parametrize("location", ["../secret", "{folder}/secret", "./x/../../secret", "link"])
def test_a_model_cannot_name_another_file(tmp_path: Path, location: str) -> None:
    """ONNX may keep weights in files beside it, but neither a path nor a link leads out of the model's folder."""
    secret, folder = tmp_path / "secret", tmp_path / "model"
    secret.write_bytes(b"secret")
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    field = support.field
    shape = field(2, field(1, field(1, 2) + field(2, field(1, field(1, 6)))))
    external = field(13, field(1, "location") + field(2, location.format(folder=tmp_path)))
    weights = field(1, 6) + field(2, 2) + field(8, "w") + external + field(14, 1)
    node = field(1, "w") + field(2, "y") + field(4, "Identity")
    graph = field(1, node) + field(2, "thief") + field(5, weights) + field(12, field(1, "y") + shape)
    model = folder / "model.onnx"
    model.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    with pytest.raises(ModelLoadError):
        OpenVINOBackend().try_out({"model": model})
    (folder / "link").unlink()
    secret.rename(folder / "link")
    if location == "link":
        OpenVINOBackend().try_out({"model": model})  # it is the way out that was refused
