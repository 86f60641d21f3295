"""What is in a file of pairs? Sources, objectives and their places, lengths, how much an edit changes.

    python -m models.report runs/data/contrastive_preference.jsonl --out runs/report

A table on stdout and as report.md, a plot as report.svg. Order balance is the share of times that an objective stands
first among those of its prompt, beside what chance would give: a model must not learn that the first one matters.
"""

from __future__ import annotations

import argparse
import difflib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .pairs import CHANGES, Pair, read_pairs


@dataclass(frozen=True, slots=True)
class Place:
    """How often an objective occurs and stands first; `chance` is how often it would if order were drawn evenly."""

    text: str
    count: int
    first: float
    chance: float


def places(pairs: Sequence[Pair]) -> list[Place]:
    """One entry an objective text, the most frequent first."""
    count: Counter[str] = Counter()
    first: Counter[str] = Counter()
    chance: defaultdict[str, float] = defaultdict(float)
    for pair in pairs:
        for i, text in enumerate(pair.objectives):
            count[text] += 1
            first[text] += i == 0
            chance[text] += 1 / len(pair.objectives)
    return [Place(text, n, first[text] / n, chance[text] / n) for text, n in count.most_common()]


def changed(pair: Pair) -> float:
    """Share of the words of answer and target that are not in both, in order; 0 for an identity."""
    if pair.answer == pair.target:
        return 0.0
    return 1 - difflib.SequenceMatcher(None, pair.answer.split(), pair.target.split(), autojunk=False).ratio()


def sources(pairs: Sequence[Pair]) -> list[tuple[str, int, float, float]]:
    """(kind of source, pairs, share that changes something, median share of words changed where it does)."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.source.split(":")[0], []).append(pair)
    rows = []
    for name, mine in sorted(found.items(), key=lambda item: -len(item[1])):
        edits = [changed(pair) for pair in mine if CHANGES in pair.labels]
        rows.append((name, len(mine), len(edits) / len(mine), median(edits) if edits else 0.0))
    return rows


def text(pairs: Sequence[Pair], top: int = 20) -> str:
    """The tables as Markdown."""
    lines = ["| source | pairs | changed | words changed, median |", "|---|---|---|---|"]
    lines += [f"| {name} | {n} | {share:.0%} | {words:.0%} |" for name, n, share, words in sources(pairs)]
    lines += ["", "| objective | pairs | stands first | by chance |", "|---|---|---|---|"]
    found = places(pairs)
    lines += [f"| {p.text[:70]} | {p.count} | {p.first:.0%} | {p.chance:.0%} |" for p in found[:top]]
    sizes = sorted(len(pair.answer) for pair in pairs)
    tenths = ", ".join(str(sizes[len(sizes) * i // 10]) for i in (1, 5, 9))
    directions = ", ".join(f"{name} {n}" for name, n in Counter(pair.direction for pair in pairs).most_common())
    lines += ["", f"{len(pairs)} pairs, {len(found)} objective texts; directions: {directions}."]
    lines.append(f"Characters of the answers: {tenths} (10th, 50th and 90th percentile).")
    return "\n".join(lines)


def plot(pairs: Sequence[Pair], path: Path) -> None:
    """Lengths, shares of words changed, objectives a prompt, and order balance."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((lengths, edits), (counts, order)) = pyplot.subplots(2, 2, figsize=(9, 6))
    lengths.hist([len(pair.answer) for pair in pairs], bins=40)
    lengths.set_xlabel("characters of the answer")
    edits.hist([changed(pair) for pair in pairs if pair.answer != pair.target], bins=40)
    edits.set_xlabel("share of words changed, where something is")
    counts.hist([len(pair.objectives) for pair in pairs], bins=[0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    counts.set_xlabel("objectives a prompt")
    common = [place for place in places(pairs) if place.count >= 20]
    order.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    order.scatter([place.chance for place in common], [place.first for place in common], s=8)
    order.set_xlabel("stands first by chance")
    order.set_ylabel("stands first")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="a file of pairs, by models.mixture or models.reformulate")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    found = list(read_pairs(arguments.pairs))
    if not found:
        parser.error(f"{arguments.pairs} is empty")
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = text(found)
    (arguments.out / "report.md").write_text(table + "\n")
    plot(found, arguments.out / "report.svg")
    print(table)


if __name__ == "__main__":
    main()
