"""Outcome of a correction: its status and reason, the class of a failure, and how the policy reacts to it.

Each error type names its failure class (errors.py). A `Budget` holds the time and attempts of one choice: no attempt
begins after its deadline, and a later attempt gets only the time left. Nothing here waits, calls the engine or
delivers.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.errors import BY_REASON, BreakerOpen, CorrectionError, DeadlineExceeded, EngineOverloaded
from aligner_proxy.plugins.api import Corrected
from aligner_proxy.plugins.stage import AnswerSoFar
from aligner_proxy.types import (
    GOVERNED_SKIPS,
    SAFETY_OBJECTIVES,
    FailureClass,
    IfNothingRemains,
    Mode,
    OnError,
    OnSkip,
    Outcome,
    Policy,
    SideKind,
    SideTreatment,
    SkipReason,
    Status,
    StreamMode,
)

INTERNAL = "internal_error"
"""The reason for an exception that is not a `CorrectionError` or a timeout, that is, a bug."""
GATE = "gate_"
"""Prefix of the gate's reasons."""
DECLINED = "declined"
"""The reason if a declining text was delivered in place of the upstream's answer."""
EMPTIED = "emptied"
"""The reason if nothing of a text remains, and it was left out because other content of its answer is delivered."""
SECOND_TRY = "second_try"
"""The reason if another answer, which the editor wrote, was delivered in place of the upstream's."""
REPLACING_REASONS = frozenset({DECLINED, EMPTIED, SECOND_TRY})
"""The reasons of outcomes in which something else, or nothing, was delivered in place of all that was left to send."""
NOTHING_REMAINS = "nothing_remains"
"""The reason if an answer is blocked because nothing of it would remain."""
_DELIVERED = f"{GATE}partly:"
"""Prefix of the gate's reasons if it refused some edits and delivered others (or would have, in shadow mode)."""

# Maximum tries for each failure class; classes not listed are tried until the deadline. Asking a faulty engine the same
# question mostly gives the same answer, and every try costs all tenants engine time.
TRIES = {
    FailureClass.TIMEOUT: 2,
    FailureClass.GATE: 2,
    FailureClass.INVALID_OUTPUT: 2,
    FailureClass.BUG: 2,
    FailureClass.JUDGE: 1,  # the judge itself was asked again
    FailureClass.UNJUDGED: 1,
}
UNJUDGED = frozenset(
    {
        SkipReason.NOT_SAMPLED,
        SkipReason.QUOTA,
        SkipReason.TOO_LONG,
        SkipReason.INCONSISTENT,
        SkipReason.NON_TEXT,
        SkipReason.BACKGROUND,
        SkipReason.LANGUAGE,
    }
)
"""Skip reasons that leave an answer unjudged although the policy may demand judging. Others left nothing to judge."""
_ORIGINAL = "the original"
_REACTIONS = {
    IfNothingRemains.DECLINE: "a refusal text",
    IfNothingRemains.SECOND_TRY: "another answer, or a refusal text",
    IfNothingRemains.BLOCK: "an error",
}
_PASSING = frozenset({FailureClass.OVERLOAD, FailureClass.ENGINE_DOWN, FailureClass.TIMEOUT, FailureClass.JUDGE})
"""Failure classes that pass by themselves."""
SIDE_KINDS = frozenset(kind.value for kind in SideKind)
"""Reasons of answers that ended because of text outside the answer, such as reasoning."""
MORE_CAUTION = 2.0
"""Added to the caution after the gate refused an edit, so that fewer segments are flagged: an identical try would end
the same way."""
_FIRST_TRY = 0.5
"""Share of the deadline that the first try may take if timeouts are retried, so that time is left for a second."""
_FIRST_PAUSE_S = 0.1
"""Pause before the second try; it doubles with each further try, up to `_LONGEST_PAUSE_S`."""
_LONGEST_PAUSE_S = 1.0


def class_of(reason: str | None) -> FailureClass | None:
    """The failure class of a reason; None if it names no failure."""
    if reason is not None and reason.startswith(GATE) and not reason.startswith(_DELIVERED):
        return FailureClass.GATE
    if reason == INTERNAL:
        return FailureClass.BUG
    if reason in SIDE_KINDS:
        return FailureClass.UNJUDGED
    error = BY_REASON.get(reason or "")
    return error.failure if error else None


def kind_of(outcome: Outcome) -> FailureClass | None:
    """The failure class of an outcome; None if it is no failure.

    A delivered correction is no failure, even if the gate dropped some of its edits.
    """
    if outcome.reason in UNJUDGED:
        # if the policy accepts that such answers are skipped, this is no failure
        return FailureClass.UNJUDGED if outcome.policy.on_skip.reaction_to(outcome.reason) is OnSkip.JUDGE else None
    return None if outcome.status is Status.CORRECTED else class_of(outcome.reason)


def blocks(outcome: Outcome) -> bool:
    """Whether the client gets an error instead of the answer.

    Never in shadow mode, which always delivers the original.
    """
    policy = outcome.policy
    if policy.mode is not Mode.ENFORCE:
        return False
    if outcome.reason in GOVERNED_SKIPS and policy.on_skip.reaction_to(outcome.reason) is OnSkip.BLOCK:
        return True
    if outcome.reason == NOTHING_REMAINS:
        return True
    if outcome.reason in SIDE_KINDS and policy.side_treatment(SideKind(outcome.reason)) is SideTreatment.BLOCK:
        return True
    kind = kind_of(outcome)
    return kind is not None and policy.final_action(kind) is OnError.BLOCK


def may_pass(reason: str | None) -> bool:
    """Whether what kept an answer from being delivered may pass by itself, so that asking again can help."""
    return reason == SkipReason.UPSTREAM_ERROR or class_of(reason) in _PASSING


