"""Engines that are killed while pictures are described, and a plugin that is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import mirrored
from tests.end_to_end.text.support import Served, await_true, command, events, serving
from tests.plugins.multimodal.llava import EXACT, cat_pixels, file_of
from tests.server.support import SECRETS

from .support import ROUTE, Parts, ask, cat, check_golden, llava_entry


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of its own, with one model."""
    mirrored("tiny-llava")
    folder = tmp_path_factory.mktemp("mortal")
    with serving(folder, {"llava": llava_entry(folder, properties=EXACT)}) as running:
        yield running


def ready(served: Served) -> bool:
    return served.http.get("/health/ready").status_code == 200


def long_request() -> Parts:
    """Two large pictures and many tokens, so that most of several are still at work when the engine is killed."""
    picture = cat(file_of(cat_pixels().repeat(3, 0).repeat(3, 1)[:1200, :1200], "BMP"), "image/bmp")
    fields = {"text": "describe", "max_tokens": "300", "ignore_eos": "true"}
    return [picture, picture] + [(name, (None, value)) for name, value in fields.items()]


def test_a_killed_engine(mortal: Served) -> None:
    """Whoever waits is told, in one and in a stream; it is started again, and then answers as before."""
    check_golden(ask(mortal).json()["results"])
    (engine,) = mortal.engines()

    def streamed() -> Any:
        with mortal.http.stream("POST", f"{ROUTE}/stream", files=long_request()) as answer:
            if answer.status_code != 200:  # it had not begun
                return answer.status_code, json.loads(answer.read())
            kind, last = list(events(answer))[-1]
            return (last["status"], last) if kind == "error" else (200, last)

    def whole() -> httpx.Response:
        return mortal.http.post(ROUTE, files=long_request())

    with ThreadPoolExecutor(16) as threads:
        streams = [threads.submit(streamed) for _ in range(8)]
        answers = [threads.submit(whole) for _ in range(8)]
        await_true(lambda: mortal.gauge("llava", "running_sequences") > 0)
        os.kill(engine, signal.SIGKILL)
        told = [(each.result(20).status_code, each.result(20).json()) for each in answers]
        told += [each.result(20) for each in streams]
    failed = [problem for status, problem in told if status >= 500]
    assert {status for status, _ in told} <= {200, 500, 503}  # some may have been answered before, some came after
    assert failed
    for problem in failed:
        assert "the engine of model 'llava'" in problem["detail"]
        assert not any(secret in str(problem) for secret in SECRETS)
    await_true(lambda: not command(engine))
    await_true(lambda: ready(mortal), 60)
    assert mortal.gauge("llava", "restarts") == 1
    check_golden(ask(mortal).json()["results"])


def test_while_the_engine_is_away(mortal: Served) -> None:
    """The server says that it is not ready, and when to come again."""
    (engine,) = mortal.engines()
    os.kill(engine, signal.SIGKILL)
    await_true(lambda: not ready(mortal))
    answer = ask(mortal)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "llava" in answer.json()["detail"]
    await_true(lambda: ready(mortal), 60)
    check_golden(ask(mortal).json()["results"])


def test_without_the_plugin(tmp_path: Path) -> None:
    """A registry's model of its type is a problem that names the package; what else there is is served."""
    model = llava_entry(tmp_path)
    with serving(tmp_path, {"llava": model}, OVLLAMA_DISABLED_PLUGINS="multimodal") as served:
        shown = served.http.get("/models/llava")
        assert "openvino-llama-multimodal" in shown.text
        assert not any(secret in shown.text for secret in SECRETS)
        assert served.http.post(ROUTE, files=[cat()]).status_code == 404
        plugins = {each["name"]: each["status"] for each in served.http.get("/plugins").json()["plugins"]}
        assert (plugins["multimodal"], plugins["text"], plugins["vision"]) == ("disabled", "loaded", "loaded")
        answer = served.http.post("/models/load", json=model | {"name": "again"})
        assert answer.status_code == 400
        assert "openvino-llama-multimodal" in answer.json()["detail"]


def test_the_command_line_without_the_plugin(tmp_path: Path) -> None:
    """Names the package, too."""
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"models": {"llava": llava_entry(tmp_path)}}))
    picture = str(tmp_path / "llava" / "cat.jpg")
    arguments = [
        sys.executable,
        "-m",
        "openvino_llama",
        "infer",
        "llava",
        picture,
        "text=a",
        "--registry",
        str(registry),
    ]
    environment = os.environ | {"OVLLAMA_DISABLED_PLUGINS": "multimodal"}
    done = subprocess.run(arguments, capture_output=True, timeout=60, check=False, env=environment)
    assert done.returncode != 0
    assert b"openvino-llama-multimodal" in done.stderr
    assert b"Traceback" not in done.stderr
