"""Pairs for an aligner that reads no objectives: those in which nothing wrong was to be left in.

    python -m models.systems.pku_aligner.single_purpose runs/data/contrastive_preference.jsonl \\
        --out runs/data/aligner.jsonl

Aligner (arXiv 2402.02416) has one purpose. In our pairs some defects stay, because nobody asked for them to go: without
the objectives beside it such a pair contradicts the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from models.data.pairs import CHANGES, Pair, read_pairs, write_pairs


def has_single_purpose(pair: Pair) -> bool:
    """Whether the target mends every fault of the answer. Pairs that do not name their faults do not count."""
    return bool(pair.kinds) and all(
        label == CHANGES for kind, label in zip(pair.kinds, pair.labels, strict=True) if kind
    )


def select_pairs(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs that make sense without their objectives."""
    return (pair for pair in pairs if has_single_purpose(pair))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.systems.pku_aligner.single_purpose", description="Aligner's pairs."
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    count = write_pairs(options.out, select_pairs(read_pairs(options.pairs)))
    print(f"{options.out}: {count} pairs")


if __name__ == "__main__":
    main()
