"""The WebAssembly engine of the process: modules, stores with their limits, and calls into instances.

One Engine, one Linker and one watchdog thread for the process; a compiled module is shared; a Store belongs to one
thread at a time. Knows nothing of tensors or of the functions that a guest exports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import wasmtime

from openvino_llama.config import Limits
from openvino_llama.errors import DeadlineExceededError, GuestTrapError, LimitError, ModelLoadError
from openvino_llama.sandbox.calls import CallingConvention, GuestInterruptedError, best_calls, trapping
from openvino_llama.sandbox.deadline import TICK_SECONDS, Deadline, Watchdog
from openvino_llama.sandbox.memory import GuestMemory
from openvino_llama.sandbox.wasi_nn import FUNCTIONS, MODULE, Errno, WasiNN

__all__ = ["GuestModule", "Instance", "Sandbox"]

_GIB = 1 << 30
_STACK_BYTES = 512 << 10
_START_SECONDS = 5.0
_NEVER = 1 << 62
_WASI = "wasi_snapshot_preview1"
_I32 = wasmtime.ValType.i32()


class GuestModule:
    """A compiled module, linked with the host's functions: what all instances of one guest share."""

    def __init__(self, linker: wasmtime.Linker, module: wasmtime.Module) -> None:
        self.linked = linker.instantiate_pre(module)
        self.uses_wasi = any(each.module == _WASI for each in module.imports)
        self.functions = {each.name: _signature(each.type) for each in module.exports}
        """Name of an export -> numbers of its i32 parameters and results; None for what the host does not call."""


class Sandbox:
    """Everything that the guests of this process share."""

    def __init__(self, calls: CallingConvention | None = None) -> None:
        self.engine = wasmtime.Engine(_config())
        self.calls = calls or best_calls()
        self.watchdog = Watchdog(self.engine.increment_epoch, regular=self.calls.counts_epochs)
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

    def _goes_on(self) -> bool:
        """Whether the guest that runs on this thread still has time."""
        nn: WasiNN | None = getattr(self._running, "nn", None)
        return nn is None or nn.deadline is None or not nn.deadline.is_over()

    def compile(self, source: Path | bytes) -> GuestModule:
        """Compile a module and link its imports; ModelLoadError if it is no module or imports something else."""
        try:
            content = source if isinstance(source, bytes) else source.read_bytes()
            return GuestModule(self._linker, wasmtime.Module(self.engine, content))
        except (OSError, wasmtime.WasmtimeError) as error:
            raise ModelLoadError("the guest is no WebAssembly module that this host can link") from error

    def instantiate(
        self, module: GuestModule, nn: WasiNN, limits: Limits, wasi: wasmtime.WasiConfig | None = None
    ) -> Instance:
        """A new Store with limits and one instance in it. ``wasi`` is what the guest may see: nothing, unless given."""
        store = wasmtime.Store(self.engine)
        store.set_limits(
            memory_size=limits.memory_mib << 20, table_elements=limits.table_elements, instances=1, tables=8, memories=1
        )
        self.calls.watch(store, self._goes_on)
        if module.uses_wasi:
            store.set_wasi(wasi or wasmtime.WasiConfig())
        return Instance(self, store, module, nn)

    def run(self, store: wasmtime.Store, nn: WasiNN, function: Callable[[], int], deadline: Deadline | None) -> int:
        """Call into a guest: its host calls go to ``nn``, and it is stopped at the deadline."""
        self.calls.set_deadline(store, self.calls.epochs(deadline.remaining(), TICK_SECONDS) if deadline else _NEVER)
        nn.deadline, nn.failure = deadline, None
        outer = getattr(self._running, "nn", None)  # a backend may run a guest of its own
        self._running.nn = nn
        try:
            with self.watchdog.watching(deadline):
                return function()
        except GuestInterruptedError as error:
            raise DeadlineExceededError("the guest was stopped at its deadline") from error
        except wasmtime.WasmtimeError as error:
            raise GuestTrapError("the guest could not be called") from error
        finally:
            self._running.nn = outer

    def close(self) -> None:
        """End the watchdog; no guest may be running."""
        self.watchdog.close()


class Instance:
    """One Store with one instance of a guest. Used by one thread at a time."""

    def __init__(self, sandbox: Sandbox, store: wasmtime.Store, module: GuestModule, nn: WasiNN) -> None:
        self._sandbox = sandbox
        self._store = store
        self._signatures = module.functions
        self.nn = nn
        self._exports = self._start(module)
        memory = self._exports.get("memory")
        self._memory = GuestMemory(memory, store) if isinstance(memory, wasmtime.Memory) else None
        if self._memory is not None:
            nn.attach(self._memory)
        if "_initialize" in self._exports:
            self.call(self.function("_initialize"), deadline=Deadline(_START_SECONDS))

    def _start(self, module: GuestModule) -> Mapping[str, object]:
        started: list[wasmtime.Instance] = []

        def start() -> int:
            try:
                with trapping():
                    started.append(module.linked.instantiate(self._store))
            except wasmtime.WasmtimeError as error:
                raise LimitError("the guest needs more memory or tables than its limits allow") from error
            return 0

        self._sandbox.run(self._store, self.nn, start, Deadline(_START_SECONDS))
        return started[0].exports(self._store)

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory; ModelLoadError if it exports none."""
        if self._memory is None:
            raise ModelLoadError("the guest exports no memory named 'memory'")
        return self._memory

    def function(self, name: str, parameters: int = 0, *, quick: bool = False) -> Callable[..., int]:
        """An exported function of so many i32 parameters; ModelLoadError if there is none.

        ``quick`` is for functions that are known to do next to nothing but calling host functions.
        """
        function = self._exports.get(name)
        if not isinstance(function, wasmtime.Func):
            raise ModelLoadError(f"the guest exports no function {name!r}")
        signature = self._signatures[name]
        if signature is None or signature not in ((parameters, 0), (parameters, 1)):
            raise ModelLoadError(f"the guest's function {name!r} must take {parameters} i32 and give an i32 or nothing")
        return self._sandbox.calls.export(self._store, function, *signature, quick=quick)

    def call(self, function: Callable[..., int], *arguments: int, deadline: Deadline | None) -> int:
        """Call a function of this guest; DeadlineExceededError or GuestTrapError if it does not come to its end."""
        return self._sandbox.run(self._store, self.nn, lambda: function(*arguments), deadline)

    def close(self) -> None:
        """Free all that the guest holds. The Store goes with this object and the last array over its memory."""
        self.nn.close()
        self._exports, self._memory = {}, None


def _signature(kind: object) -> tuple[int, int] | None:
    """Numbers of i32 parameters and results; None if it is no function or other types are among them."""
    if not isinstance(kind, wasmtime.FuncType):
        return None
    params, results = kind.params, kind.results
    return (len(params), len(results)) if all(each == _I32 for each in [*params, *results]) else None


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
