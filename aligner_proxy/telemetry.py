"""Metrics and log lines: one record per choice, written once, whatever happened to it.

Counters and histograms live in prometheus_client's default registry, which LiteLLM serves under /metrics when its
"prometheus" callback is on (no licence needed). With several workers set PROMETHEUS_MULTIPROC_DIR, as for LiteLLM's own
metrics. The log line is one JSON object of ids, reasons, lengths and counts; it never holds text.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from aligner_proxy import __version__
from aligner_proxy.engine.breaker import State
from aligner_proxy.failures import INTERNAL
from aligner_proxy.ledger import Ledger
from aligner_proxy.stages import passed
from aligner_proxy.timeline import Timeline
from aligner_proxy.tracing import Span
from aligner_proxy.types import Outcome, Policy, Status

log = logging.getLogger("aligner_proxy.outcome")

CANCELLED = "cancelled"
"""The reason when the client left before there was an outcome."""

Metric = TypeVar("Metric", bound=MetricWrapperBase)

# From a cache hit to the longest deadline that anyone will wait for.
_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)


def _once(kind: type[Metric], name: str, text: str, labels: Sequence[str] = (), **settings: Any) -> Metric:
    """The metric called `name`, made on first use: LiteLLM may load this module a second time under another name."""
    known = getattr(REGISTRY, "_names_to_collectors", {}).get(name)
    return known if isinstance(known, kind) else kind(name, text, list(labels), **settings)


OUTCOMES = _once(Counter, "aligner_outcomes_total", "Choices by what became of them", ("status", "reason", "policy"))
LATENCY = _once(Histogram, "aligner_latency_seconds", "Added latency per choice", ("status",), buckets=_LATENCY_BUCKETS)
SEGMENTS = _once(Counter, "aligner_segments_total", "Segments judged by the detector head", ("flagged",))
DRAFT = _once(Counter, "aligner_draft_tokens_total", "Draft tokens proposed")
ACCEPTED = _once(Counter, "aligner_accepted_tokens_total", "Draft tokens accepted")
RECOVERED = _once(Counter, "aligner_recovered_tokens_total", "Tokens in place of rejected draft tokens")
BONUS = _once(Counter, "aligner_bonus_tokens_total", "Tokens behind drafts that were accepted whole")
FORWARDS = _once(Counter, "aligner_forwards_total", "Passes through the aligner")
FIRST = _once(
    Histogram,
    "aligner_first_token_added_seconds",
    "How much later the client of a stream got its first token",
    ("stream",),
    buckets=_LATENCY_BUCKETS,
)
LAST = _once(
    Histogram,
    "aligner_last_token_added_seconds",
    "How much later the client of a stream had the whole answer",
    ("stream",),
    buckets=_LATENCY_BUCKETS,
)
EDITS = _once(Counter, "aligner_edits_total", "Edits the aligner wanted, by what the gate said to each", ("verdict",))
CACHE = _once(Counter, "aligner_cache_total", "Cache look-ups", ("result",))
AUDITED = _once(Counter, "aligner_audit_entries_total", "Entries for the audit store", ("result",))
NOT_PUT_IN = _once(Counter, "aligner_not_put_in_total", "Corrected responses that could not be made; the original went")
RETRIES = _once(Counter, "aligner_retries_total", "Further tries at a correction, by what came of it", ("status",))
BREAKER = _once(
    Gauge,
    "aligner_breaker_state",
    "Circuit breaker of the engine: 0 closed, 1 half open, 2 open; of several workers the highest",
    multiprocess_mode="livemax",
)
OPENED = _once(Counter, "aligner_breaker_opened_total", "How often the circuit breaker opened")
RELOADS = _once(Counter, "aligner_policy_changes_total", "Changes of the policies or keys file", ("result",))
REFUSED = _once(
    Gauge,
    "aligner_policy_refused",
    "1 while the policies or keys file on disk is refused and an older one is in force",
    multiprocess_mode="livemax",
)

_BREAKER_LEVEL = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
INFO = _once(Gauge, "aligner_info", "The gateway's version", ("version",), multiprocess_mode="livemax")
INFO.labels(__version__).set(1)


def not_put_in(ledger: Ledger) -> None:
    """What was corrected, and counted so, could not be put into its response."""
    NOT_PUT_IN.inc()
    ledger.undo(INTERNAL)


def upstream_ended(ledger: Ledger) -> None:
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
    first, last, mode = timeline.first_added_s, timeline.last_added_s, policy.stream.value
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


def audited(result: str) -> None:
    """An entry for the audit store was written, lost (disk, file, redaction), or dropped because too many wait."""
    AUDITED.labels(result).inc()


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
