"""Who may do what: the API key, and management from this host only where there is none.

The peer's address is the connection's own; forwarded-for headers are not believed.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

__all__ = ["LOCAL_ONLY", "PUBLIC", "guard_for"]

PUBLIC = {"public": True}
"""``opt`` of routes that never want a key."""
LOCAL_ONLY = {"local_only": True}
"""``opt`` of routes that are for this host only, unless a key is set."""

Connection = ASGIConnection[Any, Any, Any, Any]


def guard_for(api_key: str | None) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """The guard of all routes."""

    # A coroutine, though it awaits nothing: Litestar would send a plain function to a thread for each request.
    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        if handler.opt.get("public"):
            return
        if api_key is not None:
            _check_key(connection, api_key)
        elif handler.opt.get("local_only") and not _is_local(connection):
            raise PermissionDeniedException("without an API key this route answers the server's own host only")

    return guard


def _check_key(connection: Connection, api_key: str) -> None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode(), api_key.encode()):
        challenge = {"WWW-Authenticate": "Bearer"}
        raise NotAuthorizedException("an API key is needed: Authorization: Bearer KEY", headers=challenge)


def _is_local(connection: Connection) -> bool:
    client = connection.client
    if client is None:
        return True  # a Unix socket
    try:
        return ip_address(client.host).is_loopback
    except ValueError:
        return False
