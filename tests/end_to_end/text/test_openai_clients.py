"""Clients that were written for OpenAI's API: the ``openai`` package itself, and LangChain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from .support import STORY, Served, serving

CHAT: Any = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "What is a cat?"}]
GREEDY: Any = {"model": "smol", "temperature": 0}


class City(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inhabitants: int
    capital: bool


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0, http_client=http) as client:
        yield client


def complete(answer: Any) -> None:
    """No field that the package's types require is missing or of another type."""
    type(answer).model_validate(answer.model_dump(), strict=True)


def test_models(client: openai.OpenAI) -> None:
    """The text models, each of which can be looked at; one that is not there is a NotFoundError."""
    models = client.models.list()
    assert {"smol", "crowded"} <= {each.id for each in models}
    model = client.models.retrieve("smol")
    assert model.model_extra == {
        "task": "generation",
        "answers": ["chat/completions", "completions"],
        "active": True,
    }
    complete(model)
    assert (model.object, model.owned_by) == ("model", "openvino-llama")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_chat(client: openai.OpenAI) -> None:
    """An answer with everything that the types of the package require."""
    answer = client.chat.completions.create(messages=CHAT, max_completion_tokens=30, **GREEDY)
    complete(answer)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "smol")
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.message.refusal) == (0, "assistant", None)
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 30
    again = client.chat.completions.create(
        messages=[*CHAT, choice.message, {"role": "user", "content": "And a dog?"}], max_tokens=5, **GREEDY
    )
    assert again.usage
    assert again.usage.prompt_tokens > answer.usage.total_tokens


