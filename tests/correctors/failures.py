"""Failures of a model's server, and the errors that they become; all but their codes is secret."""

from __future__ import annotations

from starlette.responses import JSONResponse

from aligner_proxy.correctors.model_group import QuestionRefused
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
)

_TOO_LONG = "This model's maximum context length is 9 tokens. SECRET"


def _failure(status: int, message: str = "SECRET") -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status)


FAILURES: list[tuple[JSONResponse, type[CorrectionError]]] = [
    (_failure(400, _TOO_LONG), AnswerTooLong),
    (_failure(400), QuestionRefused),
    (_failure(422), QuestionRefused),
    (_failure(401), EngineFault),
    (_failure(429), EngineOverloaded),
    (_failure(500), CorrectionError),
    (_failure(503), EngineUnavailable),
]
