"""Extrapolation over data sizes: errors of runs at some sizes, a power law through them, a plot.

    python -m models.experiments.data_sizes configs/evaluate/data_sizes.yaml --data DATA --out runs/plans

Makes and measures the runs of the plan (as models.experiments.ablations does, with resume) and what their heads tell
apart (as models.experiments.heads does), then fits error = a * pairs ** -b for every figure. Intervals are those of
measurements redrawn from what was measured: they hold the doubt about the rates, not about the law, the seed, or a size
so far beyond. A data set twice as large is trained for twice as many steps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path

import numpy as np

from models.evaluate.table3 import MethodFigures
from models.reporting import output
from models.reporting.statistics import Area, Rate

from . import heads
from .ablations import PROBLEMS, build_parser, make_tests, measure_methods, train_plan
from .heads import HeadScores
from .plan import Plan, PlanError

AHEAD = (2, 4)
"""How many times the largest size it is extrapolated to."""
REDRAWN = 1000
"""How often the measurements are redrawn for an interval."""
CURVES = "curves"
HEAD = " (head)"


@dataclass(frozen=True, slots=True)
class Law:
    """A power law of the error: error = exp(start) * size ** slope. With slope -0.5, four times the data halve it."""

    start: float
    slope: float

    def percent(self, size: float) -> float:
        """The rate (percent right) that the law gives at a size."""
        return 100 * (1 - min(1.0, exp(self.start + self.slope * log(size))))


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """An extrapolated rate in percent, with a 95 % interval from redrawn measurements."""

    size: int
    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:.1f} % [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class SizeCurve:
    """One figure at every size, and what its law says of more data."""

    name: str
    sizes: tuple[int, ...]
    rates: tuple[Rate | Area, ...]
    law: Law
    ahead: tuple[Extrapolation, ...]
    n: int
    """The smallest n of the rates."""


def fit_law(sizes: Sequence[int], rates: Sequence[Rate | Area]) -> Law:
    """Fit the law by least squares on logarithms."""
    x = np.log(np.array(sizes, dtype=float))
    y = np.log([_compute_error(rate) for rate in rates])
    slope, start = np.polyfit(x, y, 1)
    return Law(float(start), float(slope))


def _compute_error(figure: Rate | Area) -> float:
    """The share of errors. Half an error is added, so that the logarithm of no error is finite."""
    if isinstance(figure, Area):
        pairs = figure.high * figure.low
        return ((1 - figure.auc) * pairs + 0.5) / (pairs + 1)
    return (figure.n - figure.hits + 0.5) / (figure.n + 1)


def _redraw_figure(figure: Rate | Area, rng: np.random.Generator) -> Rate | Area:
    """Draw the figure as another measurement of the same size might give it."""
    if isinstance(figure, Area):
        return replace(figure, auc=min(1.0, max(0.0, float(rng.normal(figure.auc, figure.deviation)))))
    return Rate.from_counts(int(rng.binomial(figure.n, 1 - _compute_error(figure))), figure.n)


def fit_curve(name: str, sizes: Sequence[int], rates: Sequence[Rate | Area], seed: int = 1) -> SizeCurve:
    """Fit the power law of one figure to `rates`, which were measured after training on `sizes` pairs; extrapolate it.

    The interval of an extrapolation is that of laws which are fitted to redrawn measurements.
    """
    law = fit_law(sizes, rates)
    rng = np.random.default_rng(seed)
    laws = [fit_law(sizes, [_redraw_figure(rate, rng) for rate in rates]) for _ in range(REDRAWN)]
    ahead = []
    for times in AHEAD:
        size = max(sizes) * times
        low, high = np.percentile([redrawn.percent(size) for redrawn in laws], (2.5, 97.5))
        ahead.append(Extrapolation(size, law.percent(size), float(low), float(high)))
    return SizeCurve(name, tuple(sizes), tuple(rates), law, tuple(ahead), min(rate.n for rate in rates))


def list_sizes(plan: Plan) -> list[int]:
    """The size of the data behind each row of a plan; raises PlanError unless there are two or more."""
    sizes = [plan.count_pairs(method.run) for method in plan.methods]
    if len(set(sizes)) < len(sizes) or len(sizes) < 2:
        raise PlanError(f"methods: a curve takes two sizes of data or more, each once, not {sizes}")
    return sizes


def fit_curves(plan: Plan, rows: Sequence[MethodFigures], head_scores: Sequence[HeadScores]) -> list[SizeCurve]:
    """Fit a curve for each figure that every row of the plan has: rates of the gateway, and scores of the head."""
    sizes = list_sizes(plan)
    figures: list[HeadScores] = [
        {**row.pooled, **row.sets, **row.upstreams, **{f"{name}{HEAD}": figure for name, figure in head.items()}}
        for row, head in zip(rows, head_scores, strict=True)
    ]
    names = [name for name in figures[0] if all(name in figure and figure[name].n for figure in figures)]
    return [fit_curve(name, sizes, [figure[name] for figure in figures]) for name in names]


def select_curves(all_curves: Sequence[SizeCurve], names: Sequence[str] | None) -> list[SizeCurve]:
    """The curves of these names, in their order; all where none is named. Raises PlanError for an unknown name."""
    by_name = {item.name: item for item in all_curves}
    if unknown_names := set(names or ()) - by_name.keys():
        raise PlanError(f"figures: no {min(unknown_names)!r}; known: {', '.join(by_name)}")
    return [by_name[name] for name in names or by_name]


def format_table(curves: Sequence[SizeCurve]) -> str:
    """Markdown: a row for each figure."""
    sizes = curves[0].sizes
    ahead = curves[0].ahead
    head = ("figure", *(f"{size} pairs" for size in sizes), "errors fall with pairs to the power")
    rows = [(curve.name, *curve.rates, f"{curve.law.slope:+.2f}", *curve.ahead) for curve in curves]
    note = (
        f"Extrapolated by a power law through {len(sizes)} sizes"
        + (" (two: nothing checks its form)" if len(sizes) == 2 else "")
        + f"; its intervals are from {REDRAWN} measurements redrawn. One seed a size, short runs."
    )
    return (
        output.table((*head, *(f"{extrapolation.size} pairs, extrapolated" for extrapolation in ahead)), rows)
        + f"\n\n{note}"
    )


def plot(curves: Sequence[SizeCurve], path: Path) -> None:
    """A panel for each figure: measured rates, the law, and its extrapolation."""
    with output.panels(path, len(curves), columns=3, size=(4, 2.6), sharex=True) as axes:
        for axis, curve in zip(axes, curves, strict=True):
            spread = list(zip(*(rate.whiskers for rate in curve.rates), strict=True))
            axis.errorbar(curve.sizes, [rate.percent for rate in curve.rates], yerr=spread, fmt="o", markersize=4)
            sizes_ahead = [ahead.size for ahead in curve.ahead]
            reach = [
                (extrapolation.percent - extrapolation.low, extrapolation.high - extrapolation.percent)
                for extrapolation in curve.ahead
            ]
            below = [[max(0.0, side) for side in sides] for sides in zip(*reach, strict=True)]
            axis.errorbar(
                sizes_ahead,
                [extrapolation.percent for extrapolation in curve.ahead],
                yerr=below,
                fmt="o",
                markerfacecolor="none",
                markersize=4,
            )
            places = np.geomspace(min(curve.sizes), max(sizes_ahead), 40)
            axis.plot(places, [curve.law.percent(place) for place in places], linestyle="--", linewidth=0.8)
            axis.set_xscale("log")
            axis.set_title(f"{curve.name} (n = {curve.n})", fontsize=8)
            axis.set_ylim(-2, 102)
            axis.set_ylabel("%", fontsize=8)
            axis.set_xlabel("pairs of the last stage", fontsize=8)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    options = build_parser(__doc__)
    options.add_argument(
        "--figures", nargs="+", help="names of figures, for a table and a plot of these; all if not given"
    )
    arguments = options.parse_args(argv)
    try:
        plan = Plan.read(arguments.plan)
        list_sizes(plan)  # before hours are spent on its runs
        methods = train_plan(plan, arguments.data, arguments.out, arguments.calibrated_on)
        sets = make_tests(arguments)
        curves = fit_curves(
            plan, measure_methods(methods, sets), [heads.score_heads(method.aligner, sets) for method in methods]
        )
        curves = select_curves(curves, arguments.figures)
    except PROBLEMS as problem:
        sys.exit(str(problem))
    table = format_table(curves)
    output.write(arguments.out, CURVES, table, curves)
    plot(curves, arguments.out / f"{CURVES}.svg")
    print(table)


if __name__ == "__main__":
    main()
