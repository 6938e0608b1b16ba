"""Cross-attention: a text decoder that attends to what an image encoder gives (ViT-GPT2, TrOCR, Donut).

From a request to the tensors of the encoder-decoder's graph, and from its tensors to an answer. Such a model takes one
picture. A text that comes with it is what the answer goes on from: it is no question, unless the model was trained for
one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama import InferenceRequest, InvalidInputError, ModelConfig, Preprocessed, per_model
from openvino_llama_multimodal.description import Context, postprocess
from openvino_llama_multimodal.encoder_decoder.facts import decoder_facts_of, text_of
from openvino_llama_multimodal.pictures import render
from openvino_llama_multimodal.processor import vision_of
from openvino_llama_multimodal.requests import read_asked
from openvino_llama_text import generation
from openvino_llama_text.answers import Answer
from openvino_llama_text.requests import PICTURE, GenerationRequest
from openvino_llama_text.tokenizers import find_tokenizer
from openvino_llama_vision.pixels import InputPlan, plan_of

__all__ = ["Context", "postprocess", "preprocess", "validate"]


def validate(config: ModelConfig) -> None:
    """Refuse a model whose tokenizer, processor, defaults or end of text is not known."""
    generation.validate(text_of(config))
    _plan(config)


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    """The tensors of a request: ``pixels`` (1, height, width, channels), ``input_ids`` (1, prompt), and
    ``parameters``, JSON as bytes.
    """
    question, asked = read_asked(request, text="")
    if len(question.pictures) != 1:
        raise InvalidInputError(f"image: the model takes one picture, got {len(question.pictures) or 'none'}")
    text = text_of(config)
    tokenizer = find_tokenizer(text)
    prompt = decoder_facts_of(config).prompt(_ids(text, asked))
    sampling = generation.complete(text, asked, len(prompt))
    tensors: dict[str, NDArray[Any]] = {
        "pixels": render(_plan(config), question.pictures[0]),
        "input_ids": np.array([prompt], np.int64),
        "parameters": np.frombuffer(generation.engine_parameters(sampling, logprobs=True), np.uint8),
    }
    return Preprocessed(tensors, Context(Answer(asked, sampling, tokenizer, prompt), asked is request.parameters))


@per_model
def _plan(config: ModelConfig) -> InputPlan:
    """How pictures come to the encoder's size."""
    return plan_of(vision_of(config), config.inputs[0])


def _ids(text: ModelConfig, asked: GenerationRequest) -> list[int]:
    """The tokens of what a client has written; none if that is nothing."""
    if isinstance(asked.prompt, list):
        return asked.prompt
    messages = asked.messages or ()
    if len(messages) > 1:
        raise InvalidInputError(f"messages: the model takes one, with a picture; got {len(messages)}")
    written = asked.prompt or "".join(message.content for message in messages)
    return generation.encode_prompt(text, written.replace(PICTURE, ""), add_special_tokens=False)
