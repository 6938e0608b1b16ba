"""Bodies: what clients of OpenAI's API state, in the words of a GenerationRequest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletionMessage

from openvino_llama import InvalidInputError
from openvino_llama_text.openai.bodies import ChatBody, CompletionBody
from openvino_llama_text.requests import GenerationRequest, Message

USER = {"role": "user", "content": "a"}


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
