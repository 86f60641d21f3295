"""What can go wrong, by name.

AlignerProxyError
 |- ConfigError            a file or setting is wrong; the text names the thing and the fix (shown to the operator)
 |- ForbiddenError         a request asks for what its tenant may not (HTTP 403, before anything is spent)
 |- WeightsError           a model folder is missing, corrupt or cannot be fetched (shown to the operator)
 `- CorrectionError        one correction did not happen; carries the reason that the outcome records
     |- EngineUnavailable  the engine cannot be reached or went away in mid-request
     |- EngineOverloaded   its admission queue is full
     |- ReadingLost        the engine does not know an answer any more that it was reading
     |- DeadlineExceeded   the request's deadline passed
     |- AnswerTooLong      prompt and answer do not fit the aligner's window
     `- EngineFault        the engine answered with an error or with something that is no correction
"""

from __future__ import annotations

from typing import ClassVar


class AlignerProxyError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(AlignerProxyError):
    """A setting is wrong; the message names the key, the place and the fix."""


class ForbiddenError(AlignerProxyError):
    """The request asks for something that its tenant may not have."""


class WeightsError(AlignerProxyError):
    """Weights are missing, corrupt or out of reach; the message names the folder and the fix."""


class CorrectionError(AlignerProxyError):
    """A correction did not happen; `reason` is what outcome, metrics and headers say."""

    reason: ClassVar[str] = "engine_error"


class EngineUnavailable(CorrectionError):
    """No engine answers, or it died in mid-request."""

    reason = "engine_unavailable"


class EngineOverloaded(CorrectionError):
    """The engine's admission queue is full; `retry_after_s` is its own estimate."""

    reason = "overloaded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ReadingLost(CorrectionError):
    """An answer was being read ahead, and the engine has forgotten it; the whole answer can be sent instead."""

    reason = "engine_unavailable"


class DeadlineExceeded(CorrectionError):
    """The request's deadline passed before the correction was ready."""

    reason = "timeout"


class AnswerTooLong(CorrectionError):
    """Prompt and answer exceed the aligner's window; the pipeline reports it as skipped, not as failed."""

    reason = "too_long"


class EngineFault(CorrectionError):
    """The engine reported an internal error or sent something that is no correction."""

    reason = "engine_error"
