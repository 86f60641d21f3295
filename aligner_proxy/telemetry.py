"""Who counts? One record per choice, written once, whatever happened to it.

Counters and histograms live in prometheus_client's default registry, which LiteLLM serves under /metrics when its
"prometheus" callback is on (no licence needed). With several workers set PROMETHEUS_MULTIPROC_DIR, as for LiteLLM's own
metrics. The log line is one JSON object of ids, reasons, lengths and counts; it never holds text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from aligner_proxy.engine.protocol import Reading
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.types import Exchange, Outcome, Policy, Status

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
FORWARDS = _once(Counter, "aligner_forwards_total", "Passes through the aligner")
CACHE = _once(Counter, "aligner_cache_total", "Cache look-ups", ("result",))


async def settle(pipeline: Pipeline, exchange: Exchange, policy: Policy, reading: Reading | None = None) -> Outcome:
    """Align one choice and record what came of it, also when the client went away meanwhile."""
    outcome = Outcome(Status.FAILED, CANCELLED, exchange.answer, policy, exchange.index)
    try:
        outcome = await pipeline.align(exchange, policy, reading)
        return outcome
    finally:
        record(exchange.call_id, len(exchange.answer or ""), outcome)


def closed(call_id: str, policy: Policy, status: Status, reason: str, index: int = 0) -> Outcome:
    """An outcome that never met the pipeline (endpoint, policy, upstream error), recorded like the others."""
    outcome = Outcome(status, reason, None, policy, index)
    record(call_id, 0, outcome)
    return outcome


def record(call_id: str, answer_chars: int, outcome: Outcome) -> None:
    """Count one choice and write its log line."""
    OUTCOMES.labels(outcome.status.value, outcome.reason or "", outcome.policy.name).inc()
    LATENCY.labels(outcome.status.value).observe(outcome.ms / 1000)
    if outcome.cache_hit is not None:
        CACHE.labels("hit" if outcome.cache_hit else "miss").inc()
    if not outcome.cache_hit:
        _count_work(outcome)
    log.info(json.dumps(_line(call_id, answer_chars, outcome)))


def _count_work(outcome: Outcome) -> None:
    """What the engine did for this choice; a cache hit costs nothing and is not counted again."""
    if outcome.correction is None:
        return
    counts = outcome.correction.counts
    for metric, amount in ((DRAFT, counts.drafted), (ACCEPTED, counts.accepted), (FORWARDS, counts.forwards)):
        metric.inc(amount)
    for segment in outcome.correction.segments:
        SEGMENTS.labels(str(segment.flagged).lower()).inc()


def _line(call_id: str, answer_chars: int, outcome: Outcome) -> dict[str, Any]:
    found = outcome.correction
    return {
        "event": "aligner_outcome",
        "call_id": call_id,
        "choice": outcome.index,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "policy": outcome.policy.name,
        "objectives": [objective.name for objective in outcome.policy.objectives],
        "cache_hit": outcome.cache_hit,
        "ms": round(outcome.ms, 1),
        "answer_chars": answer_chars,
        "delivered_chars": len(outcome.text or ""),
        "segments": len(found.segments) if found else 0,
        "flagged": sum(segment.flagged for segment in found.segments) if found else 0,
        "against": outcome.against,
        "forwards": found.counts.forwards if found else 0,
        "aligner": found.aligner if found else None,
    }
