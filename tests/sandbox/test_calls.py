"""The two calling conventions, without WASI-NN: numbers, traps and what is chosen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import wasmtime
from tests.sandbox.support import wat

from openvino_llama.errors import GuestTrapError
from openvino_llama.sandbox import calls
from openvino_llama.sandbox.calls import BoxedCalls, CallingConvention, GuestExitError, RawCalls, best_calls

NUMBERS = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


@pytest.fixture(params=[RawCalls, BoxedCalls], ids=["raw", "boxed"])
def convention(request: pytest.FixtureRequest) -> CallingConvention:
    made: CallingConvention = request.param()
    return made


def instantiate(
    convention: CallingConvention, text: str, **functions: tuple[int, Callable[..., int]]
) -> Callable[[str, int, int], Callable[..., int]]:
    """An instance over host functions; gives its exports."""
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    for name, (count, function) in functions.items():
        convention.define(linker, "host", name, count, function)
    store = wasmtime.Store(engine)
    store.set_wasi(wasmtime.WasiConfig())
    instance = linker.instantiate(store, wasmtime.Module(engine, wat(text)))

    def export(name: str, parameters: int, results: int) -> Callable[..., int]:
        function = instance.exports(store)[name]
        assert isinstance(function, wasmtime.Func)
        return convention.export(store, function, parameters, results)

    return export


def test_the_host_gets_unsigned_numbers(convention: CallingConvention) -> None:
    """In their order, over the whole range; its answer goes back."""
    seen: list[tuple[int, ...]] = []

    def host(*arguments: int) -> int:
        seen.append(arguments)
        return 7

    export = instantiate(
        convention,
        """
        (import "host" "f" (func $f (param i32 i32 i32) (result i32)))
        (func (export "g") (param i32) (result i32) (call $f (local.get 0) (i32.const -1) (i32.const 5)))
        """,
        f=(3, host),
    )
    function = export("g", 1, 1)
    assert [function(number) for number in NUMBERS] == [7] * len(NUMBERS)
    assert seen == [(number, 0xFFFFFFFF, 5) for number in NUMBERS]


def test_the_caller_gets_a_signed_number(convention: CallingConvention) -> None:
    """Return codes are signed; without a result it is 0; arguments do not stay behind as results."""
    export = instantiate(
        convention,
        """
        (func (export "echo") (param i32) (result i32) (local.get 0))
        (func (export "second") (param i32 i32) (result i32) (local.get 1))
        (func (export "nothing") (param i32))
        (func (export "seven") (result i32) (i32.const 7))
        """,
    )
    assert [export("echo", 1, 1)(number) for number in NUMBERS] == [0, 1, 0x7FFFFFFF, -(1 << 31), -2, -1]
    assert export("second", 2, 1)(1, 0xFFFFFFFF) == -1
    assert export("nothing", 1, 0)(5) == 0
    assert export("seven", 0, 1)() == 7


def test_a_host_function_without_parameters(convention: CallingConvention) -> None:
    """Its answer has a place although it has no arguments."""
    export = instantiate(
        convention,
        '(import "host" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f))',
        f=(0, lambda: 0xFFFFFFFF),
    )
    assert export("g", 0, 1)() == -1


def test_traps_again_and_again(convention: CallingConvention) -> None:
    """A trap leaves nothing behind: the next call is as the first."""
    export = instantiate(
        convention,
        '(func (export "divide") (param i32) (result i32) (i32.div_u (i32.const 6) (local.get 0)))',
    )
    divide = export("divide", 1, 1)
    for _ in range(100):
        with pytest.raises(GuestTrapError, match="integer division by zero"):
            divide(0)
        assert divide(3) == 2


def test_an_exit_has_its_code(convention: CallingConvention) -> None:
    """WASI's proc_exit is no trap."""
    export = instantiate(
        convention,
        """
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "leave") (param i32) (call $exit (local.get 0)))
        """,
    )
    for code in (0, 1, 42):
        with pytest.raises(GuestExitError) as caught:
            export("leave", 1, 0)(code)
        assert caught.value.code == code


def test_the_raw_convention_is_chosen_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned wasmtime has what it needs; one that lacks a name is called through its public API."""
    assert isinstance(best_calls(), RawCalls)
    from wasmtime import _bindings

    monkeypatch.delattr(_bindings, "wasmtime_val_raw_t")
    assert isinstance(calls.best_calls(), BoxedCalls)
