"""An engine over HTTP, on a unix socket or a port: POST /v1/align, GET /info, /health, /ready, /metrics.

POST /v1/completions is OpenAI's, greedy, with `prediction` as the draft (an engine that has a model of its own).
POST /v1/read begins to read an answer that is still being written, POST /v1/read/NAME adds to it and tells the verdicts
so far, POST /v1/read/NAME/finish corrects it, DELETE lets go of it. The aligner loads in the background, so /health
answers at once and /ready tells when it can work. A client that goes away cancels its request; SIGTERM lets requests in
flight finish.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.engine.complete import Completion, CompletionRequest, openai_form
from aligner_proxy.engine.load import Load, exposition
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, AlignResponse, Engine
from aligner_proxy.engine.readings import Readings
from aligner_proxy.engine.wire import BAD_REQUEST, VERDICTS, ErrorBody, ErrorResponse, More, Opened, refusal
from aligner_proxy.errors import AlignerProxyError, AnswerTooLong, CorrectionError
from aligner_proxy.types import Correction

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 << 20
_GONE = 499
COMPLETION_S = 120.0
"""How long a completion may take; clients of OpenAI's form do not say."""


@runtime_checkable
class Local(Engine, Protocol):
    """An engine with a model of its own."""

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt."""
        ...

    def load(self) -> Load:
        """What it is busy with."""
        ...


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
            *(_local(engine) if isinstance(engine, Local) else ()),
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


def _local(engine: Local) -> list[Route]:
    """What only an engine with a model of its own can do."""

    async def completions(request: Request) -> Response:
        parsed = CompletionRequest.model_validate_json(await _body(request))
        name = f"cmpl-{secrets.token_hex(12)}"
        model = (await engine.info()).model
        work = engine.complete(parsed, name, COMPLETION_S)
        return await _unless_gone(request, name, work, lambda done: openai_form(done, name, model))

    async def metrics(_: Request) -> Response:
        return Response(exposition(engine.load()), media_type=CONTENT_TYPE_LATEST)

    return [Route("/v1/completions", completions, methods=["POST"]), Route("/metrics", metrics)]


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


def _correction(done: Correction) -> object:
    return AlignResponse.of(done).model_dump(mode="json")


async def _unless_gone(
    request: Request, name: str, wanted: Coroutine[Any, Any, Any], form: Callable[[Any], object] = _correction
) -> Response:
    """Work on the request as long as its client is there."""
    work = asyncio.ensure_future(wanted)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            logger.info("request %s: the client went away", name)
            return Response(status_code=_GONE)
        return JSONResponse(form(work.result()))
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
