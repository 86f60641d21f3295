"""HTTP server of an engine, on a unix socket or a port: corrections, sessions, completions, health and metrics.

- POST /v1/corrections, /v1/states, /v1/rows and /v1/token_labels; GET /info, /health and /metrics.
- PUT /v1/heads/HASH uploads a taught head. Requests name it by its hash; naming one that the engine lacks is an error
  (unknown_head).
- POST /v1/decisions and /v1/systemone answer questions about a text, in LiteLLM's two forms (decisions.py).
- Only on an engine with its own model: POST /v1/completions, in OpenAI's form, greedy, with `prediction` as the draft;
  GET /v1/models lists the aligners.
- POST /v1/read opens a session on an answer that is still being written. POST /v1/read/NAME adds text and returns the
  verdicts so far, /judged waits for more verdicts, /replace writes a replacement for a flagged range, /finish corrects
  the whole answer, and DELETE closes the session.

A client that disconnects cancels its request. On SIGTERM, running requests may finish.

The aligner loads in the background. "Alive" (/health/live) means that the process answers and its model's thread is not
stuck; otherwise only a restart helps. "Ready" (/health/ready) means that the aligner is loaded and takes requests.
"Degraded" means ready, but with a problem that an operator should look at; the reasons are named.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aligner_proxy import connections
from aligner_proxy.concurrency import cancel_when_gone, join_chunks, wait_until_closed
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine.api import (
    AlignRequest,
    AlignResponse,
    Completion,
    CompletionRequest,
    Engine,
    EngineRequest,
    Local,
    RowsRequest,
    RowsResponse,
    Span,
    Startable,
    StatesRequest,
    TokenLabels,
    TokenLabelsRequest,
    require_judges,
    require_teachable,
    text_states,
)
from aligner_proxy.engine.decisions import (
    AskedObjective,
    DecisionForm,
    OpenAIDecision,
    SystemOneDecision,
    answer_decision,
    score_objective,
)
from aligner_proxy.engine.example_heads import ExampleHeads
from aligner_proxy.engine.scheduling import metrics
from aligner_proxy.engine.scheduling.metrics import write_metrics
from aligner_proxy.engine.server.sessions import EngineSessions
from aligner_proxy.engine.taught_head import MAX_HEAD_BYTES
from aligner_proxy.engine.wire import (
    BAD_REQUEST,
    JUDGED,
    MAX_BODY_BYTES,
    REFUSED,
    STATES,
    VERDICTS,
    ErrorBody,
    ErrorResponse,
    KnownVerdicts,
    SessionOpened,
    TextChunk,
    WireVersionCheck,
    make_refusal,
)
from aligner_proxy.errors import (
    AnswerTooLong,
    ClientGone,
    CorrectionError,
    EngineUnavailable,
    HeadRefused,
)
from aligner_proxy.observability import tracing
from aligner_proxy.types import Correction

SLOW_S = 30.0
"""A step that takes longer than this many seconds is reported as slow; normal steps take at most a few seconds."""
STUCK_S = 300.0
"""A step that takes longer than this many seconds means that the model's thread hangs."""
_RECENTLY_S = 60.0
"""Seconds after a refused request during which the engine counts as overloaded."""
logger = logging.getLogger(__name__)

_CLIENT_GONE = 499
"""Status for a client that has left: nginx's number, as HTTP has none."""
_POLL_S = 0.1
"""Seconds between two looks at uvicorn's flag that the server stops."""
_ERROR_ANSWERS_S = 2
"""Seconds after the grace period in which cancelled requests still get their error answer."""
_TRACED_PATHS = ("/v1/corrections", "/finish", "/v1/completions")
"""Ends of the paths whose requests are traced."""
_NAMED_OBJECTIVE = 'an engine knows no objectives by name; write them out as "Name: description", or ask the gateway'
_Request = TypeVar("_Request", bound=EngineRequest)
COMPLETION_S = 120.0
"""Deadline of a completion in seconds, because OpenAI's format has no field for it."""


@runtime_checkable
class CanStall(Protocol):
    """An engine whose model can get stuck."""

    def stalled_s(self) -> float:
        """Seconds that the current step has been running."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """An engine's health; `status` is its worst aspect in one word."""

    status: str
    alive: bool
    ready: bool
    reasons: tuple[str, ...] = ()


async def check_health(engine: Engine) -> Health:
    """The engine's health now; raises nothing if the engine fails."""
    stalled = engine.stalled_s() if isinstance(engine, CanStall) else 0.0
    if stalled > STUCK_S:
        return Health("stuck", alive=False, ready=False, reasons=("stuck",))
    try:
        await engine.info()
    except CorrectionError:
        # an engine cannot describe its aligner until it is loaded
        return Health("loading", alive=True, ready=False)
    reasons = ["slow_step"] if stalled > SLOW_S else []
    if time.monotonic() - metrics.read_last_refusal() < _RECENTLY_S:
        reasons.append("overloaded")
    return Health("degraded" if reasons else "ready", alive=True, ready=True, reasons=tuple(reasons))


