"""What a GGUF file says of itself, read on the assumption that it lies.

Every count, length and offset is checked against the bytes that are there before anything is made of it, so that a file
which passes can be given to libraries that believe what it says. Knows nothing of models. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama import ModelLoadError

__all__ = ["Header", "read_header"]

_MAX_DIMENSIONS = 4
_MAX_NESTING = 4
"""Of arrays in arrays."""
_SMALLEST_KEY = 8 + 4 + 1
"""Bytes of a key and value: length of the key, type, value."""
_SMALLEST_TENSOR = 8 + 4 + 4 + 8
"""Bytes of what is said of a tensor: length of its name, dimensions, type, offset."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its code in ``struct``."""
_STRING, _ARRAY = 8, 9


class Header(msgspec.Struct, frozen=True):
    """Metadata and tensors of a GGUF file that is as long as it says."""

    metadata: dict[str, Any]
    """Key -> number, text, or list of texts; arrays of numbers are their length's tuple ``(n,)``."""
    tensors: dict[str, tuple[int, ...]]
    """Name -> shape."""


def read_header(path: Path) -> Header:
    """The header; ModelLoadError if the file is no GGUF file, or if anything in it reaches beyond its end."""
    with _mapped(path) as data:
        cursor = _Cursor(data)
        if cursor.take(4) != b"GGUF":
            raise _wrong("it does not begin with 'GGUF'")
        version = cursor.number("I")
        if version not in {2, 3}:
            raise _wrong(f"expected version 2 or 3, got {version}")
        tensor_count = cursor.count("tensors", _SMALLEST_TENSOR)
        key_count = cursor.count("keys", _SMALLEST_KEY)
        metadata = _metadata(cursor, key_count)
        return Header(metadata, _tensors(cursor, tensor_count, metadata.get("general.alignment", 32)))


class _Cursor:
    """A place in the file that does not leave it."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _wrong(f"{size} bytes are said to follow, {self.left} do")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, what: str, smallest: int) -> int:
        """How many there are; each has at least ``smallest`` bytes."""
        count: int = self.number("Q")
        if count * smallest > self.left:
            raise _wrong(f"it says that it has {count} {what}, for which it is too short")
        return count

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise _wrong("a text in it is not UTF-8") from error


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text()
        if key in metadata:
            raise _wrong(f"key {key[:80]!r} stands twice")
        metadata[key] = _value(cursor, cursor.number("I"), 0)
    return metadata


def _value(cursor: _Cursor, kind: int, depth: int) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _STRING:
        return cursor.text()
    if kind != _ARRAY or depth == _MAX_NESTING:
        raise _wrong(f"there is no type {kind} of values")
    kind = cursor.number("I")
    if kind in _SCALARS:  # scores of tokens and the like
        size = struct.calcsize(f"<{_SCALARS[kind]}")
        count = cursor.count("numbers in a list", size)
        cursor.take(count * size)
        return (count,)
    return [_value(cursor, kind, depth + 1) for _ in range(cursor.count("values in a list", 8))]


def _tensors(cursor: _Cursor, count: int, alignment: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 16 or alignment % 8:
        raise _wrong(f"expected an alignment that is a multiple of 8, got {alignment}")
    stated = [_tensor(cursor) for _ in range(count)]
    begin = -(-cursor.at // alignment) * alignment
    space = len(cursor.data) - begin
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape, size, offset in stated:
        if name in shapes:
            raise _wrong(f"tensor {name[:80]!r} stands twice")
        if offset % alignment or offset + size > space:
            raise _wrong(f"tensor {name[:80]!r} is said to have {size} bytes at {offset}; there are {max(space, 0)}")
        shapes[name] = shape
    return shapes


def _tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, size in bytes, and offset from where the tensors begin."""
    name = cursor.text()
    dimensions = cursor.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise _wrong(f"tensor {name[:80]!r} is said to have {dimensions} dimensions; at most {_MAX_DIMENSIONS} can be")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    return name, shape, _bytes_of(name, shape, cursor.number("I")), cursor.number("Q")


def _bytes_of(name: str, shape: tuple[int, ...], kind: int) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise _wrong(f"tensor {name[:80]!r} has the unknown type {kind}") from error
    # Python's integers do not overflow, which those of a library might.
    elements = math.prod(shape)
    if not shape or elements == 0 or shape[0] % block or elements >= 1 << 63:
        raise _wrong(f"tensor {name[:80]!r} has the impossible shape {shape}")
    return elements // block * size


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        if not file.read(1):
            raise _wrong("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _wrong(what: str) -> ModelLoadError:
    return ModelLoadError(f"not a GGUF file that can be used: {what}")
