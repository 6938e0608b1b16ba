"""The guest's FFI as a Python class: load a model, run inferences, read the outputs.

The structs are those of ``wasm/inferencer.c`` (``docs/guests.md``). Knows nothing of threads, queues or requests.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama.config import ModelConfig
from openvino_llama.errors import (
    InferenceError,
    InvalidTensorError,
    LimitError,
    ModelLoadError,
    OpenVINOLlamaError,
    SandboxError,
)
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Instance
from openvino_llama.sandbox.memory import OutOfBoundsError
from openvino_llama.specs import DataType, TensorLayout, TensorSpec

__all__ = ["BUILT_IN", "Guest", "StreamEnd"]

BUILT_IN = Path(__file__).with_name("inferencer.wasm")
"""The guest that runs every model whose plugin brings none of its own."""

_CONFIG_VERSION = 1
_MODEL_ID = 0
_CONFIG = struct.Struct("<9I")  # version, id, type, encoding, target, inputs, count, outputs, count
_SPEC = struct.Struct("<6I")  # name, size, dims, rank, type, layout
_TENSOR = struct.Struct("<IIB3xII")  # dims, rank, type, data, size
_RESULT = struct.Struct("<II")  # count, outputs
_TYPE_NUMBERS = {kind: number for number, kind in enumerate(DataType)}
_LAYOUT_NUMBERS = {None: 0} | {layout: number for number, layout in enumerate(TensorLayout, 1)}

Tensors = Mapping[str, NDArray[Any]]


class StreamEnd(Enum):
    """Why a stream has no further output; the values are the codes of the FFI."""

    END_OF_SEQUENCE = 100
    CONTEXT_FULL = 101
    PROMPT_TOO_LONG = 102


_STREAM_ENDS = {end.value: end for end in StreamEnd}


class Guest:
    """A guest instance with one loaded model. Used by one thread at a time."""

    def __init__(
        self, instance: Instance, config: ModelConfig, *, streaming: bool = False, quick: bool = False
    ) -> None:
        """Load the model named ``config.name`` in the guest; ModelLoadError if it does not take it.

        ``quick`` is whether the guest is known to do next to nothing itself.
        """
        self._instance = instance
        self._config = config
        self._alloc = instance.function("alloc", 1)
        self._dealloc = instance.function("dealloc", 1)
        self._infer = instance.function("infer", 3, quick=quick)
        self._next = instance.function("infer_next", 1, quick=quick) if streaming else None
        self._buffers = [_Buffer(spec) for spec in config.inputs]
        # Name, number of the type, size and type of an element: looked up once, and not for each token of a stream.
        self._expected = [
            (spec.name, _TYPE_NUMBERS[spec.data_type], spec.data_type.itemsize, spec.data_type.numpy)
            for spec in config.outputs
        ]
        try:
            self._load(streaming=streaming)
        except BaseException:
            self.close()
            raise

    @property
    def compute_seconds(self) -> float:
        """Time that the last inference spent in the backend."""
        return self._instance.nn.compute_seconds

    @property
    def memory_bytes(self) -> int:
        """Size of its linear memory, which never shrinks."""
        return len(self._instance.memory)

    def infer(self, batch: Sequence[Tensors], deadline: Deadline | None = None) -> dict[str, NDArray[Any]] | StreamEnd:
        """Run one inference over the tensors of one or more requests, put together along their first dimension.

        The outputs are views of guest memory, valid until the next call. A stream may end before its first output; one
        that has not been read to its end is dropped by the next call of this.
        """
        self._instance.nn.compute_seconds = 0.0
        for index, spec in enumerate(self._config.inputs):
            self._place(index, [tensors[spec.name] for tensors in batch])
        arguments = (self._records, len(self._config.inputs), self._result)
        return self._answer(self._instance.call(self._infer, *arguments, deadline=deadline))

    def next(self, deadline: Deadline | None = None) -> dict[str, NDArray[Any]] | StreamEnd:
        """The next output of a stream, or why there is none."""
        if self._next is None:
            raise SandboxError(f"model {self._config.name!r} does not stream")
        return self._answer(self._instance.call(self._next, self._result, deadline=deadline))

    def stop(self) -> None:
        """Drop what is left of the stream, so that the model does not work on."""
        self._instance.nn.finish_streams()

    def close(self) -> None:
        """Free the instance."""
        self._instance.close()

    def _load(self, *, streaming: bool) -> None:
        config, name = self._config, self._config.name.encode()
        ranks = [len(spec.shape) for spec in config.inputs]
        fixed = _RESULT.size + _TENSOR.size * len(ranks) + 4 * sum(ranks)
        # One piece of guest memory for all that has a fixed size: each call into the guest costs its microseconds.
        self._result = self._allocate(fixed + _config_size(config) + len(name))
        self._records = self._result + _RESULT.size
        first = self._records + _TENSOR.size * len(ranks)
        self._dims = [first + 4 * sum(ranks[:index]) for index in range(len(ranks))]
        pointer = self._result + fixed
        content = _pack_config(config, pointer, streaming=streaming) + name
        self._instance.memory.write(pointer, content)
        load = self._instance.function("load_model_by_name", 3)
        arguments = (pointer, pointer + len(content) - len(name), len(name))
        code = self._instance.call(load, *arguments, deadline=Deadline(config.limits.deadline_s))
        if code != 0:
            raise ModelLoadError(f"the guest answered {code} to load_model_by_name") from self._instance.nn.failure

    def _place(self, index: int, arrays: list[NDArray[Any]]) -> None:
        """Copy one input into guest memory; the only copy between preprocessing and OpenVINO."""
        first = arrays[0]
        if len(arrays) == 1:
            self._room(index, first.shape)[...] = first
            return
        shape = (sum(len(array) for array in arrays), *first.shape[1:])
        np.concatenate(arrays, out=self._room(index, shape))

    def _room(self, index: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """The input's buffer as an array of this shape, its tensor record written."""
        buffer = self._buffers[index]
        if buffer.array is not None and buffer.array.shape == shape:
            return buffer.array
        size = math.prod(shape) * buffer.spec.data_type.itemsize
        if size > buffer.capacity:
            if buffer.capacity:
                self._free(buffer.pointer)
            buffer.capacity, buffer.array = 0, None  # also if there is no room for what is needed now
            buffer.pointer, buffer.capacity = self._allocate(size), size
        memory = self._instance.memory
        memory.write(self._dims[index], struct.pack(f"<{len(shape)}I", *shape))
        kind = _TYPE_NUMBERS[buffer.spec.data_type]
        record = _TENSOR.pack(self._dims[index], len(shape), kind, buffer.pointer, size)
        memory.write(self._records + index * _TENSOR.size, record)
        buffer.array = memory.array(buffer.pointer, shape, buffer.spec.data_type.numpy)
        return buffer.array

    def _answer(self, code: int) -> dict[str, NDArray[Any]] | StreamEnd:
        if code in _STREAM_ENDS:
            return _STREAM_ENDS[code]
        if code != 0:
            raise _error(code, self._instance.nn.failure)
        try:
            return self._outputs()
        except (OutOfBoundsError, IndexError) as error:
            raise InferenceError("the guest's outputs are not inside its memory") from error

    def _outputs(self) -> dict[str, NDArray[Any]]:
        memory = self._instance.memory
        count, records = memory.unpack(_RESULT, self._result)
        if count != len(self._expected):
            raise InferenceError(f"the guest gave {count} outputs, the model has {len(self._expected)}")
        outputs = {}
        for index, (name, number, itemsize, kind) in enumerate(self._expected):
            dims, rank, given, data, size = memory.unpack(_TENSOR, records + index * _TENSOR.size)
            shape = self._shape(index, dims, rank)
            if given != number or math.prod(shape) * itemsize != size:
                raise InferenceError(f"output {name!r}: expected {kind} {list(shape)}, got type {given}, {size} B")
            outputs[name] = memory.array(data, shape, kind)
        return outputs

    def _shape(self, index: int, dims: int, rank: int) -> tuple[int, ...]:
        """The shape that the guest states; else the fixed one; else the one that the graph computed."""
        spec = self._config.outputs[index]
        if rank:
            stated = self._instance.memory.unpack(struct.Struct(f"<{min(rank, 16)}I"), dims)
            if not spec.fits(stated):
                raise InferenceError(f"output {spec.name!r}: expected shape {list(spec.shape)}, got {list(stated)}")
            return stated
        if not spec.is_dynamic:
            return spec.shape
        return self._instance.nn.output_shape(index)

    def _allocate(self, size: int) -> int:
        deadline = Deadline(self._config.limits.deadline_s)
        pointer = self._instance.call(self._alloc, size, deadline=deadline) & 0xFFFFFFFF
        if not pointer:
            raise LimitError(f"the guest has no {size} bytes left of its {self._config.limits.memory_mib} MiB")
        self._instance.memory.check(pointer, size)  # a foreign guest's alloc may answer anything
        return pointer

    def _free(self, pointer: int) -> None:
        self._instance.call(self._dealloc, pointer, deadline=Deadline(self._config.limits.deadline_s))


