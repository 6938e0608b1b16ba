"""Zero-shot classification by a dual encoder: a picture and texts in, how well each text fits out."""

from __future__ import annotations

import msgspec
import numpy as np

from openvino_llama import InferenceRequest, InvalidInputError, ModelConfig, Preprocessed, read_fields
from openvino_llama_multimodal.dual_vectors import Asked, Vectors, inferences, text_of
from openvino_llama_multimodal.probabilities import sigmoid, softmax
from openvino_llama_multimodal.questions import Question, read_question
from openvino_llama_text.embedding import Embeddings
from openvino_llama_text.files import facts_of
from openvino_llama_text.texts import MOST_TEXTS, named

__all__ = ["Match", "MatchEmbeddings", "MatchOptions", "Score", "preprocess"]

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
    """Vectors in one space, as the model gives them: of length 1."""

    image: list[float]
    texts: list[list[float]]
    """One for each text, in the request's order."""


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """``results`` of a request."""

    description: str
    """The text that fits best."""
    confidence: float
    """How well; that of the first of ``scores``."""
    scores: list[Score]
    """All texts, the best first; of equal ones, that which came first."""
    truncated: list[int] = []
    """Which texts lost their end, by their place in the request."""
    embeddings: MatchEmbeddings | None = None


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
    """The inferences for a request's picture and texts; the answer is a ``Match``."""
    question = read_question(request)
    options = _options(question, request.parameters)
    texts = _checked(question).texts
    probabilities = sigmoid if _scores_each_alone(config) else softmax

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
    return read_fields(question.fields | stated, MatchOptions, strict=False)


def _checked(question: Question) -> Question:
    """The question, if it has one picture and some texts."""
    if len(question.pictures) != 1:
        raise InvalidInputError(f"image: expected one part of this name, got {len(question.pictures) or 'none'}")
    if not 1 <= len(question.texts) <= MOST_TEXTS:
        raise InvalidInputError(
            f"text: expected 1 to {MOST_TEXTS} parts of this name to choose from, got {len(question.texts) or 'none'}"
        )
    return question


def _scores_each_alone(config: ModelConfig) -> bool:
    """Whether a text's score does not depend on the other texts: SigLIP was trained to say yes or no to each."""
    return (facts_of(text_of(config)).model_type or "").startswith("siglip")


def _listed(found: Vectors) -> MatchEmbeddings:
    image, *texts = Embeddings(np.concatenate([found.pictures, found.texts]), found.tokens).result().embeddings
    return MatchEmbeddings(image, texts)
