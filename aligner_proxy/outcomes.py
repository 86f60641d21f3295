"""Outcome of a correction that the gate has judged."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.gate import Verdict
from aligner_proxy.types import Correction, Exchange, Mode, Outcome, Policy, Status


def judged(
    exchange: Exchange,
    answer: str,
    policy: Policy,
    correction: Correction,
    cache_hit: bool | None,
    verdict: Verdict,
) -> Outcome:
    """What becomes of `answer`; in shadow mode the reason says what would have been done."""
    changed = verdict.text != answer
    status = Status.CORRECTED if changed else Status.UNCHANGED
    reason = verdict.reason
    if policy.mode is Mode.SHADOW:
        status = Status.SHADOW
        reason = reason or ("would_correct" if changed else "would_leave")
    return Outcome(
        status=status,
        reason=reason,
        text=verdict.text if status is Status.CORRECTED else answer,
        policy=policy,
        index=exchange.index,
        cache_hit=cache_hit,
        correction=correction,
        edited=verdict.text,
        edits=verdict.edits,
        dropped=verdict.dropped,
    )


def gate_reason(dropped: Sequence[str], *, changed: bool) -> str | None:
    """The reason of an outcome of which the gate dropped edits by these rules; `changed`: others are delivered."""
    return f"gate_{'partly:' if changed else ''}{dropped[0]}" if dropped else None
