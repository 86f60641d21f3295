"""Training pairs from preferences: dynamic multi-objective reformulation, Algorithm 1 of MetaAligner.

Each two responses to a query give up to three pairs: first to second with the objectives on which the second is better,
second to first with those on which the first is better, and an "equal" pair with those on which they tie. Scores that
differ by too little to be trusted count for neither. The ten defects of the released builders (a to j in the notes of
`tests/models/data/test_metaaligner.py`) are absent. Nothing is kept in memory but the query at hand.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Literal, TypeVar, get_args

from rich.console import Console

from aligner_proxy.text.structure import split

from .answers import prompt_key
from .pairs import CHANGES, STAYS, UNKNOWN, Pair, write_pairs
from .preference_sets import PreferenceError, RankedResponses, ScoredResponse, read_scored

T = TypeVar("T")
Side = Literal["train", "validation", "test"]
Part = Literal["warmup", "better", "equal"]
SIDES: tuple[Side, ...] = get_args(Side)
PARTS: tuple[Part, ...] = get_args(Part)
EDIT_SHARE = 0.5
"""A pair is an edit if at least this share of its segments is in the target, too: the others were changed on purpose.
In any other pair the whole text is different, and it is unknown which segments are worse."""


@dataclass(frozen=True, slots=True)
class Margin:
    """The least lead of a score that counts as better, and the largest difference that counts as equal."""

    better: float
    equal: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.equal < self.better:
            raise ValueError(f"a margin needs 0 <= equal < better, not equal={self.equal} and better={self.better}")


@dataclass(frozen=True, slots=True)
class SplitShares:
    """Percent of the prompts that are held out for validation, and for the test."""

    validation: int = 5
    test: int = 10

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 100:
            raise ValueError(f"shares must leave something to train on: {self.validation} + {self.test} of 100")


def side_of(query: str, shares: SplitShares | None = None) -> Side:
    """The side of a prompt; all pairs of one prompt are on one side, whatever the seed."""
    split_shares = shares or SplitShares()
    number = int.from_bytes(hashlib.sha256(prompt_key(query).encode("utf-8")).digest()[:8], "big") % 100
    if number < split_shares.test:
        return "test"
    return "validation" if number < split_shares.test + split_shares.validation else "train"


def reformulate(
    ranked: Iterable[RankedResponses], margin: Margin, seed: int, part: Part | None = None
) -> Iterator[Pair]:
    """Yield the pairs of every query; with `part`, only those of one training stage."""
    for item in ranked:
        rng = Random(f"{seed}:{item.query}")
        if part in (None, "warmup"):
            yield from _make_identities(item, rng)
        if part == "warmup":
            continue
        for first, second in combinations(item.responses, 2):
            for pair in _compare_responses(item, first, second, margin, rng):
                if part is None or pair.direction == part:
                    yield pair


def select_side(
    ranked: Iterable[RankedResponses], side: Side, shares: SplitShares | None = None
) -> Iterator[RankedResponses]:
    """The queries of one side."""
    return (item for item in ranked if side_of(item.query, shares) == side)


def _compare_responses(
    item: RankedResponses, one: ScoredResponse, two: ScoredResponse, margin: Margin, rng: Random
) -> Iterator[Pair]:
    """Yield up to three pairs of two responses: each as the better one, and as equals, where objectives say so."""
    if not (one.text.strip() and two.text.strip()) or one.text == two.text:
        return
    common = [objective for objective in one.scores if objective in two.scores]
    ahead = {objective: two.scores[objective] - one.scores[objective] for objective in common}
    two_better = [objective for objective in common if ahead[objective] >= margin.better]
    one_better = [objective for objective in common if -ahead[objective] >= margin.better]
    tied = [objective for objective in common if abs(ahead[objective]) <= margin.equal]
    first, second = (one, two) if rng.random() < 0.5 else (two, one)
    plans = ((two_better, one, two, "better"), (one_better, two, one, "better"), (tied, first, second, "equal"))
    for objectives, source, target, direction in plans:
        if objectives:
            yield _make_pair(item, objectives, source, target, direction, rng)


def _make_pair(
    item: RankedResponses,
    objectives: list[str],
    source: ScoredResponse,
    target: ScoredResponse,
    direction: str,
    rng: Random,
) -> Pair:
    """The pair that turns the response `source` into `target`, under the objectives in random order."""
    shuffled = rng.sample(objectives, k=len(objectives))
    labels = _label_segments(source.text, target.text, direction)
    return Pair(
        item.query,
        tuple(shuffled),
        source.text,
        target=target.text,
        labels=labels,
        source=f"preference:{item.source}",
        direction=direction,
    )


def _make_identities(item: RankedResponses, rng: Random) -> Iterator[Pair]:
    """Yield the pairs of the warm-up: each response as its own target, under objectives by which it has scores."""
    for response in item.responses:
        if response.text.strip() and response.scores:
            objectives = rng.sample(sorted(response.scores), k=rng.randint(1, len(response.scores)))
            labels = (UNKNOWN,) * len(split(response.text))
            yield Pair(item.query, tuple(objectives), response.text, response.text, labels, f"warmup:{item.source}")


def _label_segments(source: str, target: str, direction: str) -> tuple[int, ...]:
    """Labels of the source's segments: those in the target stay; of the others nothing is known, except in an edit.

    A better target that has at least `EDIT_SHARE` of the source's segments is an edit, so the others change.
    """
    target_texts = [segment.text for segment in split(target)]
    is_kept = []
    for segment in split(source):
        stays = segment.text in target_texts
        if stays:
            target_texts.remove(segment.text)
        is_kept.append(stays)
    is_edit = direction == "better" and sum(is_kept) >= EDIT_SHARE * len(is_kept)
    label_of_others = CHANGES if is_edit else UNKNOWN
    return tuple(STAYS if stays else label_of_others for stays in is_kept)


def main(argv: list[str] | None = None) -> None:
    """Write the pairs of one side and one part to a file."""
    parser = argparse.ArgumentParser(prog="python -m models.data.metaaligner", description="Preferences to pairs.")
    parser.add_argument("--scored", type=Path, required=True, help="JSONL of queries, responses and scores")
    parser.add_argument("--better", type=float, required=True, help="smallest lead of a score that counts as better")
    parser.add_argument("--equal", type=float, default=0.0, help="largest difference that counts as equal")
    parser.add_argument("--side", choices=SIDES, default="train")
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--bad-rows", choices=("stop", "skip"), default="stop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    bad: list[PreferenceError] = []
    ranked = read_scored(args.scored, bad.append if args.bad_rows == "skip" else None)
    try:
        present_queries = _require_some(
            select_side(ranked, args.side), f"{args.scored}: none of its queries is on the side {args.side!r}"
        )
        pairs = reformulate(present_queries, Margin(args.better, args.equal), args.seed, args.part)
        present_pairs = _require_some(
            pairs, f"{args.scored}: no pairs for {args.part!r} on the side {args.side!r} with these margins"
        )
        summary = f"{args.out}: {write_pairs(args.out, present_pairs)} pairs"
    except ValueError as problem:
        sys.exit(str(problem))
    Console().print(summary + (f"; {len(bad)} bad rows left out, the first: {bad[0]}" if bad else ""))


def _require_some(stream: Iterable[T], otherwise: str) -> Iterator[T]:
    """Yield all items; raises PreferenceError with the text `otherwise` if there are none."""
    empty = True
    for pair in stream:
        empty = False
        yield pair
    if empty:
        raise PreferenceError(f"{otherwise}; there is nothing to write")


if __name__ == "__main__":
    main()
