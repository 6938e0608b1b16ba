"""The WebAssembly engine of the process: modules, stores with their limits, and calls into instances.

One Engine, one Linker and one watchdog thread for the process; a compiled module is shared; a Store belongs to one
thread at a time. Knows nothing of tensors or of the functions that a guest exports.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import wasmtime

from openvino_llama.config import Limits
from openvino_llama.errors import DeadlineExceededError, GuestTrapError, LimitError, ModelLoadError
from openvino_llama.sandbox.calls import CallingConvention, GuestInterruptedError, best_calls
from openvino_llama.sandbox.deadline import TICK_SECONDS, Deadline, Watchdog
from openvino_llama.sandbox.memory import GuestMemory
from openvino_llama.sandbox.wasi_nn import FUNCTIONS, MODULE, Errno, WasiNN

__all__ = ["Instance", "Sandbox"]

_GIB = 1 << 30
_STACK_BYTES = 512 << 10
_START_SECONDS = 5.0
_NEVER = 1 << 62


class Sandbox:
    """Everything that the guests of this process share."""

    def __init__(self, calls: CallingConvention | None = None) -> None:
        self.engine = wasmtime.Engine(_config())
        self.watchdog = Watchdog(self.engine.increment_epoch)
        self.calls = calls or best_calls()
        self._linker = wasmtime.Linker(self.engine)
        self._linker.define_wasi()
        self._running = threading.local()
        for name, (parameters, function) in FUNCTIONS.items():
            self.calls.define(self._linker, MODULE, name, parameters, self._answer(function))

    def _answer(self, function: Callable[..., int]) -> Callable[..., int]:
        """The host function for all stores: a store is used by one thread, so the thread says whose call it is."""
        running = self._running

        def answer(*arguments: int) -> int:
            nn: WasiNN | None = getattr(running, "nn", None)
            return nn.call(function, arguments) if nn is not None else Errno.MISSING_MEMORY

        return answer

    def compile(self, source: Path | bytes) -> wasmtime.InstancePre:
        """Compile a module and link its imports; ModelLoadError if it is no module or imports something else."""
        content = source if isinstance(source, bytes) else source.read_bytes()
        try:
            return self._linker.instantiate_pre(wasmtime.Module(self.engine, content))
        except wasmtime.WasmtimeError as error:
            raise ModelLoadError("the guest is no WebAssembly module that this host can link") from error

    def instantiate(
        self, module: wasmtime.InstancePre, nn: WasiNN, limits: Limits, wasi: wasmtime.WasiConfig | None = None
    ) -> Instance:
        """A new Store with limits and one instance in it. ``wasi`` is what the guest may see: nothing, unless given."""
        store = wasmtime.Store(self.engine)
        store.set_limits(
            memory_size=limits.memory_mib << 20, table_elements=limits.table_elements, instances=1, tables=8, memories=1
        )
        store.set_wasi(wasi or wasmtime.WasiConfig())
        return Instance(self, store, module, nn)

    def run(self, store: wasmtime.Store, nn: WasiNN, function: Callable[[], int], deadline: Deadline | None) -> int:
        """Call into a guest: its host calls go to ``nn``, and it is stopped at the deadline."""
        remaining = deadline.remaining() if deadline else math.inf
        store.set_epoch_deadline(math.ceil(remaining / TICK_SECONDS) + 1 if deadline else _NEVER)
        nn.deadline, nn.failure = deadline, None
        self._running.nn = nn
        try:
            return function()
        except GuestInterruptedError as error:
            raise DeadlineExceededError("the guest was stopped at its deadline") from error
        finally:
            self._running.nn = None

    def close(self) -> None:
        """End the watchdog; no guest may be running."""
        self.watchdog.close()


class Instance:
    """One Store with one instance of a guest. Used by one thread at a time."""

    def __init__(self, sandbox: Sandbox, store: wasmtime.Store, module: wasmtime.InstancePre, nn: WasiNN) -> None:
        self._sandbox = sandbox
        self._store = store
        self.nn = nn
        exports = self._start(module)
        self._exports = exports
        memory = exports.get("memory")
        self._memory = GuestMemory(memory, store) if isinstance(memory, wasmtime.Memory) else None
        if self._memory:
            nn.attach(self._memory)
        if "_initialize" in exports:
            self.call(self.function("_initialize"), deadline=Deadline(_START_SECONDS))

    def _start(self, module: wasmtime.InstancePre) -> Mapping[str, object]:
        started: list[wasmtime.Instance] = []

        def start() -> int:
            started.append(module.instantiate(self._store))
            return 0

        try:
            self._sandbox.run(self._store, self.nn, start, Deadline(_START_SECONDS))
        except wasmtime.Trap as error:
            raise GuestTrapError("the guest trapped while it started") from error
        except wasmtime.WasmtimeError as error:
            raise LimitError("the guest needs more memory or tables than its limits allow") from error
        return dict(started[0].exports(self._store).items())

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory; ModelLoadError if it exports none."""
        if self._memory is None:
            raise ModelLoadError("the guest exports no memory named 'memory'")
        return self._memory

    def function(self, name: str, parameters: int = 0) -> Callable[..., int]:
        """An exported function of so many i32 parameters; ModelLoadError if there is none."""
        function = self._exports.get(name)
        i32 = wasmtime.ValType.i32()
        if not isinstance(function, wasmtime.Func):
            raise ModelLoadError(f"the guest exports no function {name!r}")
        kind = function.type(self._store)
        if kind.params != [i32] * parameters or kind.results not in ([], [i32]):
            raise ModelLoadError(f"the guest's function {name!r} must take {parameters} i32 and give an i32 or nothing")
        return self._sandbox.calls.export(self._store, function)

    def call(self, function: Callable[..., int], *arguments: int, deadline: Deadline | None) -> int:
        """Call a function of this guest; DeadlineExceededError or GuestTrapError if it does not come to its end."""
        return self._sandbox.run(self._store, self.nn, lambda: function(*arguments), deadline)

    def close(self) -> None:
        """Free the Store and all that the guest holds."""
        self.nn.close()
        self._store.close()


def _config() -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = _STACK_BYTES
    # Memories are reserved whole and never move: GuestMemory and borrowed inputs rely on it.
    config.memory_reservation = 4 * _GIB
    config.memory_may_move = False
    config.wasm_threads = False
    config.wasm_memory64 = False
    return config
