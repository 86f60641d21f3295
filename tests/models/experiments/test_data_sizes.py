"""The curve over sizes of data: the law, what it says of more, and a plan that really runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models.evaluate.table3 import MethodFigures
from models.experiments import data_sizes
from models.experiments.data_sizes import SizeCurve, fit_curve, fit_curves, fit_law, format_table, plot, select_curves
from models.experiments.heads import HeadScores
from models.experiments.plan import Plan, PlanError
from models.reporting.statistics import Area, Rate
from tests.models.experiments.test_ablations import LAST_STAGE, PLANS, few_sets, small

SIZES = (1000, 2000, 4000)


def rates(*hits: int, n: int = 1000) -> list[Rate]:
    return [Rate.from_counts(hit, n) for hit in hits]


@given(st.floats(-2.0, 0.0), st.floats(0.01, 0.6))
def test_a_law_is_found_again(slope: float, error: float) -> None:
    n = 10**9
    misses = [error * (size / SIZES[0]) ** slope for size in SIZES]
    law = fit_law(SIZES, [Rate.from_counts(n - round(n * miss), n) for miss in misses])
    assert law.slope == pytest.approx(slope, abs=1e-3)
    assert law.percent(8000) == pytest.approx(100 * (1 - error * 8.0**slope), abs=0.1)


def test_errors_that_halve_are_extrapolated_with_an_interval() -> None:
    curve = fit_curve("repaired", SIZES, rates(600, 800, 900))
    assert curve.law.slope == pytest.approx(-1.0, abs=0.01)
    near, far = curve.ahead
    assert (near.size, far.size) == (8000, 16000)
    assert near.percent == pytest.approx(95.0, abs=0.2)
    assert near.low < near.percent < near.high
    assert far.high - far.low < 6  # a thousand answers a size
    few = fit_curve("repaired", SIZES, rates(6, 8, 9, n=10)).ahead[1]
    assert few.high - few.low > 10


def test_what_is_never_wrong_stays_below_a_hundred() -> None:
    ahead = fit_curve("identical", SIZES, rates(1000, 1000, 1000)).ahead
    assert all(99.5 < one.percent < 100 and one.low <= one.percent <= one.high for one in ahead)


def test_what_parts_segments_is_extrapolated_like_a_rate() -> None:
    curve = fit_curve("natural", SIZES, [Area(auc, 400, 600) for auc in (0.6, 0.8, 0.9)])
    assert curve.law.slope == pytest.approx(-1.0, abs=0.01)
    near, _ = curve.ahead
    assert near.percent == pytest.approx(95.0, abs=0.2)
    assert near.low < near.percent < near.high


def test_what_gets_worse_is_said_to_get_worse() -> None:
    curve = fit_curve("left alone", SIZES, rates(950, 900, 800))
    assert curve.law.slope > 0
    assert curve.ahead[0].percent < 80


def plan(**changes: object) -> Plan:
    return Plan.read(PLANS / "data_sizes.yaml").model_copy(update=changes)


def make_figures(name: str, hits: int) -> MethodFigures:
    return MethodFigures(
        name, "", {"clean (identical)": Rate.from_counts(hits, 100), "empty": Rate.from_counts(0, 0)}, {}, {}
    )


def test_figures_without_cases_have_no_curve(tmp_path: Path) -> None:
    rows = [make_figures("a", 60), make_figures("b", 80), make_figures("c", 90)]
    apart: list[HeadScores] = [{"natural": Area(auc, 40, 60)} for auc in (0.5, 0.6, 0.68)]
    curves = fit_curves(plan(), rows, apart)
    assert [one.name for one in curves] == ["clean (identical)", "natural (head)"]
    table = format_table(curves)
    assert "| natural (head) | 0.500 [0.384, 0.616], n = 40 and 60 |" in table
    assert "| clean (identical) | 60/100 = 60.0 % [50.2, 69.1] |" in table
    assert "power law through 3 sizes;" in table
    plot(curves, tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_some_figures_can_be_chosen() -> None:
    curves = [fit_curve(name, SIZES, rates(600, 800, 900)) for name in ("a", "b", "c")]
    assert [one.name for one in select_curves(curves, ["c", "a"])] == ["c", "a"]
    assert select_curves(curves, None) == curves
    with pytest.raises(PlanError, match="no 'd'; known: a, b, c"):
        select_curves(curves, ["a", "d"])


def test_two_sizes_are_said_to_check_nothing() -> None:
    two = plan().methods[:2]
    curves = fit_curves(plan(methods=two), [make_figures("a", 60), make_figures("b", 80)], [{}, {}])
    assert "(two: nothing checks its form)" in format_table(curves)


def test_a_curve_takes_different_sizes() -> None:
    for methods in (plan().methods[:1], (*plan().methods, plan().methods[0])):
        with pytest.raises(PlanError, match="two sizes of data or more, each once"):
            fit_curves(plan(methods=methods), [make_figures("a", 1)] * len(methods), [{}] * len(methods))


def test_larger_sizes_take_as_many_passes() -> None:
    full_plan = plan()
    first = sum(
        yaml.safe_load((full_plan.configs / f"{name}.yaml").read_text())["steps"] for name in list(full_plan.pairs)[:-1]
    )
    assert (
        len(
            {
                ((run.steps or full_plan.steps) - first) / full_plan.count_pairs(name)
                for name, run in full_plan.runs.items()
            }
        )
        == 1
    )


@pytest.mark.full
@pytest.mark.slow
def test_the_command_trains_measures_and_draws(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_sets(tmp_path / "out")
    runs = {"small": LAST_STAGE | {"pairs": 12, "steps": 9}, "large": LAST_STAGE | {"pairs": 24, "steps": 10}}
    check_command(tmp_path, data_dir, monkeypatch, runs, ["left alone", "repaired exactly", "offence gone"])


@pytest.mark.long
@pytest.mark.timeout(900)  # a minute on two idle cores
def test_the_command_with_all_stages_and_sets(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {"small": {"pairs": 12, "steps": 9}, "large": {"pairs": 24, "steps": 10}}
    names = ["compared_replies (head)", "left alone", "repaired exactly", "offence gone"]
    check_command(tmp_path, data_dir, monkeypatch, runs, names)


def check_command(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, runs: dict[str, Any], names: list[str]
) -> None:
    """Run the command on two sizes, and look at what it wrote."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    methods = [{"name": name, "run": name} for name in runs]
    path = small(tmp_path, "data_sizes", runs=runs, methods=methods)
    out = tmp_path / "out"
    command = [str(path), "--data", str(data_dir), "--out", str(out), "--limit", "1", "--calibrated-on", "3"]
    data_sizes.main([*command, "--figures", *names])
    document = json.loads((out / "curves.json").read_text())
    assert [one["name"] for one in document] == names
    assert [one["size"] for one in document[0]["ahead"]] == [48, 96]
    first, second = ((out / "data" / f"contrastive_preference-edits-{n}.jsonl").read_text() for n in (12, 24))
    assert second.startswith(first)
    assert (out / "data_sizes.md").exists()
    assert (out / "curves.svg").exists()


def test_a_curve_holds_its_n() -> None:
    curve: SizeCurve = fit_curve("x", SIZES, [Rate.from_counts(1, 5), Rate.from_counts(3, 9), Rate.from_counts(4, 7)])
    assert curve.n == 5
