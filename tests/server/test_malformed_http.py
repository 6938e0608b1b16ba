"""What is no HTTP, or too much of it, over bare sockets; a good request is answered after each."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
from tests.server.support import GOOD, Live, numbers

from openvino_llama.server import protocol

BODY = json.dumps(GOOD).encode()
HEAD = b"POST /infer/tiny HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
FULL = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(autouse=True)
def _still_serves(live: Live) -> Iterator[None]:
    yield
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]


def talk(live: Live, *pieces: bytes) -> bytes:
    """Send the pieces and read until the server hangs up, or has nothing to say for a second."""
    answer = b""
    with live.connect() as connection:
        connection.settimeout(1)
        try:
            for piece in pieces:
                connection.sendall(piece)
            while received := connection.recv(1 << 16):
                answer += received
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /infer/tiny HTTP/9.9\r\n\r\n",
        b"POST  HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        "GET /ü HTTP/1.1\r\n\r\n".encode(),
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnothex\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        HEAD + b"A\0B: c\r\n\r\n",
        HEAD + b"A: b\0c\r\n\r\n",
        HEAD + b" folded\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400(live: Live, request_bytes: bytes) -> None:
    """The answer is a problem, and the connection is closed."""
    answer = talk(live, request_bytes)
    assert status(answer) == 400
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (HEAD + b"Content-Length: 3\r\n\r\n" + BODY, 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 0\r\n\r\n", 400),
        (b"POST /infer/tiny HTTP/1.0\r\n\r\n", 415),
        (HEAD + b"Content-Length: 9999999\r\n\r\n", 413),
        (HEAD.replace(b"tiny", b"tin%79") + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, 200),
        (HEAD.replace(b"tiny", b"%ff%fe") + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, 404),
        (HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(BODY) + BODY, 100),
        (HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
    ],
)
def test_unusual_http(live: Live, request_bytes: bytes, expected: int) -> None:
    """What is HTTP is answered as HTTP."""
    assert status(talk(live, request_bytes)) == expected


def test_a_body_shorter_than_it_says(live: Live) -> None:
    """A client that leaves in the middle of its body leaves nothing behind."""
    before = live.metric("ovllama_queue_length", model="double")
    with live.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
    assert live.metric("ovllama_queue_length", model="double") == before


def test_pipelined_requests_are_answered_in_order(live: Live) -> None:
    """Two requests in one piece give two answers."""
    assert talk(live, FULL + FULL).count(b'"y":[[2.0,4.0,6.0,8.0]]') == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n"],
        [HEAD + b"X: y\r\n" * 15_000 + b"\r\n"],
        [b"POST /infer/tiny?" + b"q" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
        [HEAD + b"X: "] + [b"y" * 10_000] * 2000,
        [HEAD] + [b"X: y\r\n" * 1000] * 2000,
        [b"GET /" + b"q" * 1000] + [b"q" * 10_000] * 2000,
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"] + [b"X: y\r\n" * 1000] * 2000,
    ],
)
def test_a_head_that_is_too_large_is_431(live: Live, pieces: list[bytes]) -> None:
    """In one piece or in many, finished or not: the server does not collect it."""
    answer = talk(live, *pieces)
    # Where the client was still sending, its own reset may have overtaken the answer.
    assert not answer or status(answer) == 431
    assert len(pieces) > 1 or status(answer) == 431


def test_a_large_head_is_no_problem_below_the_limit(live: Live) -> None:
    """Cookies and tokens of some size are common."""
    head = HEAD + b"X: " + b"y" * 60_000 + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    assert status(talk(live, head + BODY)) == 200


def test_a_large_body_does_not_count_as_head(live: Live) -> None:
    """Bodies have a limit of their own, however their pieces arrive."""
    body = BODY + b" " * 500_000
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    assert status(talk(live, head + body)) == 200
    assert status(talk(live, head, body)) == 200
    assert talk(live, FULL + head + body + FULL).count(b"200 OK") == 3


def test_very_many_chunks(live: Live) -> None:
    """A body in chunks of one byte is read in time that grows with its length only."""
    body = BODY + b" " * 300_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    started = time.perf_counter()
    assert status(talk(live, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)) == 200
    assert time.perf_counter() - started < 5


def test_chunk_extensions(live: Live) -> None:
    """They are legal, and ignored."""
    chunk = b"%x%s\r\n%s\r\n0\r\n\r\n" % (len(BODY), b";a=b" * 500, BODY)
    assert status(talk(live, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)) == 200


def test_half_closed(live: Live) -> None:
    """A client that closes its sending side counts as one that has left; nothing waits for it."""
    with live.connect() as connection:
        connection.sendall(FULL)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(5)
        received = connection.recv(1 << 16)
    assert not received or status(received) == 200


def test_a_head_that_does_not_end_is_hung_up_on(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection, and a head that comes byte by byte, are not kept for ever."""
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.3)
    for piece in (b"", b"\r\n", b"POST /infer/tiny HT", FULL + b"POST"):
        with live.connect() as connection:
            connection.sendall(piece)
            connection.settimeout(5)
            while connection.recv(1 << 16):
                pass


def test_line_breaks_after_an_answer_are_no_head(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep a connection no longer than the beginning of a head does."""
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.3)
    with live.connect() as connection:
        connection.settimeout(5)
        connection.sendall(FULL)
        assert status(connection.recv(1 << 16)) == 200
        connection.sendall(b"\r\n")
        while connection.recv(1 << 16):
            pass


def test_a_body_that_does_not_end_is_408(live: Live) -> None:
    """A body that takes longer than the model's deadline is not waited for."""
    head = HEAD.replace(b"/tiny", b"/tiny?model=hasty") + b"Content-Length: 1000\r\n\r\n{"
    assert status(talk(live, head)) == 408
