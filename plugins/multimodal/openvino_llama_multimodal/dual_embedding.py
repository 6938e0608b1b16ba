"""Embedding by a dual encoder: pictures and texts in, vectors of one space out."""

from __future__ import annotations

import numpy as np

from openvino_llama import InvalidInputError, ModelConfig, Preprocessed
from openvino_llama_multimodal.dual_vectors import Asked, Vectors, dimensions_of, inferences
from openvino_llama_multimodal.questions import Picture
from openvino_llama_text.embedding import EmbeddingRequest, Embeddings, IllustratedEmbeddingRequest, normalized
from openvino_llama_text.texts import named

__all__ = ["preprocess"]

Request = EmbeddingRequest | IllustratedEmbeddingRequest


def preprocess(config: ModelConfig, asked: Request) -> Preprocessed | list[Preprocessed]:
    """The inferences for what another route has read; the answer is the text plugin's ``Embeddings``."""
    has = dimensions_of(config)
    wanted = has if asked.dimensions is None else asked.dimensions
    if not 1 <= wanted <= has:
        raise InvalidInputError(f"dimensions: the model's vectors have {has}, not {wanted}")
    inputs = _inputs(asked)
    pictures = [index for index, each in enumerate(inputs.values()) if isinstance(each, Picture)]
    texts = [index for index, each in enumerate(inputs.values()) if isinstance(each, str)]
    order = np.argsort([*pictures, *texts])

    def finish(found: Vectors) -> Embeddings:
        vectors = np.concatenate([found.pictures, found.texts])[order]
        cut = normalized(vectors[:, :wanted]) if wanted < has else vectors
        return Embeddings(cut, found.tokens, [texts[each] for each in found.truncated])

    return inferences(config, _sorted(inputs, truncate=asked.truncate), finish)


def _inputs(asked: Request) -> dict[str, str | Picture]:
    """Texts and pictures by their places in the request."""
    if isinstance(asked, EmbeddingRequest):
        return {**named("input", asked.input)}
    return {
        f"input[{index}]": each if isinstance(each, str) else Picture(each.name, each.media_type, each.body())
        for index, each in enumerate(asked.input)
    }


def _sorted(inputs: dict[str, str | Picture], *, truncate: bool) -> Asked:
    pictures = [each for each in inputs.values() if isinstance(each, Picture)]
    return Asked(pictures, {place: each for place, each in inputs.items() if isinstance(each, str)}, truncate)
