"""Is the client still there? Work for one who has left is given up; an ASGI server tells it, if it is asked.

LiteLLM's hooks do not see the connection: a whole response would be aligned to its end for nobody. `Presence` stands
outside the application and leaves the connection where the hooks of that request find it. Streams need none of this,
because the server closes them itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.errors import ClientGone

_T = TypeVar("_T")
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
        self._receive, self._send = receive, send
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
        there: list[object] = [one.cls for one in app.user_middleware]
        if Presence not in there:
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


async def while_there(left: Callable[[], Awaitable[None]] | None, work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` returns; it is cancelled and `ClientGone` raised when `left` returns first."""
    if left is None:
        return await work
    working = asyncio.ensure_future(work)
    try:
        await asyncio.sleep(0)  # what is known already is there now, and nobody had the time to leave
        return working.result() if working.done() else await _unless_gone(left, working)
    finally:
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def _unless_gone(left: Callable[[], Awaitable[None]], working: asyncio.Future[_T]) -> _T:
    """What `working` comes to; raises `ClientGone` when `left` returns before."""
    leaving = asyncio.ensure_future(left())
    both: set[asyncio.Future[Any]] = {working, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and leaving.exception() is None:
            raise ClientGone("the client left")
        return await working  # a connection that cannot be asked is no client that has left
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def together(works: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What all of them return, worked on at once; a single one needs no task of its own."""
    return [await works[0]] if len(works) == 1 else await asyncio.gather(*works)
