"""HEAD for every route that answers GET: the same status and headers, and no body.

One wrapper around the app, so that no route has to know. The routes that run models are left out: GET of a stream is
an inference, which nobody should start who does not read its answer.
"""

from __future__ import annotations

from typing import cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["answer_heads"]

_INFERENCES = "/infer/"


def answer_heads(app: ASGIApp) -> ASGIApp:
    """The app with HEAD."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_head(scope):
            await app(scope, receive, send)
            return
        # A copy: the ASGI server looks at the method, too, to know that no body follows.
        as_get = cast("Scope", {**scope, "method": "GET"})
        await app(as_get, receive, _without_body(send))

    return answer


def _is_head(scope: Scope) -> bool:
    is_head = scope.get("method") == "HEAD"  # websockets have none
    return is_head and not scope["path"].removeprefix(scope.get("root_path", "")).startswith(_INFERENCES)


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