def make_health_routes(engine: Engine) -> list[Route]:
    """The routes GET /health, /health/live and /health/ready; /ready is the older name of /health/ready."""

    async def health(_: Request) -> Response:
        state = await check_health(engine)
        return JSONResponse(asdict(state), 200 if state.alive else 503)

    def make_probe(name: str) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that answers 200 if the health's field `name` is true, else 503."""

        async def answer(_: Request) -> Response:
            state = await check_health(engine)
            holds = getattr(state, name)
            return JSONResponse({"status": name if holds else state.status}, 200 if holds else 503)

        return answer

    ready = make_probe("ready")
    paths = {"/health": health, "/health/live": make_probe("alive"), "/health/ready": ready, "/ready": ready}
    return [Route(path, endpoint) for path, endpoint in paths.items()]


def create_app(engine: Engine) -> Starlette:
    """Build the HTTP application of any engine; it neither starts nor closes the engine."""

    async def info(_: Request) -> Response:
        # a hung engine could still describe itself, but would answer nothing else
        if not (await check_health(engine)).alive:
            raise EngineUnavailable("the model's thread hangs; restart this engine")
        return JSONResponse(asdict(await engine.info()))

    async def put_head(request: Request) -> Response:
        """Store the taught head in the body, whose hash must be the one in the path; raises `HeadRefused`."""
        too_large = HeadRefused(f"a taught head may have at most {MAX_HEAD_BYTES} bytes")
        data = await join_chunks(request.stream(), MAX_HEAD_BYTES, too_large)
        if hashlib.sha256(data).hexdigest() != request.path_params["name"]:
            raise HeadRefused("the hash of the taught head differs from its path; upload it again")
        await require_teachable(engine).put_head(data)
        return Response(status_code=204)

    return Starlette(
        routes=[
            *make_health_routes(engine),
            Route("/info", info),
            _route_work("/v1/corrections", AlignRequest, engine.align),
            _route_work("/v1/states", StatesRequest, partial(text_states, engine), STATES.dump_python),
            _route_work(
                "/v1/rows",
                RowsRequest,
                lambda request: require_teachable(engine).rows(request),
                RowsResponse.model_dump,
            ),
            _route_work(
                "/v1/token_labels",
                TokenLabelsRequest,
                lambda request: require_judges(engine).label_tokens(request),
                TokenLabels.model_dump,
            ),
            Route("/v1/heads/{name}", put_head, methods=["PUT"]),
            *_decision_routes(engine),
            *_session_routes(EngineSessions(engine)),
            *(_model_routes(engine) if isinstance(engine, Local) else ()),
        ],
        exception_handlers={
            CorrectionError: _reply_with_error,
            ValidationError: _reply_with_faults,
            ClientDisconnect: _answer_gone_client,
        },
        middleware=[Middleware(WireVersionCheck), Middleware(RequestTracing)],
    )


def _dump_correction(done: Correction) -> object:
    return AlignResponse.from_correction(done).model_dump(mode="json")


def _route_work(
    path: str,
    form: type[_Request],
    work: Callable[[_Request], Coroutine[Any, Any, Any]],
    write: Callable[[Any], object] = _dump_correction,
) -> Route:
    """The route POST `path`: parses the body as a `form`, runs `work` with it, and answers `write(result)` as JSON."""

    async def answer(request: Request) -> Response:
        parsed = form.model_validate_json(await _read_body(request))
        return await _run_unless_client_leaves(request, parsed.request_id, work(parsed), write)

    return Route(path, answer, methods=["POST"])


class RequestTracing:
    """ASGI middleware: records a trace span for every request that a client waits for, as a child of the gateway's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, in a span if it is one of those that are traced."""
        if scope["type"] != "http" or not scope["path"].endswith(_TRACED_PATHS):
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {"http__request__method": scope["method"], "gen_ai__operation__name": "text_completion"}
        # the span of the caller, which the headers name, becomes the parent
        with tracing.span("aligner.engine.request", tracing.extract_context(headers), kind="SERVER", **attributes):
            await self._app(scope, receive, send)


