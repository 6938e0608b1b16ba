"""What a guest may use, and how it is stopped: a clear error, in time, while the others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import pytest
from tests.sandbox import support
from tests.sandbox.conftest import Open
from tests.sandbox.support import config_of, mischief, probe, start, wat

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Limits
from openvino_llama.errors import DeadlineExceededError, GuestTrapError, LimitError, ModelLoadError
from openvino_llama.sandbox import engine
from openvino_llama.sandbox.calls import BoxedCalls, GuestExitError
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import BUILT_IN, Guest
from openvino_llama.sandbox.wasi_nn import WasiNN

SECONDS = 0.2
TOLERANCE = 2.0
"""How late a stopped call may come back on a busy machine."""


@pytest.fixture
def neighbour(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> Iterator[None]:
    """Another thread's guest, which must go on giving right answers for as long as the test takes."""
    done, answers = threading.Event(), [(time.monotonic(), True)]

    def work() -> None:
        prober = probe(sandbox, graphs, backend.load)
        context = prober.context("relu")
        array = np.array([[1, -1, 2, -2]], np.float32)
        while len(answers) < 2 or not done.is_set():
            right = prober.set_input(context, 0, array) == prober("compute", context) == 0
            right = right and prober.output(context, array).tolist() == [[1, 0, 2, 0]]
            answers.append((time.monotonic(), right))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    done.set()
    thread.join()
    assert all(right for _, right in answers)
    times = [moment for moment, _ in answers]
    assert max(after - before for before, after in pairwise(times)) < TOLERANCE


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("name", ["spin", "grow_for_ever", "grow_table_for_ever"])
def test_a_guest_that_never_ends_is_stopped(sandbox: Sandbox, name: str) -> None:
    """An endless loop, with or without growing what it can, ends at the deadline; the store is still of use."""
    instance = mischief(sandbox)
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="stopped at its deadline"):
        instance.call(instance.function(name), deadline=Deadline(SECONDS))
    assert SECONDS <= time.monotonic() - started < SECONDS + TOLERANCE
    assert instance.call(instance.function("echo", 1), 7, deadline=Deadline(SECONDS)) == 7


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("name", ["spin", "grow_for_ever"])
def test_a_cancelled_guest_is_stopped(sandbox: Sandbox, name: str) -> None:
    """Who has left does not keep a worker busy, as far as wasmtime's raw functions are there."""
    if isinstance(sandbox.calls, BoxedCalls):
        pytest.skip("the public API of wasmtime fixes deadlines when a call begins")
    instance, deadline = mischief(sandbox), Deadline(60)
    timer = threading.Timer(SECONDS, deadline.cancel)
    started = time.monotonic()  # before the timer runs
    timer.start()
    with pytest.raises(DeadlineExceededError, match="stopped at its deadline"):
        instance.call(instance.function(name), deadline=deadline)
    assert SECONDS <= time.monotonic() - started < SECONDS + TOLERANCE
    assert instance.call(instance.function("echo", 1), 7, deadline=Deadline(SECONDS)) == 7


