"""Report on files of pairs: sources, objectives and their places, lengths, how much an edit changes.

    python -m models.data.describe runs/data/contrastive_preference.jsonl --out runs/report
    python -m models.data.describe runs/better.jsonl runs/equal.jsonl --out runs/report     (by models.data.metaaligner)

It writes a table as report.md and report.json, and a plot as report.svg. Order balance is how often an objective is the
first one in its prompt, compared with chance: a model must not learn that the first objective matters most. If most
targets are longer than their answers, a model learns to write more. Of the texts of a pair, only its objectives are in
the report.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from models.reporting import output
from models.reporting.edit_distance import word_distance
from models.reporting.statistics import Rate

from .pairs import Pair, read_pairs

SORTS = ("better", "equal", "identity")
"""Towards a better answer, between equals, and answers that are their own target (warm-up, and what stays)."""
_COMMON = 20
"""Pairs from which on an objective is common enough for the plot of order balance."""


@dataclass(frozen=True, slots=True)
class PairFacts:
    """A pair, its sort, and its edit distance in words as a share."""

    pair: Pair
    sort: str
    distance: float


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """Figures of the pairs of one source or objective. Lengths are in characters; lengths and distances are medians.

    `first` is how often an objective is the first one in its prompt, `chance` how often it would be in random order, in
    percent; of a source they are empty. `longer` is how often the target is longer, of pairs that change something.
    """

    name: str
    count: int
    sorts: dict[str, int]
    answer: float
    target: float
    longer: Rate
    distance: float
    first: Rate | None = None
    chance: float = 0.0


def compute_facts(pairs: Iterable[Pair]) -> list[PairFacts]:
    """For each pair its sort (its direction, or "identity" if nothing changes) and its edit distance in words."""
    return [
        PairFacts(
            pair, "identity" if pair.answer == pair.target else pair.direction, word_distance(pair.answer, pair.target)
        )
        for pair in pairs
    ]


def _summarise_pairs(
    name: str, facts: Sequence[PairFacts], first: Rate | None = None, chance: float = 0.0
) -> PairStatistics:
    """Count the pairs `mine`; `first` and `chance` say how often the objective stands first, and would by chance."""
    changing = [entry for entry in facts if entry.sort != "identity"]
    count = Counter(entry.sort for entry in facts)
    return PairStatistics(
        name=name,
        count=len(facts),
        sorts={sort: count[sort] for sort in SORTS},
        answer=median(len(entry.pair.answer) for entry in facts),
        target=median(len(entry.pair.target) for entry in facts),
        longer=Rate.from_outcomes(len(entry.pair.target) > len(entry.pair.answer) for entry in changing),
        distance=median(entry.distance for entry in changing) if changing else 0.0,
        first=first,
        chance=chance,
    )


def summarise_objectives(facts: Sequence[PairFacts]) -> list[PairStatistics]:
    """The figures of each objective text, the most frequent first."""
    grouped: dict[str, list[PairFacts]] = {}
    for fact in facts:
        for objective in fact.pair.objectives:
            grouped.setdefault(objective, []).append(fact)
    entries = []
    for objective, facts_of_objective in grouped.items():
        first = Rate.from_outcomes(fact.pair.objectives[0] == objective for fact in facts_of_objective)
        chance = 100 * sum(1 / len(fact.pair.objectives) for fact in facts_of_objective) / len(facts_of_objective)
        entries.append(_summarise_pairs(objective, facts_of_objective, first, chance))
    return sorted(entries, key=lambda entry: -entry.count)


def summarise_sources(facts: Sequence[PairFacts]) -> list[PairStatistics]:
    """The figures of each sort of source, the most frequent first: "defect:insult" is of the sort "defect"."""
    grouped: dict[str, list[PairFacts]] = {}
    for fact in facts:
        grouped.setdefault(fact.pair.source.split(":")[0], []).append(fact)
    return sorted(
        (_summarise_pairs(name, facts_of_source) for name, facts_of_source in grouped.items()),
        key=lambda entry: -entry.count,
    )


def format_tables(facts: Sequence[PairFacts], top: int = 20) -> str:
    """The tables in Markdown, with the `top` most frequent objectives."""
    common = ("pairs", *SORTS, "answer", "target", "target longer", "edit distance")
    sources = [(entry.name, *_cells(entry)) for entry in summarise_sources(facts)]
    objectives = summarise_objectives(facts)
    rows = [
        (objective.name[:70], *_cells(objective), objective.first, f"{objective.chance:.1f} %")
        for objective in objectives[:top]
    ]
    tables = output.table(("source", *common), sources)
    tables += "\n\n" + output.table(("objective", *common, "stands first", "by chance"), rows)
    sizes = sorted(len(fact.pair.answer) for fact in facts)
    tenths = ", ".join(str(sizes[len(sizes) * i // 10]) for i in (1, 5, 9))
    sorts = ", ".join(f"{name} {n}" for name, n in Counter(fact.sort for fact in facts).most_common())
    tables += f"\n\n{len(facts)} pairs, {len(objectives)} objective texts; {sorts}."
    tables += f"\nCharacters of the answers: {tenths} (10th, 50th and 90th percentile)."
    return (
        tables + "\nLengths and distances are medians; distance in words, as a share, of pairs that change something."
    )


def _cells(entry: PairStatistics) -> tuple[object, ...]:
    sizes = (f"{entry.answer:.0f}", f"{entry.target:.0f}")
    return (entry.count, *entry.sorts.values(), *sizes, entry.longer, f"{entry.distance:.0%}")


def plot(facts: Sequence[PairFacts], path: Path, top: int = 15) -> None:
    """Plot pairs and order balance by objective, objectives per prompt, lengths, edit distances, and longer targets."""
    objectives = summarise_objectives(facts)
    with output.plot(path, 2, 3, size=(14, 8)) as ((pairs, order, counts), (lengths, edits, longer)):
        _draw_bars(pairs, objectives[:top])
        _draw_order(order, [objective for objective in objectives if objective.count >= _COMMON])
        counts.hist([len(fact.pair.objectives) for fact in facts], bins=[i + 0.5 for i in range(6)])
        counts.set_xlabel("objectives a prompt")
        sizes = {
            "answers": [len(fact.pair.answer) for fact in facts],
            "targets": [len(fact.pair.target) for fact in facts],
        }
        lengths.hist(list(sizes.values()), bins=30, label=list(sizes))
        lengths.set_xlabel("characters")
        lengths.legend()
        changing = [fact for fact in facts if fact.sort != "identity"]
        edits.hist([fact.distance for fact in changing], bins=[i / 25 for i in range(26)])
        edits.set_xlabel("edit distance, share of the words, where something changes")
        top_objectives = objectives[:top]
        output.whiskers(
            longer,
            [objective.longer for objective in top_objectives],
            [objective.name[:24] for objective in top_objectives],
            markersize=3,
        )
        longer.set_xlabel("target longer than the answer, %")


def _draw_bars(axis: Any, objectives: Sequence[PairStatistics]) -> None:
    """A bar for each objective, divided by the sorts of its pairs."""
    names = [objective.name[:24] for objective in objectives]
    places = list(range(len(names), 0, -1))
    starts = [0] * len(names)
    for sort in SORTS:
        widths = [objective.sorts[sort] for objective in objectives]
        axis.barh(places, widths, left=starts, label=sort)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axis.set_yticks(places, names, fontsize=8)
    axis.set_xlabel("pairs")
    axis.legend()


def _draw_order(axis: Any, objectives: Sequence[PairStatistics]) -> None:
    """A dot for each objective: how often it stands first, over how often it would by chance."""
    rates = [(objective.chance, objective.first) for objective in objectives if objective.first]
    spread = list(zip(*(rate.whiskers for _, rate in rates), strict=True)) or None
    axis.plot([0, 100], [0, 100], color="grey", linewidth=0.5)
    axis.errorbar(
        [chance for chance, _ in rates],
        [rate.percent for _, rate in rates],
        yerr=spread,
        fmt="o",
        markersize=3,
        elinewidth=0.5,
    )
    axis.set_xlabel("stands first by chance, %")
    axis.set_ylabel("stands first, %")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+", help="files of pairs, by models.data.mixture or .metaaligner")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    facts = compute_facts(pair for path in arguments.pairs for pair in read_pairs(path))
    if not facts:
        parser.error(f"{', '.join(map(str, arguments.pairs))}: no pairs")
    table = format_tables(facts)
    output.write(
        arguments.out, "report", table, {"sources": summarise_sources(facts), "objectives": summarise_objectives(facts)}
    )
    plot(facts, arguments.out / "report.svg")
    print(table)


if __name__ == "__main__":
    main()
