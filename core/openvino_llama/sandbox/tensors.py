"""The tensors of WASI-NN as they stand in a guest's memory. Knows nothing of graphs."""

from __future__ import annotations

import math
import struct
from typing import Any

from openvino_llama.errors import InvalidTensorError
from openvino_llama.sandbox.memory import GuestMemory
from openvino_llama.specs import DataType

__all__ = ["TENSOR", "TensorTypes", "shape_at"]

TENSOR = struct.Struct("<IIB3xII")  # dims_ptr, dims_len, type, data_ptr, data_len; guests leave garbage in the padding
_DATA_TYPES = (DataType.F16, DataType.F32, DataType.F64, DataType.U8, DataType.I32, DataType.I64)
_EARLY_DATA_TYPES = (DataType.F16, DataType.F32, DataType.U8, DataType.I32)
"""As the first versions of the witx numbered them: published guests that pass pictures as u8 still say 2."""
_MAX_RANK = 16
_RANKS = tuple(struct.Struct(f"<{rank}I") for rank in range(_MAX_RANK + 1))


def shape_at(memory: GuestMemory, dims: int, rank: int) -> tuple[int, ...]:
    """The dimensions that stand at ``dims``."""
    if rank > _MAX_RANK:
        raise InvalidTensorError(f"a tensor of rank {rank}; at most {_MAX_RANK} is allowed")
    return memory.unpack(_RANKS[rank], dims)


class TensorTypes:
    """Element types by their number: those of the witx, or of its first version."""

    def __init__(self, *, early: bool) -> None:
        self._types = tuple(each.numpy for each in (_EARLY_DATA_TYPES if early else _DATA_TYPES))

    def array(self, memory: GuestMemory, shape: tuple[int, ...], kind: int, data: int, size: int) -> Any:
        """A view of the tensor's data, if its type is known and its size is the one that the shape says."""
        if kind >= len(self._types):
            raise InvalidTensorError(f"there is no tensor type {kind}")
        count = math.prod(shape)  # Python's integers do not overflow
        expected = count * self._types[kind].itemsize
        if expected != size:
            raise InvalidTensorError(
                f"a tensor of type {self._types[kind].name} and shape {list(shape)} has {expected} bytes, not {size}"
                + _hint(kind, count, size)
            )
        return memory.array(data, shape, self._types[kind])


def _hint(kind: int, count: int, size: int) -> str:
    """What to say of a size that would be right if the guest numbered its types as the first wasi-nn did."""
    early = _EARLY_DATA_TYPES[kind] if kind < len(_EARLY_DATA_TYPES) else None
    if early is None or early is _DATA_TYPES[kind] or count * early.itemsize != size:
        return ""
    return f"; it fits {early.value}, which had the number {kind} in the first wasi-nn (early tensor types)"
