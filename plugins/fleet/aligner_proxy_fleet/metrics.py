"""Prometheus metrics about the state that gateways share."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from aligner_proxy.observability.metrics import register_once

REDIS_UP = register_once(
    Gauge,
    "aligner_redis_up",
    "1 while the shared Redis takes such calls, 0 while it does not and this gateway goes on alone; of several workers "
    "the lowest",
    ("redis", "calls"),
    multiprocess_mode="livemin",
)
REDIS_FAILURES = register_once(
    Counter, "aligner_redis_failures_total", "Calls of the shared Redis that failed", ("error",)
)
REDIS_LOOKUPS = register_once(
    Counter, "aligner_redis_lookups_total", "Look-ups of corrections in the shared Redis", ("result",)
)
REDIS_REFUSED = register_once(
    Counter,
    "aligner_redis_refused_entries_total",
    "Entries of the shared Redis that were not used, by why: truncated, altered, foreign",
    ("reason",),
)
REDIS_COMPUTED = register_once(
    Counter,
    "aligner_redis_computed_total",
    "Corrections that were in no cache: computed for all gateways, elsewhere by another gateway, alone, or superseded "
    "by another gateway meanwhile",
    ("how",),
)
HEADS_SHARED = register_once(
    Counter,
    "aligner_shared_heads_total",
    "Objectives whose taught heads went to other hosts or came from them: sent, fetched, or replaced, where both had "
    "changed",
    ("how",),
)
FLEET_GATEWAYS = register_once(
    Gauge,
    "aligner_fleet_gateways",
    "Gateway processes that were heard of lately through the shared Redis, this one with them",
    multiprocess_mode="livemax",
)
FLEET_DIFFERS = register_once(
    Gauge,
    "aligner_fleet_differs",
    "1 while another gateway has other policies, keys, taught heads or another release than this one",
    ("what",),
    multiprocess_mode="livemax",
)
