"""Repositories of a hub that an operator names: listed, and verified as far as the hub states hashes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from openvino_llama.errors import SourceError
from openvino_llama.sources import Convert, IndexedModel, describe

COMMIT = "1234567890" * 4
WEIGHTS = b"weights" * 1000
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "x.gguf": b"g",
}
LARGE = {"model.safetensors", "pytorch_model.bin", "x.gguf"}


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for one repository."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        resolved = f"/owner/repo/resolve/{COMMIT}/"
        if path in {"/api/models/owner/repo", "/api/models/owner/repo/revision/v1"}:
            self.reply(json.dumps(listing()).encode(), "application/json")
        elif path.startswith(resolved) and path.removeprefix(resolved) in FILES:
            self.reply(FILES[path.removeprefix(resolved)], "application/octet-stream")
        else:
            self.reply(b"{}", "application/json", 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self, body: bytes, media_type: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header(
            "X-Repo-Commit" if status == 200 else "X-Error-Code", COMMIT if status == 200 else "RepoNotFound"
        )
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def listing() -> dict[str, object]:
    files = []
    for name, content in FILES.items():
        file: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
        if name in LARGE:
            file["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 128}
        files.append(file)
    return {"id": "owner/repo", "modelId": "owner/repo", "sha": COMMIT, "siblings": files, "tags": [], "private": False}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra 'hf' is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def described(source: str) -> IndexedModel:
    return describe(source, {"type": "text", "task": "embedding"}, lambda *_: None)


@pytest.mark.parametrize("source", ["hf:owner/repo", "hf:owner/repo@v1"])
def test_a_folder(source: str) -> None:
    """Pinned to the commit; without the formats that safetensors stand for."""
    model = described(source)
    assert model.convert == Convert("huggingface")
    assert set(model.files) == {"config.json", "model.safetensors"}
    for name, file in model.files.items():
        assert file.source == f"hf:owner/repo@{COMMIT}#{name}"
        assert (file.size, file.sha256) == (len(FILES[name]), hashlib.sha256(FILES[name]).hexdigest())


def test_one_file() -> None:
    model = described("hf:owner/repo#x.gguf")
    assert model.convert == Convert("gguf")
    assert [file.path for file in model.files.values()] == ["x.gguf"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:owner/nobody", "hf:owner/nobody: the hub does not list it: RepositoryNotFoundError"),
        ("hf:owner/repo#absent", "hf:owner/repo: there is no file 'absent'"),
        ("hf:owner", "expected hf:OWNER/REPO"),
    ],
)
def test_none(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        described(source)
