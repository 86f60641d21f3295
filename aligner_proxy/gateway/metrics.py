"""Metrics and log lines: one record per choice, written once, whatever happened to it.

Counters and histograms live in prometheus_client's default registry, which LiteLLM serves under /metrics when its
"prometheus" callback is on (no licence needed). With several workers set PROMETHEUS_MULTIPROC_DIR, as for LiteLLM's own
metrics. The log line is one JSON object of ids, reasons, lengths and counts; it never holds text.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from aligner_proxy import __version__
from aligner_proxy.engine.client.circuit_breaker import State
from aligner_proxy.gateway.request_state import RequestState, Timeline
from aligner_proxy.observability.metrics import (
    ACCEPTED,
    BONUS,
    BREAKER,
    CACHE,
    DRAFT,
    EDITS,
    FIRST,
    FORWARDS,
    INFO,
    LAST,
    LATENCY,
    NOT_PUT_IN,
    OPENED,
    OUTCOMES,
    RECOVERED,
    REFUSED,
    RELOADS,
    RETRIES,
    SEGMENTS,
)
from aligner_proxy.observability.tracing import Span, passed
from aligner_proxy.pipeline.outcomes import INTERNAL
from aligner_proxy.types import Outcome, Policy, Status

log = logging.getLogger("aligner_proxy.outcome")

CANCELLED = "cancelled"
"""The reason when the client left before there was an outcome."""

_BREAKER_LEVEL = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
INFO.labels(__version__).set(1)


def not_put_in(ledger: RequestState) -> None:
    """What was corrected, and counted so, could not be put into its response."""
    NOT_PUT_IN.inc()
    ledger.undo(INTERNAL)


def upstream_ended(ledger: RequestState) -> None:
    """The whole answer is there, or there will be none."""
    seconds = time.monotonic() - ledger.opened
    passed("upstream", seconds, ledger.trace, aligner__call_id=ledger.call_id, aligner__policy=ledger.policy.name)


def describe(span: Span, outcome: Outcome) -> None:
    """Attributes of a choice's span; its flagged objectives are evaluations in the words of gen_ai."""
    correction = outcome.correction
    span.set(
        aligner__choice=outcome.index,
        aligner__status=outcome.status.value,
        aligner__reason=outcome.reason,
        aligner__policy=outcome.policy.name,
        aligner__objectives=[objective.name for objective in outcome.policy.objectives],
        aligner__cache_hit=outcome.cache_hit,
        aligner__segments=len(correction.segments) if correction else None,
        aligner__flagged=sum(segment.flagged for segment in correction.segments) if correction else None,
        aligner__hash=correction.aligner if correction else None,
        gen_ai__usage__input_tokens=correction.prompt_tokens if correction else None,
    )
    if outcome.status is Status.FAILED:
        span.fail(outcome.reason or "failed")
    for name, score in worst(outcome).items():
        span.event(
            "gen_ai.evaluation.result",
            gen_ai__evaluation__name=name,
            gen_ai__evaluation__score__value=score,
            gen_ai__evaluation__score__label="flagged",
        )


def worst(outcome: Outcome) -> dict[str, float]:
    """By objective: the highest log-odds of the segments that were flagged for it."""
    scores: dict[str, float] = {}
    for segment in outcome.correction.segments if outcome.correction else ():
        name = outcome.named(segment)
        if name is not None and segment.score is not None:
            scores[name] = max(segment.score, scores.get(name, segment.score))
    return scores


def closed(call_id: str, policy: Policy, status: Status, reason: str, index: int = 0) -> Outcome:
    """An outcome that never met the pipeline (endpoint, policy, upstream error), recorded like the others."""
    outcome = Outcome(status, reason, None, policy, index)
    record(call_id, 0, outcome)
    return outcome


def record(call_id: str, answer_chars: int, outcome: Outcome) -> None:
    """Count one choice and write its log line."""
    OUTCOMES.labels(outcome.status.value, outcome.reason or "", outcome.policy.name).inc()
    LATENCY.labels(outcome.status.value).observe(outcome.ms / 1000)
    if outcome.status is not Status.SKIPPED:
        _count(outcome)
    if log.isEnabledFor(logging.INFO):
        log.info(json.dumps(_line(call_id, answer_chars, outcome)))


def _count(outcome: Outcome) -> None:
    """What was done for a choice that was looked at."""
    if outcome.cache_hit is not None:
        CACHE.labels("hit" if outcome.cache_hit else "miss").inc()
    _count_edits(outcome)
    if outcome.attempts > 1:
        RETRIES.labels(outcome.status.value).inc(outcome.attempts - 1)
    if not outcome.cache_hit:
        _count_work(outcome)


def streamed(call_id: str, policy: Policy, timeline: Timeline) -> None:
    """Count what a stream cost its client; one without text counts nowhere."""
    first = timeline.first_added_s
    last = timeline.last_added_s
    mode = policy.stream.value
    if timeline.first_s is None or first is None or last is None:
        return
    FIRST.labels(mode).observe(first)
    LAST.labels(mode).observe(last)
    told = {"first_token": timeline.first_s, "first_token_added": first, "last_token_added": last}
    times = {f"{name}_ms": round(seconds * 1000, 1) for name, seconds in told.items()}
    log.info(json.dumps({"event": "aligner_stream", "call_id": call_id, "stream": mode, **times}))


def _count_edits(outcome: Outcome) -> None:
    """The gate has its word on every cache hit, too, so these are counted every time."""
    for rule in outcome.dropped:
        EDITS.labels(rule).inc()
    if kept := outcome.edits - len(outcome.dropped):
        EDITS.labels("kept").inc(kept)


def breaker(state: State) -> None:
    """The circuit breaker of the engine has a new state."""
    BREAKER.set(_BREAKER_LEVEL[state])
    if state is State.OPEN:
        OPENED.inc()


def policies(*, refused: bool) -> None:
    """The policies or keys file has changed, and was taken or refused."""
    RELOADS.labels("refused" if refused else "taken").inc()
    REFUSED.set(refused)


def _count_work(outcome: Outcome) -> None:
    """What the engine did for this choice; a cache hit costs nothing and is not counted again."""
    if outcome.correction is None:
        return
    counts = outcome.correction.counts
    DRAFT.inc(counts.drafted)
    ACCEPTED.inc(counts.accepted)
    RECOVERED.inc(counts.recovered)
    BONUS.inc(counts.bonus)
    FORWARDS.inc(counts.forwards)
    for segment in outcome.correction.segments:
        SEGMENTS.labels(str(segment.flagged).lower()).inc()


def _line(call_id: str, answer_chars: int, outcome: Outcome) -> dict[str, Any]:
    found = outcome.correction
    return dict(outcome.reports) | {
        "event": "aligner_outcome",
        "call_id": call_id,
        "choice": outcome.index,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "policy": outcome.policy.name,
        "objectives": [objective.name for objective in outcome.policy.objectives],
        "cache_hit": outcome.cache_hit,
        "attempts": outcome.attempts,
        "ms": round(outcome.ms, 1),
        "answer_chars": answer_chars,
        "delivered_chars": len(outcome.text or ""),
        "segments": len(found.segments) if found else 0,
        "flagged": sum(segment.flagged for segment in found.segments) if found else 0,
        "against": outcome.against,
        "edits": outcome.edits,
        "dropped": list(outcome.dropped),
        "forwards": found.counts.forwards if found else 0,
        "aligner": found.aligner if found else None,
    }
