"""What is an engine busy with? Counts and gauges in the words of the serving field, for Prometheus. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from aligner_proxy import __version__
from aligner_proxy.engine import phases
from aligner_proxy.engine.blocks import Use
from aligner_proxy.engine.protocol import AlignerInfo
from aligner_proxy.types import DecodeCounts

ProcessCollector(registry=phases.REGISTRY)


@dataclass(slots=True)
class Totals:
    """Since the engine began."""

    forwards: int = 0
    fed_tokens: int = 0
    finished: int = 0
    failed: int = 0
    preempted: int = 0
    unbalanced: int = 0
    """How often the books did not balance when nothing was to be done: never, or there is a bug."""
    drafted: int = 0
    accepted: int = 0
    recovered: int = 0
    bonus: int = 0

    def add(self, counts: DecodeCounts) -> None:
        """Where the tokens of one finished request came from; its forwards were shared and are counted as they run."""
        self.drafted += counts.drafted
        self.accepted += counts.accepted
        self.recovered += counts.recovered
        self.bonus += counts.bonus


@dataclass(frozen=True, slots=True)
class Load:
    """One look at an engine: sequences by state, blocks of the KV cache by use, totals."""

    running: int
    waiting: int
    parked: int
    blocks: Use
    totals: Totals


def exposition(about: AlignerInfo | None = None, load: Load | None = None) -> bytes:
    """In Prometheus' text form; of an engine that still loads, or cannot, what there is."""
    registry = CollectorRegistry()
    registry.register(_About(about))
    if load is not None:
        registry.register(_Collector(load))
    return generate_latest(registry) + generate_latest(phases.REGISTRY)


class _About:
    def __init__(self, about: AlignerInfo | None) -> None:
        self._about = about

    def collect(self) -> Iterator[Metric]:
        """Whether it is ready, and what it serves."""
        about = self._about
        yield GaugeMetricFamily("aligner_engine_ready", "1 when the aligner is loaded", value=float(about is not None))
        if about is not None:
            names = {"model": about.model, "content_hash": about.content_hash, "quantization": about.quantization}
            told = {**names, "device": about.device, "version": __version__}
            family = GaugeMetricFamily("aligner_engine_info", "The aligner that is served", labels=list(told))
            family.add_metric(list(told.values()), 1)
            yield family


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
            ("unbalanced", "Idle moments at which the books of the KV cache did not balance", totals.unbalanced),
            ("draft_tokens", "Draft tokens proposed", totals.drafted),
            ("accepted_tokens", "Draft tokens accepted", totals.accepted),
            ("recovered_tokens", "Tokens in place of rejected draft tokens", totals.recovered),
            ("bonus_tokens", "Tokens behind drafts that were accepted whole", totals.bonus),
        ):
            yield CounterMetricFamily(f"aligner_engine_{name}", text, value=value)


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
