"""A guest's linear memory, seen from the host: every access is checked against its present size.

The engine reserves 4 GiB of address space for each memory and never moves one, so the address is asked for once and
only the size is asked for again, when an access does not fit the size that is known. Knows nothing of WASI-NN.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import numpy as np
import wasmtime
from numpy.typing import NDArray

from openvino_llama.errors import SandboxError

__all__ = ["GuestMemory", "OutOfBoundsError"]

U32 = struct.Struct("<I")


class OutOfBoundsError(SandboxError):
    """A pointer and length that are not inside the guest's memory."""


class GuestMemory:
    """Reads and writes of one guest's memory. Used by the thread of its store."""

    def __init__(self, memory: wasmtime.Memory, store: wasmtime.Store) -> None:
        self._memory = memory
        self._store = store
        self._bytes = memoryview(b"")
        self._refresh()

    def _refresh(self) -> None:
        size = self._memory.data_len(self._store)
        if size > len(self._bytes):
            address = ctypes.addressof(self._memory.data_ptr(self._store).contents)
            content: Any = (ctypes.c_ubyte * size).from_address(address)
            content.store = self._store  # every array over this memory keeps it mapped
            self._bytes = memoryview(content).cast("B")

    def __len__(self) -> int:
        """Its present size in bytes."""
        self._refresh()
        return len(self._bytes)

    def check(self, pointer: int, size: int) -> None:
        """Raise OutOfBoundsError unless ``size`` bytes from ``pointer`` on lie inside (0 bytes at the end do)."""
        if pointer + size > len(self._bytes):
            self._refresh()
            if pointer + size > len(self._bytes):
                raise OutOfBoundsError(
                    f"{size} bytes at {pointer:#x} are outside the memory of {len(self._bytes)} bytes"
                )

    def view(self, pointer: int, size: int) -> memoryview:
        """A view of guest memory; its content changes when the guest runs."""
        self.check(pointer, size)
        return self._bytes[pointer : pointer + size]

    def unpack(self, layout: struct.Struct, pointer: int) -> tuple[Any, ...]:
        """Read one record."""
        self.check(pointer, layout.size)
        return layout.unpack_from(self._bytes, pointer)

    def write_u32(self, pointer: int, value: int) -> None:
        """Write one number."""
        self.check(pointer, 4)
        U32.pack_into(self._bytes, pointer, value)

    def write(self, pointer: int, content: bytes | memoryview) -> None:
        """Copy bytes into the guest."""
        self.view(pointer, len(content))[:] = content

    def array(self, pointer: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
        """A view of guest memory as an array; the shape's product must be small enough for the caller."""
        count = 1
        for size in shape:
            count *= size
        self.check(pointer, count * kind.itemsize)
        return np.frombuffer(self._bytes, kind, count, pointer).reshape(shape)
