"""Any number in any place, from inside a real guest: always an errno, never an exception, a crash or a hang."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sandbox.support import BUILDERS, DATA, DIMS, NAME, OUT, PAGE, RECORD, RESULT, Prober, probe

from openvino_llama.backends.base import Graph
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.wasi_nn import FUNCTIONS, Errno

ERRNOS = {int(errno) for errno in Errno}
END = 2 * PAGE

fuzzing = settings(
    max_examples=1000, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
u32 = st.integers(0, 0xFFFFFFFF)
places = st.sampled_from([NAME, BUILDERS, RECORD, DIMS, RESULT, DATA, OUT, END, 0, 1 << 31, 0xFFFFFFFF, 0xFFFFFFFC])
near = st.builds(lambda place, distance: (place + distance) & 0xFFFFFFFF, places, st.integers(-24, 24))
small = st.integers(0, 24)
number = st.one_of(u32, near, small)
"""Anything, but often something that is nearly right."""


@pytest.fixture
def fuzzed(sandbox: Sandbox, graphs: Mapping[str, Graph], backend: OpenVINOBackend) -> Iterator[Prober]:
    prober = probe(sandbox, graphs, backend.load)
    yield prober
    prober.instance.close()


def prepare(prober: Prober) -> None:
    """A graph and a context with the newest handles, however the last example left the guest."""
    if prober.load_by_name("dynamic") == Errno.TOO_LARGE:
        for graph in prober.nn._graphs.numbers():
            assert prober("unload", graph) == 0
        assert prober.load_by_name("dynamic") == 0
    assert prober("init_execution_context", prober.number(), OUT) in (0, Errno.TOO_LARGE)


@fuzzing
@given(name=st.sampled_from(sorted(FUNCTIONS)), arguments=st.lists(number, min_size=5, max_size=5))
def test_any_arguments(fuzzed: Prober, name: str, arguments: list[int]) -> None:
    """Every function, with every argument over the whole 32-bit range."""
    prepare(fuzzed)
    count, _ = FUNCTIONS[name]
    assert fuzzed(name, *arguments[:count]) in ERRNOS


@fuzzing
@given(record=st.tuples(number, number, number, number, number), dims=st.lists(number, max_size=4), index=small)
def test_any_tensor(fuzzed: Prober, record: tuple[int, ...], dims: list[int], index: int) -> None:
    """A tensor's record and dimensions hold anything; the context computes what it was given, or says why not."""
    prepare(fuzzed)
    context = fuzzed.number()
    fuzzed.put(DIMS, struct.pack(f"<{len(dims)}I", *dims))
    fuzzed.put(RECORD, struct.pack("<5I", *record))
    assert fuzzed("set_input", context, index, RECORD) in ERRNOS
    assert fuzzed("compute", context) in ERRNOS


@fuzzing
@given(builders=st.tuples(number, number, number, number), encoding=small, content=st.binary(max_size=64))
def test_any_builders(fuzzed: Prober, builders: tuple[int, ...], encoding: int, content: bytes) -> None:
    """Builders point anywhere, and what they point at is no model."""
    prepare(fuzzed)
    fuzzed.put(DATA, content)
    fuzzed.put(BUILDERS, struct.pack("<4I", *builders))
    for count in (1, 2):
        assert fuzzed("load", BUILDERS, count, encoding, 0, OUT) in ERRNOS - {0}


@fuzzing
@given(output=st.tuples(small, number, number, number))
def test_any_output_buffer(fuzzed: Prober, output: tuple[int, ...]) -> None:
    """An output goes where the guest says, if that is inside its memory, and is told its size there."""
    prepare(fuzzed)
    context = fuzzed.number()
    fuzzed.put(DIMS, struct.pack("<2I", 1, 4))
    fuzzed.put(RECORD, struct.pack("<5I", DIMS, 2, 1, DATA, 16))
    fuzzed("set_input", context, 0, RECORD)
    fuzzed("compute", context)
    assert fuzzed("get_output", context, *output) in ERRNOS
    assert len(fuzzed.instance.memory) == END
