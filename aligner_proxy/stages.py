"""Stages of one answer: each is a span of the request's trace and counts in one histogram.

Stages of the gateway: `upstream` (until the whole answer is there), `cache`, `engine` (queue and network included) and
`gate`. What happens inside the engine is the engine's own to tell (engine/phases.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Gauge, Histogram

from aligner_proxy import tracing
from aligner_proxy.tracing import Span, Value

# From a rule of the gate to an upstream that thinks for minutes.
_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

SECONDS = Histogram("aligner_stage_seconds", "Time of one stage of one answer", ["stage"], buckets=_BUCKETS)
IN_FLIGHT = Gauge("aligner_in_flight", "Answers being aligned right now", multiprocess_mode="livesum")
ENGINE_UP = Gauge(
    "aligner_engine_up",
    "1 when the engine answered the last time it was asked, 0 when it did not; of several workers the lowest",
    multiprocess_mode="livemin",
)


@contextmanager
def stage(name: str, *, kind: str = "INTERNAL", **attributes: Value | None) -> Iterator[Span]:
    """Time a stage; it counts also when it fails."""
    began = time.perf_counter()
    try:
        with tracing.span(f"aligner.{name}", None, kind=kind, **attributes) as span:
            yield span
    finally:
        SECONDS.labels(name).observe(time.perf_counter() - began)


def passed(name: str, seconds: float, parent: Any = None, **attributes: Value | None) -> None:
    """A stage that others went through and that ends now."""
    SECONDS.labels(name).observe(seconds)
    tracing.lasted(f"aligner.{name}", seconds, 0.0, parent, **attributes)
