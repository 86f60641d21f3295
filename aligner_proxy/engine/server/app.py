"""HTTP server of an engine, on a unix socket or a port: corrections, sessions, completions, health and metrics.

- POST /v1/corrections, /v1/states, /v1/rows and /v1/token_labels; GET /info, /health and /metrics.
- PUT /v1/heads/HASH uploads a taught head. Requests name it by its hash; naming one that the engine lacks is an error
  (unknown_head).
- POST /v1/decisions and /v1/systemone answer questions about a text, in LiteLLM's two forms (decisions.py).
- Only on an engine with its own model: POST /v1/completions, in OpenAI's form, greedy, with `prediction` as the draft;
  GET /v1/models lists the aligners.
- POST /v1/read opens a session for an answer that is still being written. POST /v1/read/NAME adds text and returns the
  verdicts so far. Below it, /judged waits for more verdicts, /replace writes a replacement for a flagged range, and
  /finish corrects the whole answer. DELETE /v1/read/NAME closes the session.

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
from typing import Any, TypeVar

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
from aligner_proxy.engine import wire
from aligner_proxy.engine.api import (
    AlignRequest,
    AlignResponse,
    CanStall,
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
from aligner_proxy.errors import AnswerTooLong, ClientGone, CorrectionError, EngineUnavailable, HeadRefused
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
"""Seconds between two checks of uvicorn's flag that the server stops."""
_ERROR_RESPONSES_S = 2
"""Seconds after the grace period in which cancelled requests still get their error response."""
_TRACED_PATHS = ("/v1/corrections", "/finish", "/v1/completions")
"""Ends of the paths whose requests are traced."""
_NAMED_OBJECTIVE = 'an engine knows no objectives by name; write them out as "Name: description", or ask the gateway'
_Request = TypeVar("_Request", bound=EngineRequest)
COMPLETION_S = 120.0
"""Deadline of a completion in seconds, because OpenAI's format has no field for it."""


@dataclass(frozen=True, slots=True)
class Health:
    """An engine's health, in the words of the module's docstring."""

    status: str
    """ "stuck", "loading", "degraded" or "ready"."""
    alive: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    """Why the engine is stuck or degraded: "stuck", "slow_step", "overloaded"."""


async def check_health(engine: Engine) -> Health:
    """The engine's health now; an engine that fails is reported as not ready."""
    stalled_s = engine.stalled_s() if isinstance(engine, CanStall) else 0.0
    if stalled_s > STUCK_S:
        return Health("stuck", alive=False, ready=False, reasons=("stuck",))
    try:
        await engine.info()
    except CorrectionError:
        # an engine cannot describe its aligner until it is loaded
        return Health("loading", alive=True, ready=False)
    reasons = ["slow_step"] if stalled_s > SLOW_S else []
    if time.monotonic() - metrics.read_last_refusal() < _RECENTLY_S:
        reasons.append("overloaded")
    return Health("degraded" if reasons else "ready", alive=True, ready=True, reasons=tuple(reasons))


def make_health_routes(engine: Engine) -> list[Route]:
    """The routes GET /health, /health/live and /health/ready; /ready is the older name of /health/ready."""

    async def health(_request: Request) -> Response:
        engine_health = await check_health(engine)
        return JSONResponse(asdict(engine_health), 200 if engine_health.alive else 503)

    def make_probe(field_name: str) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers 200 if this field of `Health` is true, else 503."""

        async def answer_probe(_request: Request) -> Response:
            engine_health = await check_health(engine)
            is_true = getattr(engine_health, field_name)
            return JSONResponse({"status": field_name if is_true else engine_health.status}, 200 if is_true else 503)

        return answer_probe

    ready = make_probe("ready")
    paths = {"/health": health, "/health/live": make_probe("alive"), "/health/ready": ready, "/ready": ready}
    return [Route(path, endpoint) for path, endpoint in paths.items()]


def create_app(engine: Engine) -> Starlette:
    """Build the HTTP application of any engine; it neither starts nor closes the engine."""

    async def info(_: Request) -> Response:
        # a hung engine could still describe itself, but would answer no other request
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
            _route_work("/v1/states", StatesRequest, partial(text_states, engine), wire.STATES.dump_python),
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
        middleware=[Middleware(wire.WireVersionCheck), Middleware(RequestTracing)],
    )


def _dump_correction(done: Correction) -> object:
    return AlignResponse.from_correction(done).model_dump(mode="json")


def _route_work(
    path: str,
    body_model: type[_Request],
    work: Callable[[_Request], Coroutine[Any, Any, Any]],
    dump_result: Callable[[Any], object] = _dump_correction,
) -> Route:
    """Return the route POST `path`: it parses the body, runs `work` with it, and answers `dump_result(result)`."""

    async def run_work(request: Request) -> Response:
        body = body_model.model_validate_json(await _read_body(request))
        return await _run_unless_client_leaves(request, body.request_id, work(body), dump_result)

    return Route(path, run_work, methods=["POST"])


class RequestTracing:
    """ASGI middleware: records trace spans of requests that a client waits for, as children of the gateway's spans."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, within a trace span if its path ends with one of `_TRACED_PATHS`."""
        if scope["type"] != "http" or not scope["path"].endswith(_TRACED_PATHS):
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {"http__request__method": scope["method"], "gen_ai__operation__name": "text_completion"}
        parent = tracing.extract_context(headers)
        with tracing.span("aligner.engine.request", parent, kind="SERVER", **attributes):
            await self._app(scope, receive, send)


