"""Completion of edits at pairs of signs: of a pair that reaches beyond an edit, the half inside the edit stays.

"**You fool. It opens at nine.**" without its first sentence is "**It opens at nine.**": the sign moves to what stays. A
half that stands alone in the original goes with its sentence. Of an answer that is still growing nobody knows what
follows, so there an opening half counts as one of a pair where that is likely.

An edit that brings a half of its own cannot be completed. It is torn, which the rule `torn_pair` forbids.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.gate.completion import EditEffects
from aligner_proxy.gate.edits import Edit, Part, SegmentStatus
from aligner_proxy.text.lists import marks
from aligner_proxy.text.pairs import COMMENT, Half, OpenHalves, read_halves
from aligner_proxy.text.structure import Segment, split


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known beyond a text with edits: whether more follows, and the pairs that are open before it."""

    grows: bool = False
    open_halves: OpenHalves = field(default_factory=dict)


def complete_pairs(
    text: str, pieces: Sequence[Segment], effects: EditEffects, around: Surroundings
) -> tuple[EditEffects, frozenset[Edit]]:
    """The edits with the halves of pairs that have to stay; and the edits among them that are torn."""
    completion = _PairCompletion(text, pieces, around)
    completed = {edit: completion.complete(edit, parts) for edit, parts in effects.items()}
    torn = frozenset(completed[edit] for edit in effects if completion.is_torn(edit))
    return {completed[edit]: parts for edit, parts in effects.items()}, torn


class _PairCompletion:
    """Completes the edits of one text."""

    def __init__(self, text: str, pieces: Sequence[Segment], around: Surroundings) -> None:
        self._text = text
        self._pieces = pieces
        self._around = around
        self._halves = read_halves(text, pieces, around.open_halves)
        """Every sign of a pair in the text, in order."""
        self._starts = [half.start for half in self._halves]
        """Offsets of the halves, in order, for binary search."""

    def complete(self, edit: Edit, parts: Sequence[Part]) -> Edit:
        """The edit with the halves that it lacks."""
        missing = self._list_missing(edit)
        if not missing:
            return edit
        first = self._pieces[edit.first]
        closing = "".join(self._sign(half, edit) for half in missing if not half.opens)
        leading = "".join(self._sign(half, edit) for half in missing if half.opens and self._leads(half, first))
        opening = "".join(self._sign(half, edit) for half in missing if half.opens and not self._leads(half, first))
        if all(part.effect is SegmentStatus.REMOVED for part in parts):
            # closing halves join the text before, opening ones the text that follows
            return replace(edit, text=f"{closing}{edit.text}{leading}{opening}")
        start = self._content_start(edit)
        body = edit.text.rstrip()
        gap = edit.text[len(body) :]
        return replace(edit, text=f"{body[:start]}{leading}{body[start:]}{closing}{gap}{opening}")

    def is_torn(self, edit: Edit) -> bool:
        """Whether the edit's text has half a pair that is neither required nor alone in the replaced text."""
        alone = [half for half in self._halves_in(edit) if half.partner is None]
        required = [half for half in self._list_required(edit) if half.partner is not None]
        allowed_counts = Counter(_half_key(half) for half in [*alone, *required])
        new_counts = Counter(_half_key(half) for half in _single_halves(edit.text) if not half.may_stay_single)
        # the difference of two counters holds only the halves of which the edit has more
        return bool(new_counts - allowed_counts)

    def _list_missing(self, edit: Edit) -> list[Half]:
        """The required halves that are not in the text of the edit."""
        written_halves = Counter(_half_key(half) for half in _single_halves(edit.text))
        missing = []
        for half in self._list_required(edit):
            if written_halves[_half_key(half)]:
                written_halves[_half_key(half)] -= 1
            else:
                missing.append(half)
        return missing

    def _list_required(self, edit: Edit) -> list[Half]:
        """The halves in the replaced text whose other half is outside of it."""
        return [half for half in self._halves_in(edit) if self._reaches_out(half, edit)]

    def _halves_in(self, edit: Edit) -> list[Half]:
        return self._halves[bisect_left(self._starts, edit.start) : bisect_left(self._starts, edit.end)]

    def _reaches_out(self, half: Half, edit: Edit) -> bool:
        """Whether the other half is outside of the replaced text, or is likely to come behind it."""
        if half.partner is not None:
            return not edit.start <= half.partner < edit.end
        return half.opens and self._around.grows and self._may_close_later(half, edit)

    def _may_close_later(self, half: Half, edit: Edit) -> bool:
        """Whether more text is likely to close an opening half that stands alone so far."""
        gap = self._pieces[edit.last - 1].gap
        if half.is_inline and (not gap or gap.count("\n") > 1):
            return False
        # "<p>" is seldom closed in a later line, and often not at all
        if half.may_stay_single and "\n" in gap:
            return False
        if not half.shows_its_side or half.kind == COMMENT:
            return True
        # within a sentence a bracket may be one of an interval, and a tag a placeholder
        before, after = self._text[half.start - 1 : half.start], self._text[half.end : half.end + 1]
        segment = next(piece for piece in self._pieces[edit.first : edit.last] if half.start < piece.end)
        return after not in (" ", "\t") if self._leads(half, segment) else after.isalpha() and not before.isalnum()

    def _leads(self, half: Half, segment: Segment) -> bool:
        """Whether no word stands between the beginning of the segment and the half."""
        before = self._text[segment.start : half.start]
        mark = marks.read(before)
        return not any(char.isalnum() for char in before[mark.stop if mark else 0 :])

    def _content_start(self, edit: Edit) -> int:
        """Where the words of the edit begin, behind white space and the mark of an item that it keeps."""
        start = len(edit.text) - len(edit.text.lstrip())
        piece = self._pieces[edit.first].text
        mark = marks.read(edit.text[start:]) if marks.read(piece) is not None else None
        return start + (mark.stop if mark else 0)

    def _sign(self, half: Half, edit: Edit) -> str:
        """The half as written, with the spaces between it and the words of its pair, as in a comment."""
        if half.opens:
            words = self._text[half.end : self._pieces[edit.last - 1].end]
            return self._text[half.start : half.end + len(words) - len(words.lstrip(" "))]
        words = self._text[self._pieces[edit.first].start : half.start]
        return self._text[half.start - len(words) + len(words.rstrip(" ")) : half.end]


def _single_halves(text: str) -> list[Half]:
    """The halves in a text whose other half is not in it."""
    return [half for half in read_halves(text, split(text)) if half.partner is None]


def _half_key(half: Half) -> tuple[str, bool]:
    """(kind, whether the sign itself shows that it opens): equal for two halves that may replace each other."""
    return half.kind, half.opens and half.shows_its_side
