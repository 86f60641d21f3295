"""What is an engine busy with? Counts and gauges in the words of the serving field, for Prometheus. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from aligner_proxy.engine.blocks import Use


@dataclass(slots=True)
class Totals:
    """Since the engine began."""

    forwards: int = 0
    fed_tokens: int = 0
    finished: int = 0
    failed: int = 0
    preempted: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """One look at an engine: sequences by state, blocks of the KV cache by use, totals."""

    running: int
    waiting: int
    parked: int
    blocks: Use
    totals: Totals


def exposition(load: Load) -> bytes:
    """In Prometheus' text form."""
    registry = CollectorRegistry()
    registry.register(_Collector(load))
    return generate_latest(registry)


class _Collector:
    def __init__(self, load: Load) -> None:
        self._load = load

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        load, blocks, totals = self._load, self._load.blocks, self._load.totals
        states = {"running": load.running, "waiting": load.waiting, "reading": load.parked}
        yield _gauge("aligner_engine_sequences", "Sequences by state", "state", states)
        uses = {"used": blocks.used, "shared": blocks.shared, "kept": blocks.kept, "free": blocks.free}
        yield _gauge("aligner_engine_kv_blocks", "Blocks of the KV cache by use", "use", uses)
        for name, text, value in (
            ("forwards", "Passes through the model", totals.forwards),
            ("tokens", "Tokens fed to the model", totals.fed_tokens),
            ("finished", "Requests that got their result", totals.finished),
            ("failed", "Requests that ended otherwise", totals.failed),
            ("preemptions", "Sequences that had to begin again for want of blocks", totals.preempted),
        ):
            yield CounterMetricFamily(f"aligner_engine_{name}", text, value=value)


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
