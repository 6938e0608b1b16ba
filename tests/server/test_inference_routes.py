"""POST /infer/<endpoint>: what is answered to good requests and to bad ones."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest
from tests.server.support import GOOD, Live, check_problem, numbers

DOUBLED = [[2.0, 4.0, 6.0, 8.0]]


def test_the_active_model_answers(live: Live) -> None:
    """Without ``?model=`` the first model of the registry answers, and says who it is."""
    answer = live.infer()
    assert answer.json() == {"model_type": "tiny", "task": "double", "results": {"y": DOUBLED}}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["ovllama-model"] == "double"


def test_another_model_is_chosen_by_name(live: Live) -> None:
    """``?model=`` picks a model that is not the active one, and does not make it so."""
    assert numbers(live.infer(model="triple")) == [[3.0, 6.0, 9.0, 12.0]]
    assert numbers(live.infer()) == DOUBLED


def test_parameters_are_read_into_the_plugins_struct(live: Live) -> None:
    """Query parameters have the types that the plugin declared."""
    answer = live.infer({"x": [[0.1234, 0, 0, 0]]}, params={"digits": "1"})
    assert answer.json()["results"]["y"][0][0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/plain", "text/plain"),
        ("text/*;q=0.9, application/json;q=0.1", "text/plain"),
        ("text/plain;q=0.1, application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/*, */*;q=0.1", "application/json"),
        ("TEXT/PLAIN", "text/plain"),
        ("text/plain;q=oops, application/json;q=0.1", "application/json"),
        ("", "application/json"),
    ],
)
def test_accept_is_negotiated(live: Live, accept: str, media_type: str) -> None:
    """The answer has the media type that Accept prefers, among those that the model type produces; texts are UTF-8."""
    answer = live.infer(headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type + ("; charset=utf-8" if media_type == "text/plain" else "")


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/html, image/*;q=0.5", "nonsense"])
def test_what_cannot_be_produced_is_not_acceptable(live: Live, accept: str) -> None:
    """406 says what the route produces."""
    problem = check_problem(live.infer(headers={"Accept": accept}), 406)
    assert "application/json, text/plain" in problem["detail"]


@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_content_codings_are_undone(live: Live, coding: str, encode: Any) -> None:
    """A compressed body is as good as a plain one."""
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    assert numbers(live.http.post("/infer/tiny", content=encode(json.dumps(GOOD).encode()), headers=headers)) == DOUBLED


def test_multipart_gives_the_parts_to_the_plugin(live: Live) -> None:
    """A model type that accepts multipart/form-data gets the parts."""
    answer = live.http.post("/infer/tiny", files={"entry": ("x.json", json.dumps(GOOD), "application/json")})
    assert numbers(answer) == DOUBLED


@pytest.mark.parametrize("media_type", ["image/png", "text/plain; charset=utf-8", "application/jsonx", "*/*", "\xff"])
def test_a_wrong_media_type_is_refused_by_name(live: Live, media_type: str) -> None:
    """415 names the media types that are accepted, in the problem and in the Accept header."""
    headers = {"Content-Type": media_type.encode("latin-1")}
    answer = live.http.post("/infer/tiny", content=b"{}", headers=headers)  # type: ignore[arg-type]
    problem = check_problem(answer, 415)
    assert problem["accepts"] == ["application/json", "multipart/form-data"]
    assert answer.headers["accept"] == "application/json, multipart/form-data"


def test_a_missing_media_type_is_refused(live: Live) -> None:
    """A body without Content-Type is not guessed at."""
    check_problem(live.http.post("/infer/tiny", content=b"{}"), 415)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b'{"x": [[1, 2], [3]]}', 400),
        (b'{"x": [[1, 2, 3]]}', 422),
        (b'{"x": 1}', 422),
        (b'{"x": [[[1, 2, 3, 4]]]}', 422),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
    ],
)
def test_a_body_that_the_plugin_refuses(live: Live, body: bytes, status: int) -> None:
    """What is wrong with the body, or does not fit the model's specs, is the client's fault; the next one is served."""
    headers = {"Content-Type": "application/json"}
    check_problem(live.http.post("/infer/tiny", content=body, headers=headers), status)
    assert numbers(live.infer()) == DOUBLED


@pytest.mark.parametrize(
    "query", ["digits=x", "digits=1&digits=2", "model=double&model=triple", "unknown=1", "digits=1e400", "digits="]
)
def test_wrong_parameters(live: Live, query: str) -> None:
    """A parameter of the wrong type, twice, or unknown is 400."""
    check_problem(live.http.post(f"/infer/tiny?{query}", json=GOOD), 400)


@pytest.mark.parametrize("name", ["nobody", "", "../double", "a/../double", "double\0", "DOUBLE", "x" * 5000])
def test_a_model_that_is_not_there(live: Live, name: str) -> None:
    """A name is looked up, never opened."""
    check_problem(live.infer(params={"model": name}), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE"])
def test_another_method_is_not_allowed(live: Live, method: str) -> None:
    """405 says which methods are."""
    answer = live.http.request(method, "/infer/tiny")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    if method != "HEAD":
        check_problem(answer, 405)


@pytest.mark.parametrize(
    "path", ["/nothing", "/infer", "/infer/", "/infer/nothing", "/infer/tiny/more", "/%2e%2e/etc/passwd"]
)
def test_a_path_that_is_not_there(live: Live, path: str) -> None:
    """404 is a problem too."""
    check_problem(live.http.post(path, json=GOOD), 404)


@pytest.mark.parametrize(
    ("content", "coding", "status"),
    [
        (gzip.compress(bytes(50 << 20)), "gzip", 413),
        (zlib.compress(bytes(50 << 20)), "deflate", 413),
        (gzip.compress(b"{}")[:-4], "gzip", 400),
        (b"not gzip", "gzip", 400),
        (b"", "gzip", 400),
        (b"{}", "br", 415),
        (b"{}", "gzip, gzip", 415),
        (b"{}", "\x80", 415),
    ],
)
def test_bad_codings(live: Live, content: bytes, coding: str, status: int) -> None:
    """A body that inflates past the limit, ends early or has an unknown coding is refused, and costs no memory."""
    headers = {"Content-Type": "application/json", "Content-Encoding": coding.encode("latin-1")}
    check_problem(live.http.post("/infer/tiny", content=content, headers=headers), status)  # type: ignore[arg-type]
    assert numbers(live.infer()) == DOUBLED


def test_a_coding_around_multipart_is_refused(live: Live) -> None:
    """It is not undone, and says so."""
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"}
    check_problem(live.http.post("/infer/tiny", content=gzip.compress(b"--x--"), headers=headers), 415)


def test_a_body_over_the_limit(live: Live) -> None:
    """413, with a content-length and without one."""
    headers = {"Content-Type": "application/json"}
    large = bytes(1 << 20) + b"x"
    check_problem(live.http.post("/infer/tiny", content=large, headers=headers), 413)
    check_problem(live.http.post("/infer/tiny", content=iter([large, large]), headers=headers), 413)
    assert numbers(live.infer()) == DOUBLED


@pytest.mark.parametrize("where", ["preprocess", "postprocess"])
@pytest.mark.parametrize(
    ("raised", "status"),
    [
        ("SystemExit", 500),
        ("KeyboardInterrupt", 500),
        ("StopIteration", 500),
        ("GeneratorExit", 500),
        ("CancelledError", 500),
        ("TimeoutError", 500),
        ("MemoryError", 500),
        ("ZeroDivisionError", 500),
        ("RecursionError", 500),
    ],
)
def test_whatever_a_hook_raises_answers_its_own_request_only(live: Live, where: str, raised: str, status: int) -> None:
    """The text of an unexpected exception is not sent; the server goes on."""
    check_problem(live.infer(GOOD | {"raises": raised, "where": where}), status)
    assert numbers(live.infer()) == DOUBLED


@pytest.mark.parametrize("asked", [{"returns": "nothing"}, {"where": "encode"}])
def test_hooks_that_give_nonsense(live: Live, asked: dict[str, Any]) -> None:
    """A preprocess without a result, or a result that is no JSON, is 500 for that request."""
    check_problem(live.infer(GOOD | asked), 500)
    assert numbers(live.infer()) == DOUBLED


def test_multipart_floods(live: Live) -> None:
    """Too many parts, endless line ends and texts that cannot be decoded are 400 at once."""
    parts = b"".join(b'--x\r\nContent-Disposition: form-data; name="p%d"\r\n\r\n\r\n' % n for n in range(5000))
    head = b'--x\r\nContent-Disposition: form-data; name="p"\r\nContent-Type: text/plain; charset='
    for body in (
        parts + b"--x--",
        b"\r\n" * 400_000,
        b"--x\r\n" + b"\r\n" * 400_000,
        b"--x\r\n" + b"A: b\r\n" * 50_000,
        b"--x\r\nA: " + b"b" * 900_000,
        b"--x--",
        b"--x",
        b"nothing",
        b"",
        head + b"utf-8\r\n\r\n\xff\r\n--x--",
        head + b"nonsense\r\n\r\n\xff\r\n--x--",
    ):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = live.http.post("/infer/tiny", content=body, headers=headers, timeout=5)
        check_problem(answer, 400)
    check_problem(live.http.post("/infer/tiny", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    assert numbers(live.infer()) == DOUBLED


def test_concurrent_requests_are_each_answered_right(live: Live) -> None:
    """Sixty requests at once, in batches: each gets its own rows."""
    before = live.metric("ovllama_batch_size_count", model="double")
    waiting = [live.infer_later({"x": [[n, 0, 0, 0]], "sleep": 0.002}, "double") for n in range(60)]
    assert [numbers(each.result())[0][0] for each in waiting] == [2.0 * n for n in range(60)]
    assert live.metric("ovllama_batch_size_count", model="double") - before < 60


def test_head_of_an_answer_with_a_unicode_model(live: Live) -> None:
    """A model may have any name; headers are ASCII."""
    assert live.load("modèle-模型", "double.xml").headers["location"] == "/models/mod%C3%A8le-%E6%A8%A1%E5%9E%8B"
    answer = live.infer(model="modèle-模型")
    assert numbers(answer) == DOUBLED
    assert answer.headers["ovllama-model"] == "mod%C3%A8le-%E6%A8%A1%E5%9E%8B"
    live.unload("modèle-模型")


def test_every_problem_has_the_right_media_type(live: Live) -> None:
    """Not only the body is RFC 9457."""
    answer: httpx.Response = live.http.post("/infer/tiny", content=b"", headers={"Content-Type": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
