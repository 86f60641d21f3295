"""What do the heads of a plan's runs tell apart, test by test? So it shows what each source of examples brings.

    python -m models.heads configs/evaluate/sources.yaml --data DATA --out runs/plans

Trains the runs of the plan (as models.ablations does, with resume) and scores the test sets. Nothing is edited, so no
operating point matters: a figure is the chance that a segment that must change scores above one that must stay (AUC),
or, of replies that people compared, how often the one they liked less has the higher maximum.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import publish
from .ablations import PROBLEMS, on, parser, trained
from .by_method import OPEN, On
from .evaluate import area, read_sets, score_sets, told_apart
from .pairs import Pair
from .plan import Plan
from .rates import Area, Rate

PUT_IN = "all that was put in, together"
"""Of all sets of the generators: whether it reads who asks, since in some of them nobody asks for what is there."""
Told = dict[str, Rate | Area]


def told(aligner: Path, measured_on: On) -> Told:
    """What the head of one aligner tells apart, by set."""
    sets = {
        name: pairs if _natural(pairs) else pairs[: measured_on.limit]
        for name, pairs in read_sets(measured_on.sets, 10**6).items()
    }
    results = asyncio.run(score_sets(aligner, sets))
    put_in = area([case for name, cases in results.items() if not _natural(sets[name]) for case in cases])
    found = {name: told_apart(cases) or area(cases) for name, cases in results.items()} | {PUT_IN: put_in}
    return {name: figure for name, figure in found.items() if figure}


def _natural(pairs: Sequence[Pair]) -> bool:
    """Whether faults are an answer's own. Such sets are small, so they are scored whole."""
    return any(pair.source.partition(":")[0] in ("bag", *OPEN) for pair in pairs)


def text(rows: Mapping[str, Told]) -> str:
    """Markdown: a row a set, a column a run."""
    sets = list(dict.fromkeys(name for found in rows.values() for name in found))
    return publish.table(("set", *rows), [(name, *(found.get(name, "-") for found in rows.values())) for name in sets])


def plot(rows: Mapping[str, Told], path: Path) -> None:
    """One panel a set, one dot a run."""
    sets = list(dict.fromkeys(name for found in rows.values() for name in found))
    with publish.panels(path, len(sets), columns=4, size=(3.4, 0.8 + 0.3 * len(rows)), sharey=True) as axes:
        for axis, name in zip(axes, sets, strict=True):
            publish.whiskers(axis, [found.get(name, Rate.of(())) for found in rows.values()], [*rows], markersize=4)
            axis.axvline(50, linewidth=0.6, color="grey")
            axis.set_title(name, fontsize=8)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    arguments = parser(__doc__).parse_args(argv)
    try:
        plan = Plan.read(arguments.plan)
        methods = trained(plan, arguments.data, arguments.out, arguments.calibrated_on)
        rows = {method.name: told(method.aligner, on(arguments)) for method in methods}
    except PROBLEMS as problem:
        sys.exit(str(problem))
    table, name = text(rows), f"heads_{arguments.plan.stem}"
    publish.write(arguments.out, name, table, rows)
    plot(rows, arguments.out / f"{name}.svg")
    print(table)


if __name__ == "__main__":
    main()
