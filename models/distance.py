"""How far apart are two texts? Edit distance in words, exact."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


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