def _decision_routes(engine: Engine) -> list[Route]:
    """The routes that answer questions about a text.

    A request that names an objective is refused with status 400, because an engine knows only texts of objectives.
    """
    example_heads = ExampleHeads()

    def make_endpoint(form: type[DecisionForm]) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint for requests of this form."""

        async def answer_questions(request: Request) -> Response:
            body = form.model_validate_json(await _read_body(request))
            decision = body.read()
            fault = decision.find_fault()
            if fault is None and decision.names:
                fault = _NAMED_OBJECTIVE
            if fault:
                return _refuse(fault, 400)
            request_id = f"decide-{secrets.token_hex(12)}"

            async def correct(objective: AskedObjective) -> Correction:
                """Score the text against one objective, with a head made from the objective's examples, if any."""
                align_request = AlignRequest(
                    request_id=request_id,
                    turns=decision.turns,
                    answer=decision.text,
                    objectives=(objective.text,),
                    score_only=True,
                )
                return await score_objective(engine, example_heads, align_request, objective)

            work = answer_decision(body, decision, correct)
            return await _run_unless_client_leaves(request, request_id, work, dump_result=dict)

        return answer_questions

    forms: dict[str, type[DecisionForm]] = {"/v1/decisions": OpenAIDecision, "/v1/systemone": SystemOneDecision}
    return [Route(path, make_endpoint(form), methods=["POST"]) for path, form in forms.items()]


def _session_routes(sessions: EngineSessions) -> list[Route]:
    """The routes about answers that are still being written, by the names of their sessions."""

    async def open_session(request: Request) -> Response:
        """Open a session and answer with its name; close the session if the client has left meanwhile."""
        body = AlignRequest.model_validate_json(await _read_body(request))
        name = await sessions.open(body)
        if await request.is_disconnected():
            await sessions.close(name)  # the client will never receive the name
        return JSONResponse(wire.SessionOpened(reading=name).model_dump())

    async def feed(request: Request) -> Response:
        """Add text and answer with the verdicts that the client does not have yet."""
        chunk = wire.TextChunk.model_validate_json(await _read_body(request))
        verdicts = await sessions.feed(request.path_params["name"], chunk.text, text_ended=chunk.ended)
        return Response(wire.VERDICTS.dump_json(verdicts[chunk.known :]), media_type="application/json")

    async def wait_for_verdicts(request: Request) -> Response:
        name = request.path_params["name"]
        known_verdicts = wire.KnownVerdicts.model_validate_json(await _read_body(request))
        work = sessions.wait_for_verdicts(name, known_verdicts.known, known_verdicts.received)
        return await _run_unless_client_leaves(request, "judged", work, wire.JUDGED.dump_python)

    async def replace(request: Request) -> Response:
        name = request.path_params["name"]
        span = Span.model_validate_json(await _read_body(request))
        return await _run_unless_client_leaves(request, "replace", sessions.replace(name, span))

    async def finish(request: Request) -> Response:
        body = AlignRequest.model_validate_json(await _read_body(request))
        work = sessions.finish(request.path_params["name"], body)
        return await _run_unless_client_leaves(request, body.request_id, work)

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
        body = CompletionRequest.model_validate_json(await _read_body(request))
        request_id = f"cmpl-{secrets.token_hex(12)}"
        info = await engine.info()
        # any other name stands for the default aligner, whose own name is in the response
        model = body.model if body.model and body.model in info.others else info.model
        work = engine.complete(body, request_id, COMPLETION_S)
        dump_result = partial(_completion_body, request_id=request_id, model=model)
        return await _run_unless_client_leaves(request, request_id, work, dump_result)

    async def models(_: Request) -> Response:
        """Answer with the aligners, in OpenAI's form of a list of models."""
        info = await engine.info()
        # `info` itself describes the default aligner, `info.others` the further ones by name
        info_by_aligner = {info.model: info, **info.others}
        common_fields = {"object": "model", "created": 0, "owned_by": "aligner-proxy"}
        # "root" and "max_model_len" are vLLM's names; clients see in them a changed model, and the window's size
        entries = [
            common_fields | {"id": name, "root": aligner.content_hash, "max_model_len": aligner.window}
            for name, aligner in info_by_aligner.items()
        ]
        return JSONResponse({"object": "list", "data": entries})

    async def metrics(_: Request) -> Response:
        """Answer with all metrics in Prometheus' text format; until the aligner is loaded, only with general ones."""
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
    """Serve until SIGTERM or SIGINT, then let running requests finish within `grace_s` seconds and close the engine.

    Raises the exception of `engine.start` if the aligner cannot be loaded.
    """
    # uvicorn raises the signals again after its shutdown; without these handlers our exit status would be above 128
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: None)
    # higher than the limit of `_read_body`, which answers with an error that the client understands
    limits = replace(limits or ConnectionLimits(), body_bytes=2 * wire.MAX_BODY_BYTES)
    asyncio.run(_serve(engine, listener, grace_s, limits))


