"""Bodies: what clients of OpenAI's API state, in the words of a GenerationRequest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletionMessage

from openvino_llama import InvalidInputError, read_fields
from openvino_llama_text.embedding import EmbeddingRequest, IllustratedEmbeddingRequest
from openvino_llama_text.openai.bodies import ChatBody, CompletionBody, EmbeddingBody
from openvino_llama_text.requests import PICTURE, Attachment, GenerationRequest, IllustratedRequest, Message

USER = {"role": "user", "content": "a"}
URI = "data:image/png;base64,AAEC"
IMAGE = {"type": "image_url", "image_url": {"url": URI}}


def chat(**stated: Any) -> GenerationRequest:
    return msgspec.convert({"messages": [USER]} | stated, ChatBody).asked()


def completion(**stated: Any) -> list[GenerationRequest]:
    return msgspec.convert({"prompt": "a"} | stated, CompletionBody).asked()


def test_what_is_stated_arrives() -> None:
    """Under its own name, and nothing else with it."""
    stated: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["x"],
        "seed": 1,
        "presence_penalty": 0.0,
        "ignore_eos": False,
    }
    assert chat(**stated) == GenerationRequest(messages=[Message("user", "a")], **stated)
    assert completion(**stated) == [GenerationRequest(prompt="a", max_tokens=16, **stated)]


def test_the_newer_name_of_max_tokens() -> None:
    """Comes before the older one."""
    assert chat(max_tokens=5, max_completion_tokens=7).max_tokens == 7
    assert chat(max_tokens=5).max_tokens == 5
    assert chat().max_tokens is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "developer", "content": "a"}, Message("system", "a")),
        ({"role": "assistant", "content": None, "refusal": None}, Message("assistant", "")),
        ({"role": "assistant"}, Message("assistant", "")),
        (ChatCompletionMessage(role="assistant", content="a").model_dump(), Message("assistant", "a")),
        ({"role": "assistant", "content": "a", "tool_calls": [], "annotations": []}, Message("assistant", "a")),
        ({"role": "user", "content": [], "name": "me"}, Message("user", "", "me")),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Message("user", "ab"),
        ),
    ],
)
def test_messages(message: dict[str, Any], expected: Message) -> None:
    """Developers are the system, parts are put together, nothing is an empty text; answers may be sent back."""
    assert chat(messages=[message]).messages == [expected]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user"}, r"^messages\[1\]\.content: expected a text or parts, got none$"),
        ({"role": "system", "content": None}, r"^messages\[1\]\.content: expected"),
        ({"role": "tool"}, r"^messages\[1\]\.content: expected"),
        ({"role": "assistant", "tool_calls": [{}]}, r"^messages\[1\]\.tool_calls: calling tools is not supported$"),
    ],
)
def test_messages_that_say_nothing(message: dict[str, Any], said: str) -> None:
    """Are refused by their place; only answers may be empty."""
    with pytest.raises(InvalidInputError, match=said):
        chat(messages=[USER, message])


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
def test_roles(role: str) -> None:
    """OpenAI's, and no others."""
    assert chat(messages=[{"role": role, "content": "a"}])
    for wrong in (f"{role}s", role.upper(), "bot", ""):
        with pytest.raises(InvalidInputError, match=r"^field 'messages\[0\]\.role': expected .*'developer'.*, got '"):
            read_fields({"messages": [{"role": wrong, "content": "a"}]}, ChatBody)


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "array"}}},
            {"type": "array"},
        ),
    ],
)
def test_response_formats(form: dict[str, Any], schema: Any) -> None:
    """Become schemas."""
    assert chat(response_format=form).json_schema == schema


