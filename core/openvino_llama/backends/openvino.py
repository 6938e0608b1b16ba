"""The OpenVINO backend. The only module of the core that imports openvino.

Knows nothing of WebAssembly, of requests, or of what the tensors mean.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openvino_llama.backends.base import Encoding, Prepare, Target
from openvino_llama.backends.ir import check_ir
from openvino_llama.backends.vet import vet
from openvino_llama.config import ModelConfig
from openvino_llama.errors import (
    ConfigError,
    InferenceError,
    InvalidTensorError,
    ModelLoadError,
    UnsupportedTargetError,
)
from openvino_llama.specs import DYNAMIC, DataType, TensorLayout, TensorSpec

__all__ = ["OpenVINOBackend", "OpenVINOContext", "OpenVINOGraph", "keeps_rows"]

logger = logging.getLogger(__name__)

_DATA_TYPES = {
    "f16": DataType.F16,
    "f32": DataType.F32,
    "f64": DataType.F64,
    "u8": DataType.U8,
    "i32": DataType.I32,
    "i64": DataType.I64,
}
_DEVICES = {Target.CPU: "CPU", Target.GPU: "GPU", Target.TPU: "NPU"}
_VIRTUAL = frozenset({"AUTO", "BATCH", "HETERO", "MULTI"})
"""Devices of OpenVINO's that stand for others, and are never listed."""
_SUFFIXES = {
    Encoding.ONNX: ".onnx",
    Encoding.TENSORFLOW: ".pb",
    Encoding.TENSORFLOWLITE: ".tflite",
}
_THROUGHPUT = {"PERFORMANCE_HINT": "THROUGHPUT"}
# Threads that are bound to one processor wait for it while decoding and answering take it, and the other one is idle.
_DEFAULTS = {"CPU": _THROUGHPUT | {"ENABLE_CPU_PINNING": False}}
"""Device -> the properties that a model's entry has unless it says otherwise."""
_LAYOUTS = {"[N,C,H,W]": TensorLayout.NCHW, "[N,H,W,C]": TensorLayout.NHWC}


class OpenVINOBackend:
    """Graphs that OpenVINO reads: IR, ONNX, TensorFlow, TensorFlow Lite, Paddle."""

    name = "openvino"

    def __init__(self, cache_dir: Path | None = None, *, vet_guests: bool = True) -> None:
        """``vet_guests`` is whether a model that comes out of a guest's memory is tried in a child process first."""
        _warm_up()
        self._core = ov.Core()
        self._vet_guests = vet_guests
        # A mapped weights file that is replaced while it is served would take the process down with SIGBUS.
        self._core.set_property({"ENABLE_MMAP": False})
        if cache_dir:
            cache_dir.mkdir(parents=True, exist_ok=True)
            self._core.set_property({"CACHE_DIR": str(cache_dir)})

    @property
    def devices(self) -> Sequence[str]:
        """Devices that OpenVINO finds on this machine."""
        return list(self._core.available_devices)

    def serves(self, config: ModelConfig) -> bool:  # noqa: ARG002
        """Whatever no other backend serves."""
        return True

    def open(self, config: ModelConfig, prepare: Prepare) -> OpenVINOGraph:
        """Read, reshape to the stated specs, prepare and compile a model's files."""
        model = self._read_files(config.files)
        _reshape(model, config.inputs)
        _check_names(config.outputs, _specs(model.outputs))
        with _as_load_error("prepare"):
            model = prepare(model, _specs(model.inputs), _specs(model.outputs))
        _check_size([*_specs(model.inputs), *_specs(model.outputs)], config.limits.memory_mib)
        return self._compile(model, config.device, dict(config.properties), batches=keeps_rows(model))

    def load(self, builders: Sequence[memoryview], encoding: Encoding, target: Target) -> OpenVINOGraph:
        """Read and compile a model that a guest holds in its memory."""
        device = _DEVICES[target]
        if not self._has(device):
            raise UnsupportedTargetError(f"no {device} on this machine; there is {', '.join(self.devices)}")
        with tempfile.TemporaryDirectory(prefix="ovllama-") as folder:
            files = _write(builders, encoding, Path(folder))
            if self._vet_guests:
                vet(files)
            model = self._read_files(files)
        return self._compile(model, device, {"CACHE_DIR": ""})  # the cache's disk is not for guests to fill

    def try_out(self, files: Mapping[str, Path]) -> None:
        """Read and compile a model's files as they are, and forget it; ModelLoadError if that fails."""
        model = self._read_files(files)
        with _as_load_error("compile"):
            self._core.compile_model(model, "CPU")

    def _has(self, device: str) -> bool:
        return any(each == device or each.startswith(f"{device}.") for each in self.devices)

    def _read_files(self, files: Mapping[str, Path]) -> ov.Model:
        model, weights = files["model"], files.get("weights")
        if model.suffix == ".xml":
            check_ir(model, weights or model.with_suffix(".bin"))
        with _as_load_error("read"):
            return self._core.read_model(model, weights) if weights else self._core.read_model(model)

    def _compile(
        self, model: ov.Model, device: str, properties: dict[str, Any], *, batches: bool = False
    ) -> OpenVINOGraph:
        specs = [_specs(ports) for ports in (model.inputs, model.outputs)]
        kind = device.partition(":")[0].partition(".")[0]  # GPU.1, AUTO:GPU,CPU
        if kind not in _VIRTUAL and not self._has(kind):
            raise ModelLoadError(f"no device {device!r:.64} on this machine; there is {', '.join(self.devices)}")
        with _as_load_error("compile"):
            compiled = self._core.compile_model(model, device, _DEFAULTS.get(device, _THROUGHPUT) | properties)
        return OpenVINOGraph(compiled, *specs, batches=batches)


