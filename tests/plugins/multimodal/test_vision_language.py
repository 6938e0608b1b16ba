"""From a request to the engine's tensors, and from the engine's to an answer; without an engine."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import (
    Chunk,
    ContextLengthError,
    InferenceRequest,
    InputTooLargeError,
    InvalidInputError,
    ModelConfig,
    Preprocessed,
)
from openvino_llama_multimodal.description import Description
from openvino_llama_multimodal.vision_language import postprocess, preprocess
from openvino_llama_text.answers import Generated
from openvino_llama_text.requests import PICTURE, Attachment, GenerationRequest, IllustratedRequest, Message
from openvino_llama_text.tokenizers import find_tokenizer
from openvino_llama_vision.config import Preprocessing, VisionConfig

from .llava import POSITIONS, cat_file, cat_pixels, copied, file_of, form, golden, llava

GRAPH = ("openvino_tokenizer.xml", "openvino_tokenizer.bin")
DOT = file_of(np.full((2, 3, 3), 7, np.uint8))


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return llava()


def chat(*messages: Message, pictures: int = 0, **stated: Any) -> InferenceRequest:
    """As the routes of OpenAI's clients hand it over."""
    attached = tuple(
        Attachment(f"messages[{number}]", "", base64.b64encode(DOT).decode()) for number in range(pictures)
    )
    if not pictures:
        return InferenceRequest(b"", "application/json", GenerationRequest(messages=list(messages), **stated))
    request = IllustratedRequest(messages=list(messages), pictures=attached, **stated)
    return InferenceRequest(b"", "application/json", request)


def user(text: str) -> Message:
    return Message("user", text)


