"""Prometheus metrics about the state that gateways share."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from aligner_proxy.observability.metrics import register_once

REDIS_UP = register_once(
    Gauge,
    "aligner_redis_up",
    "1 while the shared Redis accepts such calls, 0 while it does not and the gateway works without it; with several "
    "workers, the lowest",
    ("redis", "calls"),
    multiprocess_mode="livemin",
)
REDIS_FAILURES = register_once(
    Counter, "aligner_redis_failures_total", "Calls to the shared Redis that failed", ("error",)
)
REDIS_LOOKUPS = register_once(
    Counter, "aligner_redis_lookups_total", "Look-ups of corrections in the shared Redis", ("result",)
)
REDIS_REFUSED = register_once(
    Counter,
    "aligner_redis_refused_entries_total",
    "Entries of the shared Redis that the gateway refused, by reason: truncated, altered or foreign",
    ("reason",),
)
REDIS_COMPUTED = register_once(
    Counter,
    "aligner_redis_computed_total",
    "Corrections that no cache had: computed here for all gateways, elsewhere by another gateway, here for this "
    "gateway alone, or superseded because another gateway stored one first",
    ("how",),
)
HEADS_SHARED = register_once(
    Counter,
    "aligner_shared_heads_total",
    "Objectives whose taught heads were sent to other hosts, fetched from them, or replaced because both hosts had "
    "changed them",
    ("how",),
)
FLEET_GATEWAYS = register_once(
    Gauge,
    "aligner_fleet_gateways",
    "Gateway processes that reported lately through the shared Redis, including this one",
    multiprocess_mode="livemax",
)
FLEET_DIFFERS = register_once(
    Gauge,
    "aligner_fleet_differs",
    "1 while another gateway's policies, keys, taught heads or release differ from those of this one",
    ("what",),
    multiprocess_mode="livemax",
)
