"""What can go wrong, by name.

AlignerProxyError
 |- ConfigError            a file or setting is wrong; the text names the thing and the fix (shown to the operator)
 |- BadRequest             a request cannot be served as it is (HTTP 400, before anything is spent)
 |   `- SeveralPolicies    its models stand under different policies
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
     |- StatesUnavailable  the engine gives no hidden states, or has not the layers that were asked for
     |- UnknownAligner     the engine serves no aligner of that name
     |- InvalidOutput      the engine answered with something that is no correction
     |- EngineFault        the engine answered with an error
     `- PluginFault        a plugin raised something, or returned what it must not
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from aligner_proxy.types import FailureClass


class AlignerProxyError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(AlignerProxyError):
    """A setting is wrong; the message names the key, the place and the fix."""


class ForbiddenError(AlignerProxyError):
    """The request asks for something that its tenant may not have."""


class BadRequest(AlignerProxyError):
    """The request cannot be served as it is; `param` is the field that is wrong."""

    param: ClassVar[str]


class SeveralPolicies(BadRequest):
    """The request lets models answer that stand under different policies."""

    param = "model"


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
    """A correction did not happen."""

    reason: ClassVar[str] = "engine_error"
    """What outcomes, metrics, headers and the wire call it."""
    failure: ClassVar[FailureClass | None] = FailureClass.BUG
    """The class by which policies choose what follows; None: it is reported as skipped, not as failed."""
    status: ClassVar[int] = 500
    """The HTTP status with which an engine answers."""


class EngineUnavailable(CorrectionError):
    """No engine answers, or it died in mid-request."""

    reason = "engine_unavailable"
    failure = FailureClass.ENGINE_DOWN
    status = 503


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
    failure = FailureClass.OVERLOAD
    status = 429

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Shed(EngineOverloaded):
    """The queue is full and this tenant has more than an equal share of it."""

    reason = "shed"


class QuotaSpent(CorrectionError):
    """The tenant has used the engine time that it may use; the pipeline reports it as skipped, not as failed."""

    reason = "quota"
    failure = None
    status = 429


class SessionLost(CorrectionError):
    """An answer was being read ahead, and the engine has forgotten it; the whole answer can be sent instead."""

    reason = "reading_lost"
    failure = FailureClass.ENGINE_DOWN
    status = 410


class DeadlineExceeded(CorrectionError):
    """The request's deadline passed before the correction was ready."""

    reason = "timeout"
    failure = FailureClass.TIMEOUT
    status = 504


class AnswerTooLong(CorrectionError):
    """Prompt and answer exceed the aligner's window; the pipeline reports it as skipped, not as failed."""

    reason = "too_long"
    failure = None
    status = 413


class InvalidOutput(CorrectionError):
    """The engine, or what answers in its place, sent something that is no correction."""

    reason = "invalid_output"
    failure = FailureClass.INVALID_OUTPUT
    status = 502


class EngineMismatch(CorrectionError):
    """Gateway and engine are of versions that do not understand each other; both have to be of the same."""

    reason = "engine_version"
    failure = FailureClass.ENGINE_DOWN
    status = 409


class StatesUnavailable(CorrectionError):
    """The engine gives no hidden states of texts, or none of the layers that were asked for."""

    reason = "no_states"
    failure = None
    status = 501


class UnknownAligner(CorrectionError):
    """The engine serves no aligner of the name that a policy chooses."""

    reason = "unknown_aligner"
    status = 404


class EngineFault(CorrectionError):
    """The engine reported an internal error."""

    reason = "engine_error"


class PluginFault(CorrectionError):
    """A plugin raised something of its own, or has no such thing as the policy names."""

    reason = "plugin_error"


def _kinds(kind: type[CorrectionError]) -> Iterator[type[CorrectionError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


BY_REASON = {kind.reason: kind for kind in _kinds(CorrectionError)}
"""Our own kinds of `CorrectionError`; what plugins derive from them is not among these."""
