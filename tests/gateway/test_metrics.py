"""One record per choice: counters, and a log line of ids and counts."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.engine.client.circuit_breaker import State
from aligner_proxy.errors import EngineFault
from aligner_proxy.gateway import metrics
from aligner_proxy.observability import metrics as observability_metrics
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import (
    Correction,
    DecodeCounts,
    Exchange,
    FailurePolicy,
    Objective,
    OnError,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    Traffic,
)
from scripts.reference.metrics import engine_metric_rows, gateway_metrics
from tests.support.harness import correct_one
from tests.support.scripted import ScriptedEngine

POLICY = Policy(
    "telemetry", (Objective("kind", "Kindness: be kind"),), tenant="key:123", traffic=Traffic("acme", "telemetry")
)
ASKED = Exchange("call-1", 0, (), "You fool. It is so.")
FOUND = Correction("It is so.", (SegmentScore("You fool.", 3.0, True, 0),), DecodeCounts(7, 5, 1, 1, 4), aligner="x")


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def counted(status: str, reason: str = "") -> float:
    return value(
        "aligner_outcomes_total", status=status, reason=reason, policy="telemetry", tenant="acme", model="telemetry"
    )


async def test_a_choice_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    before = counted("corrected"), value("aligner_forwards_total"), value("aligner_segments_total", flagged="true")
    with caplog.at_level(logging.INFO, "aligner_proxy.outcome"):
        await correct_one(Pipeline(ScriptedEngine(lambda _: FOUND)), ASKED, POLICY)
    after = counted("corrected"), value("aligner_forwards_total"), value("aligner_segments_total", flagged="true")
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 4, 1]
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "aligner_proxy.outcome"]
    assert (line["call_id"], line["status"], line["answer_chars"], line["delivered_chars"]) == (
        "call-1",
        "corrected",
        19,
        9,
    )
    assert line["against"] == ["kind"]
    assert "fool" not in caplog.text
    assert "It is so" not in caplog.text


async def test_a_cancelled_choice_is_counted_too() -> None:
    before = counted("failed", "cancelled")
    task = asyncio.create_task(correct_one(Pipeline(ScriptedEngine(delay_s=60)), ASKED, POLICY))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted("failed", "cancelled") == before + 1


def test_a_cache_hit_is_no_work() -> None:
    before = value("aligner_draft_tokens_total"), value("aligner_cache_total", result="hit")
    metrics.record_outcome("c", 3, Outcome(Status.CORRECTED, None, "x", POLICY, cache_hit=True, correction=FOUND))
    assert value("aligner_draft_tokens_total") == before[0]
    assert value("aligner_cache_total", result="hit") == before[1] + 1


def test_every_edit_is_counted_by_what_the_gate_said() -> None:
    before = value("aligner_edits_total", verdict="kept"), value("aligner_edits_total", verdict="lost_name")
    metrics.record_outcome(
        "c", 3, Outcome(Status.CORRECTED, "gate_partly:lost_name", "x", POLICY, edits=3, dropped=("lost_name",))
    )
    after = value("aligner_edits_total", verdict="kept"), value("aligner_edits_total", verdict="lost_name")
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1]


def test_loading_the_module_twice_registers_nothing_twice() -> None:
    before = observability_metrics.OUTCOMES, observability_metrics.LATENCY
    importlib.reload(metrics)
    after = observability_metrics.OUTCOMES, observability_metrics.LATENCY
    assert after == before


def test_an_objective_that_an_engine_made_up_names_nothing() -> None:
    segments = tuple(SegmentScore("x", 1.0, True, index) for index in (-1, 0, 7, None))
    outcome = Outcome(Status.CORRECTED, None, "x", POLICY, correction=Correction("x", segments))
    assert outcome.violated_objectives == ["kind"]


async def test_further_tries_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    before = value("aligner_retries_total", status="corrected")
    said: list[str | Exception] = [EngineFault("x"), "It is so."]
    policy = replace(POLICY, on_error=FailurePolicy(bug=OnError.RETRY))
    with caplog.at_level(logging.INFO, "aligner_proxy.outcome"):
        await correct_one(Pipeline(ScriptedEngine(lambda _: said.pop(0))), ASKED, policy)
    assert value("aligner_retries_total", status="corrected") == before + 1
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "aligner_proxy.outcome"]
    assert (line["status"], line["attempts"]) == ("corrected", 2)


def test_the_breaker_is_seen_from_outside() -> None:
    opened = value("aligner_breaker_opened_total")
    levels = []
    for state in (State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED):
        metrics.record_breaker(state)
        levels.append(value("aligner_breaker_state"))
    assert levels == [0, 2, 1, 0]
    assert value("aligner_breaker_opened_total") == opened + 1


def prometheus_faults(name: str, kind: str, labels: Sequence[str], text: str) -> list[str]:
    """What `promtool check metrics` would say of a metric."""
    parts = name.split("_")
    return [
        fault
        for fault, is_broken in {
            "help": not text,
            "letters": not re.fullmatch(r"[a-z][a-z0-9_]*", name) or "__" in name,
            "total": (kind == "counter") != (parts[-1] == "total"),
            "suffix": parts[-1] in ("count", "sum", "bucket", "created") or kind in parts,
            "unit": bool({"ms", "milliseconds", "minutes", "hours", "mb", "kb", "percent"} & {*parts}),
            "labels": bool({"le", "quantile"} & {*labels}) or any(label.startswith("_") for label in labels),
        }.items()
        if is_broken
    ]


def test_every_name_keeps_to_the_conventions_of_prometheus() -> None:
    rows = [*gateway_metrics(), *engine_metric_rows()]
    assert len(rows) > 60
    faults = {row.name: prometheus_faults(row.name, row.kind, row.labels, row.meaning) for row in rows}
    assert {name: found for name, found in faults.items() if found} == {}
    assert prometheus_faults("aligner_counter_ms", "counter", ["le"], "") == [
        "help",
        "total",
        "suffix",
        "unit",
        "labels",
    ]