@pytest.mark.parametrize("form", [{"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}])
def test_other_response_formats(form: dict[str, Any]) -> None:
    """Are refused by name."""
    with pytest.raises(InvalidInputError, match=r"^response_format: "):
        chat(response_format=form)


@pytest.mark.parametrize(
    ("prompt", "expected"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])]
)
def test_prompts(prompt: Any, expected: list[Any]) -> None:
    """One or several, as texts or as tokens."""
    assert [each.prompt for each in completion(prompt=prompt)] == expected


@pytest.mark.parametrize("stated", [{"prompt": []}, {"prompt": ["a"] * 17}, {"prompt": ["a"] * 5, "n": 4}])
def test_too_many_texts(stated: dict[str, Any]) -> None:
    """Sixteen at most for one request."""
    with pytest.raises(InvalidInputError, match=r"^(prompt|n): expected"):
        completion(**stated)


def test_options_of_streams_are_for_streams() -> None:
    """As OpenAI's."""
    assert chat(stream=True, stream_options={"include_usage": True})
    with pytest.raises(InvalidInputError, match=r"^stream_options: "):
        chat(stream_options={"include_usage": True})


def test_pictures_in_several_messages() -> None:
    """Each has a mark where it stood, and all of them come in their order, with everything else that was stated."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "this: "}, IMAGE]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": [IMAGE, IMAGE, {"type": "text", "text": "and these?"}]},
    ]
    asked = chat(messages=messages, max_tokens=5, logprobs=True, chat_template_kwargs={"x": 1})
    assert isinstance(asked, IllustratedRequest)
    assert [message.content for message in asked.messages or []] == [
        f"this: {PICTURE}",
        "a cat",
        f"{PICTURE}{PICTURE}and these?",
    ]
    places = ("messages[0].content[1]", "messages[2].content[0]", "messages[2].content[1]")
    assert asked.pictures == tuple(Attachment(f"{place}.image_url.url", "image/png", "AAEC") for place in places)
    assert (asked.max_tokens, asked.logprobs, asked.template_variables) == (5, True, {"x": 1})


def test_without_pictures_it_is_a_request_for_texts() -> None:
    """Which models that take none answer, too."""
    assert type(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}])) is GenerationRequest


def test_marks_of_clients_are_no_pictures() -> None:
    """Whether as a text or as a part."""
    for content in (PICTURE, [{"type": "text", "text": PICTURE}]):
        asked = chat(messages=[{"role": "user", "content": content}])
        assert type(asked) is GenerationRequest
        assert [message.content for message in asked.messages or []] == ["\ufffd"]


def embedding(given: Any, **stated: Any) -> EmbeddingRequest | IllustratedEmbeddingRequest:
    return msgspec.convert({"input": given} | stated, EmbeddingBody).asked()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("a", "a"),
        (["a", "b"], ["a", "b"]),
        ([{"text": "a"}, "b"], ["a", "b"]),
    ],
)
def test_texts_to_embed(given: Any, asked: Any) -> None:
    """Are a request for texts, which models of texts answer."""
    assert embedding(given, dimensions=3) == EmbeddingRequest(asked, 3)


def test_pictures_to_embed() -> None:
    """Beside texts, in their order."""
    picture = Attachment("input[1].image", "image/png", "AAEC")
    found = embedding(["a", {"image": URI}, {"text": "b"}], truncate=False)
    assert found == IllustratedEmbeddingRequest(("a", picture, "b"), None, truncate=False)


@pytest.mark.parametrize("item", ["a", {"image": URI}])
@pytest.mark.parametrize("stated", [{"dimensions": 0}, {"dimensions": -1}, {"dimensions": 1 << 40}])
def test_wrong_dimensions(item: Any, stated: dict[str, Any]) -> None:
    """Are refused by name, with pictures and without."""
    with pytest.raises(InvalidInputError, match=r"^field 'dimensions': "):
        embedding([item], **stated)


@pytest.mark.parametrize("items", [[], ["a"] * 2049, [{"image": URI}] * 2049], ids=["none", "texts", "pictures"])
def test_wrong_numbers_of_items(items: list[Any]) -> None:
    """At least one, and no more than a request may have."""
    with pytest.raises(InvalidInputError, match=r"^field 'input': "):
        embedding(items)
