"""Prometheus metrics and trace spans of an engine: a request's phases (queue, prefill, generate), and load. No torch.

A request waits until its first token is fed (queue). Then its prompt is read (prefill), after which an aligner with a
head has its verdicts. Then replacements for flagged text are written (generate). For an answer that is read while the
upstream writes it, these times count from the end of the answer, because the client waits from then on. The reading
before the end is a separate trace span.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aligner_proxy import __version__
from aligner_proxy.engine.api import AlignerInfo, Load
from aligner_proxy.errors import CorrectionError
from aligner_proxy.observability import tracing
from aligner_proxy.observability.tracing import Value
from aligner_proxy.types import Correction

REGISTRY = CollectorRegistry()
"""The engine's own registry, so that a gateway in the same process does not show its metrics."""
_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
REQUESTS = Histogram(
    "aligner_engine_request_seconds",
    "Seconds from a request's arrival to its result, by the reason of its failure",
    ["reason"],
    registry=REGISTRY,
    buckets=_BUCKETS,
)
REFUSED = Counter(
    "aligner_engine_refused", "Requests that the engine refused to accept, by reason", ["reason"], registry=REGISTRY
)
_last_refusal = [float("-inf")]  # one item: the time in monotonic seconds; -inf before the first refusal
_PHASES = {
    name: Histogram(f"aligner_engine_{name}_seconds", text, registry=REGISTRY, buckets=_BUCKETS)
    for name, text in (
        ("queue", "Seconds from a request's arrival until its first token is fed to the model"),
        ("prefill", "Seconds for reading the prompt; if the answer was read as it was written, only the rest of it"),
        ("generate", "Seconds for writing replacements of flagged text"),
    )
}


def count_refusal(reason: str) -> None:
    """Count a refused request, and note the time."""
    REFUSED.labels(reason).inc()
    _last_refusal[0] = time.monotonic()


def read_last_refusal() -> float:
    """Time of the last refusal, in monotonic seconds."""
    return _last_refusal[0]


@dataclass(slots=True)
class Phases:
    """Times at which one request reached its phases, in monotonic seconds.

    It waits ("queue"), its prompt is read ("prefill"), and replacements are written ("generate"). Times of an answer
    that is read ahead count from its end. Only the model's thread calls `note_read` and `note_forward`.
    """

    trace: Any = None
    """The trace context in which the request's spans are recorded."""
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    """When its first token was fed; None before."""
    prefilled: float | None = None
    """When its whole prompt was read; None before."""
    reading_since: float | None = None
    """When the engine began to read the answer ahead; None for other answers, and before the answer is complete."""
    unwanted: bool = False
    """True while the upstream still writes the answer, so that no client waits for a result yet."""
    is_over: bool = False
    """Whether the request's end was recorded; only the first call of `note_end` counts."""

    def note_forward(self) -> None:
        """Note that tokens of the request go through the model; the first call ends the queue phase."""
        if self.started is None:
            self.started = time.monotonic()

    def note_read(self) -> None:
        """Note that the model has read everything given so far; the first call ends the prefill phase."""
        if self.prefilled is None:
            self.prefilled = time.monotonic()

    def note_complete_answer(self) -> None:
        """Note that an answer that was read ahead is complete. The phases begin again, because a client waits now."""
        self.reading_since = self.started or self.arrived
        self.arrived = time.monotonic()
        self.started = None
        self.prefilled = None
        self.unwanted = False

    def note_end(self, result: object, departure: str | None = None) -> None:
        """Record the request's end, once, in metrics and trace spans; does nothing while `unwanted`.

        `result` is the request's result or error. `departure` is "timeout" or "cancelled" if the client left before the
        result, else None.
        """
        if self.is_over or self.unwanted:
            return
        self.is_over = True
        now = time.monotonic()
        reason = departure or (result.reason if isinstance(result, CorrectionError) else "")
        REQUESTS.labels(reason).observe(now - self.arrived)
        attributes: dict[str, dict[str, Value]] = {}  # of the spans, by phase
        if isinstance(result, Correction):
            counts = result.counts
            attributes["prefill"] = {"gen_ai__usage__input_tokens": result.prompt_tokens}
            attributes["generate"] = {
                "aligner__draft_tokens": counts.drafted,
                "aligner__accepted_tokens": counts.accepted,
                "aligner__forwards": counts.forwards,
            }
        if self.reading_since is not None:
            tracing.record_span("aligner.read_along", self.arrived - self.reading_since, now - self.arrived, self.trace)
        for name, start, stop in self._list_phases(now):
            _PHASES[name].observe(stop - start)
            tracing.record_span(f"aligner.{name}", stop - start, now - stop, self.trace, **attributes.get(name, {}))

    def _list_phases(self, now: float) -> Iterator[tuple[str, float, float]]:
        """The phases that the request reached, each as (name, start, stop), in monotonic seconds."""
        # the last phase that the request reached lasts until now
        started = self.started or now
        prefilled = self.prefilled or now
        yield "queue", self.arrived, started
        if self.started is not None:
            yield "prefill", started, prefilled
        if self.prefilled is not None:
            yield "generate", prefilled, now