async def _serve(engine: Startable, listener: socket.socket, grace_s: int, limits: ConnectionLimits) -> None:
    """Serve until the server stops, loading the aligner meanwhile; then close the engine."""
    config = uvicorn.Config(
        create_app(engine),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=grace_s + _ERROR_RESPONSES_S,
        **connections.uvicorn_settings(limits),
    )
    server = uvicorn.Server(config)
    loading_task = asyncio.create_task(_load_aligner(engine, server))
    closing_task = asyncio.create_task(_close_after_grace(engine, server, grace_s))
    try:
        await server.serve(sockets=[listener])
    finally:
        loading_task.cancel()
        closing_task.cancel()
        await engine.aclose()
    if loading_task.done() and not loading_task.cancelled():
        loading_task.result()  # raises the error if the aligner could not be loaded


async def _load_aligner(engine: Startable, server: uvicorn.Server) -> None:
    """Load the aligner and log that it is ready; if loading fails, stop the server and raise the error."""
    try:
        info = await engine.start()
    except BaseException:
        server.should_exit = True
        raise
    logger.info("ready: %s %s on %s, %s", info.model, info.content_hash[:12], info.device, info.quantization)


async def _close_after_grace(engine: Startable, server: uvicorn.Server, grace_s: int) -> None:
    """Once the server stops, wait `grace_s` seconds and close the engine, so that remaining requests get an error.

    Otherwise uvicorn would cut their connections.
    """
    while not server.should_exit:  # noqa: ASYNC110 - uvicorn has a flag for it and no event
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(grace_s)
    logger.warning("shutdown: cancelling requests not done after %d s; raise --grace if that is too short", grace_s)
    await engine.aclose()


async def _read_body(request: Request) -> bytes:
    """Return the whole body; raises `AnswerTooLong` as soon as more than `wire.MAX_BODY_BYTES` have come."""
    too_long = AnswerTooLong(f"a request may have {wire.MAX_BODY_BYTES} bytes")
    return await join_chunks(request.stream(), wire.MAX_BODY_BYTES, too_long)


async def _run_unless_client_leaves(
    request: Request, name: str, work: Coroutine[Any, Any, Any], dump_result: Callable[[Any], object] = _dump_correction
) -> Response:
    """Run `work` and answer `dump_result(result)` as JSON; cancel the work if the client disconnects (status 499).

    `name` stands for the request in the log.
    """
    try:
        async with cancel_when_gone(lambda: wait_until_closed(request.receive)):
            result = await work
    except ClientGone:
        logger.info("request %s: the client disconnected", name)
        return Response(status_code=_CLIENT_GONE)
    return JSONResponse(dump_result(result))


async def _reply_with_error(_: Request, error: Exception) -> Response:
    """Answer with the status, body and headers of one of our errors."""
    if not isinstance(error, CorrectionError):
        raise error
    return wire.make_error_response(error)


async def _answer_gone_client(_: Request, _error: Exception) -> Response:
    """The response to a client that left before its request was complete; nobody reads it."""
    return Response(status_code=_CLIENT_GONE)


async def _reply_with_faults(_: Request, error: Exception) -> Response:
    """Answer 422 with the names of the invalid fields, never their content."""
    if not isinstance(error, ValidationError):
        raise error
    details = error.errors(include_url=False, include_input=False, include_context=False)
    faults = []
    for detail in details:
        field_path = ".".join(map(str, detail["loc"]))
        faults.append(f"{field_path or 'body'}: {detail['msg']}")
    return _refuse("; ".join(faults), wire.REFUSED)


def _refuse(message: str, status: int) -> JSONResponse:
    """The response to a request that cannot be served as it is; `message` says why."""
    body = wire.ErrorResponse(error=wire.ErrorBody(type=wire.BAD_REQUEST, message=message))
    return JSONResponse(body.model_dump(), status)


def _completion_body(completion: Completion, request_id: str, model: str) -> dict[str, object]:
    """The body of a response in OpenAI's form, and our `counts`; draft tokens are reported as prediction tokens."""
    counts = completion.counts
    return {
        "id": request_id,
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "text": completion.text,
                "finish_reason": completion.finish_reason,
                "stop_reason": completion.stop_reason,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "total_tokens": completion.prompt_tokens + completion.completion_tokens,
            "completion_tokens_details": {
                "accepted_prediction_tokens": counts.accepted,
                "rejected_prediction_tokens": counts.drafted - counts.accepted,
            },
        },
        "counts": asdict(counts),
    }