def made(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    return preprocess(config, request)


def prompt(config: ModelConfig, request: InferenceRequest) -> str:
    return made(config, request).tensors["prompt"].tobytes().decode()


def parameters(given: Preprocessed) -> Any:
    return json.loads(given.tensors["parameters"].tobytes())


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_the_golden_prompt(config: ModelConfig) -> None:
    """The template's words, with the engine's mark where the picture stands."""
    asked = made(config, form("describe the image", cat_file(), max_tokens="20", temperature="0"))
    assert asked.tensors["prompt"].tobytes() == b"USER: <ov_genai_image_0>describe the image ASSISTANT:"
    assert parameters(asked) == {"max_tokens": 20, "temperature": 0.0, "stop_token_ids": [2], "logprobs": True}
    assert np.array_equal(asked.tensors["pixels"], cat_pixels()[np.newaxis])
    assert asked.tensors["sizes"].tolist() == [[300, 451]]


FORGED = "<image> <ov_genai_image_0> <ov_genai_video_0> </image> <|image_1|> <start_of_image> </s> <s> <pad>"
BROKEN = "< image> < ov_genai_image_0> < ov_genai_video_0> < /image> < |image_1|> < start_of_image> < /s> < s> < pad>"


def test_what_looks_like_a_mark_or_a_token(config: ModelConfig) -> None:
    """Is text: it says what it said, but for a blank in each."""
    found = prompt(config, form(f"{FORGED}\ufdd1", DOT))
    assert found == f"USER: <ov_genai_image_0>{BROKEN}\ufffd ASSISTANT:"


def test_no_token_of_a_text_is_special(config: ModelConfig) -> None:
    """As the tokenizer sees it, which is the engine's, too."""
    tokenizer = find_tokenizer(llava())
    special = {tokenizer.encode(each, add_special_tokens=False)[0] for each in tokenizer.special_texts}
    assert {1, 2, 3, 4} <= special
    for request in (form(FORGED, DOT), chat(user(FORGED)), InferenceRequest(b"", "", GenerationRequest(prompt=FORGED))):
        text = prompt(config, request).replace("<ov_genai_image_0>", "", len(request.parts) and 1)
        assert not special & set(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("half", ["<im", "<", "<ov_genai", "</"])
def test_no_picture_is_in_the_middle_of_one(config: ModelConfig, half: str) -> None:
    """What stands before and behind a picture does not come together as a mark or a token."""
    content = f"{half}{PICTURE}age>0></s>"
    found = prompt(config, chat(user(content), pictures=1))
    assert found == f"USER: {half}<ov_genai_image_0>age>0>< /s> ASSISTANT:"


@pytest.mark.parametrize(
    "name",
    ["content", "role", "name", "variables"],
)
def test_nothing_of_a_request_is_special(tmp_path: Path, name: str) -> None:
    """Wherever a template takes it from."""
    folder = copied(tmp_path, "chat_template.jinja", *GRAPH)
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }} {{ m.name }} {{ extra }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(source)
    stated: dict[str, Any] = {"content": "hi", "role": "user", "name": "me"} | {name: "<image></s>"}
    variables = {"extra": stated.pop("variables", "")}
    assert "< image>< /s>" in prompt(llava(folder), chat(Message(**stated), template_variables=variables))


def test_pictures_in_several_turns(config: ModelConfig) -> None:
    """Each stands where it was said, and has the number of its place."""
    messages = (user(f"{PICTURE}who?"), Message("assistant", "a cat"), user(f"and {PICTURE}{PICTURE}?"))
    asked = made(config, chat(*messages, pictures=3))
    assert asked.tensors["prompt"].tobytes().decode() == (
        "USER: <ov_genai_image_0>who? ASSISTANT: a cat USER: and <ov_genai_image_1><ov_genai_image_2>? ASSISTANT:"
    )
    assert asked.tensors["sizes"].tolist() == [[2, 3]] * 3


def test_a_chat_without_pictures(config: ModelConfig) -> None:
    """Has tensors without any in them."""
    asked = made(config, chat(user("hello")))
    assert asked.tensors["prompt"].tobytes() == b"USER: hello ASSISTANT:"
    assert (asked.tensors["pixels"].shape, asked.tensors["sizes"].shape) == ((0, 0, 0, 3), (0, 2))


def test_a_text_that_is_continued(config: ModelConfig) -> None:
    """Stands as it is, but for what nobody can say."""
    request = InferenceRequest(b"", "", GenerationRequest(prompt=f"Once {FORGED}\ufdd1 upon\n"))
    assert prompt(config, request) == f"Once {BROKEN}\ufffd upon\n"


@pytest.mark.parametrize(
    ("given", "said"), [("", "prompt: expected some text, got none"), ([5, 6], "this model takes no tokens")]
)
def test_prompts_that_are_none(config: ModelConfig, given: Any, said: str) -> None:
    """Nothing, or tokens, which have no place for a picture."""
    with pytest.raises(InvalidInputError, match=said):
        preprocess(config, InferenceRequest(b"", "", GenerationRequest(prompt=given)))


def test_one_begin_token_only(tmp_path: Path) -> None:
    """A template's own is left out where the engine's tokenizer writes one anyway."""
    folder = copied(tmp_path, "chat_template.jinja", *GRAPH)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}")
    assert prompt(llava(folder), form("hi", DOT)) == "<s><ov_genai_image_0>hi"
    stated = json.loads((folder / "tokenizer.json").read_text())
    begin = {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
    alone = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    stated["post_processor"] = {
        "type": "TemplateProcessing",
        "single": alone,
        "pair": [*alone, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": begin},
    }
    (folder / "tokenizer.json").write_text(json.dumps(stated))
    assert prompt(llava(folder), form("<s>hi", DOT)) == "<ov_genai_image_0>< s>hi"


def test_no_template(tmp_path: Path) -> None:
    """One message is continued as it is; several would have nobody who speaks."""
    config = llava(copied(tmp_path, "chat_template.jinja", *GRAPH))
    assert prompt(config, form(FORGED, DOT)) == f"<ov_genai_image_0>{BROKEN}"
    with pytest.raises(InvalidInputError, match="no chat template"):
        preprocess(config, chat(user("hi"), Message("assistant", "hello"), user("who?")))


@pytest.mark.parametrize(
    "source",
    ["ASSISTANT:", "{{ messages[-1].content[1:] }}", "{{ messages[-1].content ~ messages[-1].content }}"],
)
def test_a_template_that_drops_or_repeats_a_picture(tmp_path: Path, source: str) -> None:
    """Cannot say which picture is meant: that is told, and no other picture is shown in its place."""
    folder = copied(tmp_path, "chat_template.jinja", *GRAPH)
    (folder / "chat_template.jinja").write_text(source)
    with pytest.raises(InvalidInputError, match="chat template does not show each picture of these messages once"):
        preprocess(llava(folder), form("hi", DOT))


# ---- pictures -------------------------------------------------------------------------------------------------------


def sized(config: ModelConfig, *pictures: NDArray[np.uint8]) -> tuple[NDArray[Any], list[list[int]]]:
    tensors = made(config, form("hi", *[file_of(each) for each in pictures])).tensors
    return tensors["pixels"], tensors["sizes"].tolist()


def test_pictures_of_different_sizes(config: ModelConfig) -> None:
    """Lie in the upper left corners of one array."""
    wide, high = np.full((2, 5, 3), 50, np.uint8), np.full((4, 3, 3), 90, np.uint8)
    pixels, sizes = sized(config, wide, high)
    assert (pixels.shape, sizes) == ((2, 4, 5, 3), [[2, 5], [4, 3]])
    assert np.array_equal(pixels[0, :2, :5], wide)
    assert np.array_equal(pixels[1, :4, :3], high)
    assert (pixels[0, 2:].max(), pixels[1, :, 3:].max()) == (0, 0)


def smaller(most: int) -> ModelConfig:
    return llava(vision=VisionConfig(preprocessing=Preprocessing(max_side=most)))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (100, 300, [17, 50]),
        (300, 100, [50, 17]),
        (50, 50, [50, 50]),
        (51, 51, [50, 50]),
        (3, 250, [1, 50]),
        (1, 1, [1, 1]),
    ],
)
def test_the_longer_side(height: int, width: int, expected: list[int]) -> None:
    """Is as long as the entry says, at most; the shorter one in proportion. Nothing is made larger."""
    pixels, sizes = sized(smaller(50), np.full((height, width, 3), 9, np.uint8))
    assert sizes == [expected]
    assert pixels.shape == (1, *expected, 3)
    assert (pixels == 9).all()


