"""How requests are read: JSON, forms, plain texts, and the query beside them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openvino_llama import InferenceRequest, InvalidInputError
from openvino_llama_text.embedding import EmbeddingRequest
from openvino_llama_text.requests import FORM, JSON, PLAIN, GenerationRequest, Message, TextParameters, read_request


def read(body: bytes | str, media_type: str = JSON, **query: str) -> GenerationRequest:
    content = body.encode() if isinstance(body, str) else body
    parameters = msgspec.convert(query, TextParameters, strict=False)
    return read_request(InferenceRequest(content, media_type, parameters), GenerationRequest)


def test_json() -> None:
    """A prompt as text or tokens, or a chat."""
    assert read('{"prompt": "a", "temperature": 0}') == GenerationRequest(prompt="a", temperature=0)
    assert read('{"prompt": [1, 2]}').prompt == [1, 2]
    assert read('{"messages": [{"role": "user", "content": "a"}]}').messages == [Message("user", "a")]


def test_forms() -> None:
    """Values are read as what their fields are; one that is given several times is a list."""
    found = read(
        "prompt=a+b%0A&max_tokens=5&temperature=0.5&echo=true&stop=x&stop=y&stop_token_ids=1&stop_token_ids=2", FORM
    )
    assert found == GenerationRequest(
        prompt="a b\n", max_tokens=5, temperature=0.5, echo=True, stop=["x", "y"], stop_token_ids=[1, 2]
    )
    assert read("prompt=5&stop=x", FORM) == GenerationRequest(prompt="5", stop="x")


def test_plain_texts() -> None:
    """The text is the prompt, as it is; for an encoder it is the input."""
    assert read(' {"prompt": 1}\n', PLAIN) == GenerationRequest(prompt=' {"prompt": 1}\n')
    assert read_request(InferenceRequest(b"a", PLAIN), EmbeddingRequest).input == "a"


@pytest.mark.parametrize(
    ("body", "kind"), [('{"prompt": "a", "top_k": 1}', JSON), ("prompt=a&top_k=1", FORM), ("a", PLAIN)]
)
def test_the_query_comes_before_the_body(body: str, kind: str) -> None:
    """Whatever the body is."""
    query = {"top_k": "3", "temperature": "0", "logprobs": "true", "return_token_ids": "true", "echo": "true"}
    expected = GenerationRequest(prompt="a", top_k=3, temperature=0, logprobs=True, return_token_ids=True, echo=True)
    assert read(body, kind, **query) == expected


def test_a_request_that_has_been_read() -> None:
    """By a route with a shape of its own: it is taken as it is."""
    asked = GenerationRequest(prompt="a")
    assert read_request(InferenceRequest(b"", JSON, asked), GenerationRequest) is asked


WRONG: dict[str, tuple[bytes, str, str]] = {
    "neither": (b"{}", JSON, "prompt"),
    "both": (b'{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', JSON, "prompt"),
    "no messages": (b'{"messages": []}', JSON, "messages"),
    "no role": (b'{"messages": [{"content": "b"}]}', JSON, "role"),
    "unknown role": (
        b'{"messages": [{"role": "bot", "content": "b"}]}',
        JSON,
        r"^field 'messages\[0\]\.role': expected 'assistant' or .*, got 'bot'$",
    ),
    "no content": (b'{"messages": [{"role": "user"}]}', JSON, r"^field 'messages\[0\]\.content': is required$"),
    "no tokens": (b'{"prompt": []}', JSON, "prompt"),
    "echo of tokens": (b'{"prompt": [1], "echo": true}', JSON, "echo"),
    "unknown": (b'{"prompt": "a", "surprise": 1}', JSON, "surprise"),
    "unknown in a form": (b"prompt=a&surprise=1", FORM, "surprise"),
    "no JSON": (b"prompt", JSON, "JSON"),
    "no object": (b"[]", JSON, "object"),
    "deep": (b'{"prompt": "a", "template_variables": {"a": ' + b"[" * 100_000, JSON, "deep"),
    "deep variables": (
        b'{"prompt": "a", "template_variables": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}",
        JSON,
        "^template_variables is nested more than 100 deep$",
    ),
    "no UTF-8": (b'{"prompt": "\xff"}', JSON, "UTF-8"),
    "plain, no UTF-8": (b"\xff", PLAIN, "UTF-8"),
    "form, no UTF-8": (b"prompt=%ff", FORM, "UTF-8"),
    "many fields": (b"a=1&" * 100 + b"a=1", FORM, "64"),
    "nan": (b"prompt=a&temperature=nan", FORM, "temperature"),
    "surrogate": (rb'{"prompt": "\ud800"}', JSON, "surrogate"),
    "empty": (b"", JSON, "the body is empty"),
    "cut": (b'{"prompt": "a"', JSON, "not JSON: .*line 1, column 15"),
    "JSON, said to be a form": (
        b'{"prompt": "a=b"}',
        FORM,
        "got .*urlencoded, but .* JSON, which needs application/json",
    ),
    "a text, said to be a form": (b"Once upon a time", FORM, "got .*urlencoded, but .* a text text/plain"),
    "model": (b'{"prompt": "a", "model": "b"}', JSON, r"the model is named in the query, \?model=NAME"),
    "model in a form": (b"prompt=a&model=b", FORM, r"the model is named in the query, \?model=NAME"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    """In words for the client."""
    body, kind, word = WRONG[name]
    with pytest.raises(InvalidInputError, match=word):
        read_request(InferenceRequest(body, kind), GenerationRequest)
    if kind == JSON:  # the same with a query beside it
        with pytest.raises(InvalidInputError, match=word):
            read(body, kind, top_k="1")


def test_parameters_are_those_of_requests() -> None:
    """Whatever may stand in the query is a field of some request, or of none that generates."""
    known: Any = set(GenerationRequest.__struct_fields__) | set(EmbeddingRequest.__struct_fields__)
    assert set(TextParameters.__struct_fields__) <= known