ProcessCollector(registry=REGISTRY)


def write_metrics(about: AlignerInfo | None = None, load: Load | None = None) -> bytes:
    """All metrics in Prometheus' text format, with the aligner `about` and the load of the engine that serves it.

    Both are None while the aligner is not loaded.
    """
    return generate_latest(_Snapshot(about, load)) + generate_latest(REGISTRY)


@dataclass(frozen=True, slots=True)
class _Snapshot(Collector):
    """The metrics of one aligner and its load, as they are now; each call of `write_metrics` makes a new one."""

    about: AlignerInfo | None
    load: Load | None

    def collect(self) -> Iterator[Metric]:
        yield from _aligner_metrics(self.about)
        if self.load is not None:
            yield from _load_metrics(self.load)


def _aligner_metrics(about: AlignerInfo | None) -> Iterator[Metric]:
    """Metrics that say whether the aligner is loaded, and which aligner it is."""
    yield GaugeMetricFamily(
        "aligner_engine_ready", "1 once the aligner is loaded, else 0", value=float(about is not None)
    )
    if about is not None:
        labels = {"model": about.model, "content_hash": about.content_hash, "quantization": about.quantization}
        labels |= {"device": about.device, "version": __version__}
        family = GaugeMetricFamily("aligner_engine_info", "The aligner that the engine serves", labels=list(labels))
        family.add_metric(list(labels.values()), 1)
        yield family


def _load_metrics(load: Load) -> Iterator[Metric]:
    """Metrics of the load: sequences and KV-cache blocks now, and counts since the engine started."""
    blocks = load.blocks
    totals = load.totals
    states = {"running": load.running, "waiting": load.waiting, "reading": load.parked}
    yield _gauge("aligner_engine_sequences", "Sequences by state", "state", states)
    uses = {"used": blocks.used, "shared": blocks.shared, "kept": blocks.cached, "free": blocks.free}
    yield _gauge("aligner_engine_kv_blocks", "Blocks of the KV cache by use", "use", uses)
    for name, text, value in (
        ("forwards", "Forward passes of the model", totals.forwards),
        ("tokens", "Tokens fed to the model", totals.fed_tokens),
        ("finished", "Requests that got their result", totals.finished),
        ("failed", "Requests that failed or were cancelled", totals.failed),
        (
            "preemptions",
            "Sequences that had to start again because the KV cache had too few free blocks",
            totals.preempted,
        ),
        ("unbalanced", "Checks while idle that found KV-cache blocks miscounted", totals.unbalanced),
        ("draft_tokens", "Draft tokens proposed", totals.counts.drafted),
        ("accepted_tokens", "Draft tokens accepted", totals.counts.accepted),
        ("recovered_tokens", "Tokens written in place of rejected draft tokens", totals.counts.recovered),
        ("bonus_tokens", "Tokens written after drafts that were accepted in full", totals.counts.bonus),
    ):
        yield CounterMetricFamily(f"aligner_engine_{name}", text, value=value)


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    """A gauge with one label; `values` has the gauge's values by the values of the label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
