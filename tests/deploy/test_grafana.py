"""The dashboard asks only for metrics and labels that exist, shows all of ours, and the docs name the same ones."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.scheduling import metrics
from aligner_proxy.engine.scheduling.metrics import write_metrics
from aligner_proxy.observability import metrics as observability_metrics
from aligner_proxy_fleet import metrics as fleet_metrics
from aligner_proxy_grounding import extension as grounding
from aligner_proxy_review import feedback
from aligner_proxy_systems.metaalign import extension as metaalign
from tests.support import tiny

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())
DOCS = (ROOT / "docs" / "reference" / "metrics.md").read_text()
METRIC = re.compile(r"\b(?:aligner|process)_\w+")
SELECTOR = re.compile(r"\b((?:aligner|process)_\w+)\{([^}]*)\}")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
FROM_SCRAPING = {"instance", "job"}


async def engine_text() -> str:
    """What a real engine tells after a correction."""
    engine = LocalEngine(tiny.aligner)
    about = await engine.start()
    await engine.align(tiny.request())
    metrics.count_refusal("overloaded")
    load = engine.load()
    await engine.aclose()
    return write_metrics(about, load).decode()


def families(text: str) -> dict[str, set[str]]:
    """Every sample's name with its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def declared() -> dict[str, set[str]]:
    """The same for the gateway, also of what has not been counted yet."""
    found: dict[str, set[str]] = {}
    for module in (observability_metrics, feedback, fleet_metrics, grounding, metaalign):
        for metric in vars(module).values():
            if hasattr(metric, "_labelnames") and hasattr(metric, "describe"):
                (family,) = metric.describe()
                for suffix in SUFFIXES.get(family.type, ("",)):
                    le = {"le"} if suffix == "_bucket" else set()
                    found[family.name + suffix] = {*metric._labelnames} | le
    return found


@pytest.fixture(scope="module")
def existing() -> dict[str, set[str]]:
    """All metrics of both processes with their labels."""
    gateway = {name: labels for name, labels in declared().items() if name.startswith("aligner_")}
    assert set(gateway) >= {"aligner_outcomes_total", "aligner_stage_seconds_bucket", "aligner_engine_up"}
    assert all(REGISTRY._names_to_collectors.get(name) for name in gateway)
    return gateway | families(asyncio.run(engine_text()))


def expressions() -> Iterator[str]:
    """Every query of every panel."""
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_metrics_are_named_by_whole_units(existing: dict[str, set[str]]) -> None:
    """As Prometheus' conventions have it: seconds, bytes and ratios, no parts of them and no abbreviations."""
    parts = re.compile(
        r"_(ms|millis\w*|us|s|sec|secs|minutes|kb|mb|gb|kilobytes|megabytes|percent|pct)(_total|_bucket)?$"
    )
    assert [name for name in existing if parts.search(name)] == []
    assert parts.search("aligner_added_ms_bucket")


def test_every_alert_asks_for_metrics_and_labels_that_exist(existing: dict[str, set[str]]) -> None:
    unknown = []
    for rule in alerts():
        labels = set(re.findall(r"(\w+)=", rule["expr"])) | {
            label.strip() for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in group.split(",")
        }
        names = METRIC.findall(rule["expr"])
        known = set().union(*(existing.get(name, set()) for name in names)) | FROM_SCRAPING
        if not names or not {*names} <= set(existing) or not labels <= known:
            unknown.append((rule["alert"], names, labels))
        said = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        # a label that the expression does not keep would be empty
        if not said <= labels:
            unknown.append((rule["alert"], "summary", said))
    assert unknown == []
    assert len(alerts()) >= 5


def test_prometheus_scrapes_both_processes_where_compose_has_them() -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus.yaml").read_text())
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    targets = [
        target for job in scraped["scrape_configs"] for one in job["static_configs"] for target in one["targets"]
    ]
    commands = {name: service["command"] for name, service in services.items()}
    assert targets == [f"{name}:{commands[name][commands[name].index('--port') + 1]}" for name in ("gateway", "engine")]
    assert scraped["rule_files"] == ["alerts.yaml"]


def test_every_query_asks_for_metrics_and_labels_that_exist(existing: dict[str, set[str]]) -> None:
    asked = list(expressions())
    assert len(asked) > 30
    for expression in asked:
        names = set(METRIC.findall(expression))
        assert names
        assert names <= set(existing), expression
        for name, selector in SELECTOR.findall(expression):
            labels = set(re.findall(r"(\w+)\s*[=!]~?", selector))
            assert labels <= existing[name] | FROM_SCRAPING, expression
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert grouped <= set().union(*(existing[name] for name in names)) | FROM_SCRAPING, expression


def test_every_query_keeps_to_the_chosen_instances() -> None:
    for expression in expressions():
        for _, selector in SELECTOR.findall(expression):
            assert re.search(r'instance=~"\$(gateway|engine)"', selector), expression
        assert len(SELECTOR.findall(expression)) == len(METRIC.findall(expression)), expression


def test_every_value_of_a_label_that_is_asked_for_can_occur() -> None:
    from aligner_proxy.types import Status

    values = {
        "status": {status.value for status in Status},
        "result": {"hit", "miss"},
        "state": {"running", "waiting", "reading"},
        "use": {"used", "shared", "kept", "free"},
    }
    for expression in expressions():
        for label, value in re.findall(r'(\w+)="(\w+)"', expression):
            assert value in values[label], expression


def base(name: str) -> str:
    """A metric's name without what a histogram adds."""
    return re.sub(r"_(bucket|sum|count|created)$", "", name)


def ours(existing: dict[str, set[str]]) -> set[str]:
    return {base(name) for name in existing if name.startswith("aligner_") and not name.endswith("_created")}


def test_the_dashboard_shows_all_of_ours(existing: dict[str, set[str]]) -> None:
    shown = {base(name) for expression in expressions() for name in METRIC.findall(expression)}
    assert ours(existing) - shown == set()


def test_the_docs_name_exactly_the_metrics_that_exist(existing: dict[str, set[str]]) -> None:
    rows = [row for row in DOCS.splitlines() if row.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`(aligner_\w+)`", row)}
    assert named == ours(existing)


def test_panels_have_ids_places_and_words_of_their_own() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        across, down = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = {(x, y) for x in across for y in down}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
