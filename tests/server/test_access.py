"""Who may do what: with an API key, without one, from other hosts, from other sites' pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from tests.server.support import GOOD, Live, check_problem, live_server, numbers, tiny_plugins

from openvino_llama import hookimpl
from openvino_llama.server.app import create_app
from openvino_llama.server.settings import Settings

KEY = "s3cret-kéy"
MANAGEMENT = [("POST", "/models/load"), ("PUT", "/models/double/activate"), ("DELETE", "/models/nobody")]
ROUTES = [
    ("POST", "/infer/tiny"),
    ("GET", "/models"),
    ("GET", "/models/double"),
    ("GET", "/plugins"),
    ("GET", "/metrics"),
    ("GET", "/schema"),
    ("GET", "/schema/openapi.json"),
    ("GET", "/schema/swagger"),
    ("GET", "/schema-page/swagger_style.css"),
    ("GET", "/extra"),
    *MANAGEMENT,
]


class Extra:
    """A plugin with a route of its own."""

    OPENVINO_LLAMA_API = 1

    @hookimpl
    def route_handlers(self) -> list[Any]:
        from litestar import get

        @get("/extra")
        async def extra() -> str:
            return "extra"

        @get("/models")
        async def clash() -> str:
            return "clash"

        return [clash, "nonsense", extra]


@pytest.fixture(scope="module")
def locked(settings: Settings) -> Iterator[Live]:
    """A server that wants a key."""
    with live_server(msgspec.structs.replace(settings, api_key=KEY), tiny_plugins(Extra())) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"), [*ROUTES, ("GET", "/nothing"), ("PUT", "/infer/tiny"), ("OPTIONS", "/models")]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic czNjcmV0"},
        {"X-API-Key": ""},
        {"X-API-Key": "s3cret"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_without_the_key_nothing_is_told(locked: Live, method: str, path: str, headers: dict[str, str]) -> None:
    """Every route but health answers 401; so does what is no route at all."""
    answer = locked.http.request(method, path, headers=headers)
    check_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_was_tried(locked: Live) -> None:
    """The list above is complete."""
    headers: Any = {"X-API-Key": KEY.encode()}
    document = locked.http.get("/schema/openapi.json", headers=headers).json()
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    tried = {
        (method, path.replace("/double", "/{model_id}").replace("/nobody", "/{model_id}")) for method, path in ROUTES
    }
    assert {route for route in routes if "/health" not in route[1]} <= tried


def test_the_description_says_how_a_key_is_given(locked: Live) -> None:
    """One of two ways, on every route but health."""
    headers: Any = {"X-API-Key": KEY.encode()}
    document = locked.http.get("/schema/openapi.json", headers=headers).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
    assert schemes["header"] == {"type": "apiKey", "name": "X-API-Key", "in": "header"}
    assert document["security"] == [{"bearer": []}, {"header": []}]
    own = {
        (path, str(each["security"]))
        for path, ways in document["paths"].items()
        for each in ways.values()
        if "security" in each
    }
    assert own == {("/health/live", "[{}]"), ("/health/ready", "[{}]")}


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key"])
def test_with_the_key_everything_works(locked: Live, name: str) -> None:
    """As Authorization: Bearer, or as X-API-Key."""
    value = (f"Bearer {KEY}" if name == "Authorization" else KEY).encode()
    headers: Any = {name: value}
    assert numbers(locked.http.post("/infer/tiny", json=GOOD, headers=headers)) == [[2.0, 4.0, 6.0, 8.0]]
    assert locked.http.get("/metrics", headers=headers).status_code == 200
    check_problem(locked.http.get("/nothing", headers=headers), 404)
    check_problem(locked.http.put("/infer/tiny", headers=headers), 405)


def test_health_needs_no_key(locked: Live) -> None:
    """Orchestrators have none."""
    assert locked.http.get("/health/live").json() == {"status": "alive"}
    assert locked.http.get("/health/ready").json() == {"status": "ready"}
    assert locked.http.head("/health/live").status_code == 200


def test_a_head_needs_the_key_that_its_get_needs(locked: Live) -> None:
    """For what is there, and for what is not; what the address leads to is no exception."""
    for path in ("/", "/models", "/metrics", "/nothing"):
        assert (locked.http.get(path).status_code, locked.http.head(path).status_code) == (401, 401)


def test_a_preflight_needs_no_key(locked: Live) -> None:
    """Browsers send none with it."""
    headers = {"Origin": "http://localhost:8000", "Access-Control-Request-Method": "POST"}
    assert locked.http.options("/infer/tiny", headers=headers).status_code == 204


def test_a_plugins_route_that_clashes_is_left_out(locked: Live) -> None:
    """Its other routes are there, and the server's own are as they were."""
    headers: Any = {"X-API-Key": KEY.encode()}
    assert locked.http.get("/extra", headers=headers).text == "extra"
    assert "models" in locked.http.get("/models", headers=headers).json()


