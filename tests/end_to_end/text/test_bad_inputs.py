"""What breaks other servers of language models: each line is refused clearly, or answered, and harms nobody."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.support import SECRETS

from .support import STORY, Served

ROUTES = ("/infer/text", "/infer/text/stream", "/v1/completions", "/v1/chat/completions")
JSON = {"Content-Type": "application/json"}
SHORT = {"max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module", autouse=True)
def story(served: Served) -> Iterator[Any]:
    """After all of it no sequence is left, and a good request is answered as before."""
    before = served.infer({"prompt": STORY, "max_tokens": 16, "temperature": 0})
    yield
    served.await_idle()
    assert served.infer({"prompt": STORY, "max_tokens": 16, "temperature": 0}) == before


@pytest.fixture(autouse=True)
def _no_engine_ends(served: Served) -> Iterator[None]:
    engines = served.engines()
    yield
    assert served.engines() == engines


def post(served: Served, route: str, stated: dict[str, Any], prompt: Any = STORY) -> httpx.Response:
    """The same request in the words of each route."""
    asked = {"messages": [{"role": "user", "content": prompt}]} if "chat" in route else {"prompt": prompt}
    return served.http.post(route, content=json.dumps(asked | stated).encode(), headers=JSON)


def refused(answer: httpx.Response, *statuses: int) -> str:
    """What a refusal says; in the shape of its route, and nothing that is not for clients."""
    assert answer.status_code in (statuses or (400,)), answer.text[:500]
    assert len(answer.content) < 2000
    for secret in SECRETS:
        assert secret not in answer.text
    body = answer.json()
    return str(body["error"]["message"] if "error" in body else body["detail"])


NUMBERS = {
    "max_tokens": (0, -1, 10**18, 1e18, 1.5, "x", True, [], 2**64, -(2**63)),
    "temperature": (-1, 1e9, float("nan"), float("inf"), float("-inf"), "hot"),
    "top_p": (0, 2, -0.1, float("nan"), "1"),
    "top_k": (-1, 1.5, 2**63),
    "min_p": (-0.1, 1, 1.1),
    "seed": (-1, 2**63, 1.5, "x"),
    "repetition_penalty": (0, -1, 11, float("nan")),
    "presence_penalty": (-2.1, 2.1, float("nan")),
    "frequency_penalty": (-2.1, 2.1, "x"),
    "min_tokens": (-1, 100, 2**64),
    "stop": ([""], [1], [None], "", ["a"] * 17, ["x"] * 10_000, "x" * 2000, {"a": 1}),
    "stop_token_ids": ([-1], ["a"], [2**40], list(range(100))),
    "ignore_eos": ("yes", 1),
    "regex": ("", "(", "[a", "(?<a>b", "x" * (65 << 10), 5, "\ud800"),
    "grammar": ("", "this is no grammar", "root ::= missing"),
    "surprise": (1, None),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("field", NUMBERS)
def test_wrong_values(served: Served, route: str, field: str) -> None:
    """Out of range, of another type, no number, or of no field: each is refused, most of them by name."""
    for value in NUMBERS[field]:
        said = refused(post(served, route, SHORT | {field: value}))
        unreadable = (isinstance(value, float) and value not in (0, 2)) or value == "\ud800"
        assert field in said or unreadable, said


@pytest.mark.parametrize("route", ROUTES[2:])
@pytest.mark.parametrize("n", [0, -1, 17, 1000, 10**18, 1.5, "2"])
def test_wrong_numbers_of_choices(served: Served, route: str, n: Any) -> None:
    """As many as can be asked for, and no more."""
    assert "n" in refused(post(served, route, SHORT | {"n": n}))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("prompt", [5, {}, [], None, True, [1.5], [[]], [-1], [2**70], [49152], ["a", 5], ""])
def test_wrong_prompts(served: Served, route: str, prompt: Any) -> None:
    """Of another type, or no token of the model."""
    if "chat" in route and prompt in ("", []):
        assert post(served, route, SHORT, prompt).status_code == 200  # the template has words of its own
    else:
        refused(post(served, route, SHORT, prompt))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("prompt", ["a\0b", "<|im_end|>", "<|im_start|><|im_end|>" * 5, " ", "\ufeff", "\u202e\ufdd0"])
def test_odd_prompts(served: Served, route: str, prompt: str) -> None:
    """Texts all the same."""
    assert post(served, route, SHORT, prompt).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("prompt", ["\0", "a\0"])
def test_nul_at_the_end(served: Served, smollm2: Path, route: str, prompt: str) -> None:
    """A text as well, but for a tokenizer that is a graph only: its strings end before it."""
    answer = post(served, route, SHORT, prompt)
    if "chat" in route or (smollm2 / "tokenizer.json").is_file():  # templates have words of their own behind it
        assert answer.status_code == 200
    else:
        assert "ends with a NUL" in refused(answer)


@pytest.mark.parametrize("route", ROUTES)
def test_lone_surrogates(served: Served, route: str) -> None:
    """JSON can write them, UTF-8 cannot."""
    refused(post(served, route, SHORT, "a\ud800b"))
    refused(post(served, route, SHORT | {"stop": "\udfff"}))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "prompt", ["word " * 2_000_000, "x" * 10_000_000, "\n" * 10_000_000], ids=["words", "x", "lines"]
)
def test_prompts_of_ten_megabytes(served: Served, route: str, prompt: str) -> None:
    """Refused for their length, while others go on."""
    others = threading.Thread(target=served.infer, args=({"prompt": STORY, **SHORT},))
    others.start()
    assert "tokens" in refused(post(served, route, SHORT, prompt), 400, 413)
    others.join(5)
    assert not others.is_alive()


@pytest.mark.parametrize("route", ROUTES)
def test_prompts_beyond_the_context(served: Served, route: str) -> None:
    """A prompt that fills the context, or that leaves too little of it, is refused with the numbers."""
    assert "1023" in refused(post(served, route, SHORT, "word " * 1100))
    assert "1024" in refused(post(served, route, SHORT | {"max_tokens": 1000}, "word " * 100))


DEEP = 1000
BODIES = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "half": b'{"prompt": "a"',
    "twice": b'{"prompt": "a"} {"prompt": "a"}',
    "latin-1": '{"prompt": "\xe9"}'.encode("latin-1"),
    "utf-16": '{"prompt": "a"}'.encode("utf-16"),
    "deep": b'{"prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep variables": b'{"prompt":"a","template_variables":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "very deep": b"[" * 1_000_000,
    "nul": b"\0" * 1000,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_none(served: Served, route: str, name: str) -> None:
    """No JSON, no object, nested too deep."""
    refused(served.http.post(route, content=BODIES[name], headers=JSON))


@pytest.mark.parametrize("route", ROUTES)
def test_compressed_bodies(served: Served, route: str) -> None:
    """One that inflates to gigabytes is not inflated; one that does not is read."""
    headers = JSON | {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b'{"prompt": "' + b" " * (100 << 20))
    refused(served.http.post(route, content=bomb, headers=headers), 413)
    asked = {"messages": [{"role": "user", "content": "a"}]} if "chat" in route else {"prompt": "a"}
    good = gzip.compress(json.dumps(asked | SHORT).encode())
    assert served.http.post(route, content=good, headers=headers).status_code == 200
    refused(served.http.post(route, content=good[:-9], headers=headers))


@pytest.mark.parametrize("route", ROUTES)
def test_media_types(served: Served, route: str) -> None:
    """Only those that the route accepts."""
    for kind in ("image/png", "application/xml", "multipart/form-data", ""):
        refused(served.http.post(route, content=b"{}", headers={"Content-Type": kind}), 415)


NESTED: dict[str, Any] = {"type": "object"}
for _ in range(60):
    NESTED = {"type": "object", "properties": {"a": NESTED}, "required": ["a"]}
FORMS: dict[str, dict[str, Any]] = {
    "nested repetitions": {"regex": "(((a{1,1000}){1,1000}){1,1000}){1,1000}"},
    "backtracking": {"regex": "(x+x+)+y" * 200},
    "long alternatives": {"regex": "|".join(f"(a{{{number}}}b?){{1,900}}" for number in range(300))},
    "look behind": {"regex": r"(?<=a)b\1"},
    "endless": {"json_schema": {"$ref": "#"}},
    "to itself": {"json_schema": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    "elsewhere": {"json_schema": {"$ref": "http://127.0.0.1:9/schema.json"}},
    "missing": {"json_schema": {"$ref": "#/$defs/none"}},
    "of another type": {"json_schema": {"type": "poem"}},
    "deep": {"json_schema": NESTED},
    "many": {"json_schema": {"type": "array", "items": {"type": "string"}, "minItems": 10**9}},
    "no JSON": {"json_schema": "{"},
    "false": {"json_schema": "false"},
    "two": {"regex": "a", "grammar": 'root ::= "a"'},
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_never_compile(served: Served, name: str) -> None:
    """Refused within seconds, or enforced; streams beside them do not stop."""
    answer = served.http.post("/infer/text", json={"prompt": STORY, **SHORT} | FORMS[name])
    if answer.status_code != 200:
        said = refused(answer)
        assert any(field in said for field in FORMS[name])


def test_recursion_in_schemas_is_no_mistake(served: Served) -> None:
    """A tree's schema names itself, and what comes follows it."""
    node = {"type": "object", "properties": {"n": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    text = served.infer({"prompt": STORY, "max_tokens": 30, "json_schema": schema, "temperature": 0})["generated_text"]
    assert text.lstrip().startswith("{")


def test_queries(served: Served) -> None:
    """What stands in a query is as exact as a body, by GET too."""
    for query in ("prompt=a&surprise=1", "prompt=a&max_tokens=0", "prompt=a&prompt=b", "prompt=a&temperature=nan", ""):
        refused(served.http.get(f"/infer/text/stream?{query}"))
    assert served.http.get("/infer/text/stream?prompt=%ED%A0%80&max_tokens=2").status_code in (200, 400)
    assert "max_tokens" in refused(served.http.post("/infer/text?max_tokens=0", json={"prompt": "a"}))


def test_routes_that_are_none(served: Served) -> None:
    """Below /v1 they are told in the shape of its routes, with the methods that there are; elsewhere as problems."""
    for path in ("/v1/nope", "/v1", "/v1/chat/completions/more"):
        answer = served.http.post(path, json={})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert answer.json()["error"]["type"] == "invalid_request_error"
    for method, path, allowed in (("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models", "GET")):
        answer = served.http.request(method, path)
        assert allowed in answer.headers["allow"]
        assert list(answer.json()["error"]) == ["message", "type", "param", "code"]
        refused(answer, 405)
    for path in ("/nope", "/v2/models"):
        assert served.http.get(path).headers["content-type"] == "application/problem+json"


def test_models_that_do_something_else(served: Served) -> None:
    """A model of another type or task, or none at all."""
    for route, field in (("/v1/completions", {"prompt": "a"}), ("/v1/embeddings", {"input": "a"})):
        assert "nobody" in refused(served.http.post(route, json=field | {"model": "nobody"}), 404)
        refused(served.http.post(route, json=field | {"model": "../smol"}), 404)
    assert "generation" in refused(served.http.post("/v1/embeddings", json={"input": "a", "model": "smol"}))
