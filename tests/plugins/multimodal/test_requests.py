"""What is asked of a model that answers in words."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from openvino_llama import InferenceRequest, InvalidInputError
from openvino_llama_multimodal.questions import Question
from openvino_llama_multimodal.requests import MultimodalParameters, one_text, read_asked
from openvino_llama_text.requests import PICTURE, Attachment, GenerationRequest, IllustratedRequest, Message

from .llava import form


def asked(text: str | None = "what?", pictures: int = 1, query: dict[str, Any] | None = None, **fields: str) -> Any:
    """The messages' text and the request."""
    request = form(text, *[b"picture"] * pictures, **fields)
    if query is not None:
        parameters = msgspec.convert(query, MultimodalParameters, strict=False)
        request = msgspec.structs.replace(request, parameters=parameters)
    return read_asked(request)[1]


def test_a_question() -> None:
    """The pictures come before the text, in the only message of a user."""
    assert asked(pictures=2).messages == [Message("user", f"{PICTURE}{PICTURE}what?")]


def test_parameters_in_the_body() -> None:
    """Are what ``POST /infer/text`` takes, read from texts."""
    found = asked(max_tokens="5", temperature="0.5", logprobs="true", return_token_ids="true", stop="x")
    assert (found.max_tokens, found.temperature, found.logprobs, found.return_token_ids) == (5, 0.5, True, True)
    assert found.stop == "x"


def test_the_query_comes_before_the_body() -> None:
    """What is stated in both is the query's; what is stated in one is that."""
    found = asked(query={"max_tokens": "7"}, max_tokens="5", seed="3")
    assert (found.max_tokens, found.seed) == (7, 3)
    assert asked(query={}).max_tokens is None


def test_marks_of_clients_are_no_pictures() -> None:
    """U+FDD1 in the text is replaced."""
    assert asked(f"a{PICTURE}b").messages == [Message("user", f"{PICTURE}a\ufffdb")]


def test_the_text_of_a_model_that_needs_none() -> None:
    """Stands where the client sends nothing; what it sends comes first."""
    question, found = read_asked(form(None, b"picture"), text="")
    assert len(question.pictures) == 1
    assert found.messages == [Message("user", PICTURE)]
    assert read_asked(form("hi", b"picture"), text="")[1].messages == [Message("user", f"{PICTURE}hi")]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (form("what?"), r"^image: expected at least one part of this name, a file; got none$"),
        (form(None, b"a"), r"^text: expected one part of this name, got none$"),
        (form("", b"a"), r"^text: expected some text, got none$"),
        (
            form("what?", b"a", max_tokens="many"),
            r"^field 'max_tokens': expected int, got 'many'$",
        ),
        (form("what?", b"a", temperature="nan"), r"^(field 'temperature'|temperature): "),
        (form("what?", b"a", temperature="inf"), r"^(field 'temperature'|temperature): "),
        (form("what?", b"a", max_tokens=""), r"^field 'max_tokens': expected int, got ''"),
        (form("what?", b"a", surprise="1"), r"^field 'surprise': there is no such field$"),
        (form("what?", b"a", pictures="1"), r"^field 'pictures': there is no such field$"),
        (form("what?", b"a", messages="[]"), r"^messages: there is no such parameter$"),
        (form("what?", b"a", prompt="hi"), r"^prompt: expected either 'prompt' or 'messages', got both"),
        (form("what?", b"a", echo="true"), r"^echo: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(request_: InferenceRequest, said: str) -> None:
    """With the name of the part."""
    with pytest.raises(InvalidInputError, match=said):
        read_asked(request_)


def test_several_texts() -> None:
    """Are too many for one question, and say how many."""
    with pytest.raises(InvalidInputError, match=r"^text: expected one part of this name, got 2$"):
        one_text(Question((), ("a", "b")))
    assert one_text(Question((), ("",))) == ""


def test_several_values_of_a_parameter() -> None:
    """Are refused by name, but where a list may stand."""
    request = form("what?", b"a", max_tokens="5", stop="x")
    twice = msgspec.structs.replace(request, parts=request.parts + request.parts[-2:])
    with pytest.raises(InvalidInputError, match=r"^field 'max_tokens': expected int, got array$"):
        read_asked(twice)
    stops = msgspec.structs.replace(request, parts=request.parts + request.parts[-1:])
    assert read_asked(stops)[1].stop == ["x", "x"]


def test_a_query_for_other_models() -> None:
    """What dual encoders take is refused by name."""
    with pytest.raises(InvalidInputError, match=r"^field 'embeddings': there is no such field$"):
        asked(query={"embeddings": "true"})


def test_requests_of_other_routes() -> None:
    """Have been read there: their pictures are decoded from base64 here."""
    plain = GenerationRequest(prompt="hi")
    assert read_asked(InferenceRequest(b"", "application/json", plain)) == (Question((), ()), plain)
    attached = Attachment("messages[0].content[1].image_url.url", "image/png", base64.b64encode(b"abc").decode())
    illustrated = IllustratedRequest(messages=[Message("user", f"{PICTURE}hi")], pictures=(attached,))
    question, same = read_asked(InferenceRequest(b"", "application/json", illustrated))
    assert same is illustrated
    assert [(each.name, each.media_type, each.body) for each in question.pictures] == [
        (attached.name, "image/png", b"abc")
    ]
