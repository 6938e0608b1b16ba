"""What comes over HTTP is what openvino-genai gives when called directly, in every form that it can be asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from . import direct
from .conftest import EXACT
from .support import STORY, Served, await_true, events, joined

PROMPTS = (
    *("The capital of France is", "Once upon a time", "def add(a, b):\n", "Water boils at", "1, 2, 3, 4,", "Dear Sir,"),
    *("Der Himmel ist", "My favourite food is", "In 1969, people", "The quick brown fox", "Roses are red,"),
    *("To make bread, you need", "List three colours:", "import numpy as", "A cat and a dog", "E = mc", "Q: Why? A:"),
    *("The sun rises in the", "日本の首都は", "🙂🙃 " * 8),
)
MANY = 16
TOKENS = 24
CHAT = [{"role": "user", "content": "Say something about the sea."}]


def ask(served: Served, prompt: str | list[int], model: str = "smol") -> Any:
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "return_token_ids": True}
    return served.infer(body, model=model)


def tokens(answers: Sequence[Any]) -> list[Any]:
    return [each["token_ids"] for each in answers]


def directly(model: Path, prompts: Sequence[list[int]], **properties: Any) -> Any:
    """Greedy tokens of openvino-genai itself, one prompt after the other."""
    asked = {"model": str(model), "prompts": prompts, "max_tokens": TOKENS, "eos": 2, "properties": properties}
    command = [sys.executable, direct.__file__]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=200, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_tokens_are_those_of_the_engine(served: Served, smollm2: Path) -> None:
    """Each of twenty prompts continues as it does in openvino-genai itself, alone and sixteen at once."""
    alone = [ask(served, prompt) for prompt in PROMPTS]
    assert len({each["generated_text"] for each in alone}) == len(PROMPTS)
    expected = directly(smollm2, [each["prompt_token_ids"] for each in alone], **EXACT)
    assert tokens(alone) == expected
    with ThreadPoolExecutor(MANY) as threads:
        together = list(threads.map(lambda prompt: ask(served, prompt), PROMPTS[:MANY]))
    assert tokens(together) == expected[:MANY]
    assert [each["generated_text"] for each in together] == [each["generated_text"] for each in alone[:MANY]]


def test_tokens_are_those_of_the_engine_at_its_own_precision(served: Served, smollm2: Path) -> None:
    """As it comes, with the precision that it chooses: the same, one after the other."""
    answers = [ask(served, prompt, "crowded") for prompt in PROMPTS[:3]]
    assert tokens(answers) == directly(smollm2, [each["prompt_token_ids"] for each in answers])


def test_a_prompt_may_be_tokens(served: Served) -> None:
    """Ids continue as the text that they stand for."""
    of_text = ask(served, STORY)
    assert ask(served, of_text["prompt_token_ids"]) == of_text


@pytest.mark.parametrize("prompt", [STORY, "日本の首都は", "🙂🙃 " * 8])
def test_streams_are_the_text(served: Served, prompt: str) -> None:
    """The pieces of a stream, by POST and by GET, are the text that comes in one, and so are its tokens."""
    body = {"prompt": prompt, "max_tokens": 40, "temperature": 0, "return_token_ids": True, "logprobs": True}
    whole = served.infer(body)
    ids: list[int] = []
    with served.http.stream("POST", "/infer/text/stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        *pieces, (kind, last) = events(answer)
    assert (kind, last["results"]) == ("done", whole)
    assert len(pieces) > 2
    assert "".join(piece["text"] for _, piece in pieces) == whole["generated_text"]
    ids = [each for _, piece in pieces for each in piece["token_ids"]]
    assert ids == whole["token_ids"]
    assert len([each for _, piece in pieces for each in piece["logprobs"]]) == len(ids)
    query: dict[str, Any] = body | {"return_token_ids": "true", "logprobs": "true"}
    with served.http.stream("GET", "/infer/text/stream", params=query) as answer:
        assert joined(events(answer)) == (whole["generated_text"], whole)


@pytest.mark.parametrize("stop", ["e", "the", " city", ["zzz", ", "]])
def test_stop_strings_cut_streams_too(served: Served, stop: str | list[str]) -> None:
    """No piece shows any of a stop string, and nothing that was held back for it is lost."""
    body = {"prompt": STORY, "max_tokens": 40, "temperature": 0, "stop": stop}
    with served.http.stream("POST", "/infer/text/stream", json=body) as answer:
        text, whole = joined(events(answer))
    assert text == whole["generated_text"] == served.infer(body)["generated_text"]
    free = served.infer({"prompt": STORY, "max_tokens": 40, "temperature": 0})["generated_text"]
    stops = [stop] if isinstance(stop, str) else stop
    cut = min((free.find(each) for each in stops if each in free), default=len(free))
    assert text == free[:cut]
    assert whole["finish_reason"] == "stop"
    served.await_idle()


def test_tokens_that_end_a_text(served: Served) -> None:
    """A stated token ends it, also where the model's own end does not; the engine goes on for nobody."""
    free = ask(served, STORY)
    stop = free["token_ids"][5]
    cut = free["token_ids"].index(stop) + 1
    body = {"prompt": STORY, "max_tokens": 900, "temperature": 0, "return_token_ids": True, "stop_token_ids": [stop]}
    for more in ({}, {"ignore_eos": True}):
        found = served.infer(body | more)
        assert found["token_ids"] == free["token_ids"][:cut]
        assert found["finish_reason"] == "stop"
        await_true(lambda: served.running() == 0, 1)


