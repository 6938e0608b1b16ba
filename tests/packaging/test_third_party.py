"""A plugin by somebody else, installed beside the server's wheel and served without a change to the core.

It is ``examples/plugin-anomaly``: own distribution, model type, endpoint, parameters, model and WebAssembly guest.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from .conftest import SOURCES, Environment

pytestmark = pytest.mark.slow

PLUGIN = SOURCES["openvino_llama_anomaly"]
SAMPLE = (PLUGIN / "openvino_llama_anomaly" / "sample.csv").read_bytes()
CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def registry(third_party_environment: Environment) -> Path:
    """A registry with the plugin's model twice: as it is pulled, and with a guest that is kept."""
    third_party_environment.run("ovllama", "pull", "neighbours")
    path = third_party_environment.folder / "models" / "registry.json"
    content = json.loads(path.read_text())
    entry = content["models"]["neighbours"]
    content["models"]["remembering"] = entry | {"isolation": "pooled", "limits": {"workers": 1}}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def client(third_party_environment: Environment, registry: Path) -> Iterator[httpx.Client]:
    """A client of a server that has the plugin, and no other."""
    with third_party_environment.serving(registry) as client:
        yield client


def ask(client: httpx.Client, body: bytes, model: str = "neighbours", **parameters: Any) -> Any:
    """The results for a table."""
    answer = client.post("/infer/anomaly", params={"model": model, **parameters}, content=body, headers=CSV)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"model_type", "task", "results"}
    return answer.json()["results"]


def table(*columns: NDArray[np.float64]) -> bytes:
    """Columns as CSV."""
    lines = [",".join(f"series{number}" for number in range(len(columns)))]
    lines += [",".join(f"{value:.9g}" for value in row) for row in np.stack(columns, 1)]
    return "\n".join(lines).encode()


def hampel(series: NDArray[np.float64], reach: int = 4) -> NDArray[np.float64]:
    """The scores of a series by NumPy: the reference for model and guest."""
    padded = np.pad(series, reach, "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    deviations = np.abs(series - np.median(np.delete(windows, reach, 1), 1))
    scores: NDArray[np.float64] = deviations / (1.4826 * np.median(deviations))
    return scores


def noisy(scale: float, swing: float = 0.0) -> NDArray[np.float64]:
    """A series with noise, that goes up and down if it is to."""
    random = np.random.default_rng(5)
    return 100 + swing * np.sin(np.arange(200) / 20) + random.normal(0, scale, 200)


def test_it_is_installed_alone(third_party_environment: Environment) -> None:
    """Neither the vision plugin nor anything that only it needs is there."""
    installed = {
        each["name"].lower() for each in json.loads(third_party_environment.run("pip", "list", "--format=json"))
    }
    assert {"openvino-llama", "openvino-llama-anomaly"} <= installed
    assert not installed & {"openvino-llama-vision", "pillow", "scikit-image"}


def test_the_plugin_is_listed(third_party_environment: Environment, client: httpx.Client) -> None:
    """By the command and by the server."""
    expected = {
        "name": "anomaly",
        "distribution": "openvino-llama-anomaly",
        "version": "1.0.0",
        "status": "loaded",
        "model_types": ["timeseries"],
    }
    assert client.get("/plugins").json() == {"plugins": [expected]}
    assert "openvino-llama-anomaly 1.0.0  loaded  timeseries" in third_party_environment.run("ovllama", "plugins")


def test_its_endpoint_is_described(client: httpx.Client) -> None:
    """The OpenAPI document has its route, body, answers and query parameters; no other model type's."""
    paths = client.get("/schema/openapi.json").json()["paths"]
    assert [path for path in paths if path.startswith("/infer/")] == ["/infer/anomaly"]
    operation = paths["/infer/anomaly"]["post"]
    assert list(operation["requestBody"]["content"]) == ["text/csv"]
    assert list(operation["responses"]["200"]["content"]) == ["application/json", "text/csv"]
    assert [each["name"] for each in operation["parameters"]] == ["model", "threshold"]


def test_the_answer_is_the_one_of_its_readme(client: httpx.Client) -> None:
    """The sample that comes with the plugin, with the README's answer."""
    example = re.search(r"```json\n(.*?)```", (PLUGIN / "README.md").read_text("utf-8"), re.DOTALL)
    assert example is not None
    assert json.loads(example[1])["results"] == ask(client, SAMPLE)


def test_model_and_guest_agree_with_numpy(client: httpx.Client) -> None:
    """Graph and guest compute a Hampel filter; every score is as NumPy's."""
    series = [noisy(1.0, swing=10), noisy(0.2) + 5000, noisy(3.0, swing=100) / 1000]
    answer = client.post("/infer/anomaly", content=table(*series), headers=CSV | {"Accept": "text/csv"})
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert rows[0] == ["series0", "series1", "series2"]
    scores = np.array(rows[1:], float)
    for column, each in enumerate(series):
        np.testing.assert_allclose(scores[:, column], hampel(each), rtol=0.005, atol=0.02)


def test_gaps_are_filled_by_the_guest(client: httpx.Client) -> None:
    """NaN, which would spread through the model, does not get past the guest: it carries the last value on."""
    series = noisy(1.0)
    lines = table(series).split(b"\n")
    lines[50] = lines[51] = b'""'
    series[[49, 50]] = series[48]
    answer = client.post("/infer/anomaly", content=b"\n".join(lines), headers=CSV | {"Accept": "text/csv"})
    scores = np.array(answer.text.splitlines()[1:], float)
    np.testing.assert_allclose(scores, hampel(series), rtol=0.005, atol=0.02)


def test_what_the_guest_refuses_is_the_clients_fault(client: httpx.Client) -> None:
    """A column of gaps only: the guest's code for tensors that do not fit becomes a problem answer."""
    answer = client.post("/infer/anomaly", content=b"a,b\n" + b"1,\n" * 20, headers=CSV)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert ask(client, SAMPLE)


@pytest.mark.parametrize(
    ("body", "headers", "parameters", "status", "detail"),
    [
        (b"a\n1\n", CSV, {}, 400, "expected 16 to 100000 rows of numbers, got 1"),
        (SAMPLE, {"Content-Type": "image/png"}, {}, 415, "expected one of text/csv"),
        (SAMPLE, CSV | {"Accept": "image/png"}, {}, 406, "text/csv"),
        (SAMPLE, CSV, {"threshold": "-1"}, 400, "threshold"),
        (SAMPLE, CSV, {"treshold": "1"}, 400, "treshold"),
        (SAMPLE, CSV, {"model": "other"}, 404, "other"),
    ],
)
def test_bad_requests_are_answered_as_everywhere(
    client: httpx.Client, body: bytes, headers: dict[str, str], parameters: dict[str, str], status: int, detail: str
) -> None:
    """Without a line of code in the plugin: what a problem answer is, is the server's."""
    answer = client.post("/infer/anomaly", content=body, headers=headers, params=parameters)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]