class OpenVINOGraph:
    """A compiled model. Infer requests are kept and used again: making one costs more than a small inference."""

    def __init__(
        self, compiled: ov.CompiledModel, inputs: list[TensorSpec], outputs: list[TensorSpec], *, batches: bool
    ) -> None:
        self._compiled = compiled
        self.inputs = inputs
        self.outputs = outputs
        self.batches = batches
        self._idle: list[ov.InferRequest] = []

    @property
    def compiled(self) -> ov.CompiledModel:
        """OpenVINO's own object, for comparisons with it."""
        return self._compiled

    @property
    def parallelism(self) -> int:
        """What OpenVINO finds optimal for its number of streams."""
        return int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def create_context(self) -> OpenVINOContext:
        """A new execution context."""
        return OpenVINOContext(self, self.take())

    def take(self) -> ov.InferRequest:
        """An idle infer request, or a new one."""
        try:
            return self._idle.pop()  # atomic: contexts come and go on several threads
        except IndexError:
            return self._compiled.create_infer_request()

    def give(self, request: ov.InferRequest) -> None:
        """Give an infer request back; its inputs are set anew by whoever takes it next."""
        self._idle.append(request)

    def close(self) -> None:
        """Free the compiled model and its requests."""
        self._idle.clear()
        self._compiled = None


class OpenVINOContext:
    """One infer request and what is known of its inputs."""

    def __init__(self, graph: OpenVINOGraph, request: ov.InferRequest) -> None:
        self._graph = graph
        self._request = request
        self._set: list[NDArray[Any] | None] = [None] * len(graph.inputs)
        self._results: Any = None
        self._lock = threading.Lock()

    def set_input(self, index: int, tensor: NDArray[Any], *, borrow: bool) -> None:
        """Make the tensor (or a copy of it) the request's input."""
        specs = self._graph.inputs
        if not 0 <= index < len(specs):
            raise InvalidTensorError(f"input index {index} is out of range: the model has {len(specs)} inputs")
        if borrow and self._set[index] is tensor:
            return  # the request reads that memory already
        specs[index].check(tensor)
        if not (borrow and tensor.flags.aligned):
            tensor = tensor.copy()
        try:
            self._request.set_input_tensor(index, ov.Tensor(tensor, shared_memory=True))
        except RuntimeError as error:
            self._renew()
            shape = list(tensor.shape)
            raise InvalidTensorError(f"tensor {specs[index].name!r}: the model does not take shape {shape}") from error
        self._set[index] = tensor

    def _renew(self) -> None:
        """Take a new request with the inputs of this one: OpenVINO keeps the shape of a tensor that it rejected."""
        with self._lock:
            self._request = self._graph.take()
        for index, tensor in enumerate(self._set):
            if tensor is not None:
                self._request.set_input_tensor(index, ov.Tensor(tensor, shared_memory=True))

    def compute(self) -> None:
        """Run the request. Releases the GIL."""
        for spec, tensor in zip(self._graph.inputs, self._set, strict=True):
            if tensor is None:
                raise InferenceError(f"input {spec.name!r} has not been set")
        self._results = None
        try:
            self._results = list(self._request.infer(share_outputs=True).values())  # looking one up there takes longer
        except RuntimeError as error:
            raise InferenceError("OpenVINO could not run the inference") from error

    def output(self, index: int) -> NDArray[Any]:
        """A view of OpenVINO's output tensor."""
        if self._results is None:
            raise InferenceError("there is no output before a successful compute")
        if not 0 <= index < len(self._graph.outputs):
            count = len(self._graph.outputs)
            raise InvalidTensorError(f"output index {index} is out of range: the model has {count} outputs")
        result: NDArray[Any] = self._results[index]
        return np.ascontiguousarray(result)

    def cancel(self) -> None:
        """Stop a running inference between two of its layers; does nothing to an idle one."""
        with self._lock:
            if self._request is not None:
                self._request.cancel()

    def close(self) -> None:
        """Give the request back to the graph."""
        with self._lock:
            request, self._request = self._request, None
        self._results = None
        if request is not None:
            self._graph.give(request)


