"""Cancellation of the work for a client that has left.

LiteLLM's hooks do not see the connection, so a response would be corrected after its client has left.
`DisconnectMiddleware` wraps the application and puts the connection where the hooks of the request find it. Streams do
not need this, because the server closes them itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.concurrency import until_closed

_client: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("aligner_proxy_client", default=None)


class DisconnectMiddleware:
    """ASGI middleware around `app` that makes the client's connection available; changes no message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = _Client(receive, send)
        _client.set(client.left)
        await self.app(scope, receive, client.send)


class _Client:
    """Connection of one request.

    After the answer a server reports it as closed even if the client is still connected: work behind the answer (such
    as LiteLLM's background responses) is not cancelled.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._answered = False

    async def send(self, message: Message) -> None:
        """Send a message, noting the end of the answer."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)

    async def left(self) -> None:
        """Return when the client leaves before its answer is complete."""
        await until_closed(self._receive)
        if self._answered:
            await asyncio.Event().wait()


def watch(app: Starlette) -> None:
    """Wrap `app` once. A running application accepts no middleware, so its stack is replaced."""
    if app.middleware_stack is None:
        known: list[object] = [middleware.cls for middleware in app.user_middleware]
        if DisconnectMiddleware not in known:
            app.add_middleware(DisconnectMiddleware)
    elif not isinstance(app.middleware_stack, DisconnectMiddleware):
        app.middleware_stack = DisconnectMiddleware(app.middleware_stack)


def client_left() -> Callable[[], Awaitable[None]] | None:
    """Function that returns when the client of the present request leaves; None without the middleware."""
    return _client.get()
