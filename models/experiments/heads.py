"""What the detector heads of a plan's runs tell apart, test by test: the worth of each source of examples.

    python -m models.experiments.heads configs/evaluate/sources.yaml --data DATA --out runs/plans

Trains the runs of the plan (as models.experiments.ablations does, with resume) and scores the test sets. Nothing is
edited, so no operating point matters: a figure is the chance that a segment that must change scores above one that must
stay (AUC), or, of replies that people compared, how often the one they liked less has the higher maximum.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.data.pairs import Pair
from models.evaluate.table3 import OPEN, MethodTests
from models.evaluate.test_sets import compute_area, rate_order, read_sets, score_sets
from models.reporting import output
from models.reporting.statistics import Area, Rate

from .ablations import PROBLEMS, build_parser, make_tests, train_plan
from .plan import Plan

PUT_IN = "all that was put in, together"
"""Of all sets of the generators: whether it reads who asks, since in some of them nobody asks for what is there."""
HeadScores = dict[str, Rate | Area]


def score_heads(aligner: Path, measured_on: MethodTests) -> HeadScores:
    """How well the head of one aligner tells apart what must change from what must stay, set by set."""
    sets = {
        name: pairs if _is_natural(pairs) else pairs[: measured_on.limit]
        for name, pairs in read_sets(measured_on.sets, 10**6).items()
    }
    results = asyncio.run(score_sets(aligner, sets))
    put_in_area = compute_area(
        [case for name, cases in results.items() if not _is_natural(sets[name]) for case in cases]
    )
    figures = {name: rate_order(cases) or compute_area(cases) for name, cases in results.items()} | {
        PUT_IN: put_in_area
    }
    return {name: figure for name, figure in figures.items() if figure}


def _is_natural(pairs: Sequence[Pair]) -> bool:
    """Whether a set has faults that were not put in. Such sets are small, so all of their pairs are scored."""
    return any(pair.source.partition(":")[0] in ("bag", *OPEN) for pair in pairs)


def format_table(rows: Mapping[str, HeadScores]) -> str:
    """Markdown: a row for each set, a column for each run."""
    sets = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    return output.table(("set", *rows), [(name, *(scores.get(name, "-") for scores in rows.values())) for name in sets])


def plot(rows: Mapping[str, HeadScores], path: Path) -> None:
    """A panel for each set, with a dot for each run."""
    sets = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    with output.panels(path, len(sets), columns=4, size=(3.4, 0.8 + 0.3 * len(rows)), sharey=True) as axes:
        for axis, name in zip(axes, sets, strict=True):
            output.whiskers(
                axis, [scores.get(name, Rate.from_outcomes(())) for scores in rows.values()], [*rows], markersize=4
            )
            axis.axvline(50, linewidth=0.6, color="grey")
            axis.set_title(name, fontsize=8)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    arguments = build_parser(__doc__).parse_args(argv)
    try:
        plan = Plan.read(arguments.plan)
        methods = train_plan(plan, arguments.data, arguments.out, arguments.calibrated_on)
        rows = {method.name: score_heads(method.aligner, make_tests(arguments)) for method in methods}
    except PROBLEMS as problem:
        sys.exit(str(problem))
    table = format_table(rows)
    name = f"heads_{arguments.plan.stem}"
    output.write(arguments.out, name, table, rows)
    plot(rows, arguments.out / f"{name}.svg")
    print(table)


if __name__ == "__main__":
    main()
