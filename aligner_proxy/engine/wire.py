"""Shapes of sessions and errors on the wire, the same for server and client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aligner_proxy.errors import (
    BY_REASON,
    BreakerOpen,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.types import SegmentScore

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


class SessionOpened(BaseModel):
    """The name of a reading that has begun."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reading: str


class TextChunk(BaseModel):
    """More of an answer that is read while it is written; `ended`: there is no more after this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    ended: bool = False


class KnownVerdicts(BaseModel):
    """How many verdicts the asker has: it waits until there are more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    known: int


STATES = TypeAdapter(list[list[Annotated[float, Field(allow_inf_nan=False)]]])
OPENED = TypeAdapter(SessionOpened)
VERDICTS = TypeAdapter(tuple[SegmentScore, ...])
JUDGED = TypeAdapter(tuple[SegmentScore, ...] | None)


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
    headers = _again(error.retry_after_s) if isinstance(error, EngineOverloaded) else {}
    return Refusal(error.status, ErrorResponse(error=ErrorBody(type=error.reason, message=str(error))), headers)


@contextmanager
def parsing(otherwise: str) -> Iterator[None]:
    """What the other side sent must be what was asked for, or it is an `InvalidOutput` that says `otherwise`."""
    try:
        yield
    except ValidationError:
        raise InvalidOutput(otherwise) from None


def _again(seconds: float) -> dict[str, str]:
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
