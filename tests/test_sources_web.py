"""Pulling over HTTP, from a server on this machine that behaves as badly as servers do."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from openvino_llama.errors import SourceError
from openvino_llama.sources import IndexedFile, IndexedModel, pull, web

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY; how, the path says. ``/cut/300`` closes the connection after 300 bytes of each answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers, in lower case, of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news here."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((unquote(self.path), {k.lower(): v for k, v in self.headers.items()}))
        kind, _, rest = self.path[1:].partition("?")[0].partition("/")
        answer = getattr(self, f"answer_{kind}", None)
        if answer:
            answer(rest)
        else:
            self.answer_status("404")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def offset(self) -> int:
        asked = self.headers.get("Range", "bytes=0-")
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def partial(self, offset: int) -> None:
        if offset:
            content_range = f"bytes {offset}-{len(BODY) - 1}/{len(BODY)}"
            self.begin(206, Content_Range=content_range, Content_Length=len(BODY) - offset)
        else:
            self.begin(200, Content_Length=len(BODY))

    def answer_good(self, _: str) -> None:
        self.partial(self.offset())
        self.wfile.write(BODY[self.offset() :])

    def answer_cut(self, length: str) -> None:
        """Closes the connection after so many bytes."""
        offset = self.offset()
        self.partial(offset)
        self.wfile.write(BODY[offset : offset + int(length)])
        self.close_connection = True

    def answer_norange(self, length: str) -> None:
        """The whole body, whatever was asked; with a length, cut the first time."""
        self.begin(200, Content_Length=len(BODY))
        cut = length and len(self.server.requests) == 1
        self.wfile.write(BODY[: int(length)] if cut else BODY)
        self.close_connection = True

    def answer_otherrange(self, _: str) -> None:
        """A range, but not the one that was asked for."""
        if self.offset():
            self.begin(206, Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}", Content_Length=len(BODY) - 5)
            self.wfile.write(BODY[5:])
        else:
            self.answer_good("")

    def answer_unsatisfiable(self, _: str) -> None:
        if self.offset():
            self.begin(416, Content_Length=0)
        else:
            self.answer_good("")

    def answer_wrong(self, _: str) -> None:
        self.partial(self.offset())
        self.wfile.write(b"x" * (len(BODY) - self.offset()))

    def answer_short(self, _: str) -> None:
        """Less than expected, with a length that says so."""
        self.begin(200, Content_Length=1000)
        self.wfile.write(BODY[:1000])

    def answer_long(self, _: str) -> None:
        self.begin(200, Content_Length=2 * len(BODY))
        self.wfile.write(BODY * 2)

    def answer_endless(self, _: str) -> None:
        self.begin(200, Transfer_Encoding="chunked")
        while True:
            self.wfile.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    def answer_status(self, status: str) -> None:
        self.begin(int(status), Content_Length=0)

    def answer_to(self, url: str) -> None:
        self.begin(302, Location=unquote(url), Content_Length=0)

    def answer_owner(self, rest: str) -> None:
        """What the hub answers: a redirect to where the bytes are."""
        assert unquote(rest) == "repo.x/resolve/v1/folder/my model.bin"
        self.begin(302, Location="/good", Content_Length=0)


@pytest.fixture(name="server")
def run_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def indexed(source: str) -> IndexedModel:
    file = IndexedFile(source, SHA256, len(BODY), "m/model.bin")
    return IndexedModel("", "Apache-2.0", {"model": file}, {"type": "vision", "task": "classification"})


def pull_until_killed(url: str, folder: Path) -> None:
    def kill(description: str, done: int, total: int | None) -> None:
        if done > 1000:
            os.kill(os.getpid(), signal.SIGKILL)

    pull(indexed(url), "m", folder, progress=kill)


def left(folder: Path) -> dict[str, bytes]:
    """What is in the folder, below it and hidden too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pulled(server: Server, path: str, folder: Path) -> bytes:
    pull(indexed(f"{server.url}/{path}"), "m", folder)
    files = left(folder)
    assert set(files) == {"registry.json", "m/model.bin"}
    return files["m/model.bin"]