def test_openai_routes_give_the_same_text(served: Served) -> None:
    """Completions continue a prompt as ``/infer/text`` does, chats answer as it does; as streams too."""
    asked = {"max_tokens": 30, "temperature": 0}
    expected = served.infer({"prompt": STORY} | asked)["generated_text"]
    assert texts(served, "/v1/completions", {"prompt": STORY} | asked, "text") == {expected}
    expected = served.infer({"messages": CHAT} | asked)["generated_text"]
    found = texts(served, "/v1/chat/completions", {"messages": CHAT} | asked, "message", "delta")
    assert found == {expected}


def texts(served: Served, route: str, body: dict[str, Any], *fields: str) -> set[str]:
    """The text in one, and from a stream."""
    whole = served.http.post(route, json=body)
    assert whole.status_code == 200, whole.text
    with served.http.stream("POST", route, json=body | {"stream": True}) as answer:
        *pieces, last = [data for _, data in events(answer)]
    assert last == "[DONE]"
    assert len(pieces) > 2
    choices = [each["choices"][0][fields[-1]] for each in pieces]
    streamed = "".join(each if isinstance(each, str) else each.get("content", "") for each in choices)
    first = whole.json()["choices"][0][fields[0]]
    return {first if isinstance(first, str) else first["content"], streamed}


@pytest.mark.parametrize("body", ["prompt=Once+upon+a+time&max_tokens=6&temperature=0", "Once upon a time"])
def test_forms_and_plain_texts(served: Served, body: str) -> None:
    """A form's fields are those of the JSON; a plain text is the prompt, its parameters stand in the query."""
    is_form = "=" in body
    kind = "application/x-www-form-urlencoded" if is_form else "text/plain; charset=utf-8"
    params = {} if is_form else {"max_tokens": 6, "temperature": 0}
    answer = served.http.post("/infer/text", content=body, params=params, headers={"Content-Type": kind})
    assert answer.json()["results"] == served.infer({"prompt": STORY, "max_tokens": 6, "temperature": 0})


def test_pictures_are_answered_while_texts_are_generated(served: Served, mobilenet_dir: Path) -> None:
    """Every answer of ``/infer/image`` is right, and so is every text, with sixteen streams beside it."""
    alone = served.infer({"prompt": STORY, "max_tokens": 60, "temperature": 0})["generated_text"]
    picture = (mobilenet_dir / "cat.bmp").read_bytes()

    def stream(_: int) -> str:
        body = {"prompt": STORY, "max_tokens": 60, "temperature": 0}
        with served.http.stream("POST", "/infer/text/stream", json=body) as answer:
            return joined(events(answer))[0]

    with ThreadPoolExecutor(MANY) as threads:
        streams = [threads.submit(stream, number) for number in range(MANY)]
        await_true(lambda: served.running() == MANY)
        count = 0
        while not any(each.done() for each in streams):
            answer = served.http.post("/infer/image", content=picture, headers={"Content-Type": "image/bmp"})
            assert answer.json()["results"][0]["class_id"] == 286
            count += 1
        assert {each.result() for each in streams} == {alone}
    assert count >= 5
