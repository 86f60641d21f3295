"""The simulation of a fleet does the work that was measured, in the time that its steps take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aligner_proxy.engine.scheduling.draft_length import CostCurve
from bench.capacity import __main__ as capacity
from bench.capacity.measure import Trace, average_steps, record_shared_prefixes
from bench.capacity.simulation import CACHED_S, EngineMeasurements, simulate

STEPS = CostCurve(((1, 0.1), (101, 1.1)))
CLEAN = [{"behind": 0, "fed": 101, "draft": 0, "shared": 10}]
EDITED = [*CLEAN, {"behind": 101, "fed": 1, "draft": 0, "shared": 0}]
MEASURED = EngineMeasurements(STEPS, STEPS, 256, (1024, 16), {False: [CLEAN], True: [EDITED]}, 0.003)


def test_one_that_is_alone_takes_its_steps_and_the_gateway() -> None:
    clean = simulate(MEASURED, [0.0], bad=0.0)
    edited = simulate(MEASURED, [0.0], bad=1.0)
    assert clean.added == [pytest.approx(1.103)]
    assert edited.added == [pytest.approx(1.203)]


def test_the_gateway_is_what_a_single_answer_took_beside_its_steps() -> None:
    alone = capacity.add_gateway_time(replace(MEASURED, gateway_s=0.0), 1_112.0)
    # All but the first find ten tokens, and so no whole block of sixteen, of the others.
    assert alone.gateway_s == pytest.approx(0.012)
    assert capacity.add_gateway_time(replace(MEASURED, gateway_s=0.0), 900.0).gateway_s == 0.0


def test_prompts_share_what_they_begin_with_alike() -> None:
    traces = [
        Trace(False, [{"shared": 2}], prompt=prompt) for prompt in ([1, 2, 3, 4], [7, 8], [1, 2, 3, 5], [1, 2, 3, 5, 6])
    ]
    record_shared_prefixes(traces)
    assert [trace.asks[0]["shared"] for trace in traces] == [3, 2, 4, 4]


def test_what_is_in_the_cache_needs_no_engine() -> None:
    assert simulate(MEASURED, [0.0, 0.1], hits=1.0).added == [CACHED_S] * 2


def test_two_engines_share_what_makes_one_late() -> None:
    due = [number * 0.8 for number in range(40)]
    alone, two = (simulate(MEASURED, due, engines=engines, bad=0.0) for engines in (1, 2))
    assert alone.failed > 0
    assert two.failed == 0
    assert len(two.added) == 40


def test_the_same_seed_gives_the_same() -> None:
    due = [number * 0.7 for number in range(30)]
    assert simulate(MEASURED, due, seed=3) == simulate(MEASURED, due, seed=3)
    assert simulate(MEASURED, due, seed=3).added != simulate(MEASURED, due, seed=4).added


def test_steps_of_like_size_cost_their_mean() -> None:
    assert average_steps([(1, 0.2), (1, 0.4), (0, 9.0), (200, 1.0)]) == [(1, 0.3), (200, 1.0)]


def test_more_load_needs_more_engines_and_hits_save_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "SECONDS", 30.0)
    few, _ = capacity.find_needed_engines(MEASURED, 1.0, 0.0, 1)
    many, found = capacity.find_needed_engines(MEASURED, 4.0, 0.0, 1)
    spared, _ = capacity.find_needed_engines(MEASURED, 4.0, 0.9, 1)
    assert few < many
    assert spared < many
    assert capacity.is_enough(found)