def test_no_request_leaves_anything_for_the_next(client: httpx.Client) -> None:
    """A plugin's guest is made anew for each request: noisy requests do not change what is usual."""
    calm = table(noisy(0.1))
    before = ask(client, calm, threshold=1)
    for _ in range(5):
        ask(client, table(noisy(10.0)))
    assert ask(client, calm, threshold=1) == before


def test_requests_at_the_same_time_are_kept_apart(client: httpx.Client) -> None:
    """Requests that wait together never share an instance, though the model takes batches."""
    calm, wild = table(noisy(0.1)), table(noisy(10.0))
    expected = {calm: ask(client, calm, threshold=1), wild: ask(client, wild, threshold=1)}
    bodies = [calm, wild] * 50
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda body: ask(client, body, threshold=1), bodies))
    assert all(answer == expected[body] for body, answer in zip(bodies, answers, strict=True))
    metrics = client.get("/metrics").text
    inferences = re.search(r'ovllama_batch_size_count\{model="neighbours"\} (\S+)', metrics)
    of_one = re.search(r'ovllama_batch_size_bucket\{le="1.0",model="neighbours"\} (\S+)', metrics)
    assert inferences is not None
    assert of_one is not None
    assert inferences[1] == of_one[1]


def test_a_guest_is_kept_where_the_registry_says_so(client: httpx.Client) -> None:
    """``"isolation": "pooled"``: the guest remembers what is usual, and a calm stretch raises no alarm."""
    calm = noisy(0.1)
    calm[100] += 2
    first = ask(client, table(calm), "remembering")
    assert [point["row"] for point in first[0]["anomalies"]] == [100]
    for _ in range(5):
        ask(client, table(noisy(10.0)), "remembering")
    assert ask(client, table(calm), "remembering")[0]["anomalies"] == []


def test_one_inference_without_a_server(third_party_environment: Environment, registry: Path) -> None:
    """``ovllama infer`` knows the model type, its parameters and its other media type."""
    sample = str(PLUGIN / "openvino_llama_anomaly" / "sample.csv")
    where = ("--registry", str(registry))
    answer = json.loads(third_party_environment.run("ovllama", "infer", *where, "neighbours", sample, "threshold=100"))
    assert [each["anomalies"] for each in answer["results"]] == [[], []]
    scores = third_party_environment.run("ovllama", "infer", *where, "--accept", "text/csv", "neighbours", sample)
    assert scores.splitlines()[0] == "time,cpu_percent,requests_per_s"


def test_it_is_left_out_when_disabled(third_party_environment: Environment, registry: Path) -> None:
    """The server runs without it; its models say which package would serve them."""
    blocked = {"OVLLAMA_DISABLED_PLUGINS": "openvino-llama-anomaly"}
    with third_party_environment.serving(registry, environment=blocked) as client:
        assert client.get("/plugins").json()["plugins"][0]["status"] == "disabled"
        assert client.post("/infer/anomaly", content=SAMPLE, headers=CSV).status_code == 404
        models = client.get("/models").json()["models"]
    assert {each["state"] for each in models} == {"failed"}
    assert "no installed plugin serves models of type 'timeseries'" in models[0]["reason"]


def test_its_own_tests_pass() -> None:
    """They call the hooks without a server."""
    environment = os.environ | {"PYTHONPATH": str(PLUGIN)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "tests"]
    done = subprocess.run(command, cwd=PLUGIN, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_uses_public_names_only() -> None:
    """Whatever it imports of the server is exported by ``openvino_llama`` itself."""
    import openvino_llama

    used = set()
    for path in PLUGIN.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "openvino_llama":
                assert node.module == "openvino_llama", path.name
                used |= {each.name for each in node.names}
    assert used
    assert used <= set(openvino_llama.__all__)
