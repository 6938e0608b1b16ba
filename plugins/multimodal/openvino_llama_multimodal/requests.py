"""What a client asks of a model that answers in words, from a multipart body or from another route."""

from __future__ import annotations

from typing import Any

import msgspec

from openvino_llama import InferenceRequest, InvalidInputError, read_fields
from openvino_llama_multimodal.questions import Picture, Question, read_question
from openvino_llama_text.requests import PICTURE, GenerationRequest, IllustratedRequest
from openvino_llama_text.sampling import Sampling
from openvino_llama_text.texts import check_not_empty

__all__ = ["MultimodalParameters", "one_text", "read_asked"]


class MultimodalParameters(Sampling, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What the query of ``POST /infer/multimodal`` may state in place of parts of the body."""

    logprobs: bool = False
    """Descriptions: whether the logarithm of each token's probability is wanted."""
    return_token_ids: bool = False
    """Descriptions: whether the ids of the tokens are wanted."""
    embeddings: bool = False
    """Dual encoders: whether the vectors are wanted, too."""
    truncate: bool = True
    """Dual encoders: whether a text that is too long loses its end; else it is an error."""


def read_asked(request: InferenceRequest, *, text: str | None = None) -> tuple[Question, GenerationRequest]:
    """The pictures, and a request whose messages have a PICTURE for each of them.

    ``text`` is what is asked if the client sends no text; None if it has to. InvalidInputError names what is wrong.
    """
    given = request.parameters
    if isinstance(given, GenerationRequest):
        attached = given.pictures if isinstance(given, IllustratedRequest) else ()
        return Question(tuple(Picture(each.name, each.media_type, each.body()) for each in attached), ()), given
    question = read_question(request)
    if not question.pictures:
        raise InvalidInputError("image: expected at least one part of this name, a file; got none")
    said = one_text(question) if question.texts or text is None else text
    if text is None:
        check_not_empty({"text": said})
    content = PICTURE * len(question.pictures) + said.replace(PICTURE, "\ufffd")
    return question, _read_fields(request, question, {"messages": [{"role": "user", "content": content}]})


def one_text(question: Question) -> str:
    """The text of a question that has to have one."""
    if len(question.texts) != 1:
        raise InvalidInputError(f"text: expected one part of this name, got {len(question.texts) or 'none'}")
    return question.texts[0]


def _read_fields(request: InferenceRequest, question: Question, more: dict[str, Any]) -> GenerationRequest:
    """The parameters of a body, and over them those of the query."""
    stated = msgspec.to_builtins(request.parameters) if request.parameters is not None else {}
    for name in more:
        if name in question.fields:
            raise InvalidInputError(f"{name}: there is no such parameter")
    return read_fields(question.fields | stated | more, GenerationRequest, strict=False)