def _decision_routes(engine: Engine) -> list[Route]:
    """The routes that answer questions about a text.

    A request that names an objective is refused with status 400, because an engine knows only texts of objectives.
    """
    example_heads = ExampleHeads()

    def make_endpoint(form: type[DecisionForm]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint for requests of this form."""

        async def answer(request: Request) -> Response:
            body = form.model_validate_json(await _read_body(request))
            decision = body.read()
            fault = decision.find_fault()
            if fault is None and decision.names:
                fault = _NAMED_OBJECTIVE
            if fault:
                return _refuse(fault, 400)
            name = f"decide-{secrets.token_hex(12)}"

            async def correct(objective: AskedObjective) -> Correction:
                """Score the text against one objective, by a head of its examples if it has any."""
                alone = AlignRequest(
                    request_id=name,
                    turns=decision.turns,
                    answer=decision.text,
                    objectives=(objective.text,),
                    score_only=True,
                )
                return await score_objective(engine, example_heads, alone, objective)

            return await _run_unless_client_leaves(request, name, answer_decision(body, decision, correct), dict)

        return answer

    forms: dict[str, type[DecisionForm]] = {"/v1/decisions": OpenAIDecision, "/v1/systemone": SystemOneDecision}
    return [Route(path, make_endpoint(form), methods=["POST"]) for path, form in forms.items()]


def _session_routes(sessions: EngineSessions) -> list[Route]:
    """The routes about answers that are still being written, by the names of their sessions."""

    async def open_session(request: Request) -> Response:
        """Open a session and answer with its name; close the session if the client has left meanwhile."""
        parsed = AlignRequest.model_validate_json(await _read_body(request))
        name = await sessions.open(parsed)
        if await request.is_disconnected():
            await sessions.close(name)  # its name was never received
        return JSONResponse(SessionOpened(reading=name).model_dump())

    async def feed(request: Request) -> Response:
        """Add text and answer with the verdicts that the client does not have yet."""
        more = TextChunk.model_validate_json(await _read_body(request))
        verdicts = await sessions.feed(request.path_params["name"], more.text, text_ended=more.ended)
        return Response(VERDICTS.dump_json(verdicts[more.known :]), media_type="application/json")

    async def wait_for_verdicts(request: Request) -> Response:
        name = request.path_params["name"]
        known_verdicts = KnownVerdicts.model_validate_json(await _read_body(request))
        work = sessions.wait_for_verdicts(name, known_verdicts.known, known_verdicts.received)
        return await _run_unless_client_leaves(request, "judged", work, JUDGED.dump_python)

    async def replace(request: Request) -> Response:
        name = request.path_params["name"]
        span = Span.model_validate_json(await _read_body(request))
        return await _run_unless_client_leaves(request, "replace", sessions.replace(name, span))

    async def finish(request: Request) -> Response:
        parsed = AlignRequest.model_validate_json(await _read_body(request))
        return await _run_unless_client_leaves(
            request, parsed.request_id, sessions.finish(request.path_params["name"], parsed)
        )

    async def close(request: Request) -> Response:
        await sessions.close(request.path_params["name"])
        return JSONResponse({"status": "closed"})

    return [
        Route("/v1/read", open_session, methods=["POST"]),
        Route("/v1/read/{name}", feed, methods=["POST"]),
        Route("/v1/read/{name}", close, methods=["DELETE"]),
        Route("/v1/read/{name}/judged", wait_for_verdicts, methods=["POST"]),
        Route("/v1/read/{name}/replace", replace, methods=["POST"]),
        Route("/v1/read/{name}/finish", finish, methods=["POST"]),
    ]


def _model_routes(engine: Local) -> list[Route]:
    """The routes of an engine with its own model: completions, the list of aligners, and metrics."""

    async def completions(request: Request) -> Response:
        parsed = CompletionRequest.model_validate_json(await _read_body(request))
        name = f"cmpl-{secrets.token_hex(12)}"
        about = await engine.info()
        # an engine with a single aligner accepts any name, and answers with its own
        model = parsed.model if parsed.model and parsed.model in about.others else about.model
        work = engine.complete(parsed, name, COMPLETION_S)
        return await _run_unless_client_leaves(request, name, work, lambda done: _completion_body(done, name, model))

    async def models(_: Request) -> Response:
        """The aligners in OpenAI's form of a list of models."""
        about = await engine.info()
        entry = {"object": "model", "created": 0, "owned_by": "aligner-proxy"}
        # vLLM's field names; clients use them to see the window's size and whether the model has changed.
        entries = [
            entry | {"id": name, "root": other.content_hash, "max_model_len": other.window}
            for name, other in {about.model: about, **about.others}.items()
        ]
        return JSONResponse({"object": "list", "data": entries})

    async def metrics(_: Request) -> Response:
        """All metrics in Prometheus' text format; only the general ones until the aligner is loaded."""
        try:
            text = write_metrics(await engine.info(), engine.load())
        except CorrectionError:
            text = write_metrics()
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/metrics", metrics),
    ]


