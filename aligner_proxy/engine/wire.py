"""What do readings and errors look like on the wire? The same shapes and the same table for server and client."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    ReadingLost,
)
from aligner_proxy.types import SegmentScore

BAD_REQUEST = "bad_request"
_STATUS: dict[type[CorrectionError], int] = {
    EngineUnavailable: 503,
    EngineOverloaded: 429,
    DeadlineExceeded: 504,
    AnswerTooLong: 413,
    ReadingLost: 410,
    EngineFault: 500,
}


class Opened(BaseModel):
    """The name of a reading that has begun."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reading: str


class More(BaseModel):
    """More of an answer that is read while it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str


OPENED = TypeAdapter(Opened)
VERDICTS = TypeAdapter(tuple[SegmentScore, ...])


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
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {"retry-after": f"{error.retry_after_s:.3g}"} if isinstance(error, EngineOverloaded) else {}
    return Refusal(status, ErrorResponse(error=ErrorBody(type=error.reason, message=str(error))), headers)


def raised(status: int, content: bytes, retry_after: str | None) -> CorrectionError:
    """The error that a server meant; an answer that is none of ours is an `EngineFault`."""
    kind = next((kind for kind, code in _STATUS.items() if code == status), EngineFault)
    try:
        message = ErrorResponse.model_validate_json(content).error.message
    except ValidationError:
        return EngineFault(f"the engine answered with status {status} and no error of ours")
    if kind is EngineOverloaded:
        return EngineOverloaded(message, _seconds(retry_after))
    return kind(message)


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after or 1.0))
    except ValueError:
        return 1.0
