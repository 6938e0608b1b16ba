"""/health, /plugins, /metrics, /schema and CORS."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from litestar import get
from tests.server.support import GOOD, Live, check_problem, live_server, numbers, tiny_plugins, write_registry

from openvino_llama import __version__, hookimpl
from openvino_llama.errors import ConfigError
from openvino_llama.plugins import PluginReport
from openvino_llama.server.app import create_app
from openvino_llama.server.settings import Settings

_ONE_WRONG = """
{"models": {"bad": {"type": "tiny"}, "double": {"type": "tiny", "task": "double", "files": {"model": "double.xml"}}}}
"""


def test_health(live: Live) -> None:
    """Alive, and ready once the registry's models have been tried."""
    assert live.http.get("/health/live").json() == {"status": "alive"}
    assert live.http.get("/health/ready").json() == {"status": "ready"}
    check_problem(live.http.post("/health/live"), 405)
    check_problem(live.http.get("/health"), 404)


def test_plugins_are_listed_without_what_is_nobodys_business(settings: Settings) -> None:
    """Loaded, failed and disabled ones; a reason without paths and without traceback."""
    plugins = tiny_plugins()
    reason = "ImportError: cannot import name 'x' from 'a.b' (/home/me/site-packages/a/b.py)"
    plugins.note(PluginReport(name="bad", distribution="d", version="2", status="failed", reason=reason, traceback="T"))
    plugins.note(PluginReport(name="off", distribution="o", version="3", status="disabled"))
    with live_server(settings, plugins) as running:
        assert running.http.get("/plugins").json()["plugins"] == [
            {
                "name": "tiny-0",
                "distribution": "openvino-llama-tiny",
                "version": "1.0",
                "status": "loaded",
                "model_types": ["tiny"],
            },
            {
                "name": "bad",
                "distribution": "d",
                "version": "2",
                "status": "failed",
                "reason": "ImportError: cannot import name 'x' from 'a.b' (...)",
            },
            {"name": "off", "distribution": "o", "version": "3", "status": "disabled"},
        ]


def test_metrics(live: Live) -> None:
    """Requests by status, latencies of every stage, batch sizes, queue lengths, readiness, traps."""
    before = live.metric("ovllama_requests_total", model="triple", status="200")
    numbers(live.infer(model="triple"))
    check_problem(live.infer({"x": 1}, "triple"), 422)
    check_problem(live.infer({"raises": "ValueError"}, "triple"), 500)
    answer = live.http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert live.metric("ovllama_requests_total", endpoint="tiny", model="triple", status="200") == before + 1
    assert live.metric("ovllama_requests_total", endpoint="tiny", model="triple", status="422") >= 1
    assert live.metric("ovllama_requests_total", endpoint="tiny", model="triple", status="500") >= 1
    assert live.metric("ovllama_request_seconds_count", endpoint="tiny", model="triple") >= 3
    for stage in ("queue", "preprocess", "sandbox", "compute", "postprocess"):
        assert live.metric("ovllama_stage_seconds_count", model="triple", stage=stage) >= 1
        assert live.metric("ovllama_stage_seconds_sum", model="triple", stage=stage) > 0
    assert live.metric("ovllama_batch_size_count", model="triple") >= 1
    assert 'ovllama_queue_length{model="triple"} 0.0' in answer.text
    assert live.metric("ovllama_model_ready", model="triple") == 1
    assert "# TYPE ovllama_guest_traps_total counter" in answer.text


def test_metrics_do_not_grow_with_what_clients_make_up(live: Live) -> None:
    """Names of models that are not there make no time series."""
    before = live.http.get("/metrics").text.count("\n")
    for number in range(20):
        live.infer(model=f"made-up-{number}")
    text = live.http.get("/metrics").text
    assert "made-up" not in text
    assert text.count("\n") < before + 25


