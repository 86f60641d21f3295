"""Closing of a growing answer: finds the beginning that the gate need not read again to judge later edits.

It ends before a segment that has gone out, at whose beginning no edit cuts. If the text has lists or tables, that
segment begins a line that belongs to none of them, or a row; in prose it begins a sentence into which no quotation,
bracket or number can extend. Pairs of signs may extend into the rest, because their open halves are kept. The closed
beginning must also contain everything its edits may not lose, so that later text can neither restore nor break it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aligner_proxy.gate.completion import EditEffects
from aligner_proxy.gate.edits import Candidate, ClosedAnswer, Edit, Part, TextFacts, has_outline
from aligner_proxy.gate.rules import KEEPS, SIGNS_OF_ITEMS, Rule, signs_after, signs_before
from aligner_proxy.text.lists.outline import Outline, remaining_signs
from aligner_proxy.text.structure import Segment

MIN_CHARS = 400
"""A shorter beginning is not closed, because reading it again is cheaper."""
MAX_CHARS = 1_200
"""A longer rest is closed before any sentence or line, even inside open brackets or items: otherwise a text that never
closes them would all be read again for each edit. Few facts are as long."""
_NEAR_CHARS = 400
"""Maximum length of a quotation in characters."""
_PLAIN_BEGINNING = re.compile(r"(?:[*_~`$<(\[\"\u201c\u201e\u00ab]{1,4})?[^\W\d_](?![.)])")
"""A letter at the beginning, perhaps behind opening signs, that is not the marker of an item, as in a) or b."""
_OPEN = re.compile(
    r"(?<![\w\"])\"(?=\S)[^\"]*$|[\u201c\u201e\u00ab\u300c\u300e][^\u201c\u201d\u00bb\u300d\u300f]*$"
    # An open bracket, or a number and names that may be continued by a street name.
    r"|[(\[][^()\[\]]*$|\d[A-Za-z]?,? (?:[A-Z][\w'.-]{0,40}\s){1,4}$"
)
"""Matches the end of a text if a quotation, citation or address has begun there."""


def find_last_closable(
    before: TextFacts, upstream_pieces: Sequence[Segment], pieces: Sequence[Segment], count: int, edits: EditEffects
) -> tuple[int, bool]:
    """Where the open rest can be closed: (number of the last segment before which it can, whether that begins a row).

    Only the first `count` segments are looked at; the number is 0 if there is none. `upstream_pieces` are the segments
    as the upstream wrote them, `pieces` those of the undisguised text.
    """
    covered = {number for edit in edits for number in range(edit.first, edit.last)}
    covered -= {edit.first for edit in edits if _begins_between(edit, upstream_pieces)}
    outline = None
    if before.read(has_outline):
        outline = _ClosableOutline(upstream_pieces, in_table=before.closed.ends_in_table)
    nearest = 0
    for number in range(min(count, len(pieces)) - 1, 0, -1):
        # the loop goes backwards, so all further segments are even nearer to the beginning
        if pieces[number].start < MIN_CHARS:
            break
        if number in covered:
            continue
        is_apart = number in outline.fresh if outline else _stands_apart(before, pieces, number)
        if is_apart:
            return number, outline is not None and number in outline.rows
        if not nearest and (outline is None or outline.may_be_cut(number)):
            nearest = number
    # only a rest that has become too long is closed at a place that does not stand apart
    return (nearest if pieces[nearest].start > MAX_CHARS else 0), False


class _ClosableOutline:
    """Where a text with lists or tables may be closed."""

    def __init__(self, pieces: Sequence[Segment], *, in_table: bool) -> None:
        outline = Outline(pieces, in_table=in_table)
        self._outline = outline
        self.rows = outline.rows
        """Segments that begin a row of a table outside of all items."""
        self.fresh = {*outline.fresh, *outline.rows}
        """Segments before which the text may be closed: they begin a line outside of all items, perhaps a table row."""
        self._line_numbers = [index for index, line in enumerate(outline.lines) for _ in line.segments]
        """By segment, the number of its line."""
        self._in_tables = {line.segments.start for table in outline.tables for line in (*table.head, *table.rows)}
        """First segments of all lines of tables."""

    def may_be_cut(self, number: int) -> bool:
        """Whether little is lost if the lists that are open before this segment end there."""
        line_number = self._line_numbers[number]
        line = self._outline.lines[line_number]
        begins_line = number == line.segments.start
        if line.is_row:
            # a row outside of tables is the head of none if the line below is known and is no rule
            below = self._outline.lines[line_number + 1 : line_number + 2]
            return begins_line and number not in self._in_tables and bool(below) and not below[0].is_rule
        if not begins_line:
            return not self._outline.would_begin_line(number, line)
        # a mark alone in its line is the mark of the line below
        return not self._outline.is_lone_mark(number - 1)


def _begins_between(edit: Edit, pieces: Sequence[Segment]) -> bool:
    """Whether an edit leaves the white space before its first segment, so that the text can be cut behind it."""
    first = edit.first
    return 0 < first < edit.last and edit.text.startswith(pieces[first - 1].gap) and edit.start == pieces[first - 1].end


def _stands_apart(before: TextFacts, pieces: Sequence[Segment], number: int) -> bool:
    """Whether nothing that is read as one (a quotation, bracket, code span or address) extends across its start."""
    if "\n" in pieces[number - 1].gap:
        return True
    start = pieces[number].start
    line_start = before.text.rfind("\n", 0, start) + 1
    # an odd number of backticks before it in its line: a code span is open
    in_code = before.text.count("`", line_start, start) % 2 == 1
    if in_code or _OPEN.search(before.text, max(line_start, start - _NEAR_CHARS), start):
        return False
    return _PLAIN_BEGINNING.match(pieces[number].text) is not None


def can_close(candidate: Candidate, rules: Mapping[str, Rule]) -> bool:
    """Whether the gate need not read this beginning of a growing answer again.

    It need not if no rule about lost content objects to the candidate, and if the candidate ends with a line where the
    original does and has the same list items and table rows.
    """
    if any(name in KEEPS and rule(candidate) for name, rule in rules.items()):
        return False
    if not candidate.before.read(has_outline):
        return True
    # otherwise the open rest would continue a line of the closed text, which has lists or tables
    if candidate.before.text.endswith("\n") and not candidate.after.text.endswith("\n"):
        return False
    removed = candidate.removed_segments
    return all(
        remaining_signs(signs_before(candidate, signs), removed) == remaining_signs(signs_after(candidate, signs))
        for signs in SIGNS_OF_ITEMS
    )


def move_edit(edit: Edit, closed: ClosedAnswer, direction: int) -> Edit:
    """Translate the positions of an edit from the whole answer to the open rest (-1), or back (1)."""
    chars = direction * closed.chars
    count = direction * len(closed.pieces)
    return replace(
        edit, start=edit.start + chars, end=edit.end + chars, first=edit.first + count, last=edit.last + count
    )


def without_closed_gap(edit: Edit, closed: ClosedAnswer) -> Edit:
    """An edit without the white space before it, if that was closed."""
    chars = max(0, closed.chars - edit.start)
    return replace(edit, start=edit.start + chars, text=edit.text[chars:]) if chars else edit


def move_parts(parts: Sequence[Part], by: int) -> tuple[Part, ...]:
    """Copies of the parts with their segment numbers shifted by `by`."""
    return tuple(replace(part, index=part.index + by) for part in parts)
