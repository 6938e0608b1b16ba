"""Texts of different lengths to inferences of few shapes, and back.

A request's texts are sorted by length, put together, at most ``max_batch_size`` of them, and padded to one of few
lengths: so little is computed for padding, OpenVINO meets few shapes (a new one costs about as much as ten texts,
once), and the parts of different requests fit into one inference. Knows nothing of what the outputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama import DYNAMIC, ModelConfig, Preprocessed
from openvino_llama_text.texts import max_length_of
from openvino_llama_text.tokenizers import Encoding, find_tokenizer, model_inputs

__all__ = ["Finish", "Gathered", "Part", "batches", "bucket", "gather", "split"]

Finish = Callable[[NDArray[np.float32]], Any]
"""Makes the answer of the outputs of all texts, (texts, ...), in the request's order."""

_STEP = 16
_INFERENCE = 48
"""What an inference costs beside its tokens, in tokens: measured with MiniLM on a CPU."""

_MOST_ROWS = 64
"""Further ones gain nothing, and the work of finding the groups grows with them."""


def bucket(length: int, most: int) -> int:
    """The length that a text of ``length`` tokens is padded to: a multiple of 16, of 32 from 256 on, of 64 from 512...

    At most an eighth of a long text is padding.
    """
    step = max(_STEP, 1 << max(0, length.bit_length() - 4))
    return min(-(-length // step) * step, most)


def split(config: ModelConfig, encodings: Sequence[Encoding], finish: Finish) -> Preprocessed | list[Preprocessed]:
    """The inferences for these texts; ``gather`` hands ``finish`` what came of them."""
    gathered = Gathered(len(encodings), finish)
    parts = [Preprocessed(tensors, Part(gathered, texts)) for texts, tensors in batches(config, encodings)]
    return parts[0] if len(parts) == 1 else parts


def batches(
    config: ModelConfig, encodings: Sequence[Encoding]
) -> Iterator[tuple[Sequence[int], dict[str, NDArray[Any]]]]:
    """Which of the texts, counted from 0, stand in the rows of an inference, and its tensors."""
    lengths = _padded_lengths(config, encodings)
    for texts in _groups(lengths, _rows(config)):
        yield texts, _tensors(config, [encodings[each] for each in texts], lengths[texts[-1]])


def gather(outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
    """Take the output of an inference that ``split`` gave; the answer if it is the only one, or all were taken."""
    part: Part = context
    if outputs:
        part.gathered.take(part.texts, next(iter(outputs.values())))
    return part.gathered.answer() if not outputs or part.is_whole else None


class Gathered:
    """What has come of a request's texts so far. Parts come on several threads; each has texts of its own."""

    def __init__(self, texts: int, finish: Finish) -> None:
        self.rows: list[Any] = [None] * texts
        self._finish = finish

    def take(self, texts: Sequence[int], rows: NDArray[Any]) -> None:
        """Keep a copy: the guest's memory is overwritten by the next inference. What is over is padding."""
        for text, row in zip(texts, rows[: len(texts)].copy(), strict=True):
            self.rows[text] = row

    def answer(self) -> Any:
        """What is made of all rows, once they are there."""
        return self._finish(np.stack(self.rows))


class Part:
    """The context of one inference."""

    __slots__ = ("gathered", "texts")

    def __init__(self, gathered: Gathered, texts: Sequence[int]) -> None:
        self.gathered, self.texts = gathered, texts

    @property
    def is_whole(self) -> bool:
        """Whether it is the only inference of its request."""
        return len(self.texts) == len(self.gathered.rows)


def _padded_lengths(config: ModelConfig, encodings: Sequence[Encoding]) -> list[int]:
    """What each text is padded to if none is put beside it."""
    fixed, most = config.input_specs()[0].shape[1], max_length_of(config)
    return [bucket(len(each.ids), most) if fixed == DYNAMIC else fixed for each in encodings]


def _groups(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Numbers of texts that go into one inference, at most ``rows`` of them, so that all together cost the least.

    Sorted by length, the cheapest way to part the first texts is that to part some less of them, and one group more.
    In a group, the longest text is the last.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    costs, begins = [0], [0]
    for end, text in enumerate(order, 1):
        cost, begin = min(
            (costs[begin] + _INFERENCE + (end - begin) * lengths[text], begin)
            for begin in range(max(0, end - rows), end)
        )
        costs.append(cost)
        begins.append(begin)
    groups, end = [], len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups


def _rows(config: ModelConfig) -> int:
    """Most rows of an inference. The runner puts together again what is alike."""
    fixed = config.input_specs()[0].shape[0]
    return min(config.batching.max_batch_size or 1, _MOST_ROWS) if fixed == DYNAMIC else fixed


def _tensors(config: ModelConfig, encodings: list[Encoding], length: int) -> dict[str, NDArray[Any]]:
    padding = max(0, config.input_specs()[0].shape[0] - len(encodings))  # fixed rows: the last text stands in them
    pad_id = find_tokenizer(config).special.pad or 0
    return model_inputs(config.input_specs(), encodings + encodings[-1:] * padding, length=length, pad_id=pad_id)
