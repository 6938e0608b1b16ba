"""Engines that are killed, servers that are killed, models that come and go while they work."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import EXACT
from .support import GENERATION, STORY, Served, await_true, command, entry, events, serving

LONG = {"prompt": STORY, "max_tokens": 900, "temperature": 0, "ignore_eos": True}
SHORT = {"prompt": STORY, "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def mortal(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of its own, with one model."""
    folder = tmp_path_factory.mktemp("mortal")
    with serving(folder, {"smol": entry(folder, smollm2, config=GENERATION, properties=EXACT)}) as running:
        yield running


def ready(served: Served) -> bool:
    return served.http.get("/health/ready").status_code == 200


def test_a_killed_engine(mortal: Served) -> None:
    """Each of its requests ends with a clear error; it is started again, and then the next one is answered."""
    expected = mortal.infer(SHORT)
    (engine,) = mortal.engines()
    client = openai.OpenAI(
        base_url=f"{mortal.address}/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )

    def streamed() -> Any:
        with mortal.http.stream("POST", "/infer/text/stream", json=LONG) as answer:
            return list(events(answer))[-1]

    def openai_streamed() -> Any:
        stream = client.completions.create(model="smol", stream=True, **_openai(LONG))
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        return caught.value

    def openai_whole() -> Any:
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="smol", **_openai(LONG))
        return caught.value

    with client, ThreadPoolExecutor(4) as threads:
        whole = threads.submit(lambda: mortal.http.post("/infer/text", json=LONG))
        stream = threads.submit(streamed)
        pieces, at_once = threads.submit(openai_streamed), threads.submit(openai_whole)
        await_true(lambda: mortal.gauge("smol", "running_sequences") == 4)
        os.kill(engine, signal.SIGKILL)
        assert whole.result(10).status_code >= 500
        assert "engine" in whole.result().json()["detail"]
        kind, problem = stream.result(10)
        assert (kind, problem["status"]) == ("error", whole.result().status_code)
        assert "engine" in str(pieces.result(10))
        assert "engine" in str(at_once.result(10))
    await_true(lambda: not ready(mortal) or mortal.gauge("smol", "restarts") == 1)
    assert not command(engine)
    await_true(lambda: ready(mortal), 60)
    assert mortal.infer(SHORT) == expected
    assert mortal.gauge("smol", "restarts") == 1
    assert len(mortal.engines()) == 1
    assert not Path(f"/proc/{engine}").exists(), "a zombie is left"


def _openai(body: dict[str, Any]) -> dict[str, Any]:
    extra = {"extra_body": {"ignore_eos": body["ignore_eos"]}}
    return {name: value for name, value in body.items() if name != "ignore_eos"} | extra


def test_while_the_engine_is_away(mortal: Served) -> None:
    """The server is not ready, says so to whoever asks, and what does not need the engine works."""
    (engine,) = mortal.engines()
    os.kill(engine, signal.SIGKILL)
    await_true(lambda: not ready(mortal))
    assert mortal.http.get("/health/live").status_code == 200
    answer = mortal.http.post("/infer/text", json=SHORT)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    await_true(lambda: ready(mortal), 60)
    assert mortal.infer(SHORT)["tokens_generated"] == 8


@pytest.mark.slow
def test_unloading_while_it_streams(mortal: Served) -> None:
    """What was begun is finished, then the engine ends; the model can be loaded again, time and again."""
    expected = mortal.infer(SHORT | {"max_tokens": 50})
    with ThreadPoolExecutor(2) as threads:

        def stream() -> Any:
            with mortal.http.stream("POST", "/infer/text/stream", json=SHORT | {"max_tokens": 50}) as answer:
                return list(events(answer))[-1][1]["results"]

        streams = [threads.submit(stream) for _ in range(2)]
        await_true(lambda: mortal.running() == 2)
        assert mortal.http.delete("/models/smol").status_code == 204
        assert [each.result() for each in streams] == [expected, expected]
    assert mortal.engines() == []
    assert mortal.http.post("/infer/text", json=SHORT).status_code == 404
    assert mortal.http.post("/infer/text", params={"model": "smol"}, json=SHORT).status_code == 404
    model = json.loads(mortal.registry.read_text())["models"]["smol"] | {"name": "smol"}
    for _ in range(5):
        assert mortal.http.post("/models/load", json=model).status_code in (200, 201)
        assert len(mortal.engines()) == 1
        assert mortal.infer(SHORT)["tokens_generated"] == 8
        assert mortal.http.delete("/models/smol").status_code == 204
        assert mortal.engines() == []
    assert mortal.http.post("/models/load", json=model).status_code in (200, 201)


def test_a_killed_server_leaves_no_engine(smollm2: Path, tmp_path: Path) -> None:
    """Its engine ends with it, in the middle of its work."""
    with serving(tmp_path, {"smol": entry(tmp_path, smollm2, config=GENERATION)}) as served:
        (engine,) = served.engines()
        with served.http.stream("POST", "/infer/text/stream", json=LONG) as answer:
            assert next(events(answer))
            served.process.kill()
        served.process.wait(10)
        await_true(lambda: not command(engine))
