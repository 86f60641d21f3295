"""Errors that the package raises.

Operators see the messages of `ConfigError`, `AuditError` and `WeightsError`, so these name the problem and the fix.
A `CorrectionError` means that one correction did not happen; it carries the reason that the outcome records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from aligner_proxy.types import FailureClass, SideKind


class AlignerProxyError(Exception):
    """Root of every error this package raises on purpose."""

    exit_status: ClassVar[int] = 1
    """Status with which a command ends: 1 if its work failed, 2 if it was used wrongly."""


class ConfigError(AlignerProxyError):
    """A setting is wrong; the message names the key, its location and the fix."""

    exit_status = 2


class MissingExtra(ConfigError):
    """Required packages of an extra are not installed; the message says how to install the extra."""

    def __init__(self, extra: str, user: str, packages: Sequence[str]) -> None:
        verb = "is" if len(packages) == 1 else "are"
        super().__init__(
            f"{user} needs {', '.join(packages)}, which {verb} not installed: pip install 'aligner-proxy[{extra}]'"
        )
        self.extra = extra


class MissingPlugin(ConfigError):
    """A setting needs a plugin distribution that is not installed; the message says how to install it."""

    def __init__(self, distribution: str, setting: str) -> None:
        needed = f"the plugin distribution {distribution}"
        super().__init__(f"{setting} needs {needed}, which is not installed: pip install {distribution}")


class NothingRecorded(ConfigError):
    """The audit is on, but no answer has been recorded yet."""


class ForbiddenError(AlignerProxyError):
    """The request asks for something that its tenant is not allowed (HTTP 403)."""

    exit_status = 2


class BadRequest(AlignerProxyError):
    """The request is invalid (HTTP 400); `param` names the wrong field."""

    exit_status = 2
    param: str


class SeveralPolicies(BadRequest):
    """The models that may answer the request have different policies."""

    param = "model"


class AuditError(AlignerProxyError):
    """The audit store has a different version or key, or is damaged; the message never quotes its content."""


class NotRecorded(AlignerProxyError):
    """The answer has no audit entry although the operator requires one, so it is refused."""

    reason: ClassVar[str] = "audit_unwritten"
    """Name of this error in outcomes, metrics and headers."""


class NoRoomForRecord(NotRecorded):
    """The queue of entries for the audit store is full."""

    reason = "audit_full"


class ClientGone(AlignerProxyError):
    """The client disconnected before its request was finished."""

    status_code: ClassVar[int] = 499
    """The status of an answer that nobody gets, as nginx logs it."""


class Unreadable(AlignerProxyError):
    """A response cannot be parsed and is delivered unchanged; the message names the exception."""


class NotPutIn(AlignerProxyError):
    """A correction could not be inserted into its response; policies that prefer an error answer with `status_code`."""

    status_code: ClassVar[int] = 422


class WeightsError(AlignerProxyError):
    """Weights are missing, corrupt or unreachable; the message names the folder and the fix."""


class NoSuchModel(WeightsError):
    """What is named as a model is not on this machine, or is none."""

    exit_status = 2


class MalformedHead(WeightsError):
    """The bytes are not a valid taught head; the message says why."""


class CorrectionError(AlignerProxyError):
    """A correction did not happen."""

    reason: ClassVar[str] = "engine_error"
    """Name of this error in outcomes, metrics, headers and on the wire."""
    failure: ClassVar[FailureClass | None] = FailureClass.BUG
    """The class by which policies choose a reaction; None: reported as skipped, not as failed."""
    status: ClassVar[int] = 500
    """The HTTP status with which an engine answers."""


class EngineUnavailable(CorrectionError):
    """No engine answers, or it died during the request."""

    reason = "engine_unavailable"
    failure = FailureClass.ENGINE_DOWN
    status = 503


class BreakerOpen(EngineUnavailable):
    """The circuit breaker is open: the engine failed lately and is not called for `retry_after_s`."""

    reason = "breaker_open"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PluginStuck(EngineUnavailable):
    """A plugin blocks its thread and is not called until the thread responds again."""

    reason = "plugin_stuck"


class EngineOverloaded(CorrectionError):
    """The engine's admission queue is full; `retry_after_s` is the engine's estimate."""

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
    """The tenant has used up its engine time; the pipeline reports it as skipped, not as failed."""

    reason = "quota"
    failure = None
    status = 429


class SessionLost(CorrectionError):
    """The engine dropped the session of a partly sent answer; the client can send the whole answer instead."""

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
    """The engine, or a server in its place, returned something that is not a correction."""

    reason = "invalid_output"
    failure = FailureClass.INVALID_OUTPUT
    status = 502


class JudgeFailed(CorrectionError):
    """The judge gave no verdict, and the policy does not let the head's own verdicts stand alone."""

    reason = "judge_failed"
    failure = FailureClass.JUDGE
    status = 503


class CopyStays(CorrectionError):
    """What an edit removed stands in another field of the response, which may not be changed or has gone out."""

    reason = "copied_elsewhere"
    failure = FailureClass.UNJUDGED
    status = 422

    def __init__(self, kind: SideKind) -> None:
        super().__init__(f"removed text stands in {kind.value}")
        self.kind = kind


class NotLocated(CorrectionError):
    """A second reading flagged text that cannot be located in the answer, so it cannot be removed."""

    reason = "not_placed"
    failure = FailureClass.UNJUDGED
    status = 502


class EngineMismatch(CorrectionError):
    """Gateway and engine have incompatible versions; install the same version of both."""

    reason = "engine_version"
    failure = FailureClass.ENGINE_DOWN
    status = 409


class StatesUnavailable(CorrectionError):
    """The engine serves no hidden states, or not the requested layers."""

    reason = "no_states"
    failure = None
    status = 501


class UnknownHead(CorrectionError):
    """The engine lacks a taught head that the request names; the client uploads the head and asks again."""

    reason = "unknown_head"
    status = 404


class HeadRefused(CorrectionError):
    """The engine rejects a taught head: it is malformed, or for another aligner, objective or width."""

    reason = "head_refused"
    status = 422


class HeadsUnavailable(CorrectionError):
    """The engine has no detector head, so it cannot be taught."""

    reason = "no_heads"
    status = 501


class UnknownAligner(CorrectionError):
    """The engine does not serve the aligner that a policy names."""

    reason = "unknown_aligner"
    status = 404


class UnknownJudge(CorrectionError):
    """The engine does not have the judge that a policy names."""

    reason = "unknown_judge"
    status = 404


class EngineFault(CorrectionError):
    """The engine reported an internal error."""


class PluginFault(CorrectionError):
    """A plugin raised an error, returned an invalid value, or lacks what the policy names."""

    reason = "plugin_error"


def _list_classes(kind: type[CorrectionError]) -> Iterator[type[CorrectionError]]:
    """A class of errors and all its subclasses, deepest last."""
    yield kind
    for subclass in kind.__subclasses__():
        yield from _list_classes(subclass)


BY_REASON = {kind.reason: kind for kind in _list_classes(CorrectionError)}
"""The package's own `CorrectionError` classes by reason; classes of plugins are not included."""