def lets_through(policy: Policy) -> list[str]:
    """The skip reasons and failure classes that let an unjudged or uncorrected answer through to the client."""
    if policy.mode is not Mode.ENFORCE:
        return [f"mode {policy.mode.value}"]
    if not (policy.objectives or policy.requirements):
        return [SkipReason.NO_OBJECTIVES.value]
    reasons = [reason.value for reason in GOVERNED_SKIPS if policy.on_skip.reaction_to(reason) is OnSkip.PASSTHROUGH]
    reasons += [kind.value for kind in SideKind if policy.side_treatment(kind) is SideTreatment.PASS]
    concerned = [kind for kind in FailureClass if kind is not FailureClass.JUDGE or policy.judges]
    classes = [kind.value for kind in concerned if policy.final_action(kind) is not OnError.BLOCK]
    return reasons + classes + (["streams (stream: passthrough)"] if policy.stream is StreamMode.PASSTHROUGH else [])


def describe_nothing_remains(policy: Policy) -> str:
    """What a client gets of an answer of which nothing would remain, in the words of `check`."""
    reaction = policy.if_nothing_remains
    if policy.mode is not Mode.ENFORCE or not (policy.objectives or policy.requirements):
        return _ORIGINAL
    original = "an error (on_error: gate)" if policy.final_action(FailureClass.GATE) is OnError.BLOCK else _ORIGINAL
    if reaction is IfNothingRemains.ORIGINAL:
        return original
    if policy.declines_harm_alone:
        names = ", ".join(sorted(SAFETY_OBJECTIVES))
        return f"{_REACTIONS[reaction]} if {names} was violated, else {original}"
    return _REACTIONS[reaction]


def finalize_outcome(outcome: Outcome) -> Outcome:
    """Set the final status of a choice: failed if the policy blocks the answer, otherwise unchanged."""
    return replace(outcome, status=Status.FAILED) if blocks(outcome) else outcome


@dataclass(slots=True)
class Budget:
    """The time and the tries of one choice under its policy."""

    policy: Policy
    until: float = field(init=False)
    """The deadline (`time.monotonic()`)."""
    attempts: int = 0
    """Number of tries begun."""
    _failed: Counter[FailureClass] = field(default_factory=Counter)
    """Number of failed tries by class of failure."""

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.policy.deadline_s

    def begin(self) -> float:
        """Count one more try and return the seconds it may take."""
        self.attempts += 1
        seconds_left = max(0.0, self.until - time.monotonic())
        # without a second try after a timeout, the first may use all the time
        first_of_two = self.attempts == 1 and self.policy.on_error.timeout is OnError.RETRY
        return seconds_left * _FIRST_TRY if first_of_two else seconds_left

    @property
    def attempt_policy(self) -> Policy:
        """The policy for the next try, with more caution for each try that the gate refused."""
        gate_failures = self._failed[FailureClass.GATE]
        caution = self.policy.caution + gate_failures * MORE_CAUTION
        return replace(self.policy, caution=caution) if gate_failures else self.policy

    def pause_before_retry(self, outcome: Outcome, error: Exception | None) -> float | None:
        """Count a failure and return the seconds to wait before the next try; None if there is no further try."""
        kind = kind_of(outcome)
        if kind is None or self.policy.on_error.reaction_to(kind) is not OnError.RETRY:
            return None
        self._failed[kind] += 1
        # each class of failure has its own tries
        if self._failed[kind] >= TRIES.get(kind, math.inf):
            return None
        pause = self._pause_seconds(kind, error)
        return pause if time.monotonic() + pause < self.until else None

    def _pause_seconds(self, kind: FailureClass, error: Exception | None) -> float:
        """Seconds before the next try: as the engine or breaker asked, else a growing time with jitter; at times 0."""
        # a refusal is no sign of a busy engine, and a timeout has taken much of the time already
        if kind in (FailureClass.GATE, FailureClass.TIMEOUT):
            return 0.0
        if isinstance(error, EngineOverloaded | BreakerOpen):
            return error.retry_after_s + random.uniform(0, _FIRST_PAUSE_S)
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self.attempts - 1)) * random.uniform(1, 1.5)


def reason_of(error: Exception) -> str:
    """The outcome's reason for an error."""
    if isinstance(error, CorrectionError):
        return error.reason
    return DeadlineExceeded.reason if isinstance(error, TimeoutError) else INTERNAL


def build_outcome(answer: AnswerSoFar, corrected: Corrected) -> Outcome:
    """Build the outcome of a judged answer. In shadow mode the reason says what would have been done."""
    verdict = corrected.verdict
    policy = answer.policy
    changed = verdict.text != answer.text
    status = Status.CORRECTED if changed else Status.UNCHANGED
    reason = verdict.reason
    if policy.mode is Mode.SHADOW:
        status = Status.SHADOW
        reason = reason or ("would_correct" if changed else "would_leave")
    return Outcome(
        status=status,
        reason=reason,
        text=verdict.text if status is Status.CORRECTED else answer.text,
        policy=policy,
        index=answer.exchange.index,
        cache_hit=corrected.cache_hit,
        correction=corrected.correction,
        edited=verdict.text,
        edits=verdict.edits,
        dropped=verdict.dropped,
        renumbered=verdict.renumbered,
        findings=verdict.findings,
    )


def gate_reason(dropped: Sequence[str], *, changed: bool) -> str | None:
    """The reason for edits that the gate dropped by these rules, for example `gate_lost_number`; None if none was.

    If other edits are delivered (`changed`), the reason is `gate_partly:lost_number`.
    """
    if not dropped:
        return None
    return f"gate_partly:{dropped[0]}" if changed else f"gate_{dropped[0]}"
