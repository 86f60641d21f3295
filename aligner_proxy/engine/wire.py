"""Wire format between gateway and engine: shapes, errors, and the version number that both sides send.

Each side tells its number in a header; two different numbers are an error. Without this a gateway of another version
would see fields refused or, worse, left out. Who tells no number is let in by the server (any HTTP client may ask), and
is taken for an old engine by the client only where it refuses our requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy import __version__
from aligner_proxy.concurrency import ErrorTranslation
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

WIRE = 11
"""Counted up with every change of the shapes in `protocol` and `wire`. 2: a request names its aligner. 3: verdicts are
waited for, and stretches replaced, while an answer is read. 4: objectives are weighed for a prompt. 5: an
answer is asked for as one of several drafts. 6: something may be added behind an answer. 7: an answer can be scored
without being edited; hidden states of texts in place of weights of objectives. 8: a request says which objectives are
the operator's; a verdict is sent once. 9: a request names the taught heads of its objectives; heads are uploaded, and
rows of segments read. 10: corrections are asked for at /v1/corrections (/v1/align is the gateway's); an
aligner says which languages it knows. 11: a request says how many places its tenant has in all gateways."""
HEADER = "x-aligner-wire"
RELEASE = "x-aligner-release"
VERSION_HEADERS = {HEADER: str(WIRE), RELEASE: __version__}
_REFUSED = 422
BAD_REQUEST = "bad_request"
MAX_BODY_BYTES = 16 << 20
"""More than any request or answer needs that fits a window; neither side takes in more."""
# What a status means that comes without an error of ours: from a proxy before the engine, or from a crash in it.
_FOREIGN: dict[int, type[CorrectionError]] = {
    500: EngineFault,
    502: EngineUnavailable,
    503: EngineUnavailable,
    504: DeadlineExceeded,
}

STATES = TypeAdapter(list[list[Annotated[float, Field(allow_inf_nan=False)]]])
VERDICTS = TypeAdapter(tuple[SegmentScore, ...])
JUDGED = TypeAdapter(tuple[SegmentScore, ...] | None)


class WireVersionCheck:
    """ASGI middleware of the engine: sends its number with every answer and refuses requests with another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(VERSION_HEADERS)
            await send(message)

        theirs = Headers(scope=scope)
        if theirs.get(HEADER, str(WIRE)) != str(WIRE):
            response = refusal(mismatch("gateway", theirs, "engine"))
            answer = JSONResponse(response.body.model_dump(), response.status, response.headers)
            return await answer(scope, receive, send_versioned)
        return await self._app(scope, receive, send_versioned)


def check(status: int, headers: Mapping[str, str]) -> None:
    """The gateway's side: raise `EngineMismatch` where an answer is from an engine of another number."""
    number = headers.get(HEADER)
    if number != str(WIRE) and (number is not None or status == _REFUSED):
        raise mismatch("engine", headers, "gateway")


def mismatch(other: str, headers: Mapping[str, str], here: str) -> EngineMismatch:
    """The error that names both releases, and what to do."""
    release = headers.get(RELEASE, "an older release")[:32]
    wire = headers.get(HEADER, "1")[:8]
    return EngineMismatch(
        f"the {other} is of another version (aligner-proxy {release}, wire {wire}) than the {here} "
        f"({__version__}, wire {WIRE}); install the same aligner-proxy for both and restart them"
    )


class SessionOpened(BaseModel):
    """The name of a reading that has begun."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reading: str


class TextChunk(BaseModel):
    """More of an answer that is read while it is written; `ended`: there is no more after this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    ended: bool = False
    known: int = Field(default=0, ge=0)
    """Verdicts that the asker has: only those that follow are sent."""


class KnownVerdicts(BaseModel):
    """The asker waits until there are more verdicts than `known`; the first `received` are not sent again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    known: int
    received: int = Field(default=0, ge=0)


OPENED = TypeAdapter(SessionOpened)


class ErrorBody(BaseModel):
    """`type` is the error's reason, `message` names the fix; never any text of a request."""

    model_config = ConfigDict(frozen=True)

    type: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(frozen=True)

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error ready to be sent."""

    status: int
    body: ErrorResponse
    headers: dict[str, str]


def refusal(error: CorrectionError) -> Refusal:
    """How an error travels; an overload says when to come again (Retry-After, seconds)."""
    headers = _retry_after(error.retry_after_s) if isinstance(error, EngineOverloaded) else {}
    return Refusal(error.status, ErrorResponse(error=ErrorBody(type=error.reason, message=str(error))), headers)


def translate_parse_errors(otherwise: str) -> ErrorTranslation:
    """What the other side sent must be what was asked for, or it is an `InvalidOutput` that says `otherwise`."""
    return ErrorTranslation(ValidationError, lambda _: InvalidOutput(otherwise))


def _retry_after(seconds: float) -> dict[str, str]:
    """HTTP knows whole seconds; milliseconds are sent beside them by the name that OpenAI's clients look for first."""
    return {"retry-after": str(ceil(seconds)), "retry-after-ms": str(ceil(1000 * seconds))}


def received_error(status: int, content: bytes, headers: Mapping[str, str]) -> CorrectionError:
    """The error that a server meant; an answer that is none of ours and no usual status is an `InvalidOutput`."""
    try:
        error = ErrorResponse.model_validate_json(content).error
    except ValidationError:
        kind = _FOREIGN.get(status, InvalidOutput)
        return kind(f"the engine answered with status {status} and no error of ours")
    kind = BY_REASON.get(error.type, EngineFault)
    if issubclass(kind, EngineOverloaded | BreakerOpen):
        return kind(error.message, retry_after(headers))
    return kind(error.message)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds after which a server that refuses wants to be asked again; one where it does not say."""
    milliseconds = headers.get("retry-after-ms")
    seconds = headers.get("retry-after")
    try:
        return max(0.0, float(milliseconds) / 1000 if milliseconds else float(seconds or 1.0))
    except ValueError:
        return 1.0
