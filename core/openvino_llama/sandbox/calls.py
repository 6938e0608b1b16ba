"""How host functions are defined and guest functions called: raw where wasmtime offers it, boxed where not.

wasmtime-py's public calls wrap every argument in a ``Val`` and look every type up: 200 us for an inference. Its C
API has unchecked twins that pass plain 16-byte slots. Those names are private to wasmtime-py, so both ways are kept
behind one protocol, both are tested, and the installed wasmtime decides. Knows nothing of WASI-NN.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import wasmtime

from openvino_llama.errors import GuestTrapError

__all__ = [
    "BoxedCalls",
    "CallingConvention",
    "GoesOn",
    "GuestExitError",
    "GuestInterruptedError",
    "HostFunction",
    "RawCalls",
    "best_calls",
    "trapping",
]

HostFunction = Callable[..., int]
"""Takes unsigned 32-bit integers, returns one; never raises."""


GoesOn = Callable[[], bool]
"""Whether the guest that runs on this thread may go on; never raises."""

_INTERRUPTED = "stopped by the host"

_SLOT_BYTES = 16
"""Of a ``wasmtime_val_raw_t``; an i32 stands in its first four."""
_RESULT = struct.Struct("<I")
_Callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
"""``wasmtime_func_unchecked_callback_t`` with plain addresses: ctypes would make an object of each pointer's type."""


class GuestInterruptedError(GuestTrapError):
    """The guest ran on after its deadline."""

    def __init__(self) -> None:
        super().__init__("the guest ran past its deadline")


class GuestExitError(GuestTrapError):
    """The guest called WASI's ``proc_exit``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the guest exited with code {code}")
        self.code = code


class CallingConvention(Protocol):
    """A way to cross the border between host and guest."""

    counts_epochs: bool
    """Whether epochs have to pass regularly, since a deadline is a number of them; else, guests are asked at each."""

    def define(self, linker: wasmtime.Linker, module: str, name: str, parameters: int, function: HostFunction) -> None:
        """Define a host function of so many i32 parameters and one i32 result, for all stores of the linker."""

    def export(
        self, store: wasmtime.Store, function: wasmtime.Func, parameters: int, results: int, *, quick: bool = False
    ) -> Callable[..., int]:
        """A callable for a guest's function of so many i32 parameters and 0 or 1 i32 results.

        It gives the result, signed; 0 if the function has none. Its type must have been checked. It raises
        GuestTrapError, GuestInterruptedError or GuestExitError. Only the store's own thread may call it. ``quick`` is
        for functions that are known to do next to nothing themselves: the GIL is then kept, but for what host
        functions do with it, since each time that it is given away many threads fight for it.
        """

    def set_deadline(self, store: wasmtime.Store, epochs: int) -> None:
        """So many epochs from now, the store's guest is asked or stopped."""

    def watch(self, store: wasmtime.Store, goes_on: GoesOn) -> None:
        """Have the guests of a new store asked at each epoch whether they may go on, where wasmtime offers it."""

    def epochs(self, seconds: float, epoch_seconds: float) -> int:
        """The store's epoch deadline for a call that may take so long."""


class BoxedCalls:
    """The public API."""

    counts_epochs = True

    def define(self, linker: wasmtime.Linker, module: str, name: str, parameters: int, function: HostFunction) -> None:
        """Through ``Linker.define_func``."""

        def unsigned(*arguments: int) -> int:
            return function(*[argument & 0xFFFFFFFF for argument in arguments])

        linker.define_func(module, name, _func_type(parameters), unsigned)

    def export(
        self,
        store: wasmtime.Store,
        function: wasmtime.Func,
        parameters: int,  # noqa: ARG002 - wasmtime looks the type up at every call
        results: int,  # noqa: ARG002
        *,
        quick: bool = False,  # noqa: ARG002
    ) -> Callable[..., int]:
        """Through ``Func.__call__``."""

        def call(*arguments: int) -> int:
            with trapping():
                return function(store, *[_signed(argument) for argument in arguments]) or 0

        return call

    def set_deadline(self, store: wasmtime.Store, epochs: int) -> None:
        """Through the store."""
        store.set_epoch_deadline(epochs)

    def watch(self, store: wasmtime.Store, goes_on: GoesOn) -> None:
        """The public API has no callback: a deadline is fixed when the call begins."""

    def epochs(self, seconds: float, epoch_seconds: float) -> int:
        """A few more than they are: the present one has begun, and those that are late come all at once."""
        return math.ceil(seconds / epoch_seconds) + 4


