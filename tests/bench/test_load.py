"""What the load table says of a rate, and which rate its rule calls the knee."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import load
from bench.gateway import RequestResult
from bench.load import MAX_FAILED, TIMES_SLOWER, find_knee, format_table, make_row
from bench.load_generator import TimedRequest


def make_short_row(rate: float, p95: float | None, failed: float = 0.0) -> dict[str, Any]:
    return {"rate": rate, "added_p95_ms": p95, "failed": failed}


def test_the_knee_is_the_last_rate_before_anything_gives_way() -> None:
    assert (
        find_knee([make_short_row(1, 100), make_short_row(2, 250), make_short_row(4, 301), make_short_row(8, 100)]) == 2
    )
    assert find_knee([make_short_row(1, 100), make_short_row(2, 100, 0.02), make_short_row(4, 100)]) == 1
    assert find_knee([make_short_row(1, 100), make_short_row(2, None)]) == 1
    assert find_knee([make_short_row(1, 100, 0.5)]) is None
    assert find_knee([make_short_row(1, 100), make_short_row(2, 300, 0.01)]) == 2


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 0.1)), min_size=1, max_size=9))
def test_up_to_the_knee_the_rule_holds_and_right_after_it_does_not(seen: list[tuple[float, float]]) -> None:
    rows = [make_short_row(number + 1, p95, failed) for number, (p95, failed) in enumerate(seen)]
    good = [p95 <= TIMES_SLOWER * seen[0][0] and failed <= MAX_FAILED for p95, failed in seen]
    found = find_knee(rows) or 0
    assert all(good[: int(found)])
    assert int(found) == len(good) or not good[int(found)]


def test_a_rate_counts_what_was_corrected_and_names_what_passed() -> None:
    arrived = [
        TimedRequest(0.0, 0.5, RequestResult(200, "corrected", None, 400.0)),
        TimedRequest(1.0, 1.2, RequestResult(200, "unchanged", None, 100.0)),
        TimedRequest(2.0, 2.1, RequestResult(200, "failed", "overloaded", 1.0)),
        TimedRequest(3.0, 3.1, RequestResult(0, reason="ReadTimeout", whole=False)),
    ]
    found = make_row(1.0, 4.0, arrived)
    assert (found["sent"], found["corrected"], found["failed"]) == (4, 1, 0.5)
    assert found["why"] == {"overloaded": 1, "ReadTimeout": 1}
    assert found["added_p50_ms"] == 250.0  # what passed is fast, and says nothing about corrections
    assert found["edited_p50_ms"] == 400.0
    assert found["per_second"] == 0.5
    assert "1 overloaded, 1 ReadTimeout" in format_table({"rows": [found]})


def test_good_answers_are_asked_for_alone_before_the_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "IDLE_S", 0.0)
    order: list[str] = []

    async def ask(number: int) -> RequestResult:
        order.append("rate")
        await asyncio.sleep(0.001)
        return RequestResult(200, "unchanged", None, 90.0)

    async def ask_alone(number: int) -> RequestResult:
        order.append("alone")
        return RequestResult(200, "unchanged", None, 40.0 + number % 3)

    async def saturate_quickly(*_: Any) -> float:
        return 5.0

    monkeypatch.setattr(load, "saturate", saturate_quickly)
    asked = argparse.Namespace(rates=[50.0], seconds=0.2)
    found = asyncio.run(load.measure(ask, asked, lambda _: None, ask_alone))
    assert found["alone_p50_ms"] == 41.0
    assert found["rows"][0]["added_p50_ms"] == 90.0
    assert order[: load.ALONE] == ["alone"] * load.ALONE
    assert set(order[load.ALONE :]) == {"rate"}
