"""Prometheus metrics of the gateway.

They are in prometheus_client's default registry, which LiteLLM serves under /metrics when its "prometheus" callback is
on (no licence needed). With several workers, set PROMETHEUS_MULTIPROC_DIR, as for LiteLLM's own metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

# From the duration of one gate rule to that of an upstream that thinks for minutes.
_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
IN_FLIGHT = Gauge("aligner_in_flight", "Answers being aligned right now", multiprocess_mode="livesum")
ENGINE_UP = Gauge(
    "aligner_engine_up",
    "1 if the engine answered the last call, else 0; with several workers, the lowest",
    multiprocess_mode="livemin",
)
_MAX_CACHED_SERIES = 4096
"""Series of one metric that `labels()` returns from a cache."""
Metric = TypeVar("Metric", bound=MetricWrapperBase)
# From the latency of a cache hit to the longest deadline.
_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)


def register_once(kind: type[Metric], name: str, help_text: str, labels: Sequence[str] = (), **settings: Any) -> Metric:
    """Return the metric `name`, created unless it exists; LiteLLM may load this module again under another name."""
    existing_metric = getattr(REGISTRY, "_names_to_collectors", {}).get(name)
    if isinstance(existing_metric, kind):
        return existing_metric
    metric = kind(name, help_text, list(labels), **settings)
    # `labels()` takes a lock and copies its arguments, so its results are cached. Cached results stay valid, because
    # our series are never removed.
    setattr(metric, "labels", lru_cache(_MAX_CACHED_SERIES)(metric.labels))  # noqa: B010 - of this object alone
    return metric


SECONDS = register_once(
    Histogram, "aligner_stage_seconds", "Seconds that one stage of one answer took", ("stage",), buckets=_BUCKETS
)
OUTCOMES = register_once(
    Counter, "aligner_outcomes_total", "Choices by outcome", ("status", "reason", "policy", "tenant", "model")
)
BY_ALIGNER = register_once(
    Counter,
    "aligner_by_aligner_total",
    "Judged choices by the aligner that judged them",
    ("aligner", "status", "policy"),
)
HAND_OFFS = register_once(
    Counter, "aligner_hand_offs_total", "Reports of doubtful answers to the hand_off webhook", ("result", "policy")
)
SHADOW_JUDGEMENTS = register_once(
    Counter,
    "aligner_shadow_aligner_total",
    "Answers for the shadow aligner, which scores them for comparison only",
    ("aligner", "result"),
)
LATENCY = register_once(
    Histogram,
    "aligner_latency_seconds",
    "Seconds that the aligner added to one choice",
    ("status",),
    buckets=_LATENCY_BUCKETS,
)
SEGMENTS = register_once(Counter, "aligner_segments_total", "Segments judged by the detector head", ("flagged",))
DRAFT = register_once(Counter, "aligner_draft_tokens_total", "Draft tokens proposed")
ACCEPTED = register_once(Counter, "aligner_accepted_tokens_total", "Draft tokens accepted")
RECOVERED = register_once(Counter, "aligner_recovered_tokens_total", "Tokens written in place of rejected draft tokens")
BONUS = register_once(Counter, "aligner_bonus_tokens_total", "Tokens written after drafts that were accepted in full")
FORWARDS = register_once(Counter, "aligner_forwards_total", "Forward passes of the aligner")
FIRST_TOKEN_ADDED = register_once(
    Histogram,
    "aligner_first_token_added_seconds",
    "Seconds that the aligner added before the client of a stream got its first token",
    ("stream",),
    buckets=_LATENCY_BUCKETS,
)
LAST_TOKEN_ADDED = register_once(
    Histogram,
    "aligner_last_token_added_seconds",
    "Seconds that the aligner added before the client of a stream had the whole answer",
    ("stream",),
    buckets=_LATENCY_BUCKETS,
)
STREAM_BYTES = register_once(
    Gauge,
    "aligner_stream_held_bytes",
    "Approximate bytes that streams hold back (streams.max_mb is the limit of each worker)",
    multiprocess_mode="livesum",
)
STREAMS_SHED = register_once(
    Counter,
    "aligner_streams_shed_total",
    "Streams that were refused because the streams of a worker held streams.max_mb",
    ("policy",),
)
LOOP_STALLS = register_once(
    Histogram,
    "aligner_loop_stall_seconds",
    "Seconds for which a long stall blocked a worker's event loop, by the owner of the code that ran",
    ("owner",),
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
EDITS = register_once(
    Counter, "aligner_edits_total", "Edits that the aligner proposed, by the gate's verdict", ("verdict",)
)
JUDGE_CALLS = register_once(Counter, "aligner_judge_calls_total", "Calls to a judge", ("model", "result"))
JUDGE_TOKENS = register_once(
    Counter, "aligner_judge_tokens_total", "Tokens that a judge read and wrote", ("model", "direction")
)
JUDGE_SECONDS = register_once(Counter, "aligner_judge_seconds_total", "Seconds spent in calls to a judge", ("model",))
JUDGED_SEGMENTS = register_once(
    Counter,
    "aligner_judged_segments_total",
    "Segments about which a judge was asked, by what it changed",
    ("model", "verdict"),
)
EDITOR_CALLS = register_once(Counter, "aligner_editor_calls_total", "Calls to an editor model", ("model", "result"))
EDITOR_TOKENS = register_once(
    Counter, "aligner_editor_tokens_total", "Tokens that an editor read and wrote", ("model", "direction")
)
EDITOR_SECONDS = register_once(
    Counter, "aligner_editor_seconds_total", "Seconds spent in calls to an editor model", ("model",)
)
EDITOR_REFUSED = register_once(
    Counter,
    "aligner_editor_refused_total",
    "Passages removed because the editor's replacement was flagged again or refused by the gate",
    ("model",),
)
UNTAUGHT = register_once(
    Counter,
    "aligner_untaught_total",
    "Objectives judged by the general head alone because their taught head could not be used, by reason",
    ("reason",),
)
TAUGHT_EXAMPLES = register_once(
    Gauge,
    "aligner_taught_examples",
    "Examples that trained the active head of an objective; scope is the tenant, or - for the whole file",
    ("scope", "objective", "aligner"),
    multiprocess_mode="livemax",
)
TAUGHT_AT = register_once(
    Gauge,
    "aligner_taught_timestamp_seconds",
    "When the active head of an objective was trained, in seconds since the epoch",
    ("scope", "objective", "aligner"),
    multiprocess_mode="livemax",
)
CACHE = register_once(Counter, "aligner_cache_total", "Cache look-ups", ("result",))
CACHE_UP = register_once(
    Gauge,
    "aligner_cache_store_up",
    "1 while the cache's store works, 0 while it fails and is retried; with several workers, the lowest",
    multiprocess_mode="livemin",
)
CACHE_FAILURES = register_once(
    Counter, "aligner_cache_store_failures_total", "Failures of the cache's store", ("error",)
)
AUDIT_ENTRIES = register_once(Counter, "aligner_audit_entries_total", "Entries for the audit store", ("result",))
AUDIT_WAITING = register_once(
    Gauge,
    "aligner_audit_waiting_bytes",
    "Bytes of memory that entries waiting for the audit store use; with several workers, the sum",
    multiprocess_mode="livesum",
)
AUDIT_DELETED = register_once(
    Counter,
    "aligner_audit_deleted_total",
    "Entries deleted from the audit store, by the limit that was exceeded",
    ("limit",),
)
CLOCK_JUMP = register_once(
    Gauge,
    "aligner_clock_jump_seconds",
    "Seconds between the machine's clock after a jump and the time that the gateway uses; 0 while they are equal",
    ("clock",),
    multiprocess_mode="livemax",
)
NOT_PUT_IN = register_once(
    Counter,
    "aligner_not_put_in_total",
    "Corrections that could not be inserted, or whose removed text stands elsewhere in the response too",
)
SIDE_TEXTS_REFUSED = register_once(
    Counter,
    "aligner_side_texts_refused_total",
    "Answers blocked because of a side text (such as reasoning or tool arguments), by its kind",
    ("kind", "policy"),
)
INCOMING_TEXTS = register_once(
    Counter,
    "aligner_incoming_texts_total",
    "Messages of requests that were flagged or could not be judged, by kind (tool results, history)",
    ("kind", "result", "policy"),
)
RETRIES = register_once(Counter, "aligner_retries_total", "Retries of a correction, by result", ("status",))
BREAKER = register_once(
    Gauge,
    "aligner_breaker_state",
    "Circuit breaker of the engine: 0 closed, 1 half open, 2 open; with several workers, the highest",
    multiprocess_mode="livemax",
)
BREAKER_OPENINGS = register_once(Counter, "aligner_breaker_opened_total", "How often the circuit breaker opened")
RELOADS = register_once(Counter, "aligner_policy_changes_total", "Changes of the policies or keys file", ("result",))
POLICY_REFUSED = register_once(
    Gauge,
    "aligner_policy_refused",
    "1 while the policies or keys file on disk is refused and an older one stays active",
    multiprocess_mode="livemax",
)
INFO = register_once(Gauge, "aligner_info", "The gateway's version", ("version",), multiprocess_mode="livemax")