class RawCalls:
    """The unchecked functions of wasmtime's C API. Arguments and results share one array of 16-byte slots."""

    counts_epochs = False

    def __init__(self) -> None:
        from wasmtime import _bindings

        self._c: Any = _bindings
        self._invoke = _bindings._wasmtime_func_call_unchecked  # noqa: SLF001
        self._invoke_quickly = self._keeping_gil(self._invoke)
        self._set_deadline = self._keeping_gil(_bindings._wasmtime_context_set_epoch_deadline)  # noqa: SLF001
        # wasmtime keeps the pointers for as long as a linker lives: these must never be collected.
        self._callbacks: list[Any] = []
        self._watches: dict[GoesOn, Any] = {}
        self._no_finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()

    def _keeping_gil(self, function: Any) -> Any:
        """The same function of wasmtime's library, called without giving the GIL away."""
        twin = getattr(ctypes.PyDLL(None, handle=self._c.dll._handle), function.__name__)  # noqa: SLF001
        twin.argtypes, twin.restype = function.argtypes, function.restype
        return twin

    def define(self, linker: wasmtime.Linker, module: str, name: str, parameters: int, function: HostFunction) -> None:
        """Through ``wasmtime_linker_define_func_unchecked``."""
        slots = ctypes.c_char * (_SLOT_BYTES * max(parameters, 1))
        arguments = struct.Struct("<" + "I12x" * parameters)

        def callback(_env: Any, _caller: Any, values: int, _count: int) -> int:
            view = slots.from_address(values)
            _RESULT.pack_into(view, 0, function(*arguments.unpack_from(view)) & 0xFFFFFFFF)
            return 0  # no trap

        pointer = _Callback(callback)
        self._callbacks.append(pointer)
        kind = _func_type(parameters)
        names = [(ctypes.create_string_buffer(text), len(text)) for text in (module.encode(), name.encode())]
        typed = ctypes.cast(pointer, self._c.wasmtime_func_unchecked_callback_t)
        error = self._c.wasmtime_linker_define_func_unchecked(
            linker.ptr(), *names[0], *names[1], kind.ptr(), typed, None, self._no_finalizer
        )
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001 - the C API gives no other way

    def export(
        self, store: wasmtime.Store, function: wasmtime.Func, parameters: int, results: int, *, quick: bool = False
    ) -> Callable[..., int]:
        """Through ``wasmtime_func_call_unchecked``, with one array of slots for all calls of this callable."""
        count = max(parameters, 1)
        slots = (self._c.wasmtime_val_raw_t * count)()
        view = (ctypes.c_int32 * (4 * count)).from_buffer(slots)
        context, item = store._context(), function._func  # noqa: SLF001 - the C API takes them
        invoke = self._invoke_quickly if quick else self._invoke
        trap = ctypes.POINTER(self._c.wasm_trap_t)()
        fixed = (ctypes.byref(item), slots, count, ctypes.byref(trap))

        def call(*arguments: int) -> int:
            view[0 : 4 * parameters : 4] = list(arguments)
            error = invoke(context, *fixed)
            if error:
                with trapping():
                    raise wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001
            if trap:
                raise _trap_error(_take(trap))
            return view[0] if results else 0

        return call

    def set_deadline(self, store: wasmtime.Store, epochs: int) -> None:
        """Through the C API, which only writes a number."""
        self._set_deadline(store._context(), epochs)  # noqa: SLF001

    def watch(self, store: wasmtime.Store, goes_on: GoesOn) -> None:
        """Through ``wasmtime_store_epoch_deadline_callback``."""
        if goes_on not in self._watches:
            self._watches[goes_on] = self._watch(goes_on)
        self._c.wasmtime_store_epoch_deadline_callback(store.ptr(), self._watches[goes_on], None, self._no_finalizer)

    def _watch(self, goes_on: GoesOn) -> Any:
        def callback(_context: Any, _data: Any, delta: Any, _kind: Any) -> int:
            delta[0] = 1  # ask again at the next epoch
            if goes_on():
                return 0
            error = self._c.wasmtime_error_new(_INTERRUPTED.encode())
            return ctypes.cast(error, ctypes.c_void_p).value or 0

        return self._c._wasmtime_store_epoch_deadline_callback.argtypes[1](callback)  # noqa: SLF001

    def epochs(self, seconds: float, epoch_seconds: float) -> int:  # noqa: ARG002 - the callback looks at the clock
        """The next one: the callback says what then."""
        return 1


@contextmanager
def trapping() -> Iterator[None]:
    """Turn wasmtime's traps, and a guest's exit, into this module's errors."""
    try:
        yield
    except wasmtime.Trap as trap:
        raise _trap_error(trap) from None
    except wasmtime.ExitTrap as exit_:
        raise GuestExitError(exit_.code) from None
    except wasmtime.WasmtimeError as error:
        if _INTERRUPTED in str(error):
            raise GuestInterruptedError from None
        raise


def best_calls() -> CallingConvention:
    """The raw convention if the installed wasmtime has all that it needs, else the public one."""
    from wasmtime import _bindings

    needed = (
        "wasmtime_func_unchecked_callback_t",
        "wasmtime_linker_define_func_unchecked",
        "_wasmtime_func_call_unchecked",
        "wasmtime_val_raw_t",
        "_wasmtime_store_epoch_deadline_callback",
        "_wasmtime_context_set_epoch_deadline",
        "wasmtime_error_new",
        "dll",
    )
    return RawCalls() if all(hasattr(_bindings, name) for name in needed) else BoxedCalls()


def _func_type(parameters: int) -> wasmtime.FuncType:
    return wasmtime.FuncType([wasmtime.ValType.i32()] * parameters, [wasmtime.ValType.i32()])


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _take(trap: Any) -> wasmtime.Trap:
    """Own the trap, and leave the variable empty for the next call."""
    owned = ctypes.cast(ctypes.addressof(trap.contents), type(trap))
    ctypes.memset(ctypes.byref(trap), 0, ctypes.sizeof(trap))
    return wasmtime.Trap._from_ptr(owned)  # noqa: SLF001


def _trap_error(trap: wasmtime.Trap) -> GuestTrapError:
    code = trap.trap_code
    if code is wasmtime.TrapCode.INTERRUPT:
        return GuestInterruptedError()
    reason = code.name.lower().replace("_", " ") if code else "unknown trap"
    return GuestTrapError(f"the guest trapped: {reason}")