def test_the_document_has_every_route(live: Live) -> None:
    """OpenAPI of all routes of the design, with the parameters, bodies and answers of the model type."""
    document = live.http.get("/schema/openapi.json").json()
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes == {
        ("post", "/infer/tiny"),
        ("get", "/models"),
        ("get", "/models/{model_id}"),
        ("post", "/models/load"),
        ("put", "/models/{model_id}/activate"),
        ("delete", "/models/{model_id}"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
        ("get", "/plugins"),
        ("get", "/metrics"),
    }
    assert document["info"] == {"title": "OpenVINO-Llama", "version": __version__}
    infer = document["paths"]["/infer/tiny"]["post"]
    assert [each["name"] for each in infer["parameters"]] == ["model", "digits"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "text/plain"}
    assert "application/problem+json" in infer["responses"]["default"]["content"]
    load = document["paths"]["/models/load"]["post"]["requestBody"]["content"]
    assert set(load) == {"application/json", "multipart/form-data"}
    assert {"name", "type", "task", "files", "activate"} <= set(load["application/json"]["schema"]["properties"])
    shown = document["paths"]["/models/{model_id}"]["get"]
    assert [(each["name"], each["in"]) for each in shown["parameters"]] == [("model_id", "path")]


@pytest.mark.parametrize("root_path", ["", "/vision"])
def test_the_servers_address_leads_to_the_page(settings: Settings, root_path: str) -> None:
    """Wherever a proxy has put the server."""
    with live_server(msgspec.structs.replace(settings, root_path=root_path)) as running:
        answer = running.http.get("/")
        assert (answer.status_code, answer.headers["location"]) == (302, f"{root_path}/schema")


def test_a_plugin_may_have_the_first_page(settings: Settings) -> None:
    """Then its page is there."""

    @get("/")
    async def home() -> str:
        return "home"

    @hookimpl
    def route_handlers() -> list[Any]:
        return [home]

    routes = SimpleNamespace(OPENVINO_LLAMA_API=1, route_handlers=route_handlers)
    with live_server(settings, tiny_plugins(routes)) as running:
        assert running.http.get("/").text == "home"


@pytest.mark.parametrize(
    "path", ["/", "/health/live", "/health/ready", "/models", "/models/double", "/plugins", "/schema", "/models/nobody"]
)
def test_heads(live: Live, path: str) -> None:
    """HEAD has the status and the headers of GET, and no body; the connection can go on."""
    with httpx.Client(base_url=live.address, trust_env=False) as client:
        full, head = client.get(path), client.head(path)
        assert head.status_code == full.status_code
        assert {**head.headers, "date": ""} == {**full.headers, "date": ""}
        assert head.content == b""
        assert client.get("/health/live").json() == {"status": "alive"}
    assert live.http.head("/metrics").headers["content-type"] == live.http.get("/metrics").headers["content-type"]


def test_heads_of_what_is_not_read(live: Live) -> None:
    """Where there is no GET there is no HEAD; nor does a HEAD run a model."""
    assert live.http.head("/models/load").status_code == 405
    assert live.http.head("/infer/tiny").status_code == 405


@pytest.mark.parametrize("path", ["/schema", "/schema/swagger"])
def test_the_page_needs_nothing_from_elsewhere(live: Live, path: str) -> None:
    """Every script, style and picture of the page is served by the server itself."""
    page = live.http.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", page.text)
    assert len(links) >= 3
    for link in links:
        if link == "data:,":  # no icon
            continue
        answer = live.http.get(link)
        assert link.startswith("/")
        assert (answer.status_code, len(answer.content) > 100) == (200, True)
    assert "SwaggerUIBundle" in live.http.get("/schema-page/swagger_bundle.js").text
    check_problem(live.http.get("/schema-page/../../etc/passwd"), 404)
    check_problem(live.http.get("/schema-page/..%2f..%2fpackage.json"), 404)
    check_problem(live.http.get("/schema-page/package.json"), 404)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/infer/tiny", "/models/load", "/models/double/activate"])
def test_preflights_of_the_allowed_origin(live: Live, method: str, path: str) -> None:
    """The origin and the methods of the specification are allowed."""
    headers = {
        "Origin": "http://localhost:8000",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "content-type, authorization",
    }
    answer = live.http.options(path, headers=headers)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:8000"
    assert method in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"].lower()


def test_preflights_of_other_origins(live: Live) -> None:
    """They are not allowed, and neither is another method or header."""
    for origin, method, header in (
        ("http://evil.example", "POST", "content-type"),
        ("http://localhost:8000", "PATCH", "content-type"),
        ("http://localhost:8000", "POST", "x-other"),
    ):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": header,
        }
        assert live.http.options("/infer/tiny", headers=headers).status_code == 400


