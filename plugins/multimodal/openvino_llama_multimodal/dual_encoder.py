"""Late fusion: a picture and texts go through an encoder each, and their vectors are compared (CLIP, SigLIP).

A request asks which of some texts fits a picture best, or for the vectors themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, InferenceRequest, InvalidInputError, ModelConfig, Preprocessed
from openvino_llama_multimodal.dual_vectors import Asked, Vectors, collect, inferences, plan_for, text_of
from openvino_llama_multimodal.questions import Picture, Question, read_question
from openvino_llama_text.embedding import EmbeddingRequest, Embeddings, normalized
from openvino_llama_text.files import facts_of
from openvino_llama_text.texts import MOST_TEXTS, max_length_of, named
from openvino_llama_text.tokenizers import find_tokenizer

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["Items", "Match", "MatchOptions", "Score", "postprocess", "prepare", "preprocess", "validate"]

Inferences = Preprocessed | list[Preprocessed]

_DECIMALS = 6


class MatchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may state beside its picture and its texts, in the query or as fields of the form."""

    embeddings: bool = False
    """Whether the vectors of the picture and of the texts are wanted too."""
    truncate: bool = True
    """Whether a text that is too long loses its end; else it is an error."""


class Score(msgspec.Struct, frozen=True):
    """How well a text fits the picture."""

    text: str
    confidence: float
    """0..1"""


class MatchEmbeddings(msgspec.Struct, frozen=True):
    """Vectors of length 1, in one space."""

    image: list[float]
    texts: list[list[float]]
    """One for each text, in the request's order."""


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """``results`` of a request with a picture and texts."""

    description: str
    """The text that fits best."""
    confidence: float
    """How well; the first of ``scores``."""
    scores: list[Score]
    """All texts, the best first; of equal ones, that which came first."""
    truncated: list[int] = []
    """Which texts lost their end, by their place in the request."""
    embeddings: MatchEmbeddings | None = None


class Items(msgspec.Struct, frozen=True):
    """A request for vectors that another route has read; the answer to it is the text plugin's ``Embeddings``."""

    inputs: Mapping[str, str | Picture]
    """By their places in the request: ``input[0]``. At least one."""
    dimensions: int | None = None
    """How many of the vectors' numbers are wanted: the first ones."""
    truncate: bool = True
    """Whether a text that is too long loses its end; else it is an error."""


def prepare(config: ModelConfig, model: ov.Model) -> ov.Model:
    """Fuse the conversion of pixels, and have the graph answer with vectors; ConfigError if it does not fit."""
    from openvino_llama_multimodal.dual_graph import prepare as prepare_graph

    return prepare_graph(config, model)


def validate(config: ModelConfig) -> None:
    """Raise ConfigError if the model has no tokenizer, or no room for a text."""
    text = text_of(config)
    special = find_tokenizer(text).template.size(pair=False)
    if max_length_of(text) <= special:
        raise ConfigError(
            f"model {config.name!r}: it takes at most {max_length_of(text)} tokens, and {special} of them are special"
        )
    plan_for(config)


def preprocess(config: ModelConfig, request: InferenceRequest) -> Inferences:
    """The inferences for a picture and texts, or for what vectors are wanted of."""
    asked = request.parameters
    if isinstance(asked, EmbeddingRequest):
        asked = Items(named("input", asked.input), asked.dimensions, asked.truncate)
    if isinstance(asked, Items):
        return _embed(config, asked)
    return _match(config, read_question(request), asked)


def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:  # noqa: ARG001
    """Put together what came of the inferences."""
    return collect(outputs, context)


def _match(config: ModelConfig, question: Question, parameters: msgspec.Struct | None) -> Inferences:
    options = _options(question, parameters)
    if len(question.pictures) != 1:
        raise InvalidInputError(f"image: expected one picture, got {len(question.pictures) or 'none'}")
    if not 1 <= len(question.texts) <= MOST_TEXTS:
        raise InvalidInputError(
            f"text: expected 1 to {MOST_TEXTS} texts to choose from, got {len(question.texts) or 'none'}"
        )
    texts = question.texts
    probabilities = _sigmoid if _scores_pairs(config) else _softmax

    def finish(found: Vectors) -> Match:
        confidences = probabilities(found.logits[0].astype(np.float64)).round(_DECIMALS).tolist()
        order = sorted(range(len(texts)), key=confidences.__getitem__, reverse=True)
        scores = [Score(texts[each], confidences[each]) for each in order]
        embeddings = _listed(found) if options.embeddings else None
        return Match(scores[0].text, scores[0].confidence, scores, found.truncated, embeddings)

    places = named("text", texts if len(texts) > 1 else texts[0])
    return inferences(config, Asked(question.pictures, places, options.truncate), finish)


def _options(question: Question, parameters: msgspec.Struct | None) -> MatchOptions:
    """What the form states, and over it what the query states."""
    stated = msgspec.to_builtins(parameters) if parameters is not None else {}
    try:
        return msgspec.convert(question.fields | stated, MatchOptions, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the body: {error}") from error


def _scores_pairs(config: ModelConfig) -> bool:
    """Whether a text's score does not depend on the other texts: SigLIP was trained to say yes or no to each."""
    return (facts_of(text_of(config)).model_type or "").startswith("siglip")


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))  # overflows nowhere


def _listed(found: Vectors) -> MatchEmbeddings:
    image, *texts = Embeddings(np.concatenate([found.pictures, found.texts]), found.tokens).result().embeddings
    return MatchEmbeddings(image, texts)


def _embed(config: ModelConfig, items: Items) -> Inferences:
    has = config.outputs[0].shape[1] - 2  # without scale and bias
    if items.dimensions is not None and not 1 <= items.dimensions <= has:
        raise InvalidInputError(f"dimensions: the model's vectors have {has}, not {items.dimensions}")
    inputs = list(items.inputs.values())
    pictures = [place for place, each in enumerate(inputs) if isinstance(each, Picture)]
    texts = [place for place, each in enumerate(inputs) if isinstance(each, str)]
    order = np.argsort([*pictures, *texts])

    def finish(found: Vectors) -> Embeddings:
        vectors = np.concatenate([found.pictures, found.texts])[order]
        if items.dimensions is not None and items.dimensions < has:
            vectors = normalized(vectors[:, : items.dimensions])
        return Embeddings(vectors, found.tokens, [texts[each] for each in found.truncated])

    asked = Asked(
        [each for each in inputs if isinstance(each, Picture)],
        {place: each for place, each in items.inputs.items() if isinstance(each, str)},
        items.truncate,
    )
    return inferences(config, asked, finish)
