"""Completion of edits at pairs of signs: of a pair that reaches beyond an edit, the half inside the edit stays.

"**You fool. It opens at nine.**" without its first sentence is "**It opens at nine.**": the sign moves to what stays. A
half (pairs.py) that has no partner in the original is removed with its sentence. In an answer that is still growing,
the partner may come later, so there an opening half counts as one of a pair where that is likely.

An edit whose text has a half that the original does not have cannot be completed. It is torn, and breaks the rule
`torn_pair`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from aligner_proxy.gate.completion import EditEffects
from aligner_proxy.gate.edits import Edit, Part, SegmentStatus
from aligner_proxy.text.lists import marks
from aligner_proxy.text.pairs import COMMENT, Half, OpenHalves, read_halves
from aligner_proxy.text.structure import Segment, split


def complete_pairs(
    text: str, pieces: Sequence[Segment], effects: EditEffects, open_halves: OpenHalves, *, grows: bool
) -> tuple[EditEffects, frozenset[Edit]]:
    """Add the halves that have to stay to each edit: (the completed edits with their effects, those that are torn).

    `pieces` are the segments of `text`, and `effects` says of each edit what it does to them. `open_halves` are opening
    halves before the text that have no partner yet. If the answer `grows`, more text may follow.
    """
    completion = _PairCompletion(text, pieces, open_halves, grows=grows)
    completed_effects: dict[Edit, tuple[Part, ...]] = {}
    torn: set[Edit] = set()
    for edit, parts in effects.items():
        completed_edit = completion.complete(edit, parts)
        completed_effects[completed_edit] = parts
        if completion.is_torn(edit):
            torn.add(completed_edit)
    return completed_effects, frozenset(torn)


class _PairCompletion:
    """Completes the edits of one text."""

    def __init__(self, text: str, pieces: Sequence[Segment], open_halves: OpenHalves, *, grows: bool) -> None:
        self._text = text
        self._pieces = pieces
        self._grows = grows
        self._halves = read_halves(text, pieces, open_halves)
        """All halves in the text, in order."""
        self._half_starts = [half.start for half in self._halves]
        """Offsets of the halves, in order, for binary search."""

    def complete(self, edit: Edit, parts: Sequence[Part]) -> Edit:
        """The edit with the halves that have to stay and that its text lacks. `parts` are its effects on segments."""
        missing = self._list_missing(edit)
        if not missing:
            return edit
        first_segment = self._pieces[edit.first]
        closing = ""
        leading = ""  # opening halves before the words of the edit
        opening = ""  # opening halves behind the words, which open a pair in the text that follows
        for half in missing:
            sign = self._copy_sign(half, edit)
            if not half.opens:
                closing += sign
            elif self._precedes_words(half, first_segment):
                leading += sign
            else:
                opening += sign
        if all(part.effect is SegmentStatus.REMOVED for part in parts):
            # closing halves join the text before the edit, opening halves the text behind it
            return replace(edit, text=f"{closing}{edit.text}{leading}{opening}")
        content_start = self._find_content_start(edit)
        words = edit.text.rstrip()
        gap = edit.text[len(words) :]
        return replace(edit, text=f"{words[:content_start]}{leading}{words[content_start:]}{closing}{gap}{opening}")

    def is_torn(self, edit: Edit) -> bool:
        """Whether the edit's text has a half that is neither required nor without a partner in the replaced text."""
        single = [half for half in self._list_halves(edit) if half.partner is None]
        required = [half for half in self._list_required(edit) if half.partner is not None]
        allowed_counts = Counter(_half_key(half) for half in [*single, *required])
        new_counts = Counter(_half_key(half) for half in _single_halves(edit.text) if not half.may_stay_single)
        # the difference of the counters has only the halves of which the edit has more than allowed
        return bool(new_counts - allowed_counts)

    def _list_missing(self, edit: Edit) -> list[Half]:
        """The required halves that are not in the text of the edit."""
        unused_counts = Counter(_half_key(half) for half in _single_halves(edit.text))
        missing = []
        for half in self._list_required(edit):
            key = _half_key(half)
            if unused_counts[key]:
                unused_counts[key] -= 1
            else:
                missing.append(half)
        return missing

    def _list_required(self, edit: Edit) -> list[Half]:
        """The halves in the replaced text that have to stay, because their partner is outside of it."""
        return [half for half in self._list_halves(edit) if self._has_partner_outside(half, edit)]

    def _list_halves(self, edit: Edit) -> list[Half]:
        """The halves in the replaced text."""
        return self._halves[bisect_left(self._half_starts, edit.start) : bisect_left(self._half_starts, edit.end)]

    def _has_partner_outside(self, half: Half, edit: Edit) -> bool:
        """Whether the partner of a half is outside of the replaced text, or is likely to come behind it."""
        if half.partner is not None:
            return not edit.start <= half.partner < edit.end
        return half.opens and self._grows and self._may_close_later(half, edit)

    def _may_close_later(self, half: Half, edit: Edit) -> bool:
        """Whether later text is likely to close an opening half that has no partner so far."""
        gap = self._pieces[edit.last - 1].gap
        if half.is_inline and (not gap or gap.count("\n") > 1):
            return False
        # "<p>" is seldom closed in a later line, and often not at all
        if half.may_stay_single and "\n" in gap:
            return False
        if not half.shows_its_side or half.kind == COMMENT:
            return True
        char_before = self._text[half.start - 1 : half.start]
        char_behind = self._text[half.end : half.end + 1]
        segment = next(segment for segment in self._pieces[edit.first : edit.last] if half.start < segment.end)
        if self._precedes_words(half, segment):
            return char_behind not in (" ", "\t")
        # within a sentence a bracket may be that of an interval, and a tag a placeholder
        return char_behind.isalpha() and not char_before.isalnum()

    def _precedes_words(self, half: Half, segment: Segment) -> bool:
        """Whether the half is before the words of its segment, perhaps behind the marker of an item."""
        text_before = self._text[segment.start : half.start]
        mark = marks.read(text_before)
        content = text_before if mark is None else text_before[mark.stop :]
        return not any(map(str.isalnum, content))

    def _find_content_start(self, edit: Edit) -> int:
        """Offset in the edit's text at which the words begin, behind white space and the marker of an item."""
        start = len(edit.text) - len(edit.text.lstrip())
        if marks.read(self._pieces[edit.first].text) is None:
            return start
        mark = marks.read(edit.text[start:])
        return start if mark is None else start + mark.stop

    def _copy_sign(self, half: Half, edit: Edit) -> str:
        """The half as written, with the spaces between it and the words of its pair."""
        if half.opens:
            text_behind = self._text[half.end : self._pieces[edit.last - 1].end]
            space_length = len(text_behind) - len(text_behind.lstrip(" "))
            return self._text[half.start : half.end + space_length]
        text_before = self._text[self._pieces[edit.first].start : half.start]
        space_length = len(text_before) - len(text_before.rstrip(" "))
        return self._text[half.start - space_length : half.end]


def _single_halves(text: str) -> list[Half]:
    """The halves in a text that have no partner in it."""
    return [half for half in read_halves(text, split(text)) if half.partner is None]


def _half_key(half: Half) -> tuple[str, bool]:
    """(kind, whether the sign alone shows that it opens). Two halves with the same key may replace each other."""
    return half.kind, half.opens and half.shows_its_side
