"""The host side of ``wasi_ephemeral_nn``: handles, guest memory, errno.

Written from the public ABI (WebAssembly/wasi-nn, ``wasi-nn.witx``), byte for byte, with the extensions that other
runtimes define, so that guests compiled by other people run unchanged. Nothing that a guest passes raises, hangs or
over-reads here: each function answers an errno, the host keeps the last error as text, and the exception behind it
stays with this object, since one that crossed the guest would surface in whatever thread calls wasmtime next.
Knows nothing of wasmtime's stores and of what a guest's own functions mean.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openvino_llama.backends.base import Encoding, ExecutionContext, Graph, Step, Target
from openvino_llama.errors import (
    DeadlineExceededError,
    LimitError,
    ModelNotFoundError,
    RequestError,
    UnsupportedTargetError,
)
from openvino_llama.sandbox.errnos import CallError, Errno
from openvino_llama.sandbox.handles import Handles
from openvino_llama.sandbox.memory import GuestMemory, OutOfBoundsError
from openvino_llama.sandbox.tensors import TENSOR, TensorTypes, shape_at

if TYPE_CHECKING:
    from openvino_llama.sandbox.deadline import Deadline, Watchdog

__all__ = ["FUNCTIONS", "MODULE", "Errno", "GraphLoader", "WasiNN"]

logger = logging.getLogger(__name__)

MODULE = "wasi_ephemeral_nn"

GraphLoader = Callable[[Sequence[memoryview], Encoding, Target], Graph]
"""Loads a graph from bytes in a guest's memory."""


_ERRNOS: tuple[tuple[type[BaseException], Errno], ...] = (
    (OutOfBoundsError, Errno.INVALID_ARGUMENT),
    (RequestError, Errno.INVALID_ARGUMENT),  # InvalidTensorError is one
    (LimitError, Errno.TOO_LARGE),
    (UnsupportedTargetError, Errno.UNSUPPORTED_OPERATION),
    (ModelNotFoundError, Errno.NOT_FOUND),
    (MemoryError, Errno.TOO_LARGE),
)
_STEPS = {
    Step.OUTPUT: Errno.SUCCESS,
    Step.END_OF_SEQUENCE: Errno.END_OF_SEQUENCE,
    Step.CONTEXT_FULL: Errno.CONTEXT_FULL,
    Step.PROMPT_TOO_LONG: Errno.PROMPT_TOO_LONG,
}

_BUILDER = struct.Struct("<II")
_MAX_NAME = 4096
_MAX_LOADED_BYTES = 512 << 20
_ENCODINGS = frozenset(Encoding) - {Encoding.PYTORCH}


class _Loaded:
    """A graph that a guest holds; if it came from the guest's memory, its size there, and it is the guest's to free."""

    def __init__(self, graph: Graph, owned_bytes: int | None = None) -> None:
        self.graph = graph
        self.owned_bytes = owned_bytes


class _Execution:
    """An execution context that a guest holds."""

    def __init__(self, graph: int, context: ExecutionContext) -> None:
        self.graph = graph
        self.context = context
        # Arrays over guest memory that were checked before: (index, data_ptr, type, dims) -> array.
        self.arrays: dict[tuple[Any, ...], Any] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        """Of the outputs that the guest has fetched."""


