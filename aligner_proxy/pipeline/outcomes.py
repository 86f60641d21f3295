"""Outcome of a correction: its status and reason, the class of a failure, and what follows it.

The class of a failure stands on its error type (errors.py). A `Budget` is one choice's time and attempts:
nothing is begun past its deadline, and a later attempt gets only what is left. Nothing here waits, asks or delivers.
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
    FailureClass,
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
"""The reason of an error that is none of ours."""
GATE = "gate_"
"""How the reasons of the gate begin."""
DECLINED = "declined"
"""The reason of an outcome whose text is not the upstream's."""
NOTHING_REMAINS = "nothing_remains"
"""The reason of an outcome that is blocked because nothing of its answer would remain."""
_DELIVERED = f"{GATE}partly:"
"""How they begin where it refused some edits and delivered others, or would have, in shadow mode."""

# How often a failure of a class is tried; what is not here is tried until the deadline. The same question to a faulty
# engine mostly gets the same answer, and every try costs all tenants engine time.
TRIES = {
    FailureClass.TIMEOUT: 2,
    FailureClass.GATE: 2,
    FailureClass.INVALID_OUTPUT: 2,
    FailureClass.BUG: 2,
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
"""Reasons for which an answer is delivered unjudged although its policy says judge; for others nothing was to judge."""
SIDE_KINDS = frozenset(kind.value for kind in SideKind)
"""Reasons of answers that ended because of a text beside them."""
MORE_CAUTION = 2.0
"""Nats that the next try is more careful when the gate refused the last one: the same try would end the same way."""
_FIRST_TRY = 0.5
"""Share of the deadline that the first try may take where timeouts are to be tried again: a second one needs time."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


def class_of(reason: str | None) -> FailureClass | None:
    """The class of a reason; None where it names no failure."""
    if reason is not None and reason.startswith(GATE) and not reason.startswith(_DELIVERED):
        return FailureClass.GATE
    if reason == INTERNAL:
        return FailureClass.BUG
    if reason in SIDE_KINDS:
        return FailureClass.UNJUDGED
    error = BY_REASON.get(reason or "")
    return error.failure if error else None


def kind_of(outcome: Outcome) -> FailureClass | None:
    """The class of an outcome; a correction that is delivered is no failure, whatever the gate took out of it."""
    if outcome.reason in UNJUDGED:
        return FailureClass.UNJUDGED if outcome.policy.on_skip.reaction_to(outcome.reason) is OnSkip.JUDGE else None
    return None if outcome.status is Status.CORRECTED else class_of(outcome.reason)


def blocks(outcome: Outcome) -> bool:
    """Whether the client gets an error in place of the answer. Shadow mode promises the original, whatever happens."""
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


def reads_twice(policy: Policy) -> bool:
    """Whether a policy lets nothing out that was not judged, so that doubtful answers have a second reading.

    In shadow mode: whether it would not.
    """
    return policy.blocks_unjudged


def lets_through(policy: Policy) -> list[str]:
    """The reasons and classes of failure for which a client gets an answer that was not judged, or not corrected."""
    if policy.mode is not Mode.ENFORCE:
        return [f"mode {policy.mode.value}"]
    if not (policy.objectives or policy.standards):
        return [SkipReason.NO_OBJECTIVES.value]
    reasons = [reason.value for reason in GOVERNED_SKIPS if policy.on_skip.reaction_to(reason) is OnSkip.PASSTHROUGH]
    reasons += [kind.value for kind in SideKind if policy.side_treatment(kind) is SideTreatment.PASS]
    classes = [kind.value for kind in FailureClass if policy.final_action(kind) is not OnError.BLOCK]
    return reasons + classes + (["streams (stream: passthrough)"] if policy.stream is StreamMode.PASSTHROUGH else [])


def finalize_outcome(outcome: Outcome) -> Outcome:
    """The last word on a choice: where a refused correction blocks the answer, the answer failed."""
    return replace(outcome, status=Status.FAILED) if blocks(outcome) else outcome


@dataclass(slots=True)
class Budget:
    """The time and the tries of one choice under its policy."""

    policy: Policy
    until: float = field(init=False)
    attempts: int = 0
    _failed: Counter[FailureClass] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.policy.deadline_s

    def begin(self) -> float:
        """One more try begins: the seconds it may take."""
        self.attempts += 1
        seconds_left = max(0.0, self.until - time.monotonic())
        first_of_two = self.attempts == 1 and self.policy.on_error.timeout is OnError.RETRY
        return seconds_left * _FIRST_TRY if first_of_two else seconds_left

    @property
    def attempt_policy(self) -> Policy:
        """The policy that the next try is asked with."""
        gate_failures = self._failed[FailureClass.GATE]
        caution = self.policy.caution + gate_failures * MORE_CAUTION
        return replace(self.policy, caution=caution) if gate_failures else self.policy

    def pause_before_retry(self, outcome: Outcome, error: Exception | None) -> float | None:
        """Seconds to wait before the next try; None when this outcome stands."""
        kind = kind_of(outcome)
        if kind is None or self.policy.on_error.reaction_to(kind) is not OnError.RETRY:
            return None
        self._failed[kind] += 1
        if self._failed[kind] >= TRIES.get(kind, math.inf):
            return None
        pause = self._pause(kind, error)
        return pause if time.monotonic() + pause < self.until else None

    def _pause(self, kind: FailureClass, error: Exception | None) -> float:
        """As long as the engine or the breaker asked for, otherwise a little longer each time."""
        if kind in (FailureClass.GATE, FailureClass.TIMEOUT):
            return 0.0
        if isinstance(error, EngineOverloaded | BreakerOpen):
            return error.retry_after_s + random.uniform(0, _FIRST_PAUSE_S)
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self.attempts - 1)) * random.uniform(1, 1.5)


def reason_of(error: Exception) -> str:
    """The reason that an outcome gives for an error."""
    if isinstance(error, CorrectionError):
        return error.reason
    return DeadlineExceeded.reason if isinstance(error, TimeoutError) else INTERNAL


def build_outcome(answer: AnswerSoFar, corrected: Corrected) -> Outcome:
    """What becomes of an answer; in shadow mode the reason says what would have been done."""
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
    """The reason of an outcome of which the gate dropped edits by these rules; `changed`: others are delivered."""
    return f"gate_{'partly:' if changed else ''}{dropped[0]}" if dropped else None
