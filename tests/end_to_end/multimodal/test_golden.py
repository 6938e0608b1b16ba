"""The tokens of transformers, whichever way they are asked for."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from tests.conftest import mirrored
from tests.end_to_end.text.support import Served, events, joined
from tests.plugins.multimodal.llava import cat_file, cat_pixels, file_of, golden

from .support import GOLDEN, ROUTE, Parts, ask, cat, check_golden

URI = "data:image/jpeg;base64,"


def chat(*uris: str, text: str = "") -> list[Any]:
    pictures = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris or [_cat_uri()]]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text or golden().prompt}]}]


def _cat_uri() -> str:
    return URI + base64.b64encode(cat_file()).decode()


def streamed(served: Served) -> Any:
    parts: Parts = [cat(), ("text", (None, golden().prompt)), *((name, (None, each)) for name, each in GOLDEN.items())]
    with served.http.stream("POST", f"{ROUTE}/stream", files=parts) as answer:
        assert answer.status_code == 200
        text, results = joined(events(answer))
    assert text == results["description"]
    return results


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture(scope="module")
def description(served: Served) -> str:
    """The text of the golden tokens."""
    return str(ask(served).json()["results"]["description"])


def test_in_one(served: Served) -> None:
    """With what the route promises besides."""
    answer = ask(served)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_type"], body["task"]) == ("multimodal", "vision_language")
    check_golden(body["results"])
    assert 0 < body["results"]["confidence"] < 1
    assert "logprobs" not in body["results"]


def test_as_a_stream(served: Served) -> None:
    """The pieces, joined, are the description; the results at the end are those of the answer in one."""
    results = streamed(served)
    check_golden(results)
    assert results == ask(served).json()["results"]


def test_eight_at_once(served: Served) -> None:
    """Four in one and four as streams: each has the tokens that it has alone."""
    with ThreadPoolExecutor(8) as threads:
        whole = [threads.submit(ask, served) for _ in range(4)]
        streams = [threads.submit(streamed, served) for _ in range(4)]
        for each in whole:
            check_golden(each.result().json()["results"])
        for stream in streams:
            check_golden(stream.result())


def test_parameters_in_the_query(served: Served) -> None:
    """Come before those of the body."""
    answer = ask(served, route=f"{ROUTE}?max_tokens=3&model=llava")
    assert answer.json()["results"]["token_ids"] == golden().tokens[:3]


def test_a_stop_string(served: Served, description: str) -> None:
    """Ends the description before it; the prompt's length is told all the same."""
    stop = description[3:6]
    results = ask(served, stop=stop).json()["results"]
    assert results["description"] == description[: description.index(stop)]
    assert (results["finish_reason"], results["usage"]["prompt_tokens"]) == ("stop", golden().prompt_tokens)


def test_log_probabilities(served: Served) -> None:
    """Are given if they are asked for, and the confidence is made of them."""
    results = ask(served, logprobs="true").json()["results"]
    assert len(results["logprobs"]) == 20
    assert results["confidence"] == ask(served).json()["results"]["confidence"]


def test_two_pictures(served: Served) -> None:
    """Of different sizes and formats; which of them comes first matters."""
    small = cat(file_of(cat_pixels()[:80, :60]), "image/png")
    one = ask(served, None, cat(), small).json()["results"]
    other = ask(served, None, small, cat()).json()["results"]
    assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"] > golden().prompt_tokens + 16
    assert one["token_ids"] != other["token_ids"]


def test_a_chat(client: openai.OpenAI, description: str) -> None:
    """The same text by the route of OpenAI's clients, in one and in pieces."""
    asked: Any = {"model": "llava", "messages": chat(), "temperature": 0, "max_tokens": 20}
    answer = client.chat.completions.create(**asked)
    type(answer).model_validate(answer.model_dump(), strict=True)
    assert answer.choices[0].message.content == description
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (golden().prompt_tokens, 20)
    pieces = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    assert "".join(each.choices[0].delta.content or "" for each in pieces if each.choices) == description
    assert pieces[-1].usage == answer.usage


