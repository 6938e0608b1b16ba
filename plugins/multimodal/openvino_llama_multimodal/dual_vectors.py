"""Pictures and texts to vectors of one space: the inferences of a dual encoder, and what came of them.

Pictures go into inferences without a text, and texts into inferences without a picture: a half of the graph that has
no rows computes nothing. (CLIP ViT-B/32 on two cores takes 208 ms for a picture and no text, 281 ms with one of 16
tokens beside it, and 67 ms for that text and no picture.) Inferences of a request are shared among the workers; since
their inputs have no common number of rows, the core puts none of them together with another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import DYNAMIC, ModelConfig, Preprocessed, TensorSpec, per_model
from openvino_llama_multimodal.config import text_half
from openvino_llama_multimodal.dual_memory import Memory, memory_of
from openvino_llama_multimodal.pictures import render
from openvino_llama_multimodal.processor import vision_of
from openvino_llama_multimodal.questions import Picture
from openvino_llama_text.buckets import Gathered, Part, batches, gather
from openvino_llama_text.texts import check_not_empty, encode_texts
from openvino_llama_text.tokenizers import Encoding
from openvino_llama_vision.pixels import InputPlan, plan_of

__all__ = [
    "IDS",
    "MASK",
    "PIXELS",
    "Asked",
    "Finish",
    "Vectors",
    "collect",
    "dimensions_of",
    "inferences",
    "plan_for",
    "text_of",
]

PIXELS, IDS, MASK = "pixel_values", "input_ids", "attention_mask"
"""Inputs of the model."""
_BESIDE = 2
"""Each vector of its outputs is followed by the scale and the bias."""


class Asked(msgspec.Struct, frozen=True):
    """What vectors are wanted of."""

    pictures: Sequence[Picture]
    texts: Mapping[str, str]
    """By their places in the request."""
    truncate: bool
    """Whether a text that is too long loses its end; else it is an error."""


class Vectors(msgspec.Struct, frozen=True):
    """What the model makes of pictures and texts."""

    pictures: NDArray[np.float32]
    """(pictures, dimensions)"""
    texts: NDArray[np.float32]
    """(texts, dimensions)"""
    scale: float
    bias: float
    """scale * cosine + bias is the logit of a picture and a text."""
    tokens: int
    """How many tokens all texts together had, special ones included."""
    truncated: list[int]
    """Which texts lost their end, counted from 0."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """Of each picture with each text, (pictures, texts)."""
        found: NDArray[np.float32] = self.scale * (self.pictures @ self.texts.T) + self.bias
        return found


Finish = Callable[[Vectors], Any]
"""Makes the answer."""


@per_model
def text_of(config: ModelConfig) -> ModelConfig:
    """The model as the text plugin knows models, with the inputs of texts alone."""
    inputs = tuple(spec for spec in config.inputs if spec.name != PIXELS)
    return msgspec.structs.replace(text_half(config), inputs=inputs)


@per_model
def plan_for(config: ModelConfig) -> InputPlan:
    """How pictures come to the model's size."""
    spec = next(each for each in config.inputs if each.name == PIXELS)
    return plan_of(vision_of(config), spec)


def dimensions_of(config: ModelConfig) -> int:
    """How many numbers the model's vectors have."""
    return config.outputs[0].shape[1] - _BESIDE


def inferences(config: ModelConfig, asked: Asked, finish: Finish) -> Preprocessed | list[Preprocessed]:
    """The inferences for pictures and texts; ``collect`` hands ``finish`` what came of them.

    InvalidInputError names the picture that cannot be decoded, or the text that has no tokens, or too many.
    """
    encodings, truncated = _encoded(config, asked)
    keys = [tuple(each.ids) for each in encodings]
    memory = memory_of(config) if asked.pictures else Memory()  # what is embedded for its own sake comes but once
    known, pictures = memory.recall(keys), len(asked.pictures)
    new = {key: each for key, each in zip(keys, encodings, strict=True) if key not in known}

    def read(rows: NDArray[np.float32]) -> Any:
        found = dict(zip(new, rows[pictures:], strict=True))
        memory.keep(found)
        texts = np.array([(known | found)[key] for key in keys], np.float32).reshape(len(keys), rows.shape[1])
        scale, bias = rows[0, -_BESIDE:].tolist()
        vectors = rows[:pictures, :-_BESIDE], texts[:, :-_BESIDE]
        return finish(Vectors(*vectors, scale, bias, sum(map(len, keys)), truncated))

    gathered = Gathered(pictures + len(new), read)
    parts = [
        Preprocessed(_with_none(config, tensors), Part(gathered, rows))
        for rows, tensors in _tensors(config, asked.pictures, list(new.values()))
    ]
    return parts[0] if len(parts) == 1 else parts


def collect(outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
    """Take the outputs of an inference, one of which has no rows; the answer if it is the only one, or the last."""
    return gather({name: rows for name, rows in outputs.items() if len(rows)}, context)


def _encoded(config: ModelConfig, asked: Asked) -> tuple[list[Encoding], list[int]]:
    """The tokens of the texts, and which of them lost their end."""
    check_not_empty(asked.texts)
    return encode_texts(text_of(config), asked.texts, truncate=asked.truncate) if asked.texts else ([], [])


def _tensors(
    config: ModelConfig, pictures: Sequence[Picture], texts: Sequence[Encoding]
) -> Iterator[tuple[Sequence[int], dict[str, NDArray[Any]]]]:
    """Which of the pictures and, counted on, of the texts stand in the rows of an inference, and its tensors."""
    plan, most = plan_for(config), config.batching.max_batch_size or 1
    for begin in range(0, len(pictures), most):
        pixels = [render(plan, each) for each in pictures[begin : begin + most]]  # (1, height, width, channels) each
        yield range(begin, begin + len(pixels)), {PIXELS: np.concatenate(pixels) if len(pixels) > 1 else pixels[0]}
    for places, tensors in batches(text_of(config), texts) if texts else ():
        yield [len(pictures) + each for each in places], tensors


def _with_none(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors, and no rows for the inputs that are not among them."""
    return {spec.name: tensors[spec.name] if spec.name in tensors else _none(spec) for spec in config.inputs}


def _none(spec: TensorSpec) -> NDArray[Any]:
    """No rows, the other dimensions being as the model wants them, or the least."""
    return np.empty((0, *(1 if size == DYNAMIC else size for size in spec.shape[1:])), spec.data_type.numpy)
