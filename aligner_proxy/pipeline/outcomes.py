"""Outcome of a correction: its status and reason, the class of a failure, and how the policy reacts to it.

Each error type names its failure class (errors.py). A `Budget` holds the time and the attempts of one choice: no
attempt begins after the deadline, and a later attempt gets only the time left. Nothing here waits, calls the engine or
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
"""The reasons of outcomes in which another text, or none, was delivered in place of the answer or its unsent rest."""
NOTHING_REMAINS = "nothing_remains"
"""The reason if an answer is blocked because nothing of it would remain."""
_GATE_PARTLY = f"{GATE}partly:"
"""Prefix of the gate's reasons if it refused some edits and delivered others (or would have, in shadow mode)."""

# Maximum number of attempts that may fail with each class; classes not listed are tried until the deadline. Asking a
# faulty engine the same question mostly gives the same answer, and every attempt costs all tenants engine time.
MAX_ATTEMPTS = {
    FailureClass.TIMEOUT: 2,
    FailureClass.GATE: 2,
    FailureClass.INVALID_OUTPUT: 2,
    FailureClass.BUG: 2,
    FailureClass.JUDGE: 1,  # with `retry`, the judge is asked twice within an attempt
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
"""Skip reasons that leave text unjudged although the policy may demand judging. With others, there is no such text."""
_ORIGINAL = "the original"
_REACTION_NAMES = {
    IfNothingRemains.DECLINE: "a refusal text",
    IfNothingRemains.SECOND_TRY: "another answer, or a refusal text",
    IfNothingRemains.BLOCK: "an error",
}
_TRANSIENT = frozenset({FailureClass.OVERLOAD, FailureClass.ENGINE_DOWN, FailureClass.TIMEOUT, FailureClass.JUDGE})
"""Failure classes whose cause may pass by itself."""
SIDE_KINDS = frozenset(kind.value for kind in SideKind)
"""Reasons of answers that were blocked because of text beside the answer, such as reasoning."""
MORE_CAUTION = 2.0
"""Nats added to the threshold after the gate refused an edit, so that fewer segments are flagged. An identical attempt
would fail alike."""
_FIRST_SHARE = 0.5
"""Share of the time that the first attempt may take if timeouts are retried, so that time is left for a second."""
_FIRST_PAUSE_S = 0.1
"""Pause before the second attempt; it doubles with each further attempt, up to `_LONGEST_PAUSE_S`."""
_LONGEST_PAUSE_S = 1.0


def class_of(reason: str | None) -> FailureClass | None:
    """The failure class of an outcome's reason; None if the reason is none of a failure."""
    if reason is not None and reason.startswith(GATE) and not reason.startswith(_GATE_PARTLY):
        return FailureClass.GATE
    if reason == INTERNAL:
        return FailureClass.BUG
    if reason in SIDE_KINDS:
        return FailureClass.UNJUDGED
    error = BY_REASON.get(reason or "")
    return error.failure if error else None


def class_of_outcome(outcome: Outcome) -> FailureClass | None:
    """The failure class of an outcome; None if it is no failure.

    A delivered correction is no failure, even if the gate dropped some of its edits. A skipped answer is a failure only
    if the policy wants answers to be judged in spite of the reason.
    """
    if outcome.reason in UNJUDGED:
        is_wanted = outcome.policy.on_skip.reaction_to(outcome.reason) is OnSkip.JUDGE
        return FailureClass.UNJUDGED if is_wanted else None
    return None if outcome.status is Status.CORRECTED else class_of(outcome.reason)


def blocks(outcome: Outcome) -> bool:
    """Whether the policy demands that the client gets an error instead of the answer.

    Only in the mode `enforce`: the mode `shadow` always delivers the original.
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
    failure = class_of_outcome(outcome)
    return failure is not None and policy.final_action(failure) is OnError.BLOCK


def may_pass(reason: str | None) -> bool:
    """Whether the cause for which an answer was not delivered may pass by itself, so that asking again can help."""
    return reason == SkipReason.UPSTREAM_ERROR or class_of(reason) in _TRANSIENT


def lets_through(policy: Policy) -> list[str]:
    """The skip reasons, kinds of side text and failure classes with which unjudged text goes out, for operators."""
    if policy.mode is not Mode.ENFORCE:
        return [f"mode {policy.mode.value}"]
    if not (policy.objectives or policy.requirements):
        return [SkipReason.NO_OBJECTIVES.value]
    reasons = [reason.value for reason in GOVERNED_SKIPS if policy.on_skip.reaction_to(reason) is OnSkip.PASSTHROUGH]
    reasons += [kind.value for kind in SideKind if policy.side_treatment(kind) is SideTreatment.PASS]
    possible_failures = [failure for failure in FailureClass if failure is not FailureClass.JUDGE or policy.judges]
    reasons += [failure.value for failure in possible_failures if policy.final_action(failure) is not OnError.BLOCK]
    if policy.stream is StreamMode.PASSTHROUGH:
        reasons.append("streams (stream: passthrough)")
    return reasons


def describe_nothing_remains(policy: Policy) -> str:
    """What a client gets instead of an answer of which nothing would remain, as words for `aligner-proxy check`."""
    reaction = policy.if_nothing_remains
    if policy.mode is not Mode.ENFORCE or not (policy.objectives or policy.requirements):
        return _ORIGINAL
    original = "an error (on_error: gate)" if policy.final_action(FailureClass.GATE) is OnError.BLOCK else _ORIGINAL
    if reaction is IfNothingRemains.ORIGINAL:
        return original
    if policy.declines_harm_alone:
        names = ", ".join(sorted(SAFETY_OBJECTIVES))
        return f"{_REACTION_NAMES[reaction]} if {names} was violated, else {original}"
    return _REACTION_NAMES[reaction]


def finalize_outcome(outcome: Outcome) -> Outcome:
    """Return the outcome with its final status: failed if the policy blocks the answer, otherwise as it is."""
    return replace(outcome, status=Status.FAILED) if blocks(outcome) else outcome


@dataclass(slots=True)
class Budget:
    """The time and the attempts that one choice has under its policy."""

    policy: Policy
    until: float = field(init=False)
    """The deadline (`time.monotonic()`)."""
    attempts: int = 0
    """Number of attempts begun."""
    _failures: Counter[FailureClass] = field(default_factory=Counter)
    """Number of failed attempts by class of failure."""

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.policy.deadline_s

    def start_attempt(self) -> float:
        """Count one more attempt and return the seconds that it may take.

        These are all that are left, except for a first attempt that is repeated if it times out.
        """
        self.attempts += 1
        seconds_left = max(0.0, self.until - time.monotonic())
        is_first_of_two = self.attempts == 1 and self.policy.on_error.timeout is OnError.RETRY
        return seconds_left * _FIRST_SHARE if is_first_of_two else seconds_left

    @property
    def attempt_policy(self) -> Policy:
        """The policy for the next attempt, with a higher threshold for each attempt that the gate refused."""
        gate_failures = self._failures[FailureClass.GATE]
        caution = self.policy.caution + gate_failures * MORE_CAUTION
        return replace(self.policy, caution=caution) if gate_failures else self.policy

    def pause_before_retry(self, outcome: Outcome, error: Exception | None) -> float | None:
        """Count the failure of an attempt; return the seconds to wait before the next attempt.

        None if there is no further attempt: it was no failure, the policy does not retry it, or time or attempts are
        used up. `error` ended the attempt; None if its outcome shows the failure.
        """
        failure = class_of_outcome(outcome)
        if failure is None or self.policy.on_error.reaction_to(failure) is not OnError.RETRY:
            return None
        self._failures[failure] += 1
        if self._failures[failure] >= MAX_ATTEMPTS.get(failure, math.inf):
            return None
        pause_s = self._choose_pause(failure, error)
        return pause_s if time.monotonic() + pause_s < self.until else None

    def _choose_pause(self, failure: FailureClass, error: Exception | None) -> float:
        """Seconds to wait before the next attempt.

        0 after a gate's refusal or a timeout; as long as the engine or circuit breaker asked, if one did; otherwise a
        time that grows with the attempts.
        """
        # a gate's refusal is no sign of a busy engine, and a timeout has taken much of the time already
        if failure in (FailureClass.GATE, FailureClass.TIMEOUT):
            return 0.0
        if isinstance(error, EngineOverloaded | BreakerOpen):
            return error.retry_after_s + random.uniform(0, _FIRST_PAUSE_S)
        growing_pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self.attempts - 1))
        # jitter, so that requests that failed together do not come back together
        return growing_pause_s * random.uniform(1, 1.5)


def reason_of(error: Exception) -> str:
    """The outcome's reason for an error."""
    if isinstance(error, CorrectionError):
        return error.reason
    return DeadlineExceeded.reason if isinstance(error, TimeoutError) else INTERNAL


def build_outcome(answer: AnswerSoFar, corrected: Corrected) -> Outcome:
    """Build the outcome of a judged answer. In shadow mode the reason says what would have been done."""
    verdict = corrected.verdict
    policy = answer.policy
    is_changed = verdict.text != answer.text
    status = Status.CORRECTED if is_changed else Status.UNCHANGED
    reason = verdict.reason
    if policy.mode is Mode.SHADOW:
        status = Status.SHADOW
        reason = reason or ("would_correct" if is_changed else "would_leave")
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


def gate_reason(broken_rules: Sequence[str], *, is_changed: bool) -> str | None:
    """The outcome's reason if the gate dropped edits, such as `gate_lost_number`; None if it dropped none.

    `broken_rules` has the rule that each dropped edit broke; the reason names the first. If other edits are delivered
    (`is_changed`), the reason is `gate_partly:lost_number`.
    """
    if not broken_rules:
        return None
    return f"{_GATE_PARTLY if is_changed else GATE}{broken_rules[0]}"
