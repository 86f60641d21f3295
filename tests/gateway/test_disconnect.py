"""Whether work for a client that has left is given up, with a real server and a real connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.concurrency import (
    DisconnectMiddleware,
    cancel_when_gone,
    client_gone_waiter,
)
from aligner_proxy.engine import sockets
from aligner_proxy.errors import ClientGone
from aligner_proxy.gateway.asgi_layers import add_layer


class Work:
    """Something that takes as long as it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def do(self) -> str:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


async def while_there(left: Callable[[], Awaitable[None]] | None, work: Coroutine[Any, Any, str]) -> str:
    """What the work returns, unless its client leaves before."""
    async with cancel_when_gone(left):
        return await work


async def passed(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """A middleware as LiteLLM has them: it wraps what is received."""
    return await call_next(request)


def application(work: Work, gone: list[str]) -> Starlette:
    """An endpoint that reads its body and works as a hook does, without seeing the request."""

    async def endpoint(request: Request) -> Response:
        await request.body()
        try:
            return JSONResponse({"said": await while_there(client_gone_waiter(), work.do())})
        except ClientGone:
            gone.append("gone")
            return Response(status_code=499)

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    app.add_middleware(BaseHTTPMiddleware, dispatch=passed)
    return app


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """The address of a running server whose application is watched when it runs already, as LiteLLM's is."""
    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        add_layer(app, DisconnectMiddleware)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        await task


@pytest.mark.parametrize("leaves", [True, False])
async def test_work_is_given_up_exactly_when_its_client_leaves(leaves: bool) -> None:
    work = Work()
    gone = list[str]()
    async with (
        serving(application(work, gone)) as address,
        httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as client,
    ):
        asking = asyncio.create_task(client.post(address, json={"a": 1}))
        await asyncio.wait_for(work.begun.wait(), 30)
        if leaves:
            asking.cancel()
            await asyncio.wait_for(work.cancelled.wait(), 30)
        else:
            work.may_end.set()
            assert (await asking).json() == {"said": "done"}
    assert gone == (["gone"] if leaves else [])
    assert work.cancelled.is_set() is leaves


async def test_work_behind_the_answer_is_not_given_up() -> None:
    """A server calls the connection closed once it has answered, although nobody left."""
    work, ended = Work(), list[str]()

    async def behind() -> None:
        ended.append(await while_there(client_gone_waiter(), work.do()))

    async def endpoint(request: Request) -> Response:
        return JSONResponse({}, background=BackgroundTask(behind))

    async with serving(Starlette(routes=[Route("/", endpoint)])) as address:
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as client:
            await client.get(address)
        await asyncio.wait_for(work.begun.wait(), 30)
        await asyncio.sleep(0.2)
        work.may_end.set()
        async with asyncio.timeout(30):
            while not ended:
                await asyncio.sleep(0.01)
    assert (ended, work.cancelled.is_set()) == (["done"], False)


async def test_a_running_application_is_watched_once() -> None:
    app = Starlette()
    add_layer(app, DisconnectMiddleware)
    add_layer(app, DisconnectMiddleware)
    assert [one.cls for one in app.user_middleware] == [DisconnectMiddleware]  # type: ignore[comparison-overlap]
    app.middleware_stack = app.build_middleware_stack()
    built: Any = app.middleware_stack
    add_layer(app, DisconnectMiddleware)
    assert app.middleware_stack is built
    running = Starlette()
    running.middleware_stack = running.build_middleware_stack()
    add_layer(running, DisconnectMiddleware)
    watched: Any = running.middleware_stack
    add_layer(running, DisconnectMiddleware)
    assert running.middleware_stack is watched
    assert isinstance(watched, DisconnectMiddleware)


async def test_where_nobody_watches_the_work_is_done() -> None:
    work = Work()
    work.may_end.set()
    assert client_gone_waiter() is None
    assert await while_there(client_gone_waiter(), work.do()) == "done"


async def test_what_the_work_raises_is_raised_and_the_connection_left_alone() -> None:
    async def broken() -> str:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    stopped = asyncio.Event()

    async def left() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(ValueError, match="no"):
        await while_there(left, broken())
    assert stopped.is_set()


async def test_what_is_known_at_once_asks_the_connection_nothing() -> None:
    async def ready(fails: bool) -> str:
        if fails:
            raise ValueError("no")
        return "done"

    async def left() -> None:
        raise AssertionError("asked")

    assert await while_there(left, ready(fails=False)) == "done"
    with pytest.raises(ValueError, match="no"):
        await while_there(left, ready(fails=True))


async def test_a_connection_that_cannot_be_asked_is_no_client_that_left() -> None:
    async def left() -> None:
        raise RuntimeError("closed")

    work = Work()
    asyncio.get_running_loop().call_later(0.01, work.may_end.set)
    assert await while_there(left, work.do()) == "done"


async def test_whoever_is_cancelled_takes_the_work_along() -> None:
    async def left() -> None:
        await asyncio.Event().wait()

    work = Work()
    task = asyncio.create_task(while_there(left, work.do()))
    await work.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled.is_set()
