"""From token ids to the arrays that a model takes: padded, with masks, positions and types as far as it wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, TensorSpec
from openvino_llama_text.tokenizers.template import Encoding

__all__ = ["model_inputs"]

Integers = NDArray[np.int64]


def model_inputs(
    specs: Sequence[TensorSpec],
    encodings: Sequence[Encoding],
    *,
    length: int | None = None,
    pad_id: int = 0,
    left: bool = False,
) -> dict[str, NDArray[Any]]:
    """An array (texts, length) for each of the model's inputs, in its element type.

    ``length`` None is that of the longest text, at least 1. Texts longer than it are cut at the end. Padding stands
    on the right, or ``left``; positions begin with 0 at a text's first token. ConfigError for an input of another name.
    """
    length = max([1, *(len(each.ids) for each in encodings)]) if length is None else length
    rows = [_Row(each, length) for each in encodings]
    return {spec.name: _array(spec, rows, (length, pad_id, left)) for spec in specs}


class _Row:
    """One text: which of its numbers an input takes."""

    def __init__(self, encoding: Encoding, length: int) -> None:
        self.ids, self.type_ids = encoding.ids[:length], encoding.type_ids[:length]


def _array(spec: TensorSpec, rows: Sequence[_Row], padding: tuple[int, int, bool]) -> NDArray[Any]:
    if spec.name not in _INPUTS:
        raise ConfigError(f"input {spec.name!r}: a text model's inputs are {', '.join(_INPUTS)}")
    length, pad_id, left = padding
    fill = pad_id if spec.name == "input_ids" else 0
    array = np.full((len(rows), length), fill, spec.data_type.numpy)
    for target, row in zip(array, rows, strict=True):
        numbers = _INPUTS[spec.name](row)
        begin = length - len(numbers) if left else 0
        target[begin : begin + len(numbers)] = numbers
    return array


_INPUTS: dict[str, Callable[[_Row], Sequence[int]]] = {
    "input_ids": lambda row: row.ids,
    "attention_mask": lambda row: [1] * len(row.ids),
    "token_type_ids": lambda row: row.type_ids,
    "position_ids": lambda row: range(len(row.ids)),
}