def test_simple_requests_of_origins(live: Live) -> None:
    """Answers, problems too, are readable for pages of the allowed origin only."""
    allowed = live.infer(headers={"Origin": "http://localhost:8000"})
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:8000"
    assert "ovllama-model" in allowed.headers["access-control-expose-headers"].lower()
    problem = live.infer({"x": 1}, headers={"Origin": "http://localhost:8000"})
    assert problem.headers["access-control-allow-origin"] == "http://localhost:8000"
    assert "access-control-allow-origin" not in live.infer(headers={"Origin": "http://evil.example"}).headers


def test_options_without_cors(live: Live) -> None:
    """OPTIONS says what is allowed."""
    answer = live.http.options("/infer/tiny")
    assert answer.status_code == 204
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, {}),
        ("{", {"registry.json": "registry.json: not JSON"}),
        ('{"models": []}', {"registry.json": "registry.json, field 'models'"}),
        (_ONE_WRONG, {"bad": "registry.json: model 'bad', field 'task'"}),
    ],
)
def test_wrong_registries(tmp_path: Path, tiny_files: Path, content: str | None, problem: dict[str, str]) -> None:
    """A registry that is missing, no registry, or has a wrong entry, keeps nothing else from being served."""
    for suffix in ("xml", "bin"):
        (tmp_path / f"double.{suffix}").write_bytes((tiny_files / f"double.{suffix}").read_bytes())
    if content is not None:
        (tmp_path / "registry.json").write_text(content)
    with live_server(Settings(registry=tmp_path / "registry.json", port=0)) as running:
        answer = running.http.get("/models").json()
        assert answer["problems"].keys() == problem.keys()
        for name, text in problem.items():
            assert answer["problems"][name].startswith(text)
        if "bad" in problem:
            assert numbers(running.infer()) == [[2.0, 4.0, 6.0, 8.0]]
        else:
            check_problem(running.infer(), 404)


