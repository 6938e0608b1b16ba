"""An answer that is whole: its messages are made where it is made, and the event loop only passes them on.

Knows nothing of what it says.
"""

from __future__ import annotations

from collections.abc import Sequence

from litestar.types import Receive, Scope, Send

__all__ = ["WholeAnswer"]


class WholeAnswer:
    """An ASGI app that answers 200 with this body. Litestar's own response takes longer to be made."""

    __slots__ = ("_body", "_headers")

    def __init__(self, body: bytes, media_type: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._body = body
        self._headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