def ask(
    settings: Settings, method: str, path: str, client: tuple[str, int] | None, headers: dict[str, str] | None = None
) -> httpx.Response:
    """The app's answer to a client of any address."""

    async def send() -> httpx.Response:
        app: Any = create_app(settings, tiny_plugins())
        async with app.lifespan():
            transport = httpx.ASGITransport(app, client=client)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, path, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize(("method", "path"), MANAGEMENT)
def test_other_hosts_cannot_manage_without_a_key(settings: Settings, method: str, path: str) -> None:
    """403, whatever forwarded-for headers say."""
    empty = msgspec.structs.replace(settings, registry=settings.registry.with_name("none.json"))
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Real-IP": "127.0.0.1"}):
        check_problem(ask(empty, method, path, ("192.0.2.7", 1234), headers), 403)
    check_problem(ask(empty, method, path, ("::ffff:192.0.2.7", 1234)), 403)
    check_problem(ask(empty, method, path, ("host.example", 1234)), 403)


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("127.8.8.8", 1), ("::1", 1), None])
def test_this_host_can_manage_without_a_key(settings: Settings, client: tuple[str, int] | None) -> None:
    """Any loopback address, and a Unix socket, is this host."""
    empty = msgspec.structs.replace(settings, registry=settings.registry.with_name("none.json"))
    check_problem(ask(empty, "DELETE", "/models/nobody", client), 404)


def test_other_hosts_can_infer_without_a_key(settings: Settings) -> None:
    """Only management is for this host."""
    empty = msgspec.structs.replace(settings, registry=settings.registry.with_name("none.json"))
    assert ask(empty, "GET", "/models", ("192.0.2.7", 1)).status_code == 200
    check_problem(ask(empty, "POST", "/infer/tiny", ("192.0.2.7", 1)), 404)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[", "file://"]
)
def test_pages_of_other_sites_cannot_manage(live: Live, origin: str) -> None:
    """A browser on this host sends multipart forms of any page without asking first."""
    files = {"entry": (None, b"{}")}
    check_problem(live.http.post("/models/load", files=files, headers={"Origin": origin}), 403)
    check_problem(live.http.delete("/models/nobody", headers={"Origin": origin}), 403)


@pytest.mark.parametrize("origin", ["http://localhost:8000", "http://127.0.0.1:3000", "http://[::1]:3000"])
def test_own_pages_can_manage(live: Live, origin: str) -> None:
    """Those of the allowed origins, and those that come from this host."""
    check_problem(live.http.delete("/models/nobody", headers={"Origin": origin}), 404)


def test_rebound_names_cannot_manage(live: Live) -> None:
    """A page whose own name was made to lead to this host is not taken for this host."""
    check_problem(live.http.delete("/models/nobody", headers={"Host": "evil.example:3000"}), 403)
    check_problem(live.http.delete("/models/nobody", headers={"Host": "localhost:3000"}), 404)
