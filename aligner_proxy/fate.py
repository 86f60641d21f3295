"""What became of each segment that an edit covers: does it stay, was it rewritten, was it removed?

It judges nothing: whether a fate is allowed is the gate's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from aligner_proxy.edits import COMPARABLE, Edit
from aligner_proxy.segments import Segment, split


class Fate(StrEnum):
    """STAYS also covers a segment that changed though nobody asked for it: its facts must be there all the same."""

    STAYS = "stays"
    REWRITTEN = "rewritten"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of the original and what an edit did with it; `index` counts the segments of the answer."""

    text: str
    fate: Fate
    index: int


def follow(edit: Edit, pieces: Sequence[Segment], free: Sequence[bool]) -> tuple[Part, ...]:
    """The fate of every segment that `edit` covers. Only a segment that is `free` may go."""
    covered = range(edit.first, edit.last)
    new = [piece.text for piece in split(edit.text) if piece.text.strip()]
    if max(len(covered), len(new)) > COMPARABLE:
        return tuple(Part(pieces[i].text, Fate.STAYS, i) for i in covered)
    fates = _fates([pieces[i].text for i in covered], new)
    return tuple(
        Part(pieces[i].text, fate if free[i] else Fate.STAYS, i) for i, fate in zip(covered, fates, strict=True)
    )


def _fates(old: Sequence[str], new: Sequence[str]) -> Iterator[Fate]:
    """Which of `old` live on in `new`: each new piece continues the old one it shares most words with."""
    words = [_words(piece) for piece in old]
    rest = list(range(len(old)))
    for piece in new:
        if rest:
            mine = _words(piece)
            rest.remove(max(rest, key=lambda i: len(mine & words[i])))
    return (Fate.REMOVED if i in rest else Fate.REWRITTEN for i in range(len(old)))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