class TestGood:
    def test_a_file(self, server: Server, tmp_path: Path) -> None:
        told: list[tuple[str, int, int | None]] = []
        pull(indexed(f"{server.url}/good"), "m", tmp_path, progress=lambda *each: told.append(each))
        assert left(tmp_path)["m/model.bin"] == BODY
        assert told[0] == ("m: model.bin", 0, len(BODY))
        assert told[-1] == ("m: model.bin", len(BODY), len(BODY))
        assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)

    def test_what_is_there_is_not_fetched_again(self, server: Server, tmp_path: Path) -> None:
        pulled(server, "good", tmp_path)
        assert pulled(server, "good", tmp_path) == BODY
        assert len(server.requests) == 1

    def test_what_is_there_and_wrong_is_replaced(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "model.bin").write_bytes(b"x" * len(BODY))
        assert pulled(server, "good", tmp_path) == BODY

    def test_no_content_coding_is_asked_for(self, server: Server, tmp_path: Path) -> None:
        pulled(server, "good", tmp_path)
        assert server.requests[0][1]["accept-encoding"] == "identity"


class TestBroken:
    def test_a_connection_that_breaks_is_taken_up(self, server: Server, tmp_path: Path) -> None:
        """Within one pull: each attempt goes on where the one before broke."""
        assert pulled(server, "cut/400000", tmp_path) == BODY
        assert server.ranges == [None, "bytes=400000-", "bytes=800000-"]

    def test_a_pull_that_breaks_is_taken_up(self, server: Server, tmp_path: Path) -> None:
        """The next pull goes on where this one broke."""
        with pytest.raises(SourceError, match=r"after 3000 of 1048576 bytes; pull again to go on"):
            pulled(server, "cut/1000", tmp_path)
        assert left(tmp_path) == {"m/model.bin.part": BODY[:3000]}
        assert pulled(server, "good", tmp_path) == BODY
        assert server.ranges[-1] == "bytes=3000-"

    def test_a_server_without_ranges(self, server: Server, tmp_path: Path) -> None:
        """It is asked for the rest, sends everything, and everything is taken."""
        assert pulled(server, "norange/5000", tmp_path) == BODY
        assert server.ranges == [None, "bytes=5000-"]

    @pytest.mark.parametrize("path", ["otherrange", "unsatisfiable"])
    def test_a_server_with_other_ranges(self, server: Server, tmp_path: Path, path: str) -> None:
        self.leave_part(tmp_path, BODY[:1000])
        if path == "otherrange":
            with pytest.raises(SourceError, match="answered 206"):
                pulled(server, path, tmp_path)
        else:
            assert pulled(server, path, tmp_path) == BODY
            assert server.ranges == ["bytes=1000-", None]

    def test_the_part_of_another_file(self, server: Server, tmp_path: Path) -> None:
        """The file behind the address has changed since: the pull begins anew by itself."""
        self.leave_part(tmp_path, b"other" * 100)
        assert pulled(server, "good", tmp_path) == BODY
        assert server.ranges == ["bytes=500-", None]

    @pytest.mark.parametrize("size", [0, len(BODY), len(BODY) + 1])
    def test_a_part_that_cannot_be_taken_up(self, server: Server, tmp_path: Path, size: int) -> None:
        self.leave_part(tmp_path, b"x" * size)
        assert pulled(server, "good", tmp_path) == BODY
        assert server.ranges == [None]

    def test_a_part_that_only_lacks_its_name(self, server: Server, tmp_path: Path) -> None:
        self.leave_part(tmp_path, BODY)
        assert pulled(server, "good", tmp_path) == BODY
        assert server.requests == []

    def test_a_part_that_is_a_link(self, server: Server, tmp_path: Path) -> None:
        """Nothing is written through it."""
        outside = tmp_path / "outside"
        outside.write_text("mine")
        models = tmp_path / "models"
        (models / "m").mkdir(parents=True)
        (models / "m" / "model.bin.part").symlink_to(outside)
        assert pulled(server, "good", models) == BODY
        assert outside.read_text() == "mine"

    def test_an_error_keeps_the_part(self, server: Server, tmp_path: Path) -> None:
        self.leave_part(tmp_path, BODY[:1000])
        with pytest.raises(SourceError, match="answered 503"):
            pulled(server, "status/503", tmp_path)
        assert left(tmp_path) == {"m/model.bin.part": BODY[:1000]}

    def test_ctrl_c(self, server: Server, tmp_path: Path) -> None:
        """What has come stays as a part, and the next pull goes on with it."""

        def interrupt(description: str, done: int, total: int | None) -> None:
            if done > 1000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pull(indexed(f"{server.url}/good"), "m", tmp_path, progress=interrupt)
        (name, data), *others = left(tmp_path).items()
        assert (name, others) == ("m/model.bin.part", [])
        assert BODY.startswith(data)
        assert pulled(server, "good", tmp_path) == BODY
        assert server.ranges[-1] == f"bytes={len(data)}-"

    def test_a_kill(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What not even the process itself sees coming leaves no more than a part, and a lock that holds nobody."""
        temporary, models = tmp_path / "temporary", tmp_path / "models"
        temporary.mkdir()
        monkeypatch.setenv("TMPDIR", str(temporary))
        context = multiprocessing.get_context("spawn")
        worker = context.Process(target=pull_until_killed, args=(f"{server.url}/good", models))
        worker.start()
        worker.join(60)
        assert worker.exitcode == -signal.SIGKILL
        assert set(left(models)) == {".m.lock", "m/model.bin.part"}
        assert pulled(server, "good", models) == BODY
        assert server.ranges[-1] is not None

    @staticmethod
    def leave_part(folder: Path, data: bytes) -> None:
        (folder / "m").mkdir()
        (folder / "m" / "model.bin.part").write_bytes(data)


class TestWrong:
    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("wrong", f"file 'model.bin': expected sha256 {SHA256}, got [0-9a-f]{{64}}$"),
            ("short", "file 'model.bin': expected 1048576 bytes, got 1000$"),
            ("long", "file 'model.bin': expected 1048576 bytes, got more$"),
            ("endless", "file 'model.bin': expected 1048576 bytes, got more$"),
            ("status/404", "/status/404: answered 404$"),
            ("status/416", "/status/416: answered 416$"),
            ("status/206", "/status/206: answered 206$"),
            ("to//to/loop", "TooManyRedirects after 0 of 1048576 bytes$"),
        ],
    )
    def test_nothing_is_left(self, server: Server, tmp_path: Path, path: str, message: str) -> None:
        with pytest.raises(SourceError, match=message):
            pulled(server, path, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_wrong_bytes_after_a_part(self, server: Server, tmp_path: Path) -> None:
        """The part could have been to blame: it is tried without, and then given up."""
        TestBroken.leave_part(tmp_path, BODY[:1000])
        with pytest.raises(SourceError, match="expected sha256"):
            pulled(server, "wrong", tmp_path)
        assert server.ranges == ["bytes=1000-", None]
        assert left(tmp_path) == {}

    def test_nobody_there(self, tmp_path: Path) -> None:
        with Server() as closed:
            url = closed.url
        with pytest.raises(SourceError, match="ConnectError after 0 of 1048576 bytes"):
            pull(indexed(f"{url}/good"), "m", tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestWhereTo:
    def test_a_redirect(self, server: Server, tmp_path: Path) -> None:
        assert pulled(server, "to//good", tmp_path) == BODY

    @pytest.mark.parametrize("target", ["http://192.0.2.1/x", "http://example.invalid/x", "ftp://127.0.0.1/x"])
    def test_a_redirect_to_plain_http(self, server: Server, tmp_path: Path, target: str) -> None:
        """Elsewhere than on this machine, only https is followed."""
        with pytest.raises(SourceError, match=r"which is not https$|UnsupportedProtocol"):
            pulled(server, f"to/{target}", tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_redirect_into_this_machine(self) -> None:
        """An https address must not lead to what listens here."""
        source = web.parse("https://example.invalid/x")
        with pytest.raises(SourceError, match=r"leads to http://127\.0\.0\.1, which is not https$"):
            source._check_request(httpx.Request("GET", "http://127.0.0.1/x"))

    @pytest.mark.parametrize("url", ["http://192.0.2.1/x", "http://127.0.0.1.example.invalid/x", "http://2130706433/x"])
    def test_plain_http(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(SourceError, match=r"which is not https$|UnsupportedProtocol"):
            pull(indexed(url), "m", tmp_path)

    @pytest.mark.parametrize("url", ["https://", "https://[", "https:x", "https://a:b/", "http:///x", "https://\0"])
    def test_no_address(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(SourceError):
            pull(indexed(url), "m", tmp_path)

    def test_secrets_are_not_told(self, server: Server, tmp_path: Path) -> None:
        url = f"{server.url.replace('//', '//user:password@')}/status/403?token=secret"
        with pytest.raises(SourceError) as caught:
            pull(indexed(url), "m", tmp_path)
        assert str(caught.value) == "http://127.0.0.1/status/403: answered 403"


class TestHub:
    SOURCE = "hf:owner/repo.x@v1#folder/my model.bin"

    @pytest.fixture(autouse=True)
    def hub(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = pytest.importorskip("huggingface_hub.constants", reason="the extra 'hf' is not installed")
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def test_a_file(self, server: Server, tmp_path: Path) -> None:
        """It is asked for by repository, revision and path, at the endpoint that the environment names."""
        pull(indexed(self.SOURCE), "m", tmp_path / "models")
        assert left(tmp_path / "models")["m/model.bin"] == BODY
        assert server.requests[0][0] == "/owner/repo.x/resolve/v1/folder/my model.bin"

    def test_the_token(self, server: Server, tmp_path: Path) -> None:
        pull(indexed(self.SOURCE), "m", tmp_path / "models")
        assert server.requests[0][1]["authorization"] == "Bearer hf_secret"

    def test_the_token_goes_to_the_hub_only(self, server: Server, tmp_path: Path) -> None:
        """Not to the place that the hub redirects to."""
        source = web.WebSource(
            f"{server.url}/to/{server.url.replace('127.0.0.1', 'localhost')}/good", {"Authorization": "x"}
        )
        with source._client() as client:
            client.get(source.url, headers=dict(source.headers))
        assert "authorization" in server.requests[0][1]
        assert "authorization" not in server.requests[1][1]

    def test_the_cache(self, server: Server, tmp_path: Path) -> None:
        """A copy that the hub's own package has brought before is taken, if it is a good one."""
        repo = tmp_path / "cache" / "models--owner--repo.x"
        snapshot = repo / "snapshots" / ("0" * 40) / "folder"
        snapshot.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "v1").write_text("0" * 40)
        for content, requests in ((BODY[:-1], 2), (BODY, 2)):
            (snapshot / "my model.bin").write_bytes(content)
            pull(indexed(self.SOURCE), "m", tmp_path / f"models{len(content)}")
            assert len(server.requests) == requests

    @pytest.mark.parametrize(
        "source",
        [
            "hf:",
            "hf:repo@v1#x",
            "hf:owner/repo#x",
            "hf:owner/repo@v1",
            "hf:a/b/c@v1#x",
            "hf:a/..@v1#x",
            "hf:a/b--c@v#x",
        ],
    )
    def test_no_source(self, tmp_path: Path, source: str) -> None:
        with pytest.raises(SourceError, match=r"expected hf:OWNER/REPO@REVISION#PATH|not a name that the hub gives"):
            pull(indexed(source), "m", tmp_path / "models")


def test_without_the_hub_s_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match=r"^hf:a/b@c#d: needs the package huggingface-hub; install it with: pip"):
        pull(indexed("hf:a/b@c#d"), "m", tmp_path)