def test_a_deadline_is_kept_while_python_is_busy(sandbox: Sandbox) -> None:
    """Threads that want the GIL make the watchdog late, not the deadline long."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        instance = mischief(sandbox)
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            instance.call(instance.function("spin"), deadline=Deadline(5 * SECONDS))
        assert time.monotonic() - started < 5 * SECONDS + 1.0
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("recurse", (1,), "stack overflow"),
        ("unreachable", (), "unreachable"),
        ("out_of_bounds", (), "memory out of bounds"),
        ("divide", (0,), "integer division by zero"),
        ("indirect", (), "indirect call to null"),
        ("grow_and_trap", (), "unreachable"),
    ],
)
def test_a_trap_says_what_happened(sandbox: Sandbox, name: str, arguments: tuple[int, ...], reason: str) -> None:
    """Each kind of trap is an error of its own text."""
    instance = mischief(sandbox)
    with pytest.raises(GuestTrapError, match=reason):
        instance.call(instance.function(name, len(arguments)), *arguments, deadline=Deadline(10))


def test_deep_calls_are_fine(sandbox: Sandbox) -> None:
    """The stack holds thousands of small frames."""
    instance = mischief(sandbox)
    assert instance.call(instance.function("depth", 1), 5000, deadline=Deadline(10)) == 5000


def test_memory_stays_below_the_limit(sandbox: Sandbox) -> None:
    """memory.grow fails at the limit and not before."""
    instance = mischief(sandbox, Limits(memory_mib=8))
    with pytest.raises(GuestTrapError):
        instance.call(instance.function("grow_and_trap"), deadline=Deadline(10))
    assert 7 << 20 < len(instance.memory) <= 8 << 20


def test_a_table_stays_below_the_limit(sandbox: Sandbox) -> None:
    """table.grow fails at the limit and not before."""
    instance = mischief(sandbox)
    assert instance.call(instance.function("table_size"), deadline=Deadline(10)) == 10_000


@pytest.mark.parametrize(
    "module",
    ['(memory (export "memory") 1025)', "(table 10001 funcref)", "(memory 1) (memory 1)", "(table 1 funcref)" * 9],
    ids=["memory", "table", "memories", "tables"],
)
def test_a_module_that_needs_more_than_the_limits(sandbox: Sandbox, module: str) -> None:
    """What a module asks for from the start counts too."""
    with pytest.raises(LimitError):
        start(sandbox, wat(module), Limits(memory_mib=64))


@pytest.mark.parametrize(
    "module",
    [
        b"",
        b"\0asm",
        b"\0asm\1\0\0\0\xff\xff\xff\xff\x0f",
        b"nonsense",
        wat('(import "env" "secret" (func))'),
        wat('(import "wasi_ephemeral_nn" "unknown" (func (result i32)))'),
        wat('(import "wasi_ephemeral_nn" "compute" (func (param i64) (result i32)))'),
        wat('(import "wasi_ephemeral_nn" "compute" (func (param i32 i32) (result i32)))'),
        wat('(import "wasi_ephemeral_nn" "compute" (func (param i32)))'),
        wat('(import "wasi_ephemeral_nn" "compute" (memory 1))'),
        wat('(import "env" "memory" (memory 1))'),
        wat("(memory i64 1)"),
        wat("(memory 1 1 shared)"),
    ],
    ids=lambda _: "",
)
def test_a_module_that_cannot_be_linked(sandbox: Sandbox, module: bytes) -> None:
    """No module, unknown imports, imports of another type: refused before anything runs."""
    with pytest.raises(ModelLoadError, match="no WebAssembly module that this host can link"):
        sandbox.compile(module)


def test_a_module_that_is_not_there(sandbox: Sandbox) -> None:
    """A missing file is an error of the same kind, without its path."""
    with pytest.raises(ModelLoadError) as caught:
        sandbox.compile(BUILT_IN.with_name("missing.wasm"))
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameters"), [("wide", 1), ("echo", 0), ("echo", 2), ("two", 0), ("absent", 0), ("memory", 0)]
)
def test_an_export_with_another_signature(sandbox: Sandbox, name: str, parameters: int) -> None:
    """An export is only called if it takes what it is to be given."""
    with pytest.raises(ModelLoadError, match=name):
        mischief(sandbox).function(name, parameters)


def test_a_guest_that_exports_no_memory(sandbox: Sandbox) -> None:
    """It may run, but nothing can be put into it."""
    instance = start(sandbox, wat('(func (export "f") (result i32) (i32.const 7))'))
    assert instance.call(instance.function("f"), deadline=None) == 7
    with pytest.raises(ModelLoadError, match="exports no memory"):
        _ = instance.memory


@pytest.mark.parametrize(
    "body",
    ["(start $f) (func $f {})", '(func (export "_initialize") {})'],
    ids=["start", "initialize"],
)
def test_a_guest_that_fails_while_it_starts(sandbox: Sandbox, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trap, a loop or an exit in the start function or in _initialize is the same error as later."""
    monkeypatch.setattr(engine, "_START_SECONDS", SECONDS)
    with pytest.raises(GuestTrapError, match="unreachable"):
        start(sandbox, wat(body.format("(unreachable)")))
    with pytest.raises(DeadlineExceededError):
        start(sandbox, wat(body.format("(loop (br 0))")))
    proc_exit = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
    with pytest.raises(GuestExitError, match="code 3"):
        start(sandbox, wat(proc_exit + '(memory (export "memory") 1)' + body.format("(call $exit (i32.const 3))")))


