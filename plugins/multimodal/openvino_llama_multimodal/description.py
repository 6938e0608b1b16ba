"""What a model says of a picture, as ``POST /infer/multimodal`` answers it."""

from __future__ import annotations

import msgspec

from openvino_llama_text.answers import Answer, Usage

__all__ = ["Description", "describe"]

_DECIMALS = 6


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
