"""Early fusion: pictures among the tokens of a text (LLaVA, Qwen-VL, InternVL, MiniCPM-V, Phi vision, Gemma 3...).

From a request to the tensors of the engine's graph, and from its tensors to an answer. openvino-genai knows for each
architecture what becomes of a picture, and how it is written in a prompt; here is only where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import (
    InferenceRequest,
    InputTooLargeError,
    InvalidInputError,
    ModelConfig,
    Preprocessed,
    per_model,
)
from openvino_llama_multimodal.config import text_half
from openvino_llama_multimodal.description import Context, postprocess
from openvino_llama_multimodal.pictures import decode
from openvino_llama_multimodal.questions import Picture
from openvino_llama_multimodal.requests import read_asked
from openvino_llama_text import generation
from openvino_llama_text.answers import Answer
from openvino_llama_text.chat import ChatTemplate, read_chat_template
from openvino_llama_text.requests import PICTURE, GenerationRequest
from openvino_llama_text.tokenizers import BREAK, Tokenizer, find_tokenizer

__all__ = ["postprocess", "preprocess", "validate"]

_MARKS = ("<ov_genai_", "<image>", "</image>", "<|image_", "<start_of_image>")
"""Beginnings of what openvino-genai takes for a picture, for some architectures no special token of the tokenizer."""
_MOST_ASPECT = 100
"""Longer side to shorter one. What scales the shorter side up to its size would make the longer one endless."""
_MOST_BYTES = 256 << 20
"""Of all pictures of a request: they stand several times in memory on their way."""
_AS_IT_IS = "{{ messages[0].content }}"
"""The template of a text that is to be continued."""


def validate(config: ModelConfig) -> None:
    """Refuse a model whose tokenizer, template, defaults or end of text is not known."""
    generation.validate(text_half(config))
    _template_of(config)  # a model without one goes on from the text alone


def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    """The tensors of a request: ``prompt`` as UTF-8, ``pixels`` (pictures, height, width, 3) and their ``sizes``
    (pictures, 2) in them, and ``parameters``, JSON as bytes.
    """
    question, asked = read_asked(request)
    most: int = config.config.max_images
    if len(question.pictures) > most:
        takes = "one picture" if most == 1 else f"at most {most} pictures"
        raise InvalidInputError(f"image: the model takes {takes}, got {len(question.pictures)}")
    text = text_half(config)
    tokenizer = find_tokenizer(text)
    prompt, tokens = _prompt(config, asked, tokenizer, len(question.pictures))
    sampling = generation.complete(text, asked, tokens + len(question.pictures))
    pixels, sizes = _pixels(config, question.pictures)
    tensors: dict[str, NDArray[Any]] = {
        "prompt": np.frombuffer(prompt.encode(), np.uint8),
        "pixels": pixels,
        "sizes": sizes,
        "parameters": np.frombuffer(generation.engine_parameters(sampling, logprobs=True), np.uint8),
    }
    answer = Answer(asked, sampling, tokenizer, [])
    answer.prompt_tokens = tokens + len(question.pictures)  # at least; the engine tells how many there are
    return Preprocessed(tensors, Context(answer, asked is request.parameters))


def _prompt(config: ModelConfig, asked: GenerationRequest, tokenizer: Tokenizer, pictures: int) -> tuple[str, int]:
    """The text that the engine goes on from, and how many tokens it has, pictures apart."""
    rendered = _rendered(config, asked)
    if rendered.count(PICTURE) != pictures:
        raise InvalidInputError("the model's chat template does not show each picture of these messages once")
    ids = generation.encode_prompt(text_half(config), rendered.replace(PICTURE, ""), add_special_tokens=False)
    if not ids and not pictures:
        raise InvalidInputError("prompt: expected some text, got none")
    first, *others = _with_one_begin(rendered, tokenizer).replace(BREAK, " ").split(PICTURE)
    return first + "".join(f"<ov_genai_image_{index}>{each}" for index, each in enumerate(others)), len(ids)


def _rendered(config: ModelConfig, asked: GenerationRequest) -> str:
    """The text of a request, with PICTURE where one stands and BREAK in what only looks like a special token."""
    if asked.messages is None:
        if not isinstance(asked.prompt, str):
            raise InvalidInputError("prompt: expected a text; this model takes no tokens")
        return _plain_template_of(config).render([{"content": asked.prompt.replace(PICTURE, "\ufffd")}])
    template = _template_of(config)
    if isinstance(template, InvalidInputError):
        if len(asked.messages) > 1:
            raise InvalidInputError(str(template))
        template = _plain_template_of(config)
    messages = [msgspec.to_builtins(message) for message in asked.messages]
    return template.render(messages, **asked.template_variables)


@per_model
def _template_of(config: ModelConfig) -> ChatTemplate | InvalidInputError:
    """The model's template, or what is said of one that has none: what raises is not remembered."""
    try:
        return read_chat_template(text_half(config), _MARKS)
    except InvalidInputError as error:
        return InvalidInputError(str(error))


@per_model
def _plain_template_of(config: ModelConfig) -> ChatTemplate:
    """What leaves a text as it is, but for what clients cannot say."""
    return ChatTemplate(_AS_IT_IS, special_texts=(*find_tokenizer(text_half(config)).special_texts, *_MARKS))


def _with_one_begin(text: str, tokenizer: Tokenizer) -> str:
    """Without a begin token that the engine's tokenizer will put before the text anyway."""
    begins = [tokenizer.text_of(each) or "" for each in tokenizer.template.before]
    return text.removeprefix("".join(begins)) if begins else text


def _pixels(config: ModelConfig, pictures: Sequence[Picture]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pictures in one array, the smaller ones in its upper left corners, and their heights and widths."""
    most: int = config.config.vision.preprocessing.max_side
    arrays = [_shown(picture, most) for picture in pictures]
    sizes = np.array([array.shape[:2] for array in arrays], np.int64).reshape(-1, 2)
    if len(arrays) == 1:
        return arrays[0][np.newaxis], sizes
    height, width = sizes.max(axis=0, initial=0).tolist()
    if len(arrays) * height * width * 3 > _MOST_BYTES:
        raise InputTooLargeError(
            f"image: {len(arrays)} pictures of up to {width} x {height} pixels; "
            f"together they may have {_MOST_BYTES >> 20} MiB of pixels"
        )
    pixels = np.zeros((len(arrays), height, width, 3), np.uint8)
    for target, array in zip(pixels, arrays, strict=True):
        target[: array.shape[0], : array.shape[1]] = array
    return pixels, sizes


def _shown(picture: Picture, most: int) -> NDArray[np.uint8]:
    """One picture, (height, width, 3), its longer side at most so long."""
    image = decode(picture, (most, most)).convert("RGB")
    longer, shorter = max(image.size), min(image.size)
    if longer > shorter * _MOST_ASPECT:
        raise InvalidInputError(
            f"{picture.name}: the picture has {image.width} x {image.height} pixels; "
            f"one side may be {_MOST_ASPECT} times as long as the other"
        )
    if longer > most:
        width, height = (max(1, round(side * most / longer)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)
