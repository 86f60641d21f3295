"""Small real servers on real ports: an engine of ours, and a completions server that says what a script says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.server import app

Reply = str | dict[str, Any] | Response
Script = Callable[[dict[str, Any]], Reply]
MODEL = {"id": "big", "object": "model", "max_model_len": 2048, "root": "big-1"}


class Completions:
    """A completions server; `asked` holds every body that came in, `gone` counts clients that left."""

    def __init__(self, script: Script, models: list[dict[str, Any]] | None = None, *, delay_s: float = 0.0) -> None:
        self.script = script
        self.delay_s = delay_s
        self.models = [MODEL] if models is None else models
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gone = 0

    def app(self) -> Starlette:
        """As an application."""
        return Starlette(
            routes=[
                Route("/v1/models", lambda _: JSONResponse({"object": "list", "data": self.models})),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        try:
            async with asyncio.timeout(self.delay_s):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            self.gone += 1
        except TimeoutError:
            pass
        said = self.script(body)
        if isinstance(said, Response):
            return said
        choice = {"index": 0, "text": said, "finish_reason": "stop"} if isinstance(said, str) else said
        return JSONResponse({"object": "text_completion", "choices": [choice], "usage": {"prompt_tokens": 7}})


@contextlib.asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Its address, as long as it is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        running = uvicorn.Server(config)
        task = asyncio.create_task(running.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            await task


@contextlib.asynccontextmanager
async def completing(completions: Completions) -> AsyncIterator[str]:
    """The base address of a completions server."""
    async with served(completions.app()) as address:
        yield f"{address}/v1"


@contextlib.asynccontextmanager
async def engine_at(engine: Engine) -> AsyncIterator[str]:
    """The address of an engine of ours."""
    async with served(app.create_app(engine)) as address:
        yield address


@contextlib.contextmanager
def serve_in_thread(app: Starlette, listener: socket.socket) -> Iterator[None]:
    """Serve an application beside a test that has no event loop of its own."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
