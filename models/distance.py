"""How far apart are two texts? Edit distance in words, exact."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean


def edits(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and replacements that turn one into the other (Levenshtein).

    Myers' bit-parallel algorithm in Hyyrö's form: a column of the table is two integers, a word costs a few operations
    on them; a thousand words against a thousand take milliseconds.
    """
    if not one:
        return len(other)
    places: dict[Hashable, int] = {}
    for i, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << i
    every, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    rises, falls, distance = every, 0, len(one)
    for item in other:
        same = places.get(item, 0)
        diagonal = same | falls
        across = (((same & rises) + rises) ^ rises) | same
        up, down = falls | ~(across | rises) & every, rises & across
        distance += bool(up & last) - bool(down & last)
        up, down = up << 1 | 1, down << 1
        rises, falls = (down | ~(diagonal | up)) & every, up & diagonal & every
    return distance


def distance(one: str, other: str) -> float:
    """Edit distance in words as a share of the longer text: 0 the same words, 1 nothing in common."""
    if one == other:
        return 0.0
    first, second = one.split(), other.split()
    return edits(first, second) / max(len(first), len(second), 1)


@dataclass(frozen=True, slots=True)
class Edits:
    """Mean distances of several answers: what was to be edited, what was, and what would be left to do."""

    wanted: float
    made: float
    left: float

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str, str]]) -> Edits:
        """Of (answer, target, what came out) each; zeros where there are none."""
        rows = [
            (distance(answer, target), distance(answer, out), distance(out, target)) for answer, target, out in texts
        ]
        return cls(*map(fmean, zip(*rows, strict=True))) if rows else cls(0.0, 0.0, 0.0)

    def __str__(self) -> str:
        return f"{self.wanted:.1%}, {self.made:.1%}, {self.left:.1%}"
