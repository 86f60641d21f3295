"""Cancellation of the work for a client that has left.

LiteLLM's hooks do not see the connection: a whole response would be corrected to its end for nobody.
`DisconnectMiddleware` stands outside the application and leaves the connection where the hooks of that request find it.
Streams need none of this, because the server closes them itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.concurrency import until_closed

_here: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("aligner_proxy_client", default=None)


class DisconnectMiddleware:
    """ASGI middleware that changes nothing; `app` is what it stands before."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = _Client(receive, send)
        _here.set(client.left)
        await self.app(scope, receive, client.send)


class _Client:
    """One request's connection.

    After its answer a server calls it closed, though nobody left: work behind the answer (LiteLLM's background
    responses, say) is not given up.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._answered = False

    async def send(self, message: Message) -> None:
        """Notice the end of the answer on its way out."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)

    async def left(self) -> None:
        """Returns when the client has left before its answer was whole."""
        await until_closed(self._receive)
        if self._answered:
            await asyncio.Event().wait()


def watch(app: Starlette) -> None:
    """Stand before `app`, once. A running application takes no middleware, but hands requests to whatever it holds."""
    if app.middleware_stack is None:
        known: list[object] = [middleware.cls for middleware in app.user_middleware]
        if DisconnectMiddleware not in known:
            app.add_middleware(DisconnectMiddleware)
    elif not isinstance(app.middleware_stack, DisconnectMiddleware):
        app.middleware_stack = DisconnectMiddleware(app.middleware_stack)


def client_left() -> Callable[[], Awaitable[None]] | None:
    """Returns when the client of the request that this runs for has left; None where nothing watches."""
    return _here.get()