def test_a_chat_of_several_turns(client: openai.OpenAI) -> None:
    """Pictures in two of them; the answer of the first goes back as it came."""
    asked: Any = {"model": "llava", "temperature": 0, "max_tokens": 8}
    first = client.chat.completions.create(messages=chat(), **asked)
    messages = [*chat(), first.choices[0].message, *chat(text="and this?")]
    second = client.chat.completions.create(messages=messages, **asked)
    assert first.usage
    assert second.usage
    assert second.usage.prompt_tokens > 2 * first.usage.prompt_tokens


def test_several_choices(client: openai.OpenAI) -> None:
    """Of one picture, each drawn by itself."""
    asked: Any = {"model": "llava", "messages": chat(), "n": 3, "temperature": 1.5, "max_tokens": 10, "seed": 3}
    answer = client.chat.completions.create(**asked)
    assert len({each.message.content for each in answer.choices}) == 3


@pytest.mark.parametrize("head", ["data:image/jpg;base64,", "data:;base64,", "data:image/jpeg;name=a.jpg;base64,"])
def test_ways_to_write_a_picture(client: openai.OpenAI, description: str, head: str) -> None:
    """That clients are known for."""
    messages: Any = chat(head + base64.b64encode(cat_file()).decode())
    answer = client.chat.completions.create(model="llava", messages=messages, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content == description


def test_a_chat_without_pictures(client: openai.OpenAI, description: str) -> None:
    """Is answered by the same model."""
    messages: Any = [{"role": "user", "content": golden().prompt}]
    answer = client.chat.completions.create(model="llava", messages=messages, temperature=0, max_tokens=20)
    assert answer.choices[0].message.content != description
    assert answer.usage
    assert answer.usage.prompt_tokens < golden().prompt_tokens - 16 + 1
    assert answer.usage.completion_tokens == 20


def test_a_text_that_is_continued(client: openai.OpenAI) -> None:
    """By the same model, too; marks in it are text."""
    for prompt in ("USER: hello ASSISTANT:", "<ov_genai_image_99999999999999999999>", "<image>"):
        answer = client.completions.create(model="llava", prompt=prompt, max_tokens=5, temperature=0)
        assert answer.usage
        assert answer.usage.completion_tokens == 5


def test_models(client: openai.OpenAI) -> None:
    """Those that take pictures are listed beside those that do not."""
    assert {"llava", "few"} <= {each.id for each in client.models.list()}
    assert client.models.retrieve("llava").id == "llava"


def test_langchain(served: Served, description: str) -> None:
    """ChatOpenAI with a picture among the parts of a message."""
    with httpx.Client(trust_env=False) as http:
        model = ChatOpenAI(
            base_url=f"{served.address}/v1",
            api_key=SecretStr("none"),
            model="llava",
            temperature=0,
            max_completion_tokens=20,
            http_client=http,
        )
        asked = [("human", chat()[0]["content"])]
        assert model.invoke(asked).content == description
        assert "".join(str(piece.content) for piece in model.stream(asked)) == description


def test_the_command_line(served: Served) -> None:
    """``ovllama infer`` takes the picture as a file, and everything else as NAME=VALUE."""
    fields = [f"{name}={value}" for name, value in GOLDEN.items()]
    picture = str(mirrored("tiny-llava") / "cat.jpg")
    arguments = ["infer", "llava", picture, f"text={golden().prompt}", *fields, "--registry", str(served.registry)]
    command = [sys.executable, "-m", "openvino_llama", *arguments]
    environment = os.environ | {"OVLLAMA_CACHE_DIR": ""}
    done = subprocess.run(command, capture_output=True, timeout=90, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    body = json.loads(done.stdout)
    assert (body["model_type"], body["task"]) == ("multimodal", "vision_language")
    check_golden(body["results"])