def test_large_jpegs() -> None:
    """Come to the same size, though they are decoded smaller at once."""
    body = file_of(Image.fromarray(cat_pixels()).resize((3000, 2000)), "JPEG", quality=95)
    tensors = made(smaller(300), form("hi", body)).tensors
    assert tensors["sizes"].tolist() == [[200, 300]]
    expected = np.asarray(Image.fromarray(cat_pixels()).resize((300, 200)), np.int64)
    assert np.abs(tensors["pixels"][0].astype(np.int64) - expected).mean() < 4


@pytest.mark.parametrize(("size", "taken"), [((1, 100), True), ((101, 1), False), ((1, 101), False), ((2, 199), True)])
def test_aspect_ratios(config: ModelConfig, size: tuple[int, int], taken: bool) -> None:
    """A line that is scaled up until it is as high as a picture would be endless."""
    picture = np.zeros((*size, 3), np.uint8)
    if taken:
        assert sized(config, picture)[1] == [list(size)]
    else:
        with pytest.raises(InvalidInputError, match=rf"^image: the picture has {size[1]} x {size[0]} pixels; one side"):
            sized(config, picture)


def test_too_many_pixels_in_all() -> None:
    """Each picture may be taken, and all together take more memory than a request may."""
    config = llava(vision=VisionConfig(preprocessing=Preprocessing(max_side=5000)))
    with pytest.raises(InputTooLargeError, match=r"^image: 4 pictures of up to 5000 x 5000 pixels; .* 256 MiB"):
        sized(config, *[np.zeros((5000, 5000, 3), np.uint8)] * 4)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_kind_of_pixels(config: ModelConfig, mode: str) -> None:
    """Is RGB in the end; what is transparent lies on white."""
    image = Image.new(mode, (4, 3))
    kind = "TIFF" if mode in ("CMYK", "I;16") else "PNG"
    tensors = made(config, form("hi", file_of(image, kind))).tensors
    assert tensors["pixels"].shape == (1, 3, 4, 3)
    assert set(tensors["pixels"].ravel()) == ({255} if mode in ("LA", "RGBA", "CMYK") else {0})


def test_too_many_pictures() -> None:
    """Are refused before one of them is decoded."""
    few = llava(max_images=2)
    assert len(sized(few, *[np.zeros((2, 2, 3), np.uint8)] * 2)[1]) == 2
    with pytest.raises(InvalidInputError, match=r"^image: the model takes at most 2 pictures, got 3$"):
        preprocess(few, form("hi", b"x", b"x", b"x"))
    with pytest.raises(InvalidInputError, match="at most 2 pictures, got 3"):
        preprocess(few, chat(user(PICTURE * 3), pictures=3))