def test_host_calls_before_the_memory_is_there(sandbox: Sandbox) -> None:
    """In a module's start function its exports are not known yet: the host answers 3, missing memory."""
    instance = start(
        sandbox,
        wat("""
            (import "wasi_ephemeral_nn" "load_by_name" (func $load (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (global $answer (mut i32) (i32.const -1))
            (func $f (global.set $answer (call $load (i32.const 0) (i32.const 1) (i32.const 0))))
            (start $f)
            (func (export "answer") (result i32) (global.get $answer))
        """),
    )
    assert instance.call(instance.function("answer"), deadline=None) == 3


def test_wasi_shows_a_guest_nothing(sandbox: Sandbox) -> None:
    """Without a configuration, a guest that uses WASI has no arguments, no environment and no directory."""
    instance = start(
        sandbox,
        wat("""
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "environ") (result i32)
                (drop (call $environ (i32.const 0) (i32.const 4))) (i32.load (i32.const 0)))
            (func (export "args") (result i32)
                (drop (call $args (i32.const 0) (i32.const 4))) (i32.load (i32.const 0)))
            (func (export "prestat") (result i32) (call $prestat (i32.const 3) (i32.const 0)))
        """),
    )
    answers = [instance.call(instance.function(name), deadline=None) for name in ("environ", "args", "prestat")]
    assert answers == [0, 0, 8]  # 8 is WASI's badf: there is no third file


@pytest.mark.usefixtures("neighbour")
def test_a_compute_over_its_deadline_is_cancelled(sandbox: Sandbox, open_model: Open, backend: OpenVINOBackend) -> None:
    """Seconds of matrix products end at the deadline, and the guest is good for the next call."""
    graph = open_model(support.slow())
    nn = WasiNN({"m": graph}, backend.load, sandbox.watchdog, borrow=True)
    config = config_of(graph)
    guest = Guest(sandbox.instantiate(sandbox.compile(BUILT_IN), nn, config.limits), config)
    tensors = {"x": np.zeros((1500, 1500), np.float32)}
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="cancelled at its deadline"):
            guest.infer([tensors], Deadline(SECONDS))
        assert time.monotonic() - started < SECONDS + TOLERANCE


def test_a_cancelled_deadline_ends_a_compute(sandbox: Sandbox, open_model: Open, backend: OpenVINOBackend) -> None:
    """When nobody waits any more, an inference ends long before its deadline."""
    graph = open_model(support.slow())
    prober = probe(sandbox, {"m": graph}, backend.load)
    context = prober.context("m")
    pages = 1500 * 1500 * 4 // support.PAGE + 1
    assert prober("grow", pages) == 2
    assert prober.set_input(context, 0, np.zeros((1500, 1500), np.float32)) == 0
    deadline = Deadline(60)
    threading.Timer(SECONDS, deadline.cancel).start()
    started = time.monotonic()
    assert prober("compute", context, deadline=deadline) == 5
    assert time.monotonic() - started < SECONDS + TOLERANCE
    assert isinstance(prober.nn.failure, DeadlineExceededError)


def test_a_store_costs_little(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> None:
    """A fresh store and instance with the model loaded: well below a millisecond, so that each request may have one."""
    module, config = sandbox.compile(BUILT_IN), config_of(graphs["relu"])

    def once() -> float:
        started = time.perf_counter()
        nn = WasiNN({"m": graphs["relu"]}, backend.load, sandbox.watchdog)
        Guest(sandbox.instantiate(module, nn, config.limits), config).close()
        return time.perf_counter() - started

    assert min(once() for _ in range(200)) < 0.5e-3
