"""Edit distance of texts, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from rapidfuzz.distance import Levenshtein


def word_distance(one: str, other: str) -> float:
    """Levenshtein distance in words as a share of the longer text: 0 the same words, 1 nothing in common."""
    return Levenshtein.normalized_distance(one.split(), other.split())


@dataclass(frozen=True, slots=True)
class EditDistances:
    """Mean distances of several answers: what was to be edited, what was, and what would be left to do."""

    needed: float
    done: float
    remaining: float

    @classmethod
    def from_texts(cls, texts: Iterable[tuple[str, str, str]]) -> EditDistances:
        """Of (answer, target, output) each; zeros where there are none."""
        rows = [
            (word_distance(answer, target), word_distance(answer, output), word_distance(output, target))
            for answer, target, output in texts
        ]
        return cls(*map(fmean, zip(*rows, strict=True))) if rows else cls(0.0, 0.0, 0.0)

    def __str__(self) -> str:
        return f"{self.needed:.1%}, {self.done:.1%}, {self.remaining:.1%}"