class _Buffer:
    """Guest memory for one input, kept from inference to inference."""

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.pointer = 0
        self.capacity = 0
        self.array: NDArray[Any] | None = None


def _error(code: int, failure: BaseException | None) -> BaseException:
    """What the guest's return code means; what the host noticed itself says more."""
    if isinstance(failure, OpenVINOLlamaError) or (failure and not isinstance(failure, Exception)):
        return failure
    error: OpenVINOLlamaError
    if code == -3:
        error = InvalidTensorError("the guest found that the tensors do not fit the model's specs")
    elif code == -4:
        error = InferenceError("the inference failed")  # a foreign exception's text is for the log, not for clients
    else:
        error = SandboxError(f"the guest answered {code}")
    error.__cause__ = failure
    return error


def _config_size(config: ModelConfig) -> int:
    """Bytes that ``_pack_config`` makes."""
    specs = [*config.inputs, *config.outputs]
    return _CONFIG.size + sum(_SPEC.size + 4 * len(spec.shape) + len(_padded(spec.name)) for spec in specs)


def _padded(name: str) -> bytes:
    """The name with zeros after it that keep what follows aligned."""
    content = name.encode()
    return content + bytes(-len(content) % 4)


def _pack_config(config: ModelConfig, base: int, *, streaming: bool) -> bytes:
    """The model_config struct and all that it points to, as they stand at address ``base``."""
    specs = [*config.inputs, *config.outputs]
    tail = bytearray()
    records = bytearray()
    tail_base = base + _CONFIG.size + _SPEC.size * len(specs)
    for spec in specs:
        dims = tail_base + len(tail)
        tail += struct.pack(f"<{len(spec.shape)}i", *spec.shape)
        name = tail_base + len(tail)
        tail += _padded(spec.name)
        kind, layout = _TYPE_NUMBERS[spec.data_type], _LAYOUT_NUMBERS[spec.layout]
        records += _SPEC.pack(name, len(spec.name.encode()), dims, len(spec.shape), kind, layout)
    inputs = base + _CONFIG.size
    outputs = inputs + _SPEC.size * len(config.inputs)
    counts = (inputs, len(config.inputs), outputs, len(config.outputs))
    return _CONFIG.pack(_CONFIG_VERSION, _MODEL_ID, int(streaming), 0, 0, *counts) + records + tail
