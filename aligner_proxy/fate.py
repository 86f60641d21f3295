"""What became of each segment of the original in a correction: does it stay, was it rewritten, was it removed?

Segments of both texts are laid side by side; those that are equal and in order stay. It judges nothing: whether a fate
is allowed is the gate's business.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from aligner_proxy import segments
from aligner_proxy.types import Correction

_COMPARABLE = 400
"""Segments on either side beyond which comparing would take too long; everything then counts as having to stay."""


class Fate(StrEnum):
    """STAYS also covers a segment that changed though nobody flagged it: its facts must be there all the same."""

    STAYS = "stays"
    REWRITTEN = "rewritten"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of the original and what the correction did with it."""

    text: str
    fate: Fate


def follow(original: str, correction: Correction, first_turn: int) -> list[Part]:
    """The fate of every segment of `original`. Only flagged segments, and those from `first_turn` on, may go."""
    pieces = segments.split(original)
    flagged = _flags([piece.text for piece in pieces], correction)
    free = [flag or piece.start >= first_turn for flag, piece in zip(flagged, pieces, strict=True)]
    fates = [Fate.STAYS] * len(pieces)
    for old, new in _changed([p.text for p in pieces], [p.text for p in segments.split(correction.text)]):
        for i, fate in _changed_fates([pieces[k].text for k in old], new):
            fates[old[i]] = fate if free[old[i]] else Fate.STAYS
    return [Part(piece.text, fate) for piece, fate in zip(pieces, fates, strict=True)]


def _flags(pieces: Sequence[str], correction: Correction) -> list[bool]:
    """The detector's word on every piece; none at all when it judged other pieces than these."""
    if [segment.text for segment in correction.segments] != list(pieces):
        return [False] * len(pieces)
    return [segment.flagged and segment.score is not None for segment in correction.segments]


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[range, Sequence[str]]]:
    """Runs of `old` that are not in `new`, each with what stands in its place.

    Equal ends are cut off first: most edits are small, and the comparison is quadratic in what is left.
    """
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    left, right = old[start : len(old) - end], new[start : len(new) - end]
    if max(len(left), len(right)) > _COMPARABLE:
        return
    for tag, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            yield range(start + i, start + j), right[k:m]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _changed_fates(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, Fate]]:
    """Which of `old` live on in `new`: each new piece continues the old one it shares most words with."""
    rest = set(range(len(old)))
    for piece in new:
        if rest:
            words = _words(piece)
            rest.discard(max(sorted(rest), key=lambda i: len(words & _words(old[i]))))
    for i in range(len(old)):
        yield i, Fate.REMOVED if i in rest else Fate.REWRITTEN


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
