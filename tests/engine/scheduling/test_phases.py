"""Where the time of a request goes inside the engine: every request is counted once, by how it ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.scheduling.metrics import REGISTRY, Phases, write_metrics
from aligner_proxy.errors import DeadlineExceeded, EngineOverloaded
from aligner_proxy.types import Correction
from tests.support import tiny


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def counted() -> dict[str, float]:
    """Requests by how they ended, and how often each phase was gone through."""
    ends = {reason: value("aligner_engine_request_seconds_count", reason=reason) for reason in ("", "cancelled")}
    return ends | {p: value(f"aligner_engine_{p}_seconds_count") for p in ("queue", "prefill", "generate")}


async def test_a_correction_goes_through_all_phases_once() -> None:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    before = counted()
    await engine.align(tiny.request(caution=-1e9))
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "": 1,
        "cancelled": 0,
        "queue": 1,
        "prefill": 1,
        "generate": 1,
    }
    await engine.aclose()


async def test_a_client_that_leaves_is_counted_as_such() -> None:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    before = counted()
    task = asyncio.create_task(engine.align(tiny.request(tiny.ANSWER * 8, caution=-1e9)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await engine.align(tiny.request(caution=1e9))
    await engine.aclose()
    assert counted()["cancelled"] - before["cancelled"] == 1


async def test_a_full_house_says_so() -> None:
    engine = LocalAdmission(LocalEngine(tiny.aligner), slots=1)
    await engine.start()
    before = value("aligner_engine_refused_total", reason="overloaded")
    reading = await engine.read(tiny.request(""))
    with pytest.raises(EngineOverloaded):
        await engine.read(tiny.request(""))
    await reading.aclose()
    await engine.aclose()
    assert value("aligner_engine_refused_total", reason="overloaded") == before + 1


async def test_an_answer_that_nobody_waited_for_is_not_timed() -> None:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    before = counted()
    reading = await engine.read(tiny.request(""))
    await reading.feed(tiny.ANSWER * 3)
    await asyncio.sleep(0.1)
    await reading.aclose()
    await engine.aclose()
    assert counted() == before


def test_time_is_counted_from_the_end_of_an_answer_that_was_read_along(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(second) for second in range(10, 100, 10))
    monkeypatch.setattr("aligner_proxy.engine.scheduling.metrics.time.monotonic", lambda: next(clock))
    phases = Phases(arrived=0.0, unwanted=True)
    sums = {p: value(f"aligner_engine_{p}_seconds_sum") for p in ("queue", "prefill", "generate")}
    phases.note_forward()  # 10
    phases.note_read()  # 20
    phases.note_complete_answer()  # 30
    phases.note_forward()  # 40
    phases.note_read()  # 50
    phases.note_end(Correction("x"))  # 60
    assert phases.reading_since == 10.0
    assert {p: value(f"aligner_engine_{p}_seconds_sum") - sums[p] for p in sums} == {
        "queue": 10,
        "prefill": 10,
        "generate": 10,
    }


@pytest.mark.parametrize("end", [Correction("x"), DeadlineExceeded("late"), ValueError("odd")])
def test_an_end_counts_once(end: Any) -> None:
    phases = Phases()
    before = sum(value("aligner_engine_request_seconds_count", reason=reason) for reason in ("", "timeout"))
    phases.note_end(end)
    phases.note_end(end)
    after = sum(value("aligner_engine_request_seconds_count", reason=reason) for reason in ("", "timeout"))
    assert after == before + 1


def test_metrics_are_told_before_the_aligner_is_loaded() -> None:
    text = write_metrics().decode()
    assert "aligner_engine_ready 0.0" in text
    assert "aligner_engine_request_seconds_bucket" in text
    assert "aligner_engine_kv_blocks" not in text