def serve(
    engine: Startable, listener: socket.socket, *, grace_s: int = 25, limits: ConnectionLimits | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish within `grace_s` and close the engine.

    Raises the exception of `engine.start` if the aligner cannot be loaded.
    """
    # uvicorn raises the signals again once it has drained; without these handlers our exit status would be above 128.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # `_read_body` already limits bodies, with an error that the client understands; this limit is only a second line.
    bounds = replace(limits or ConnectionLimits(), body_bytes=2 * MAX_BODY_BYTES)
    asyncio.run(_serve(engine, listener, grace_s, bounds))


async def _serve(engine: Startable, listener: socket.socket, grace_s: int, limits: ConnectionLimits) -> None:
    """Serve until the server stops, loading the aligner meanwhile; then close the engine."""
    config = uvicorn.Config(
        create_app(engine),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=grace_s + _ERROR_ANSWERS_S,
        **connections.uvicorn_settings(limits),
    )
    server = uvicorn.Server(config)
    loading = asyncio.create_task(_load_aligner(engine, server))
    ending = asyncio.create_task(_close_after_grace(engine, server, grace_s))
    try:
        await server.serve(sockets=[listener])
    finally:
        loading.cancel()
        ending.cancel()
        await engine.aclose()
    if loading.done() and not loading.cancelled():
        loading.result()  # raises the error if the aligner could not be loaded


async def _load_aligner(engine: Startable, server: uvicorn.Server) -> None:
    """Load the aligner and log that it is ready; if loading fails, stop the server and raise the error."""
    about = None
    try:
        about = await engine.start()
    finally:
        server.should_exit |= about is None
    logger.info("ready: %s %s on %s, %s", about.model, about.content_hash[:12], about.device, about.quantization)


async def _close_after_grace(engine: Startable, server: uvicorn.Server, grace_s: int) -> None:
    """Once the server stops, wait `grace_s` and close the engine, so that remaining requests get an error answer.

    Without this, uvicorn would cut their connections.
    """
    while not server.should_exit:  # noqa: ASYNC110 - uvicorn has a flag for it and no event
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(grace_s)
    logger.warning("shutdown: cancelling requests not done after %d s; raise --grace if that is too short", grace_s)
    await engine.aclose()


async def _read_body(request: Request) -> bytes:
    """Return the whole body; raises `AnswerTooLong` as soon as more than `MAX_BODY_BYTES` have come."""
    return await join_chunks(
        request.stream(), MAX_BODY_BYTES, AnswerTooLong(f"a request may have {MAX_BODY_BYTES} bytes")
    )


async def _run_unless_client_leaves(
    request: Request, name: str, work: Coroutine[Any, Any, Any], form: Callable[[Any], object] = _dump_correction
) -> Response:
    """Run `work` and return its result as JSON, built by `form`; cancel it if the client disconnects (status 499)."""
    try:
        async with cancel_when_gone(lambda: wait_until_closed(request.receive)):
            result = await work
    except ClientGone:
        logger.info("request %s: the client disconnected", name)
        return Response(status_code=_CLIENT_GONE)
    return JSONResponse(form(result))


async def _reply_with_error(_: Request, error: Exception) -> Response:
    """Answer with the status, body and headers of one of our errors."""
    if not isinstance(error, CorrectionError):
        raise error
    response = make_refusal(error)
    return JSONResponse(response.body.model_dump(), response.status, response.headers)


async def _answer_gone_client(_: Request, _error: Exception) -> Response:
    """The answer if the client left before its request was complete; nobody reads it."""
    return Response(status_code=_CLIENT_GONE)


async def _reply_with_faults(_: Request, error: Exception) -> Response:
    """Answer 422 with the names of the invalid fields, never their content."""
    if not isinstance(error, ValidationError):
        raise error
    details = error.errors(include_url=False, include_input=False, include_context=False)
    faults = "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}" for detail in details)
    return _refuse(faults, REFUSED)


def _refuse(message: str, status: int) -> JSONResponse:
    """The answer to a request that cannot be served as it is; `message` says why."""
    return JSONResponse(ErrorResponse(error=ErrorBody(type=BAD_REQUEST, message=message)).model_dump(), status)


def _completion_body(done: Completion, name: str, model: str) -> dict[str, object]:
    """The body of an answer in OpenAI's form, plus all `counts`; draft tokens are reported as prediction tokens."""
    counts = done.counts
    return {
        "id": name,
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "text": done.text,
                "finish_reason": done.finish_reason,
                "stop_reason": done.stop_reason,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
            "completion_tokens_details": {
                "accepted_prediction_tokens": counts.accepted,
                "rejected_prediction_tokens": counts.drafted - counts.accepted,
            },
        },
        "counts": asdict(counts),
    }
