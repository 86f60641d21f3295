"""Wire format between gateway and engine: bodies, errors, and the version number that both sides send.

Each side sends its version number in a header; two different numbers are an error. Without this check, a version
mismatch would show as refused fields or, worse, as fields silently missing. The server accepts requests without the
header, because any HTTP client may ask. The client treats an engine without the header as an old version only if that
engine rejects our requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy import __version__
from aligner_proxy.concurrency import ErrorTranslation
from aligner_proxy.engine.api import StrictModel
from aligner_proxy.errors import (
    BY_REASON,
    BreakerOpen,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineMismatch,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.types import SegmentScore

WIRE = 21
"""Version of the wire format; incremented with every change of the shapes in `api` and `wire`, and of where sentences
end, since both sides must divide an answer alike."""
HEADER = "x-aligner-wire"
"""The header with the version of the wire format."""
RELEASE = "x-aligner-release"
"""The header with the version of aligner-proxy."""
VERSION_HEADERS = {HEADER: str(WIRE), RELEASE: __version__}
REFUSED = 422
"""Status for a request whose fields are invalid or unknown."""
BAD_REQUEST = "bad_request"
"""Reason of an error with that status."""
MAX_BODY_BYTES = 16 << 20
"""Largest body that either side accepts; no request or answer that fits a model's window needs as much."""
# The meaning of a status if the body is none of our errors: it comes from a proxy before the engine, or from a crash.
_ERRORS_BY_STATUS: dict[int, type[CorrectionError]] = {
    500: EngineFault,
    502: EngineUnavailable,
    503: EngineUnavailable,
    504: DeadlineExceeded,
}

STATES = TypeAdapter(list[list[Annotated[float, Field(allow_inf_nan=False)]]])
"""Answer to a request for hidden states: one row for each text."""
VERDICTS = TypeAdapter(tuple[SegmentScore, ...])
"""Answer to new text: the verdicts that the client does not have yet."""
JUDGED = TypeAdapter(tuple[SegmentScore, ...] | None)
"""Answer to waiting for verdicts: the new verdicts; None if the session has none before the answer is finished."""


class WireVersionCheck:
    """ASGI middleware of the engine: adds its wire version to every response, refuses requests of another version."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of another version with an error; pass other requests on, with `send_versioned`."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(VERSION_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        # requests without the header are accepted
        if headers.get(HEADER, str(WIRE)) != str(WIRE):
            response = make_error_response(make_mismatch_error("gateway", headers, here="engine"))
            return await response(scope, receive, send_versioned)
        return await self._app(scope, receive, send_versioned)


def make_mismatch_error(other: str, headers: Mapping[str, str], here: str) -> EngineMismatch:
    """The error for two different wire versions; its message names both releases and the fix.

    `headers` are those of the side `other` ("gateway" or "engine"); `here` is the side of this process.
    """
    # cut, because the other side may have sent anything; version 1 sent no header
    release = headers.get(RELEASE, "an older release")[:32]
    wire = headers.get(HEADER, "1")[:8]
    return EngineMismatch(
        f"the {other} is of another version (aligner-proxy {release}, wire {wire}) than the {here} "
        f"({__version__}, wire {WIRE}); install the same aligner-proxy for both and restart them"
    )


class SessionOpened(StrictModel):
    """The answer to opening a session, which is called a reading in paths and bodies."""

    reading: str
    """The session's name."""


class TextChunk(StrictModel):
    """The next text of an answer that is still being written; `ended` says whether the answer is complete with it."""

    text: str
    ended: bool = False
    known: int = Field(default=0, ge=0)
    """Number of verdicts that the client already has; only later ones are sent."""


class KnownVerdicts(StrictModel):
    """A request to wait until there are more verdicts than `known`; the first `received` are not sent again."""

    known: int
    received: int = Field(default=0, ge=0)


class ErrorBody(BaseModel):
    """An error: `type` is its reason, `message` names the fix. It never contains text of a request."""

    model_config = ConfigDict(frozen=True)

    type: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every error answer."""

    model_config = ConfigDict(frozen=True)

    error: ErrorBody


def make_error_body(error: CorrectionError) -> ErrorBody:
    return ErrorBody(type=error.reason, message=str(error))


def make_error_response(error: CorrectionError) -> JSONResponse:
    """Convert an error to its HTTP form; the headers of an overload also say when to retry."""
    headers = {}
    if isinstance(error, EngineOverloaded):
        # whole seconds as in HTTP, and milliseconds in the header that OpenAI's clients read first
        after_s = error.retry_after_s
        headers = {"retry-after": str(ceil(after_s)), "retry-after-ms": str(ceil(1000 * after_s))}
    body = ErrorResponse(error=make_error_body(error))
    return JSONResponse(body.model_dump(), error.status, headers)


def translate_parse_errors(message: str) -> ErrorTranslation:
    """Return a context manager that turns pydantic's `ValidationError` into `InvalidOutput` with this message."""
    return ErrorTranslation(ValidationError, lambda _: InvalidOutput(message))


def parse_error(status: int, content: bytes, headers: Mapping[str, str]) -> CorrectionError:
    """Convert an engine's error response to an exception: by the reason in our error body, else by the status."""
    try:
        error = ErrorResponse.model_validate_json(content).error
    except ValidationError:
        error_type = _ERRORS_BY_STATUS.get(status, InvalidOutput)
        return error_type(f"the engine answered with status {status} and no error of ours")
    return restore_error(error, headers)


def restore_error(error: ErrorBody, headers: Mapping[str, str]) -> CorrectionError:
    """Convert an error that was sent over HTTP back to an exception; `headers` may say when to retry."""
    # a reason that this version does not know is treated as a fault of the engine
    error_type = BY_REASON.get(error.type, EngineFault)
    if issubclass(error_type, EngineOverloaded | BreakerOpen):
        return error_type(error.message, read_retry_after(headers))
    return error_type(error.message)


def read_retry_after(headers: Mapping[str, str]) -> float:
    """Seconds after which the server wants a retry; 1.0 if the headers do not say, or say no number."""
    milliseconds = headers.get("retry-after-ms")
    seconds = headers.get("retry-after")
    try:
        after_s = float(milliseconds) / 1000 if milliseconds else float(seconds or 1.0)
    except ValueError:
        return 1.0
    return max(0.0, after_s)