def test_a_problem_of_the_registry_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often the registry is read; and again when it has come back."""
    registry = tmp_path / "registry.json"
    registry.write_text('{"models": {"bad": {"type": "tiny"}}}')
    with live_server(Settings(registry=registry, port=0)) as running:
        for name in ("nobody", "bad"):
            check_problem(running.http.post("/models/load", json={"name": name}), 404)
        assert caplog.text.count("model 'bad', field 'task'") == 1
        registry.write_text('{"models": {}}')
        check_problem(running.http.post("/models/load", json={"name": "bad"}), 404)
        registry.write_text('{"models": {"bad": {"type": "tiny"}}}')
        problem = check_problem(running.http.post("/models/load", json={"name": "bad"}), 404)
        assert problem["detail"] == "registry.json: model 'bad', field 'task': is required"
        assert caplog.text.count("model 'bad', field 'task'") == 2


def test_a_model_of_the_registry_that_cannot_be_loaded(tmp_path: Path, tiny_files: Path) -> None:
    """It is shown as failed with its reason; the others serve, and the first of them is the active one."""
    for suffix in ("xml", "bin"):
        (tmp_path / f"double.{suffix}").write_bytes((tiny_files / f"double.{suffix}").read_bytes())
    (tmp_path / "broken.xml").write_text("<net")
    entries: dict[str, Any] = {
        "broken": {"files": {"model": "broken.xml"}},
        "missing": {"files": {"model": "missing.xml"}},
        "exits": {"files": {"model": "double.xml"}, "config": {"refuse": "SystemExit"}},
        "unknown": {"files": {"model": "double.xml"}, "type": "unheard-of"},
        "good": {"files": {"model": "double.xml"}},
    }
    with live_server(Settings(registry=write_registry(tmp_path, **entries), port=0)) as running:
        shown = {model["id"]: model for model in running.http.get("/models").json()["models"]}
        assert {name: model["state"] for name, model in shown.items()} == {
            "broken": "failed",
            "missing": "failed",
            "exits": "failed",
            "unknown": "failed",
            "good": "ready",
        }
        assert shown["broken"]["reason"] == "the model's XML is not well-formed"
        assert str(tmp_path) not in str(shown)
        assert numbers(running.infer(GOOD)) == [[2.0, 4.0, 6.0, 8.0]]


def test_the_default_model_is_active_whatever_comes_first(tmp_path: Path, tiny_files: Path, registry: Path) -> None:
    """DEFAULT_TINY_MODEL names the active one; while it is not there, none is."""
    settings = Settings.from_environment({"MODEL_REGISTRY_PATH": str(registry), "DEFAULT_TINY_MODEL": "triple"})
    with live_server(settings) as running:
        assert numbers(running.infer()) == [[3.0, 6.0, 9.0, 12.0]]
        running.unload("triple")
        check_problem(running.infer(), 404)
        running.load("triple", "double.xml")
        assert numbers(running.infer()) == [[2.0, 4.0, 6.0, 8.0]]


def test_a_default_model_that_cannot_be_loaded(tmp_path: Path, tiny_files: Path) -> None:
    """It is a problem of the registry's, since its endpoint answers nobody; another one is activated by hand."""
    for suffix in ("xml", "bin"):
        (tmp_path / f"double.{suffix}").write_bytes((tiny_files / f"double.{suffix}").read_bytes())
    double, missing = ({"files": {"model": name}} for name in ("double.xml", "missing.xml"))
    registry = write_registry(tmp_path, double=double, missing=missing)
    settings = Settings.from_environment({"MODEL_REGISTRY_PATH": str(registry), "DEFAULT_TINY_MODEL": "missing"})
    with live_server(settings) as running:
        assert "missing" in running.http.get("/models").json()["problems"]
        check_problem(running.infer(), 404)
        assert running.http.put("/models/double/activate").status_code == 200
        assert numbers(running.infer()) == [[2.0, 4.0, 6.0, 8.0]]


def test_a_default_model_that_the_registry_does_not_have(tmp_path: Path, registry: Path) -> None:
    """It stops the start, as any wrong setting does."""
    settings = Settings(registry=registry, default_models={"tiny": "nobody"})
    named = (
        r"DEFAULT_TINY_MODEL \(--default-model tiny=NAME\): the registry \S+ has no model 'nobody'; its tiny models: "
    )
    with pytest.raises(ConfigError, match=named):
        create_app(settings, tiny_plugins())
    other = write_registry(tmp_path, other={"type": "other", "files": {"model": "x.xml"}})
    with pytest.raises(ConfigError, match="'other' is a model of type 'other', not 'tiny'"):
        create_app(Settings(registry=other, default_models={"tiny": "other"}), tiny_plugins())


@pytest.mark.parametrize("content", [None, "{", '{"models": {"nobody": {}}}'])
def test_default_models_of_registries_that_say_nothing_of_them(tmp_path: Path, content: str | None) -> None:
    """No registry: the model may come over HTTP. A wrong one, or a wrong entry: that is what is said."""
    if content:
        (tmp_path / "registry.json").write_text(content)
    settings = Settings(registry=tmp_path / "registry.json", default_models={"tiny": "nobody", "unserved": "x"})
    assert create_app(settings, tiny_plugins())