class WasiNN:
    """The WASI-NN state of one guest instance. Used by the thread of its store."""

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        load: GraphLoader,
        watchdog: Watchdog,
        *,
        handles: int = 64,
        borrow: bool = False,
        early_types: bool = False,
    ) -> None:
        """Make the state of a guest that may name ``graphs``.

        ``borrow`` lets inputs stay in guest memory instead of being copied at ``set_input``: only for guests that are
        known to leave them alone until ``compute`` returns. ``early_types`` is for guests that were compiled with the
        tensor types of the first wasi-nn.
        """
        self._named = graphs
        self._load = load
        self._watchdog = watchdog
        self._borrow = borrow
        self._types = TensorTypes(early=early_types)
        self._graphs: Handles[_Loaded] = Handles("graph", handles)
        self._contexts: Handles[_Execution] = Handles("execution context", handles)
        self._memory: GuestMemory | None = None
        self._loaded_bytes = 0
        self.deadline: Deadline | None = None
        """When the running call must be over; None is never."""
        self.failure: BaseException | None = None
        """The exception behind the last errno that was not success."""
        self.compute_seconds = 0.0
        """Time spent in the backend since this was last set to 0."""

    def attach(self, memory: GuestMemory) -> None:
        """Give the instance's memory; before this, calls answer that it is missing."""
        self._memory = memory

    @property
    def last_error(self) -> str:
        """The last error as text."""
        return str(self.failure) if self.failure else ""

    def call(self, function: Callable[..., int], arguments: tuple[int, ...]) -> int:
        """Answer one call of the guest. Catches everything."""
        try:
            return function(self, *arguments)
        except CallError as error:
            self.failure = error
            return error.errno
        except BaseException as error:
            self.failure = error
            errno = next((code for kind, code in _ERRNOS if isinstance(error, kind)), Errno.RUNTIME_ERROR)
            logger.debug("%s answers %s", function.__name__, errno.name, exc_info=error)
            return errno

    def close(self) -> None:
        """Free all that the guest holds, also if a backend fails at some of it."""
        for handle in self._contexts.numbers():
            self.call(WasiNN.finalize_execution_context, (handle,))
        for handle in self._graphs.numbers():
            self.call(WasiNN.unload, (handle,))
        # Its traceback leads back to here: the guest's memory would stay until somebody collects cycles.
        self.failure = None

    def finish_streams(self) -> None:
        """What ``fini_single`` does, for all that the guest holds: a guest need not export a way to ask for it."""
        for handle in self._contexts.numbers():
            self.call(WasiNN.fini_single, (handle,))

    def output_shape(self, index: int) -> tuple[int, ...]:
        """Shape of an output of the newest context: what the ABI does not tell the guest. IndexError without any."""
        _, held = self._contexts.items()[-1]
        return held.shapes.get(index) or held.context.output(index).shape

    # ---- the ABI, in its order ----------------------------------------------------------------------------------

    def load(self, builders: int, count: int, encoding: int, target: int, out: int) -> int:
        """``load``: a graph from bytes in the guest's memory."""
        self._own.check(out, 4)
        self._graphs.check_room()
        if encoding not in _ENCODINGS:
            raise CallError(Errno.INVALID_ENCODING, f"unsupported encoding {encoding}")
        if target not in Target.__members__.values():
            raise CallError(Errno.INVALID_ARGUMENT, f"there is no target {target}")
        _check_builders(Encoding(encoding), count)
        views = [self._own.view(*self._own.unpack(_BUILDER, builders + 8 * index)) for index in range(count)]
        size = sum(map(len, views))
        if self._loaded_bytes + size > _MAX_LOADED_BYTES:
            raise LimitError(f"a guest may load models of {_MAX_LOADED_BYTES} bytes in all")
        graph = self._load(views, Encoding(encoding), Target(target))
        self._loaded_bytes += size
        return self._enter(_Loaded(graph, owned_bytes=size), out)

    def load_by_name(self, name: int, size: int, out: int) -> int:
        """``load_by_name``: a graph that the host has, by the name that its registry gives it."""
        self._own.check(out, 4)
        self._graphs.check_room()
        wanted = self._text(name, size)
        if wanted not in self._named:
            raise CallError(Errno.NOT_FOUND, f"there is no graph named {wanted!r}")
        return self._enter(_Loaded(self._named[wanted]), out)

    def load_by_name_with_config(self, name: int, size: int, config: int, config_size: int, out: int) -> int:
        """``load_by_name_with_config``: the configuration must be readable; the host's own is what counts."""
        self._text(config, config_size)
        return self.load_by_name(name, size, out)

    def init_execution_context(self, graph: int, out: int) -> int:
        """``init_execution_context``."""
        self._own.check(out, 4)
        held = self._graphs.get(graph)
        self._contexts.check_room()
        self._own.write_u32(out, self._contexts.add(_Execution(graph, held.graph.create_context())))
        return Errno.SUCCESS

    def set_input(self, context: int, index: int, tensor: int) -> int:
        """``set_input``: checks the record, the dimensions and the data, then copies or borrows the data."""
        held = self._contexts.get(context)
        dims, rank, kind, data, size = self._own.unpack(TENSOR, tensor)
        shape = shape_at(self._own, dims, rank)
        key = (index, data, kind, size, shape)
        array = held.arrays.get(key)
        if array is None:
            array = self._types.array(self._own, shape, kind, data, size)
            if self._borrow:
                held.arrays = {each: known for each, known in held.arrays.items() if each[0] != index}
                held.arrays[key] = array
        held.context.set_input(index, array, borrow=self._borrow)
        return Errno.SUCCESS

    def compute(self, context: int) -> int:
        """``compute``: cancelled when the call's deadline passes."""
        self._timed(self._contexts.get(context).context.compute, context)
        return Errno.SUCCESS

    def get_output(self, context: int, index: int, data: int, capacity: int, out: int) -> int:
        """``get_output``: the needed size is written even when the buffer is too small."""
        held = self._contexts.get(context)
        self._own.check(out, 4)
        self._own.check(data, capacity)
        output = held.context.output(index)
        held.shapes[index] = output.shape
        self._own.write_u32(out, output.nbytes)
        if output.nbytes > capacity:
            raise LimitError(f"output {index} has {output.nbytes} bytes, the buffer {capacity}")
        self._own.write(data, output.reshape(-1).view(np.uint8).data)
        return Errno.SUCCESS

    # ---- extensions ---------------------------------------------------------------------------------------------

    def compute_single(self, context: int) -> int:
        """``compute_single``: the next output of a stream."""
        held = self._contexts.get(context).context
        step = getattr(held, "compute_single", None)
        if step is None:
            raise CallError(Errno.UNSUPPORTED_OPERATION, "this graph does not stream")
        return _STEPS[self._timed(step, context)]

    def get_output_single(self, context: int, index: int, data: int, capacity: int, out: int) -> int:
        """``get_output_single``: as ``get_output``, of the last step."""
        return self.get_output(context, index, data, capacity, out)

    def fini_single(self, context: int) -> int:
        """``fini_single``: drop what is left of the sequence."""
        held = self._contexts.get(context).context
        finish = getattr(held, "finish", None)
        if finish is None:
            raise CallError(Errno.UNSUPPORTED_OPERATION, "this graph does not stream")
        finish()
        return Errno.SUCCESS

    def finalize_execution_context(self, context: int) -> int:
        """``finalize_execution_context``."""
        self._contexts.pop(context).context.close()
        return Errno.SUCCESS

    def unload(self, graph: int) -> int:
        """``unload``: frees a graph and its contexts."""
        self._graphs.get(graph)
        for handle, execution in self._contexts.items():
            if execution.graph == graph:
                self.finalize_execution_context(handle)
        held = self._graphs.pop(graph)
        if held.owned_bytes is not None:
            self._loaded_bytes -= held.owned_bytes
            held.graph.close()
        return Errno.SUCCESS

    # ---- below --------------------------------------------------------------------------------------------------

    @property
    def _own(self) -> GuestMemory:
        if self._memory is None:
            raise CallError(Errno.MISSING_MEMORY, "the guest exports no memory named 'memory'")
        return self._memory

    def _enter(self, loaded: _Loaded, out: int) -> int:
        self._own.write_u32(out, self._graphs.add(loaded))
        return Errno.SUCCESS

    def _text(self, pointer: int, size: int) -> str:
        if size > _MAX_NAME:
            raise CallError(Errno.INVALID_ARGUMENT, f"a text of {size} bytes is too long")
        try:
            return bytes(self._own.view(pointer, size)).decode()
        except UnicodeDecodeError:
            raise CallError(Errno.INVALID_ARGUMENT, "the text is not UTF-8") from None

    def _timed(self, run: Callable[[], Any], context: int) -> Any:
        started = time.perf_counter()
        held = self._contexts.get(context).context
        try:
            with self._watchdog.watching(self.deadline, held.cancel):
                return run()
        except Exception as error:
            if self.deadline is not None and self.deadline.is_over():
                raise DeadlineExceededError("the inference was cancelled at its deadline") from error
            raise
        finally:
            self.compute_seconds += time.perf_counter() - started


def _check_builders(encoding: Encoding, count: int) -> None:
    allowed = {Encoding.OPENVINO: (2,), Encoding.AUTODETECT: (1, 2)}.get(encoding, (1,))
    if count not in allowed:
        expected = " or ".join(map(str, allowed))
        raise CallError(
            Errno.INVALID_ARGUMENT, f"encoding {encoding.name.lower()} takes {expected} builders, not {count}"
        )


FUNCTIONS: Mapping[str, tuple[int, Callable[..., int]]] = {
    "load": (5, WasiNN.load),
    "load_by_name": (3, WasiNN.load_by_name),
    "init_execution_context": (2, WasiNN.init_execution_context),
    "set_input": (3, WasiNN.set_input),
    "compute": (1, WasiNN.compute),
    "get_output": (5, WasiNN.get_output),
    "load_by_name_with_config": (5, WasiNN.load_by_name_with_config),
    "compute_single": (1, WasiNN.compute_single),
    "get_output_single": (5, WasiNN.get_output_single),
    "fini_single": (1, WasiNN.fini_single),
    "unload": (1, WasiNN.unload),
    "finalize_execution_context": (1, WasiNN.finalize_execution_context),
}
"""Name -> number of i32 parameters, and what answers."""
