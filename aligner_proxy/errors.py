"""What can go wrong, by name.

AlignerProxyError
 |- ConfigError            a file or setting is wrong; the text names the thing and the fix (shown to the operator)
 |- ForbiddenError         a request asks for what its tenant may not (HTTP 403, before anything is spent)
 |- AuditError             the audit store cannot be read: another version, another key, damage (shown to the operator)
 |- ClientGone             the client left before the work for it was done
 |- Unreadable             a response could not be read; it is delivered as it came
 |- NotPutIn               a correction could not be put into its response, which is delivered as it came
 |- WeightsError           a model folder is missing, corrupt or cannot be fetched (shown to the operator)
 `- CorrectionError        one correction did not happen; carries the reason that the outcome records
     |- EngineUnavailable  the engine cannot be reached or went away in mid-request
     |   |- BreakerOpen    it was not even asked, because it did not answer lately
     |   `- PluginStuck    a plugin blocks its thread and is not asked any more
     |- EngineOverloaded   its admission queue is full
     |   `- Shed           it is full, and this tenant has more than its share of it
     |- QuotaSpent         the tenant has used up its engine time for now (reported as skipped)
     |- ReadingLost        the engine does not know an answer any more that it was reading
     |- DeadlineExceeded   the request's deadline passed
     |- AnswerTooLong      prompt and answer do not fit the aligner's window
     |- EngineMismatch     gateway and engine are of versions that do not understand each other
     |- CannotWeigh        the engine has no net that could weigh objectives (they weigh the same then)
     |- UnknownAligner     the engine serves no aligner of that name
     |- InvalidOutput      the engine answered with something that is no correction
     |- EngineFault        the engine answered with an error
     `- PluginFault        a plugin raised something, or returned what it must not
"""

from __future__ import annotations

from typing import ClassVar


class AlignerProxyError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(AlignerProxyError):
    """A setting is wrong; the message names the key, the place and the fix."""


class ForbiddenError(AlignerProxyError):
    """The request asks for something that its tenant may not have."""


class SeveralPolicies(AlignerProxyError):
    """The request lets models answer that stand under different policies."""


class AuditError(AlignerProxyError):
    """The audit store cannot be used as it is; the message says what is wrong with it, never what stands in it."""


class ClientGone(AlignerProxyError):
    """The client left; nobody waits for what was worked on."""


class Unreadable(AlignerProxyError):
    """A response is not what LiteLLM's types say; the message names the exception that showed it."""


class NotPutIn(AlignerProxyError):
    """A correction could not be put into its response; `status_code` is for the policy that prefers an error."""

    status_code: ClassVar[int] = 503


class WeightsError(AlignerProxyError):
    """Weights are missing, corrupt or out of reach; the message names the folder and the fix."""


class CorrectionError(AlignerProxyError):
    """A correction did not happen; `reason` is what outcome, metrics and headers say."""

    reason: ClassVar[str] = "engine_error"


class EngineUnavailable(CorrectionError):
    """No engine answers, or it died in mid-request."""

    reason = "engine_unavailable"


class BreakerOpen(EngineUnavailable):
    """The engine did not answer lately and is left alone for `retry_after_s`."""

    reason = "breaker_open"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PluginStuck(EngineUnavailable):
    """A plugin blocks its thread; nobody waits for it until it answers again."""

    reason = "plugin_stuck"


class EngineOverloaded(CorrectionError):
    """The engine's admission queue is full; `retry_after_s` is its own estimate."""

    reason = "overloaded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Shed(EngineOverloaded):
    """The queue is full and this tenant has more than an equal share of it."""

    reason = "shed"


class QuotaSpent(CorrectionError):
    """The tenant has used the engine time that it may use; the pipeline reports it as skipped, not as failed."""

    reason = "quota"


class ReadingLost(CorrectionError):
    """An answer was being read ahead, and the engine has forgotten it; the whole answer can be sent instead."""

    reason = "reading_lost"


class DeadlineExceeded(CorrectionError):
    """The request's deadline passed before the correction was ready."""

    reason = "timeout"


class AnswerTooLong(CorrectionError):
    """Prompt and answer exceed the aligner's window; the pipeline reports it as skipped, not as failed."""

    reason = "too_long"


class InvalidOutput(CorrectionError):
    """The engine, or what answers in its place, sent something that is no correction."""

    reason = "invalid_output"


class EngineMismatch(CorrectionError):
    """Gateway and engine are of versions that do not understand each other; both have to be of the same."""

    reason = "engine_version"


class CannotWeigh(CorrectionError):
    """Nobody here can say what objectives weigh for a prompt."""

    reason = "no_weights"


class UnknownAligner(CorrectionError):
    """The engine serves no aligner of the name that a policy chooses."""

    reason = "unknown_aligner"


class EngineFault(CorrectionError):
    """The engine reported an internal error."""

    reason = "engine_error"


class PluginFault(CorrectionError):
    """A plugin raised something of its own, or has no such thing as the policy names."""

    reason = "plugin_error"
