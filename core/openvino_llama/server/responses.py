"""An answer that is there as a whole, as an ASGI app. Knows nothing of what is in it."""

from __future__ import annotations

from litestar.types import Receive, Scope, Send

__all__ = ["WholeAnswer"]


class WholeAnswer:
    """What Litestar's ASGIResponse would send, with the little that an answer of a model needs."""

    __slots__ = ("_body", "_headers")

    def __init__(self, body: bytes, media_type: str, *headers: tuple[bytes, bytes]) -> None:
        """Make the headers ready, so that the event loop has only to send them."""
        stated = f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
        self._body = body
        self._headers = [
            (b"content-type", stated.encode("latin-1")),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it, with the status 200."""
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
