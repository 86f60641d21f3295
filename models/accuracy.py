"""How often is an offline measure right? On pairs of the generators, of which it is known what is wrong and where.

    python -m models.accuracy runs/data/test runs/data/contrastive_preference.jsonl --out runs/accuracy

No measure was fitted to these pairs. `finds` is the share of answers with such a defect in which the measure sees
something, `false alarms` that of answers without any defect; good answers of real models may hold a little of it all
the same, so the second is an upper bound. `right edits` are what the comparison calls edits that take out just that.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligner_proxy.segments import join, split

from . import publish
from .measures import MEASURES, Measure, Result, compare, harmed
from .pairs import CHANGES, Pair, read_pairs
from .rates import Rate

RESULTS: tuple[Result, ...] = ("win", "tie", "lose")
# What the comparison is shown, and what it ought to say.
TRIALS: tuple[tuple[str, Result], ...] = (
    ("the right edit", "win"),
    ("the same undone", "lose"),
    ("a sound sentence lost", "lose"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """How often a measure sees what is there, and what is not; `right` is what right edits of its kinds are called."""

    finds: Rate
    false: Rate
    right: dict[Result, Rate]

    def __str__(self) -> str:
        called = f"right edits called a win {self.right['win']}, a loss {self.right['lose']}"
        return f"finds {self.finds}, false alarms {self.false}, {called}"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of every measure by name, of the comparison of two answers by trial, and how often it then sees harm."""

    measures: dict[str, Found]
    comparison: dict[str, dict[Result, Rate]]
    harm: dict[str, Rate]


def accuracy(cases: Sequence[Pair]) -> Accuracy:
    """On pairs with known kinds; others are left out."""
    known = [pair for pair in cases if pair.kinds]
    shown = _trials(known)
    said = {name: _said(edits) for name, edits in shown.items()}
    harm = {name: Rate.of(harmed(*edit) for edit in edits) for name, edits in shown.items()}
    return Accuracy({measure.name: found(measure, known) for measure in MEASURES}, said, harm)


def found(measure: Measure, cases: Sequence[Pair]) -> Found:
    """One measure on answers with its kinds of defect, and on those without a defect."""
    holding = [pair for pair in cases if measure.kinds & set(pair.kinds)]
    sound = [pair for pair in cases if not any(pair.kinds)]
    sees = Rate.of(measure.amount(pair.query, pair.answer) > 0 for pair in holding)
    false = Rate.of(measure.amount(pair.query, pair.answer) > 0 for pair in sound)
    mended = [(p.query, p.answer, p.target) for p in holding if _mends_all(p, measure.kinds)]
    return Found(sees, false, _said(mended))


def _trials(cases: Sequence[Pair]) -> dict[str, list[tuple[str, str, str]]]:
    """Edits that are right, undone, or harmful, as far as measures are there to see the defects."""
    seen = frozenset[str]().union(*(measure.kinds for measure in MEASURES))
    mended = [pair for pair in cases if _mends_all(pair, seen)]
    return {
        "the right edit": [(p.query, p.answer, p.target) for p in mended],
        "the same undone": [(p.query, p.target, p.answer) for p in mended],
        "a sound sentence lost": [(p.query, p.target, short) for p in mended if (short := _shortened(p.target))],
    }


def _said(edits: Sequence[tuple[str, str, str]]) -> dict[Result, Rate]:
    """What the comparison calls (query, original, edited) triples."""
    count = Counter(compare(query, one, other, _all()).result for query, one, other in edits)
    return {result: Rate.among(count[result], count.total()) for result in RESULTS}


def _mends_all(pair: Pair, kinds: frozenset[str]) -> bool:
    """Whether the target is free of all that is wrong with the answer, and all of that is of these kinds."""
    going = {kind for kind, label in zip(pair.kinds, pair.labels, strict=True) if label == CHANGES}
    return bool(going) and going <= kinds and going == {kind for kind in pair.kinds if kind}


def _shortened(text: str) -> str | None:
    """The text without its longest segment; None where little or nothing would be left."""
    segments = split(text)
    if len(segments) < 3:
        return None
    longest = max(range(len(segments)), key=lambda i: len(segments[i].text))
    return join([("" if i == longest else s.text, s.gap) for i, s in enumerate(segments)])


def _all() -> tuple[str, ...]:
    """Every objective that some measure needs."""
    return tuple({name for measure in MEASURES for name in measure.under or ()})


def read_cases(paths: Iterable[Path]) -> list[Pair]:
    """All pairs of some files, and of the *.jsonl in some folders."""
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    return [pair for file in files for pair in read_pairs(file)]


def text(known: Accuracy) -> str:
    """Both tables as Markdown."""
    rows = []
    for m in MEASURES:
        of = known.measures[m.name]
        kinds = ", ".join(sorted(m.kinds))
        rows.append((m.name, m.says, kinds, of.finds, of.false, *(of.right[result] for result in RESULTS)))
    called = (f"right edits: {result}" for result in RESULTS)
    head = ("measure", "counts", "there to see", "finds, of answers", "false alarms, of sound answers", *called)
    trials = [(name, right, *known.comparison[name].values(), known.harm[name]) for name, right in TRIALS]
    second = publish.table(("known edit", "ought to be called", *RESULTS, "called harm"), trials)
    return f"{publish.table(head, rows)}\n\n{second}"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="+", help="files of pairs with kinds, or folders of them")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    known = accuracy(read_cases(arguments.cases))
    table = text(known)
    publish.write(arguments.out, "accuracy", table, known)
    print(table)


if __name__ == "__main__":
    main()