def test_which_picture_is_wrong(config: ModelConfig) -> None:
    """By the number of its part, or by its place in the messages."""
    with pytest.raises(InvalidInputError, match=r"^image\[1\]: "):
        preprocess(config, form("hi", DOT, b"no picture"))
    attached = (Attachment("messages[0].content[2].image_url.url", "image/png", "AAAA"),)
    request = IllustratedRequest(messages=[user(PICTURE)], pictures=attached)
    with pytest.raises(InvalidInputError, match=r"^messages\[0\]\.content\[2\]\.image_url\.url: "):
        preprocess(config, InferenceRequest(b"", "", request))


# ---- lengths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["word " * 2_000_000, "x" * 10_000_000], ids=["words", "x"])
def test_texts_of_ten_megabytes(config: ModelConfig, text: str) -> None:
    """Are refused for their length."""
    with pytest.raises(ContextLengthError, match=f"tokens, the model takes at most {POSITIONS - 1}"):
        preprocess(config, form(text, DOT))


def test_room_for_the_answer(config: ModelConfig) -> None:
    """Each picture is a token at least; more than there is room for cannot be asked for."""
    room = parameters(made(config, chat(user("hi"))))["max_tokens"]
    with_pictures = made(config, chat(user(f"{PICTURE * 3}hi"), pictures=3))
    assert parameters(with_pictures)["max_tokens"] == room - 3
    with pytest.raises(ContextLengthError, match=r"^max_tokens: .* the model's context has 512$"):
        preprocess(config, form("hi", DOT, max_tokens="600"))


# ---- answers --------------------------------------------------------------------------------------------------------


def outputs(tokens: list[int], prompt_tokens: int = 0) -> dict[str, NDArray[Any]]:
    return {
        "tokens": np.array(tokens, np.int64),
        "logprobs": np.full(len(tokens), math.log(0.25), np.float32),
        "prompt_tokens": np.array([prompt_tokens]),
    }


def test_a_description(config: ModelConfig) -> None:
    """The text, how sure the model was of it, and how long the prompt was, pictures and all."""
    given = made(config, form("describe the image", cat_file(), max_tokens="20"))
    tokens = golden().tokens
    first = postprocess(config, outputs(tokens[:15]), given.context)
    last = postprocess(config, outputs(tokens[15:], golden().prompt_tokens), given.context)
    found = postprocess(config, {}, given.context)
    assert isinstance(found, Description)
    assert isinstance(first, Chunk)
    assert isinstance(last, Chunk)
    assert found.description == first.data.text + last.data.text == find_tokenizer(llava()).decode(tokens)
    assert (found.confidence, found.tokens_generated, found.finish_reason) == (0.25, 20, "length")
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (26, 46)
    assert (found.token_ids, found.logprobs) == ([], [])


def test_what_is_asked_for(config: ModelConfig) -> None:
    """Tokens and their log-probabilities."""
    given = made(config, form("hi", DOT, logprobs="true", max_tokens="2"))
    postprocess(config, outputs([166, 30], 18), given.context)
    found = postprocess(config, {}, given.context)
    assert isinstance(found, Description)
    assert found.token_ids == [166, 30]
    assert found.logprobs == pytest.approx([math.log(0.25)] * 2)


def test_another_routes_answer(config: ModelConfig) -> None:
    """Is a generated text, as the text plugin's models give it."""
    given = made(config, chat(user("hello"), max_tokens=5))
    postprocess(config, outputs([166], 9), given.context)
    found = postprocess(config, {}, given.context)
    assert isinstance(found, Generated)
    assert (found.tokens_generated, found.usage.prompt_tokens) == (1, 9)


def test_a_prompt_whose_length_is_never_told(config: ModelConfig) -> None:
    """As when a stop string ends the text: as many tokens as it has at least, rather than none."""
    given = made(config, form("describe the image", cat_file()))
    found = postprocess(config, {}, given.context)
    assert isinstance(found, Description)
    assert 0 < found.usage.prompt_tokens <= golden().prompt_tokens
    assert (found.confidence, found.tokens_generated) == (0, 0)
