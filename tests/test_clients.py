"""The clients in ``examples/clients`` against a running server."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from PIL import Image
from tests.plugins.text.conftest import smollm2

__all__ = ["smollm2"]

CLIENTS = Path(__file__).parent.parent / "examples" / "clients"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clients, two pictures, and a model that tells red from green and blue."""
    folder = tmp_path_factory.mktemp("clients")
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    Image.new("RGB", (400, 300), "red").save(folder / "red.png")
    Image.new("RGB", (400, 300), "blue").save(folder / "blue.png")
    (folder / "broken.png").write_bytes(b"this is no picture")
    models = folder / "models"
    pixels = ops.parameter([-1, 3, 8, 8], np.float32, name="pixels")
    means = ops.softmax(ops.reduce_mean(pixels, np.array([2, 3])), 1)
    ov.save_model(ov.Model([means], [pixels], "colours"), models / "colours.xml")
    entry = {
        "type": "vision",
        "task": "classification",
        "files": {"model": "colours.xml", "weights": "colours.bin"},
        "config": {"labels": ["red", "green", "blue"], "preprocessing": {"normalize": {}}},
    }
    (models / "registry.json").write_text(json.dumps({"models": {"colours": entry}}))
    return folder


class Page(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    """Where the page is served from."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Page, directory=folder)) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield f"http://localhost:{pages.server_port}"
        pages.shutdown()
        thread.join()


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[str]:
    """The address of a server."""
    command = [sys.executable, "-m", "openvino_llama", "serve", "--port", "0", "--cache-dir", ""]
    process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stdout:
        try:
            yield stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def server(folder: Path, origin: str) -> Iterator[str]:
    """A server that lets the page call it."""
    with serving(folder, OVLLAMA_CORS_ORIGINS=origin) as address:
        yield address


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_curl(folder: Path, server: str) -> None:
    """Every request of the script is answered, the last one with a problem."""
    done = run(folder, "sh", "curl.sh", "red.png", server)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answers[0] == {"status": "ready"}
    assert [model["id"] for model in answers[1]["models"]] == ["colours"]
    assert answers[2]["results"][0]["label"] == "red"
    assert answers[3]["status"] == 415
    assert size(folder / "drawn.png") == (400, 300)


def test_python(folder: Path, server: str) -> None:
    """Results on stdout, the drawn picture in a file."""
    done = run(folder, sys.executable, "python_client.py", "blue.png", "--server", server, "--drawn", "out.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["label"] == "blue"
    assert size(folder / "out.png") == (400, 300)


def test_python_shows_problems(folder: Path, server: str) -> None:
    """As a sentence, with exit code 1."""
    for arguments in (["broken.png"], ["red.png", "--model", "other"]):
        done = run(folder, sys.executable, "python_client.py", *arguments, "--server", server)
        assert done.returncode == 1
        assert done.stderr.startswith("python_client: 40")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("client", ["python_client.py", "openai_client.py"])
def test_python_names_a_picture_that_is_not_there(folder: Path, client: str) -> None:
    """In one line, whether there is a server or not."""
    given = ["nope.png"] if client == "python_client.py" else ["What is this?", "--picture", "nope.png"]
    done = run(folder, sys.executable, client, *given, "--server", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{client.removesuffix('.py')}: nope.png: No such file or directory\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_curl_says_what_is_wrong(folder: Path, server: str) -> None:
    """A picture that is not there, by its name; one that is none, by the server's problem."""
    missing = run(folder, "sh", "curl.sh", "nope.jpg", server)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "curl.sh: nope.jpg: there is no such file, or it cannot be read\n"
    broken = run(folder, "sh", "curl.sh", "broken.png", server)
    assert broken.returncode == 22  # as curl says it
    assert json.loads(broken.stdout.splitlines()[-1])["status"] == 400
    for script, usage in (("curl.sh", "PICTURE"), ("stream.sh", "TEXT")):
        done = run(folder, "sh", script)
        assert (done.returncode, done.stderr) == (2, f"usage: sh {script} {usage} [ADDRESS]\n")


def test_with_an_api_key(folder: Path) -> None:
    """The key comes from the environment; without it there is a sentence."""
    with serving(folder, OVLLAMA_API_KEY="a key") as address:
        ask = (sys.executable, "python_client.py", "red.png", "--server", address)
        assert "API key" in run(folder, *ask).stderr
        assert run(folder, *ask, OVLLAMA_API_KEY="a key").returncode == 0
        if shutil.which("curl"):
            assert run(folder, "sh", "curl.sh", "red.png", address, OVLLAMA_API_KEY="a key").returncode == 0


def browse(folder: Path, address: str) -> str:
    """The page's document once it has settled."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    profile = f"--user-data-dir={folder / 'profile'}"
    return run(folder, str(BROWSER), *options, profile, address).stdout


@pytest.mark.skipif(not BROWSER, reason="no browser here")
def test_browser(folder: Path, origin: str, server: str) -> None:
    """The page, from its own origin, lists the models, sends a picture and shows results and drawing."""
    page = browse(folder, f"{origin}/browser.html?{urlencode({'server': server, 'picture': 'red.png'})}")
    assert '<option value="colours">colours (classification)</option>' in page
    assert "<td>red</td>" in page
    assert 'src="blob:' in page


@pytest.mark.skipif(not BROWSER, reason="no browser here")
def test_browser_shows_problems(folder: Path, origin: str, server: str) -> None:
    """The detail of a problem answer is readable from another origin."""
    page = browse(folder, f"{origin}/browser.html?{urlencode({'server': server, 'picture': 'broken.png'})}")
    assert '<p role="alert">400 Bad Request: ' in page


@pytest.mark.skipif(not BROWSER, reason="no browser here")
def test_pages_of_other_origins_get_nothing(folder: Path, origin: str, server: str) -> None:
    """The same page, from an origin that the server does not name."""
    other = origin.replace("localhost", "127.0.0.1")
    page = browse(folder, f"{other}/browser.html?{urlencode({'server': server, 'picture': 'red.png'})}")
    assert "<td>red</td>" not in page
    assert '<p role="alert">Failed to fetch</p>' in page


def test_the_pages_origin_is_allowed_by_default(folder: Path) -> None:
    """http://localhost:8000, where the page's own words say that it is to be served."""
    assert "http://localhost:8000" in (CLIENTS / "browser.html").read_text("utf-8")
    with serving(folder) as address:
        headers = {"Origin": "http://localhost:8000", "Access-Control-Request-Method": "POST"}
        headers |= {"Access-Control-Request-Headers": "content-type,x-api-key"}
        answer = httpx.options(f"{address}/infer/image", headers=headers, trust_env=False)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:8000"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"content-type", "x-api-key"} <= set(answer.headers["access-control-allow-headers"].lower().split(", "))


@pytest.fixture(scope="module")
def writer(folder: Path, origin: str, smollm2: Path) -> Iterator[str]:
    """A server with a language model, which lets the page call it."""
    files = {"model": "openvino_model.xml", "weights": "openvino_model.bin"}
    shutil.copytree(smollm2, folder / "models" / "smol")
    entry = {"type": "text", "task": "generation", "files": {role: f"smol/{name}" for role, name in files.items()}}
    registry = folder / "models" / "texts.json"
    registry.write_text(json.dumps({"models": {"smol": entry}}))
    with serving(folder, OVLLAMA_CORS_ORIGINS=origin, MODEL_REGISTRY_PATH=str(registry)) as address:
        yield address


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_curl_shows_a_stream(folder: Path, writer: str) -> None:
    """Pieces of the text, and at the end all of it; a problem for a text that is none."""
    done = run(folder, "sh", "stream.sh", "The capital of France is", writer)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line.removeprefix("data: ")) for line in done.stdout.splitlines() if line.startswith("data: ")]
    *pieces, whole = events
    assert "".join(each["text"] for each in pieces) == whole["results"]["generated_text"]
    assert whole["results"]["generated_text"].startswith(" Paris")
    refused = run(folder, "sh", "stream.sh", "", writer)
    assert refused.returncode != 0
    assert json.loads(refused.stdout)["status"] == 400


def test_openai(folder: Path, writer: str) -> None:
    """The model is found, and its answer printed; an error is a sentence."""
    ask = (sys.executable, "openai_client.py", "--server", writer, "What is the capital of France?")
    done = run(folder, *ask, "--max-tokens", "16")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    wrong = run(folder, *ask, "--model", "gpt-4")
    assert wrong.returncode == 1
    assert "there is no model 'gpt-4'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.skipif(not BROWSER, reason="no browser here")
def test_a_browser_shows_a_stream(folder: Path, origin: str, writer: str) -> None:
    """The page's EventSource gets every piece, and ends with the stream."""
    page = browse(folder, f"{origin}/stream.html?{urlencode({'server': writer, 'prompt': 'The capital of France is'})}")
    assert "The capital of France is Paris" in page
    assert re.search(r'<p role="status">\d+ tokens, (stop|length)</p>', page)
