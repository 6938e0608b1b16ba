"""Tensors as they are described, and the checks of a tensor against its description.

The names are those of the WASI-NN proposal and of the specification. Knows nothing of OpenVINO, of models or of
where a tensor comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from openvino_llama.errors import InvalidTensorError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DYNAMIC", "DataType", "TensorLayout", "TensorSpec", "check_tensors"]

DYNAMIC = -1
"""A dimension that each tensor chooses for itself."""


class DataType(Enum):
    """Element types that a tensor may have, named as in WASI-NN."""

    F16 = "f16"
    F32 = "f32"
    F64 = "f64"
    U8 = "u8"
    I32 = "i32"
    I64 = "i64"

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE[self]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian NumPy type."""
        return _numpy_type(self)


_ITEMSIZE = {
    DataType.F16: 2,
    DataType.F32: 4,
    DataType.F64: 8,
    DataType.U8: 1,
    DataType.I32: 4,
    DataType.I64: 8,
}
_NUMPY = {
    DataType.F16: "<f2",
    DataType.F32: "<f4",
    DataType.F64: "<f8",
    DataType.U8: "|u1",
    DataType.I32: "<i4",
    DataType.I64: "<i8",
}


@cache
def _numpy_type(data_type: DataType) -> np.dtype[Any]:
    import numpy as np  # here, so that a plugin author's `import openvino_llama` stays light

    return np.dtype(_NUMPY[data_type])


class TensorLayout(Enum):
    """What the dimensions of a tensor mean."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    SEQUENCE = "Sequence"


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a model."""

    name: str
    shape: tuple[int, ...]
    """Sizes; -1 is a dynamic dimension."""
    data_type: DataType
    layout: TensorLayout | None = None
    """None where the meaning of the dimensions is not known."""

    def __post_init__(self) -> None:
        for size in self.shape:
            if size < DYNAMIC or size == 0:
                raise ValueError(f"tensor {self.name!r}: a dimension is -1 (dynamic) or positive, not {size}")

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension is dynamic."""
        return DYNAMIC in self.shape

    @property
    def nbytes(self) -> int | None:
        """Size of the tensor in bytes; None if a dimension is dynamic."""
        return None if self.is_dynamic else math.prod(self.shape) * self.data_type.itemsize

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape has the right rank and every fixed dimension."""
        if tuple(shape) == self.shape:  # no -1 is among a tensor's own sizes
            return True
        return len(shape) == len(self.shape) and all(
            want in (DYNAMIC, size) for want, size in zip(self.shape, shape, strict=True)
        )

    def check(self, tensor: NDArray[Any]) -> None:
        """Raise InvalidTensorError unless the tensor has this element type, rank and every fixed dimension."""
        if tensor.dtype != self.data_type.numpy:
            raise InvalidTensorError(
                f"tensor {self.name!r}: expected elements of type {self.data_type.value}, got {tensor.dtype.name}"
            )
        if not self.fits(tensor.shape):
            raise InvalidTensorError(
                f"tensor {self.name!r}: expected shape {list(self.shape)}, got {list(tensor.shape)}"
            )


def check_tensors(specs: Sequence[TensorSpec], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise InvalidTensorError unless there is exactly one fitting tensor for each spec."""
    if tensors.keys() != {spec.name for spec in specs}:
        expected, got = sorted(spec.name for spec in specs), sorted(tensors)
        raise InvalidTensorError(f"expected the tensors {expected}, got {got}")
    for spec in specs:
        spec.check(tensors[spec.name])
