"""Identity warm-up of Aligner: a share of a training set, each answer as its own target.

    python -m models.systems.pku_aligner.identity runs/data/aligner.jsonl \\
        --share 0.2 --seed 1 --out runs/data/aligner_warmup.jsonl

Aligner (arXiv 2402.02416, Figure 3) learns question-answer-answer before question-answer-correction; of the shares
2, 10, 20 and 50 % of the training set, 20 % came out best. Every answer drawn here is its own target.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from models.data.pairs import STAYS, Pair, read_pairs, write_pairs


def identities(pairs: Iterable[Pair], share: float, seed: int) -> Iterator[Pair]:
    """A share of the pairs, each with its answer as the target.

    Seed and text decide whether a pair is drawn, not its place in the file.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share lies above 0 and is at most 1, not {share}")
    for pair in pairs:
        if Random(f"{seed}:{pair.query}:{pair.answer}").random() < share:
            stays = (STAYS,) * len(pair.labels)
            kinds = ("",) * len(pair.kinds)
            yield replace(pair, target=pair.answer, labels=stays, kinds=kinds, source=f"identity:{pair.source}")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.systems.pku_aligner.identity", description="Identity pairs."
    )
    parser.add_argument("pairs", type=Path, help="the set that is learned afterwards")
    parser.add_argument("--share", type=float, default=0.2, help="part of the set")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    count = write_pairs(options.out, identities(read_pairs(options.pairs), options.share, options.seed))
    print(f"{options.out}: {count} identity pairs")


if __name__ == "__main__":
    main()
