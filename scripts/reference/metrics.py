"""Page of the metrics: name, kind, labels and meaning of each, from the definitions in gateway and engine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from aligner_proxy.engine.api import AlignerInfo, Load
from aligner_proxy.engine.scheduling import metrics as engine_metrics
from aligner_proxy.plugins import registry
from scripts.reference.markdown import code, page, sentence, table
from scripts.reference.words import load_texts

INTRODUCTION = """
The gateway's metrics are in prometheus_client's default registry. LiteLLM serves them under `/metrics` with
`litellm_settings: {callbacks: [prometheus]}`, only to the master key. The engine has its own `/metrics`.
`deploy/grafana.json` is a Grafana dashboard for both. For example, this query gives the share of
each tenant's answers that were corrected in the last five minutes:

```text
sum by (tenant) (rate(aligner_outcomes_total{status="corrected"}[5m]))
  / sum by (tenant) (rate(aligner_outcomes_total[5m]))
```
"""
OURS = re.compile(r"aligner_\w+(?<!_created)")
READ_ALONG = (
    "If the engine reads an answer while the upstream writes it, these times count from the answer's end, because the "
    "client waits only from then on."
)


@dataclasses.dataclass(frozen=True, order=True)
class MetricRow:
    """The description of one metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def gateway_metrics() -> list[MetricRow]:
    """The metrics that the gateway and the bundled plugins register."""
    registry.load_plugins(False)
    return sorted(row for row in _registry_rows(REGISTRY) if row.name.startswith("aligner_"))


def engine_metric_rows() -> list[MetricRow]:
    """An engine's metrics: those that it registers, and those that it computes from its state on request."""
    text = engine_metrics.write_metrics(_make_empty(AlignerInfo), _make_empty(Load)).decode()
    state_rows = [
        MetricRow(_full_name(family.name, family.type), family.type, _labels(family.samples), family.documentation)
        for family in text_string_to_metric_families(text)
    ]
    rows = {row.name: row for row in [*state_rows, *_registry_rows(engine_metrics.REGISTRY)]}
    return sorted(row for row in rows.values() if OURS.fullmatch(row.name))


def metrics_page() -> str:
    """The whole page."""
    return page(
        "Metrics",
        INTRODUCTION,
        f"## Of the gateway\n\n{_table(gateway_metrics())}",
        f"## Of the engine\n\n{_table(engine_metric_rows())}\n\n{READ_ALONG}",
    )


def _registry_rows(collectors: Any) -> Iterator[MetricRow]:
    """The metrics of a registry, including those without any counts yet."""
    for collector in list(collectors._collector_to_names):
        if hasattr(collector, "_labelnames") and hasattr(collector, "describe"):
            (family,) = collector.describe()
            name = _full_name(family.name, family.type)
            yield MetricRow(name, family.type, tuple(collector._labelnames), family.documentation)


def _full_name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" and not name.endswith("_total") else name


def _labels(samples: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for sample in samples for label in sample.labels if label != "le"))


def _make_empty(kind: Any) -> Any:
    """A value of a dataclass in which every number is 0 and every text is empty."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
        return kind(**{name: _make_empty(hints[name]) for name in needed if name in hints})  # type: ignore[operator]
    return kind() if kind in (int, str, bool, float) else {}


def _table(rows: list[MetricRow]) -> str:
    labels = load_texts()["labels"]
    cells = []
    for row in rows:
        meaning = f"{sentence(row.meaning)} {sentence(labels.get(row.name, ''))}".strip()
        cells.append((code(row.name), row.kind, ", ".join(row.labels), meaning))
    return table(("metric", "kind", "labels", "meaning"), cells)