def test_chat_in_pieces(client: openai.OpenAI) -> None:
    """The role first, then content, then why it ended, then the usage: together the same as in one."""
    whole = client.chat.completions.create(messages=CHAT, max_tokens=30, **GREEDY)
    stream = client.chat.completions.create(
        messages=CHAT, max_tokens=30, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    *pieces, last = list(stream)
    for piece in (*pieces, last):
        complete(piece)
    assert {piece.id for piece in pieces} == {last.id}
    assert all(piece.usage is None and "usage" in piece.model_fields_set for piece in pieces)
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert [piece.choices[0].finish_reason for piece in pieces] == [
        *[None] * (len(pieces) - 1),
        whole.choices[0].finish_reason,
    ]
    assert (last.choices, last.usage) == ([], whole.usage)


def test_completions(client: openai.OpenAI) -> None:
    """One prompt or several, as texts or as tokens, with the prompt before the text if that is asked for."""
    answer = client.completions.create(prompt=STORY, max_tokens=8, **GREEDY)
    complete(answer)
    assert answer.object == "text_completion"
    text = answer.choices[0].text
    several = client.completions.create(prompt=["Hello", STORY], max_tokens=8, echo=True, **GREEDY)
    assert [each.index for each in several.choices] == [0, 1]
    assert several.choices[0].text.startswith("Hello")
    assert several.choices[1].text == STORY + text
    ids = client.completions.create(prompt=[[6403, 1980, 253, 655]], max_tokens=8, **GREEDY)
    assert ids.choices[0].text == text
    default = client.completions.create(prompt=STORY, **GREEDY)
    assert default.usage
    assert default.usage.completion_tokens == 16


def test_several_choices(client: openai.OpenAI) -> None:
    """Three texts that differ, the prompt counted once; as a stream, the pieces of all of them."""
    asked: Any = {"prompt": STORY, "max_tokens": 12, "n": 3, "temperature": 1.5, "seed": 4, "model": "smol"}
    answer = client.completions.create(**asked)
    texts = [each.text for each in answer.choices]
    assert [each.index for each in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 36)
    streamed = ["", "", ""]
    for piece in client.completions.create(stream=True, **asked):
        for choice in piece.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts


def test_seeds(client: openai.OpenAI) -> None:
    """The same seed, the same text; another, or none, another."""
    asked: Any = {"messages": CHAT, "max_tokens": 20, "temperature": 1.5, "model": "smol"}

    def text(**seed: int) -> Any:
        return client.chat.completions.create(**(asked | seed)).choices[0].message.content

    assert text(seed=1) == text(seed=1)
    assert len({text(seed=1), text(seed=2), text(), text()}) == 4


def test_stop_strings(client: openai.OpenAI) -> None:
    """The text ends before them, and says so."""
    free = client.completions.create(prompt=STORY, max_tokens=30, **GREEDY).choices[0].text
    stop = free.split()[5]
    choice = client.completions.create(prompt=STORY, max_tokens=30, stop=[stop, "\x00"], **GREEDY).choices[0]
    assert choice.text == free[: free.index(stop)]
    assert choice.finish_reason == "stop"


def test_logprobs_of_chats(client: openai.OpenAI) -> None:
    """Those of the tokens that were taken, whose bytes are the text; the same ones in pieces."""
    asked: Any = {"messages": CHAT, "max_tokens": 60, "logprobs": True, **GREEDY}
    answer = client.chat.completions.create(**asked)
    complete(answer)
    (choice,) = answer.choices
    assert choice.logprobs
    assert choice.logprobs.content
    content = b"".join(bytes(each.bytes or []) for each in choice.logprobs.content)
    assert content.decode("utf-8", "replace") == choice.message.content
    assert all(each.logprob <= 0 for each in choice.logprobs.content)
    found: list[Any] = []
    for piece in client.chat.completions.create(stream=True, **asked):
        logprobs = piece.choices[0].logprobs
        found += logprobs.content or [] if logprobs else []
    assert [each.token for each in found] == [each.token for each in choice.logprobs.content]


def test_logprobs_of_completions(client: openai.OpenAI) -> None:
    """Each token stands in the text where its offset says, an echoed prompt before it."""
    choice = client.completions.create(prompt=STORY, max_tokens=12, logprobs=0, echo=True, **GREEDY).choices[0]
    logprobs = choice.logprobs
    assert logprobs
    assert logprobs.tokens
    assert logprobs.text_offset
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert choice.text[offset : offset + len(token)] == token
    assert logprobs.text_offset[0] == len(STORY)
    assert len(logprobs.token_logprobs or []) == 12


def test_json_of_a_schema(client: openai.OpenAI) -> None:
    """What comes is JSON of the schema, whatever the model would have said."""
    (schema,), components = msgspec.json.schema_components([City])
    schema = components["City"] | {"additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    asked: Any = [{"role": "user", "content": "Describe Paris in JSON."}]
    answer = client.chat.completions.create(
        messages=asked, response_format=form, max_tokens=200, seed=1, model="smol", temperature=0.2
    )
    city = msgspec.json.decode(answer.choices[0].message.content or "", type=City)
    assert city.name
    assert answer.choices[0].finish_reason == "stop"


def test_json_objects(client: openai.OpenAI) -> None:
    """The same for any object."""
    asked: Any = [{"role": "user", "content": 'Answer with {"answer": 1}'}]
    answer = client.chat.completions.create(
        messages=asked, response_format={"type": "json_object"}, max_tokens=120, **GREEDY
    )
    content = answer.choices[0].message.content or ""
    assert content.lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(content), dict)


def test_embeddings(client: openai.OpenAI, minilm: Path) -> None:
    """As numbers, and coded, which is what the client asks for by itself: the same vectors of length 1."""
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates have been raised."]
    coded = client.embeddings.create(model="minilm", input=texts)
    plain = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    complete(plain)
    vectors = np.array([each.embedding for each in plain.data])
    assert np.allclose(vectors, [each.embedding for each in coded.data], atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert [each.index for each in plain.data] == [0, 1, 2]
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
    assert plain.usage.prompt_tokens > 20


UNSUPPORTED = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "functions": [{"name": "f", "parameters": {}}],
    "function_call": "auto",
    "tool_choice": "required",
    "parallel_tool_calls": True,
    "logit_bias": {"50256": -100},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "top_logprobs": 5,
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "web_search_options": {},
    "store": True,
    "service_tier": "flex",
    "stream_options": {"include_usage": True},
    "n": 1000,
    "best_of": 3,
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, field: str) -> None:
    """Rather than ignored."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(messages=CHAT, extra_body={field: UNSUPPORTED[field]}, **GREEDY)
    assert str(caught.value.param).startswith(field)
    assert field in caught.value.message
    assert caught.value.type == "invalid_request_error"


def test_pictures_in_chats_are_refused(client: openai.OpenAI) -> None:
    """Parts of a message may be texts only; texts are put together."""
    parts: Any = [{"type": "text", "text": "What is a "}, {"type": "text", "text": "cat?"}]
    asked: Any = [CHAT[0], {"role": "user", "content": parts}]
    answer = client.chat.completions.create(messages=asked, max_tokens=8, **GREEDY)
    expected = client.chat.completions.create(messages=CHAT, max_tokens=8, **GREEDY)
    assert answer.choices[0].message == expected.choices[0].message
    parts.append({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/cat.png"}})
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(messages=asked, max_tokens=8, **GREEDY)
    assert str(caught.value.param).startswith("messages")


def test_what_asks_for_nothing_is_taken(client: openai.OpenAI) -> None:
    """Empty tools, a user, what others keep books by."""
    answer = client.chat.completions.create(
        messages=CHAT, max_tokens=2, user="me", tools=[], logit_bias={}, metadata={"a": "b"}, store=False, **GREEDY
    )
    assert answer.choices[0].finish_reason == "length"


def test_too_long_for_the_context(client: openai.OpenAI) -> None:
    """A prompt, or an answer, that the context has no room for has the code that clients look for."""
    for asked in ({"prompt": "word " * 2000}, {"prompt": "word " * 800, "max_tokens": 500}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(**GREEDY, **asked)
        assert caught.value.code == "context_length_exceeded"


def test_errors_in_shape(served: Served) -> None:
    """A wrong media type, method or body is told in OpenAI's shape, or at least with the status."""
    route = "/v1/chat/completions"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = served.http.post(route, content=b'{"messages": []}', headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert sorted(answer.json()["error"]) == ["code", "message", "param", "type"]
    assert served.http.get(route).status_code == 405
    assert served.http.post("/v1/nothing", json={}).status_code == 404
    answer = served.http.post(route, content=b"x" * (33 << 20), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "33554432" in answer.json()["error"]["message"]


def test_keys(tmp_path: Path) -> None:
    """A wrong key is an AuthenticationError on every route of the plugin; no server an APIConnectionError."""
    with serving(tmp_path, {}, OVLLAMA_API_KEY="right") as served:
        for route in ("chat/completions", "completions", "embeddings", "rerank"):
            assert served.http.post(f"/v1/{route}", json={}).status_code == 401
        for route in ("/infer/text", "/infer/text/stream"):
            assert served.http.post(route, json={}).status_code == 401
        assert served.http.get("/infer/text/stream?prompt=a").status_code == 401
        http = openai.DefaultHttpxClient(trust_env=False)
        client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="wrong", max_retries=0, http_client=http)
        for ask in (client.models.list, lambda: client.models.retrieve("smol"), lambda: chat(client)):
            with pytest.raises(openai.AuthenticationError) as caught:
                ask()
            assert caught.value.type == "authentication_error"
        right = client.with_options(api_key="right")
        assert list(right.models.list()) == []
        with pytest.raises(openai.NotFoundError) as missing:
            chat(right)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.APIConnectionError):
        right.models.list()
    http.close()


def chat(client: openai.OpenAI) -> Any:
    return client.chat.completions.create(messages=CHAT, **GREEDY)


def test_many_streams_at_once(served: Served) -> None:
    """Eight streams of one asynchronous client, each with its own text."""

    async def text(client: openai.AsyncOpenAI, prompt: str) -> str:
        stream = await client.completions.create(prompt=prompt, max_tokens=20, stream=True, **GREEDY)
        return "".join([piece.choices[0].text async for piece in stream])

    async def work() -> list[str]:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none", http_client=http) as client:
            return await asyncio.gather(*(text(client, f"{number} times") for number in range(8)))

    texts = asyncio.run(work())
    alone = [served.infer({"prompt": f"{number} times", "max_tokens": 20, "temperature": 0}) for number in range(8)]
    assert texts == [each["generated_text"] for each in alone]
    served.await_idle()


def test_langchain(served: Served, client: openai.OpenAI) -> None:
    """ChatOpenAI, in one and in pieces."""
    expected = client.chat.completions.create(messages=CHAT, max_tokens=20, **GREEDY).choices[0].message.content
    http = httpx.Client(trust_env=False)
    model = ChatOpenAI(
        base_url=f"{served.address}/v1",
        api_key=SecretStr("none"),
        model="smol",
        temperature=0,
        max_completion_tokens=20,
        http_client=http,
    )
    asked = [("system", "You are brief."), ("human", "What is a cat?")]
    answer = model.invoke(asked)
    assert answer.content == expected
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] <= 20
    assert "".join(str(piece.content) for piece in model.stream(asked)) == expected
    http.close()


def test_langchain_embeddings(served: Served, minilm: Path) -> None:
    """OpenAIEmbeddings, told that the model is none of OpenAI's."""
    http = httpx.Client(trust_env=False)
    model = OpenAIEmbeddings(
        base_url=f"{served.address}/v1",
        api_key=SecretStr("none"),
        model="minilm",
        check_embedding_ctx_length=False,
        http_client=http,
    )
    vectors = np.array(model.embed_documents(["A cat.", "A kitten.", "A bank."]))
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    http.close()
