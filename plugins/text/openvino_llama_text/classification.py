"""Text classification: texts in, named classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import DYNAMIC, ConfigError, InferenceRequest, ModelConfig, Preprocessed, per_model
from openvino_llama_text.buckets import split
from openvino_llama_text.files import facts_of
from openvino_llama_text.requests import read_request
from openvino_llama_text.texts import Input, check_not_empty, encode_texts, named

__all__ = ["Classification", "ClassificationRequest", "labels_of", "preprocess", "validate"]

_TOP_K = 5


class ClassificationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /infer/text`` for a model that classifies."""

    input: Input
    """A text, or several."""
    top_k: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] = _TOP_K
    """How many classes at most."""
    truncate: bool = True
    """Whether a text that is too long loses its end; else it is an error."""


class Classification(msgspec.Struct, frozen=True):
    """One class that the text may be of."""

    label: str
    confidence: float
    """0..1"""
    class_id: int


@per_model
def labels_of(config: ModelConfig) -> Sequence[str]:
    """Names by class id: the registry's, else those of ``config.json``, else numbers.

    ConfigError if they are not as many as the model has classes.
    """
    shape = config.output_specs()[0].shape
    classes = shape[-1]
    stated: tuple[str, ...] = config.config.labels
    names = stated or facts_of(config).labels
    if len(shape) != 2 or classes == DYNAMIC:
        raise ConfigError(f"model {config.name!r}: expected an output (texts, classes), got {list(shape)}")
    if names and len(names) != classes:
        source = "field 'config.labels'" if stated else "file config.json, field 'id2label'"
        raise ConfigError(f"model {config.name!r}, {source}: {len(names)} labels for {classes} classes")
    return names or [str(each) for each in range(classes)]


def validate(config: ModelConfig) -> None:
    """Raise ConfigError if the model's classes cannot be named."""
    labels_of(config)


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
    """The inferences for a request's texts. The answer to one is a list of classes; to a list, a list of those."""
    asked = read_request(request, ClassificationRequest)
    texts = named("input", asked.input)
    check_not_empty(texts)
    encodings, _ = encode_texts(config, texts, truncate=asked.truncate)
    labels = labels_of(config)

    def finish(scores: NDArray[np.float32]) -> Any:
        found = [_best(labels, row, asked.top_k) for row in scores]
        return found[0] if isinstance(asked.input, str) else found

    return split(config, encodings, finish)


def _best(labels: Sequence[str], scores: NDArray[np.float32], count: int) -> list[Classification]:
    """The best classes, best first; of equal ones, the lower id."""
    best = np.argsort(-scores, kind="stable")[:count].tolist()
    return [Classification(labels[each], round(float(scores[each]), 6), each) for each in best]
