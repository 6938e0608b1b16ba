"""What a model says of a picture, piece by piece and as ``POST /infer/multimodal`` answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from openvino_llama import Chunk, ModelConfig
from openvino_llama_text import generation
from openvino_llama_text.answers import Answer, Generated, Usage

__all__ = ["Context", "Description", "describe", "postprocess"]

_DECIMALS = 6


class Context(msgspec.Struct, frozen=True):
    """What postprocess needs to know of a request."""

    answer: Answer
    is_chat: bool
    """Whether another route has asked, which makes its own answer of the text."""


class Description(msgspec.Struct, frozen=True, omit_defaults=True):
    """``results`` of an answer."""

    description: str
    confidence: float
    """The geometric mean of the generated tokens' probabilities, 0 to 1: how sure the model was of its words, which is
    not how right they are."""
    tokens_generated: int
    finish_reason: str
    """``stop``: the model, a stop string or a stop token ended it; ``length``: it has as many tokens as it may."""
    usage: Usage
    """Of the prompt's tokens, most are the pictures'."""
    token_ids: list[int] = []
    logprobs: list[float] = []


def describe(answer: Answer) -> Description:
    """An answer that is complete, and for which all log-probabilities have been asked for."""
    text = answer.whole()
    return Description(
        description=text.generated_text,
        confidence=round(answer.confidence, _DECIMALS),
        tokens_generated=text.tokens_generated,
        finish_reason=text.finish_reason,
        usage=text.usage,
        token_ids=text.token_ids,
        logprobs=text.logprobs,
    )


def postprocess(
    config: ModelConfig,  # noqa: ARG001 - of all fusions
    outputs: Mapping[str, NDArray[Any]],
    context: Context,
) -> Chunk | Description | Generated:
    """A piece of the text for each output; all of it at the end."""
    answer = context.answer
    if not outputs:
        answer.end()
        return answer.whole() if context.is_chat else describe(answer)
    if "prompt_tokens" in outputs:  # of models that find out how many there are
        answer.prompt_tokens = int(outputs["prompt_tokens"][0]) or answer.prompt_tokens
    return generation.take_output(outputs, answer)
