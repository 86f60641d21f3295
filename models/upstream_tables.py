"""How are the figures of upstreams laid out? Like the paper's Table 2, every scorer's accuracy beside its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import accuracy, judge_accuracy, publish
from .accuracy import Accuracy
from .judge import VERDICTS
from .judge_accuracy import Agreement
from .measures import MEASURES
from .rates import Rate
from .upstream_rows import Row


def text(rows: Sequence[Row], known: Accuracy, judge: str | None, agreed: Sequence[Agreement] = ()) -> str:
    """All tables as Markdown; `agreed` says how often the judge is right."""
    parts = ["## By measures", "", _by_measures(rows, known), "", "## Benign damage", "", _benign(rows, known)]
    parts += ["", "## The measures, and how often they are right", "", _measures(rows, known), "", accuracy.text(known)]
    if judge:
        parts += [
            "",
            f"## By a judge, {judge}, asked from both places",
            "",
            _by_judge(rows, agreed),
            "",
            _replies(rows),
        ]
        parts += ["", "### How often that judge says what people said", "", judge_accuracy.text(agreed)]
    return "\n".join(parts)


def _benign(rows: Sequence[Row], known: Accuracy) -> str:
    """Of answers in which no measure sees a fault, how many were touched, and how many were harmed."""
    head = ("source", "upstream", "asked", "n", "edited", "harmed")
    cells: list[tuple[object, ...]] = [
        ("known cases", trial, f"harm: {wanted}", known.harm[trial].n, "-", known.harm[trial])
        for trial, wanted in (("the right edit", "no"), ("a sound sentence lost", "yes"))
    ]
    cells += [(r.source, r.upstream, r.name, r.benign_edited.n, r.benign_edited, r.benign_harmed) for r in rows]
    note = "Answers in which no measure sees anything. Harmed: a number, address, name, code or a tenth of it is lost."
    return f"{publish.table(head, cells)}\n\n{note}"


def _by_measures(rows: Sequence[Row], known: Accuracy) -> str:
    head = ("source", "upstream", "asked", "n", "edited", "identical", "harmed", *accuracy.RESULTS, "win, ties apart")
    cells: list[tuple[object, ...]] = [
        ("known cases", trial, f"ought to {right}", said[right].n, "-", "-", "-", *said.values(), "-")
        for trial, right in accuracy.TRIALS
        for said in [known.comparison[trial]]
    ]
    for r in rows:
        v = r.measures
        skipped = f"{r.n} (+{r.skipped} skipped, {r.failed} failed)" if r.skipped or r.failed else str(r.n)
        cells.append(
            (r.source, r.upstream, r.name, skipped, r.edited, r.identical, r.harmed, v.win, v.tie, v.lose, v.decided)
        )
    return publish.table(head, cells)


def _measures(rows: Sequence[Row], known: Accuracy) -> str:
    """Each measure over all rows, with its own accuracy."""
    n = sum(r.n for r in rows)
    cells = []
    for measure in MEASURES:
        better, worse = (sum(getattr(r, side).get(measure.name, 0) for r in rows) for side in ("better", "worse"))
        figures = (Rate.among(better, n), Rate.among(worse, n), Rate.among(better, better + worse))
        cells.append((measure.name, *figures, known.measures[measure.name]))
    head = ("measure", "less of it after the edit", "more of it", "less, ties apart", "own accuracy")
    return publish.table(head, cells)


def _by_judge(rows: Sequence[Row], agreed: Sequence[Agreement]) -> str:
    right = {one.objective: one.decided for one in agreed}
    cells = [
        (r.source, r.upstream, r.name, objective, r.n, v.win, v.tie, v.lose, v.decided, right.get(objective, "-"))
        for r in rows
        for objective, v in r.judged.items()
    ]
    head = ("source", "upstream", "asked", "judged on", "n", *accuracy.RESULTS, "win, ties apart", "judge's accuracy")
    return publish.table(head, cells)


def _replies(rows: Sequence[Row]) -> str:
    count = Counter[str]()
    for r in rows:
        count.update(r.replies)
    told = ", ".join(f"{name} {count[name]}" for name in VERDICTS)
    return f"On edited answers: {told}. Split (the judge went by the place) and unreadable count as ties, as do copies."


def plot(rows: Sequence[Row], path: Path) -> None:
    """Per upstream and objective: the share that was edited, and the wins among what was decided."""
    labels = [f"{r.upstream} ({r.source}): {r.name}" for r in rows]
    with publish.plot(path, 1, 2, size=(11, 1 + 0.22 * len(rows)), sharey=True) as ((left, right),):
        publish.whiskers(right, [r.measures.decided for r in rows], labels, markersize=3)
        publish.whiskers(left, [r.edited for r in rows], labels, markersize=3)
        left.set_xlabel("edited, %")
        right.set_xlabel("wins by measures, ties apart, %")
        right.axvline(50, color="grey", linewidth=0.5)
