"""An engine over HTTP, on a unix socket or a port: POST /v1/align, GET /info, /health, /ready.

POST /v1/read begins to read an answer that is still being written, POST /v1/read/NAME adds to it and tells the verdicts
so far, POST /v1/read/NAME/finish corrects it, DELETE lets go of it. The aligner loads in the background, so /health
answers at once and /ready tells when it can work. A client that goes away cancels its request; SIGTERM lets requests in
flight finish.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, Protocol

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, AlignResponse, Engine
from aligner_proxy.engine.readings import Readings
from aligner_proxy.engine.wire import BAD_REQUEST, VERDICTS, ErrorBody, ErrorResponse, More, Opened, refusal
from aligner_proxy.errors import AlignerProxyError, AnswerTooLong, CorrectionError
from aligner_proxy.types import Correction

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 << 20
_GONE = 499


class Startable(Engine, Protocol):
    """An engine that has something to load."""

    async def start(self) -> AlignerInfo:
        """Load; raises `WeightsError` when that is impossible."""
        ...


def create_app(engine: Engine) -> Starlette:
    """The HTTP form of any engine. It neither starts nor closes it."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def info(_: Request) -> Response:
        return JSONResponse(asdict(await engine.info()))

    async def ready(_: Request) -> Response:
        await engine.info()
        return JSONResponse({"status": "ready"})

    async def align(request: Request) -> Response:
        parsed = AlignRequest.model_validate_json(await _body(request))
        return await _unless_gone(request, parsed.request_id, engine.align(parsed))

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/info", info),
            Route("/v1/align", align, methods=["POST"]),
            *_reading(Readings(engine)),
        ],
        exception_handlers={CorrectionError: _refuse, ValidationError: _bad_request},
    )


def _reading(readings: Readings) -> list[Route]:
    """Answers that are read while they are written."""

    async def begin(request: Request) -> Response:
        parsed = AlignRequest.model_validate_json(await _body(request))
        return JSONResponse(Opened(reading=await readings.open(parsed)).model_dump())

    async def feed(request: Request) -> Response:
        more = More.model_validate_json(await _body(request))
        told = await readings.feed(request.path_params["name"], more.text)
        return Response(VERDICTS.dump_json(told), media_type="application/json")

    async def finish(request: Request) -> Response:
        parsed = AlignRequest.model_validate_json(await _body(request))
        return await _unless_gone(request, parsed.request_id, readings.finish(request.path_params["name"], parsed))

    async def close(request: Request) -> Response:
        await readings.close(request.path_params["name"])
        return JSONResponse({"status": "closed"})

    return [
        Route("/v1/read", begin, methods=["POST"]),
        Route("/v1/read/{name}", feed, methods=["POST"]),
        Route("/v1/read/{name}", close, methods=["DELETE"]),
        Route("/v1/read/{name}/finish", finish, methods=["POST"]),
    ]


def serve(engine: Startable, listener: socket.socket, *, grace_s: int = 30) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight within `grace_s` and close the engine.

    Raises what `engine.start` raised when the aligner cannot be loaded.
    """
    # uvicorn raises the signals again once it has drained; without these that would end us with a status above 128.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    asyncio.run(_serve(engine, listener, grace_s))


async def _serve(engine: Startable, listener: socket.socket, grace_s: int) -> None:
    config = uvicorn.Config(
        create_app(engine), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=grace_s
    )
    server = uvicorn.Server(config)
    starting = asyncio.create_task(_start(engine, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        starting.cancel()
        await engine.aclose()
    if starting.done() and not starting.cancelled():
        starting.result()


async def _start(engine: Startable, server: uvicorn.Server) -> None:
    """Load the aligner and say so; without one there is nothing to serve."""
    try:
        about = await engine.start()
    except AlignerProxyError:
        server.should_exit = True
        raise
    logger.info("ready: %s %s on %s, %s", about.model, about.content_hash[:12], about.device, about.quantization)


async def _body(request: Request) -> bytes:
    """The whole body; one that no answer within a window could need is refused while it comes in."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise AnswerTooLong(f"a request may have {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


async def _unless_gone(request: Request, name: str, correction: Coroutine[Any, Any, Correction]) -> Response:
    """Work on the request as long as its client is there."""
    work = asyncio.ensure_future(correction)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            logger.info("request %s: the client went away", name)
            return Response(status_code=_GONE)
        return JSONResponse(AlignResponse.of(work.result()).model_dump(mode="json"))
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, CorrectionError):
        raise error
    sent = refusal(error)
    return JSONResponse(sent.body.model_dump(), sent.status, sent.headers)


async def _bad_request(_: Request, error: Exception) -> Response:
    """Name the fields that are wrong, never their content."""
    if not isinstance(error, ValidationError):
        raise error
    details = error.errors(include_url=False, include_input=False, include_context=False)
    faults = "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}" for detail in details)
    return JSONResponse(ErrorResponse(error=ErrorBody(type=BAD_REQUEST, message=faults)).model_dump(), 422)