def _warm_up() -> None:
    """Make OpenVINO's first conversion of a tensor happen here, on one thread.

    It initialises a static variable of the bindings and lets go of the GIL meanwhile: two workers whose first
    conversions meet would wait for each other, one for the variable and one for the GIL, for ever.
    """
    tensor = ov.Tensor(np.zeros(1, np.uint8), shared_memory=True)
    _ = tensor.data


@contextmanager
def _as_load_error(step: str) -> Iterator[None]:
    """OpenVINO's errors are RuntimeErrors whose texts carry paths: they go into the cause."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelLoadError(f"OpenVINO could not {step} the model") from error


def _write(builders: Sequence[memoryview], encoding: Encoding, folder: Path) -> dict[str, Path]:
    """Write a guest's builders to files, which is what every front end of OpenVINO can read."""
    if encoding is Encoding.AUTODETECT:
        encoding = _detect(builders)
    if encoding is Encoding.OPENVINO:
        (folder / "model.xml").write_bytes(builders[0])
        (folder / "model.bin").write_bytes(builders[1])
        return {"model": folder / "model.xml", "weights": folder / "model.bin"}
    model = folder / f"model{_SUFFIXES[encoding]}"
    model.write_bytes(builders[0])
    return {"model": model}


def _detect(builders: Sequence[memoryview]) -> Encoding:
    if len(builders) == 2:
        return Encoding.OPENVINO
    start = bytes(builders[0][:8])
    if start[4:8] == b"TFL3":
        return Encoding.TENSORFLOWLITE
    # An ONNX ModelProto begins with its ir_version (field 1, a varint); a GraphDef with a node (field 1, a message).
    return Encoding.ONNX if start[:1] == b"\x08" else Encoding.TENSORFLOW


def keeps_rows(model: ov.Model) -> bool:
    """Whether every output has one row for each row of the inputs, so that requests can share an inference.

    That the first dimension of an output is dynamic does not say so: it may be a number of boxes.
    """
    shapes = [port.partial_shape for port in (*model.inputs, *model.outputs)]
    if any(shape.rank.is_dynamic or len(shape) == 0 or shape[0].is_static for shape in shapes):
        return False
    trial, rows = model.clone(), 7
    try:
        trial.reshape(
            {index: ov.PartialShape([rows, *list(port.partial_shape)[1:]]) for index, port in enumerate(trial.inputs)}
        )
    except RuntimeError:
        return False
    return all(port.partial_shape[0] == ov.Dimension(rows) for port in trial.outputs)


def _reshape(model: ov.Model, stated: Sequence[TensorSpec]) -> None:
    """Give the model the input shapes that its registry entry states."""
    if not stated:
        return
    found = _specs(model.inputs)
    _check_names(stated, found)
    positions = {spec.name: position for position, spec in enumerate(found)}
    with _as_load_error("reshape"):
        model.reshape({positions[spec.name]: ov.PartialShape(list(spec.shape)) for spec in stated})


def _check_names(stated: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    """Raise ConfigError for a stated tensor that the model has not, or has with another element type."""
    types = {spec.name: spec.data_type for spec in found}
    for spec in stated:
        if types.get(spec.name) is not spec.data_type:
            has = ", ".join(f"{name} ({kind.value})" for name, kind in types.items())
            raise ConfigError(f"the registry states a tensor {spec.name} ({spec.data_type.value}); the model has {has}")


def _check_size(specs: Sequence[TensorSpec], memory_mib: int) -> None:
    """Raise ModelLoadError for a model whose tensors no guest of this size could hold."""
    needed = sum(spec.nbytes or 0 for spec in specs)
    if needed > memory_mib << 20:
        raise ModelLoadError(
            f"the model's inputs and outputs take {-(-needed >> 20)} MiB; "
            f"its guest has {memory_mib} (limits.memory_mib)"
        )


def _specs(ports: Sequence[Any]) -> list[TensorSpec]:
    specs = [_spec(port) for port in ports]
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ModelLoadError(f"the model has several tensors of one name: {names}")
    return specs


def _spec(port: Any) -> TensorSpec:
    """The spec of an input or output port."""
    name = port.any_name if port.names else port.node.friendly_name
    kind = port.element_type.to_string()
    if port.element_type.get_type_name() not in _DATA_TYPES:
        raise ModelLoadError(f"tensor {name!r} has elements of type {kind}; supported are {', '.join(_DATA_TYPES)}")
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        raise ModelLoadError(f"tensor {name!r} has a dynamic rank; state its shape in the registry")
    sizes = tuple(DYNAMIC if size.is_dynamic else size.get_length() for size in shape)
    layout = getattr(port.node, "layout", None)
    try:
        return TensorSpec(name, sizes, _DATA_TYPES[port.element_type.get_type_name()], _LAYOUTS.get(str(layout)))
    except ValueError as error:
        raise ModelLoadError(str(error)) from error
