"""Metrics of an engine's load, for Prometheus: counts and gauges in the words of the serving field. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from aligner_proxy import __version__
from aligner_proxy.engine import phases
from aligner_proxy.engine.protocol import AlignerInfo, Load

ProcessCollector(registry=phases.REGISTRY)


def exposition(about: AlignerInfo | None = None, load: Load | None = None) -> bytes:
    """In Prometheus' text form; of an engine that still loads, or cannot, what there is."""
    registry = CollectorRegistry()
    registry.register(_Metrics([*_about(about), *(_busy(load) if load else ())]))
    return generate_latest(registry) + generate_latest(phases.REGISTRY)


class _Metrics:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """All of them."""
        return self._metrics


def _about(about: AlignerInfo | None) -> Iterator[Metric]:
    """Whether it is ready, and what it serves."""
    yield GaugeMetricFamily("aligner_engine_ready", "1 when the aligner is loaded", value=float(about is not None))
    if about is not None:
        names = {"model": about.model, "content_hash": about.content_hash, "quantization": about.quantization}
        labels = {**names, "device": about.device, "version": __version__}
        family = GaugeMetricFamily("aligner_engine_info", "The aligner that is served", labels=list(labels))
        family.add_metric(list(labels.values()), 1)
        yield family


def _busy(load: Load) -> Iterator[Metric]:
    blocks = load.blocks
    totals = load.totals
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
        ("unbalanced", "Idle moments at which blocks of the KV cache were miscounted", totals.unbalanced),
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
