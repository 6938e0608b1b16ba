"""Who may do what: the API key, and management from this host only where there is none.

The peer's address is the connection's own; forwarded-for headers are not believed. A browser on this host runs other
people's pages: without a key, these may not manage models either.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import SecurityRequirement

__all__ = ["ANYBODY", "PUBLIC", "Guard", "check_key", "guard_all", "guard_management"]

PUBLIC = {"public": True}
"""``opt`` of routes that never want a key."""
ANYBODY: list[SecurityRequirement] = [{}]
"""``security`` of such routes: what the OpenAPI document says of them."""

Connection = ASGIConnection[Any, Any, Any, Any]
# A coroutine, though it awaits nothing: Litestar would send a plain function to a thread for each request.
Guard = Callable[[Connection, BaseRouteHandler], Awaitable[None]]


def guard_all(api_key: str | None) -> list[Guard]:
    """The guards of all routes. There are none without a key: Litestar copies a handler for each guard it calls."""
    if api_key is None:
        return []

    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        if not handler.opt.get("public"):
            check_key(connection, api_key)

    return [guard]


def guard_management(api_key: str | None, origins: Sequence[str] = ()) -> list[Guard]:
    """What routes that manage models have besides: without a key, this host and pages of these origins only."""
    if api_key is not None:
        return []

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:
        _check_local(connection, origins)

    return [guard]


def check_key(connection: Connection, api_key: str) -> None:
    """Raise NotAuthorizedException unless the request has the key."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode("latin-1", "replace"), api_key.encode()):
        challenge = {"WWW-Authenticate": "Bearer"}
        raise NotAuthorizedException("an API key is needed: Authorization: Bearer KEY", headers=challenge)


def _check_local(connection: Connection, origins: Sequence[str]) -> None:
    if connection.client is None:  # a Unix socket, which no page can reach
        return
    if not _is_loopback(connection.client.host):
        raise PermissionDeniedException("without an API key this route answers the server's own host only")
    # A page can make a name of its own lead here; requests of such a page name it as their host.
    if not _is_loopback(_host(f"//{connection.headers.get('host', '')}")):
        raise PermissionDeniedException("without an API key this route answers at the server's own address only")
    origin = connection.headers.get("origin")
    if origin and origin not in origins and not _is_loopback(_host(origin)):
        raise PermissionDeniedException("without an API key this route does not answer pages of other sites")


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
