"""Cancellation of the work for a client that has left.

LiteLLM's hooks do not see the connection: a whole response would be corrected to its end for nobody. `Presence` stands
outside the application and leaves the connection where the hooks of that request find it. Streams need none of this,
because the server closes them itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.errors import ClientGone

_here: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("aligner_proxy_client", default=None)


class Presence:
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
        if Presence not in known:
            app.add_middleware(Presence)
    elif not isinstance(app.middleware_stack, Presence):
        app.middleware_stack = Presence(app.middleware_stack)


def client_left() -> Callable[[], Awaitable[None]] | None:
    """Returns when the client of the request that this runs for has left; None where nothing watches."""
    return _here.get()


async def until_closed(receive: Receive) -> None:
    """Returns when the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def cancelled_when(left: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
    """Cancels what runs inside and raises `ClientGone` when `left` returns first; None: nothing is watched."""
    work = asyncio.current_task()
    if left is None or work is None:
        yield
        return
    gone = False

    async def watch() -> None:
        nonlocal gone
        # A connection that cannot be asked is no client that has left.
        with contextlib.suppress(Exception):
            await left()
            gone = True
            work.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and work.uncancel() == 0:
            raise ClientGone("the client left") from None
        raise
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
