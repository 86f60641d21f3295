"""Closing of a growing answer: finds the beginning that the gate need not read again to judge later edits.

The closed beginning ends before a segment that was sent and that no edit covers; the text behind it is the open rest.
If the text has lists or tables, that segment begins a line outside of them, or a row; in prose it begins a sentence
into which no quotation, bracket or number can extend. Pairs of signs may extend into the rest, because their open
halves are remembered. The closed beginning must contain all that its edits may not lose, so that later text can neither
restore nor break it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aligner_proxy.gate.completion import EditEffects
from aligner_proxy.gate.edits import Candidate, ClosedAnswer, Edit, Part, TextFacts, has_outline
from aligner_proxy.gate.rules import KEEPS, Rule, pair_signs
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.structure import Segment

MIN_CHARS = 400
"""Fewest characters of a beginning that is closed; reading a shorter one again is cheaper."""
MAX_CHARS = 1_200
"""Most characters before a segment that is only closable inside open brackets or items. A text that never closes them
would otherwise be read again as a whole for each edit. Few facts are as long."""
_MAX_QUOTATION_CHARS = 400
"""Maximum length of a quotation in characters."""
_SENTENCE_BEGINNING = re.compile(r"(?:[*_~`$<(\[\"\u201c\u201e\u00ab]{1,4})?[^\W\d_](?![.)])")
"""Matches a letter at the beginning, perhaps behind opening signs, that is not the marker of an item ("a)")."""
_UNCLOSED_PASSAGE = re.compile(
    r"(?<![\w\"])\"(?=\S)[^\"]*$|[\u201c\u201e\u00ab\u300c\u300e][^\u201c\u201d\u00bb\u300d\u300f]*$"
    # An open bracket, or a number and names that may be continued by a street name.
    r"|[(\[][^()\[\]]*$|\d[A-Za-z]?,? (?:[A-Z][\w'.-]{0,40}\s){1,4}$"
)
"""Matches the end of a text if a quotation, citation or address has begun there."""


def find_last_closable(
    before: TextFacts, upstream_pieces: Sequence[Segment], pieces: Sequence[Segment], count: int, edits: EditEffects
) -> tuple[int, bool]:
    """Find the last segment before which the open rest can be closed: (its index, whether it begins a row of a table).

    Only the first `count` segments are considered; the index is 0 if there is none. `upstream_pieces` are the segments
    as the upstream wrote them, `pieces` those of the undisguised text (`before`). `edits` are the edits that were sent.
    """
    covered = {index for edit in edits for index in range(edit.first, edit.last)}
    covered -= {edit.first for edit in edits if _keeps_gap_before(edit, upstream_pieces)}
    outline = None
    if before.read(has_outline):
        outline = _ClosableOutline(upstream_pieces, in_table=before.closed.ends_in_table)
    last_resort = 0  # the last segment before which only a rest that is too long is closed
    for index in range(min(count, len(pieces)) - 1, 0, -1):
        # the loop goes backwards, so all further segments are even nearer to the beginning
        if pieces[index].start < MIN_CHARS:
            break
        if index in covered:
            continue
        is_apart = index in outline.closable if outline else _stands_apart(before.text, pieces, index)
        if is_apart:
            return index, outline is not None and index in outline.table_row_starts
        if not last_resort and (outline is None or outline.may_be_cut(index)):
            last_resort = index
    is_too_long = pieces[last_resort].start > MAX_CHARS
    return last_resort if is_too_long else 0, False


class _ClosableOutline:
    """Tells where a text with lists or tables may be closed."""

    def __init__(self, pieces: Sequence[Segment], *, in_table: bool) -> None:
        outline = Outline(pieces, in_table=in_table)
        self._outline = outline
        self.table_row_starts = outline.table_row_starts
        """Segments that begin a row of a table outside of all items."""
        self.closable = {*outline.fresh_line_starts, *outline.table_row_starts}
        """Segments before which the text may be closed: they begin a line outside of all items, perhaps a table row."""
        self._line_indexes = [index for index, line in enumerate(outline.lines) for _ in line.segments]
        """For each segment, the index of its line."""
        self._table_line_starts = {
            line.segments.start for table in outline.tables for line in (*table.head, *table.rows)
        }
        """First segments of all lines of tables."""

    def may_be_cut(self, index: int) -> bool:
        """Whether little is lost if the lists that are open before segment `index` end there."""
        line_index = self._line_indexes[index]
        line = self._outline.lines[line_index]
        begins_line = index == line.segments.start
        if line.is_row:
            # a row outside of tables is the head of no table if the line below is known and is no rule
            lines = self._outline.lines
            is_no_head = line_index + 1 < len(lines) and not lines[line_index + 1].is_rule
            return begins_line and index not in self._table_line_starts and is_no_head
        if not begins_line:
            return not self._outline.would_begin_line(index, line)
        # a marker alone in its line belongs to the line below
        return not self._outline.is_lone_mark(index - 1)


def _keeps_gap_before(edit: Edit, pieces: Sequence[Segment]) -> bool:
    """Whether an edit leaves the white space before its first segment, so that the text can be closed behind it."""
    first = edit.first
    if not 0 < first < edit.last:
        return False
    segment_before = pieces[first - 1]
    return edit.start == segment_before.end and edit.text.startswith(segment_before.gap)


def _stands_apart(text: str, segments: Sequence[Segment], index: int) -> bool:
    """Whether segment `index` begins a line, or a sentence into which nothing extends from the text before it.

    What could extend into it is a quotation, bracket, code span or address. `segments` are those of `text`.
    """
    # the gap is the white space behind a segment
    if "\n" in segments[index - 1].gap:
        return True
    start = segments[index].start
    line_start = text.rfind("\n", 0, start) + 1
    # after an odd number of backticks in the line, a code span is open
    in_code = text.count("`", line_start, start) % 2 == 1
    if in_code or _UNCLOSED_PASSAGE.search(text, max(line_start, start - _MAX_QUOTATION_CHARS), start):
        return False
    return _SENTENCE_BEGINNING.match(segments[index].text) is not None


def can_close(candidate: Candidate, rules: Mapping[str, Rule]) -> bool:
    """Whether the gate need not read the beginning of a growing answer again, given by a candidate with its edits.

    No rule about lost content may object to the candidate. If the text has lists or tables, the candidate must also end
    with a line where the original does, and have the same items and rows.
    """
    if any(name in KEEPS and rule(candidate) for name, rule in rules.items()):
        return False
    if not candidate.before.read(has_outline):
        return True
    # otherwise the open rest would continue a line of the closed text
    if candidate.before.text.endswith("\n") and not candidate.after.text.endswith("\n"):
        return False
    return all(required_signs == new_signs for required_signs, new_signs in pair_signs(candidate))


def move_edit(edit: Edit, closed: ClosedAnswer, direction: int) -> Edit:
    """Translate the positions of an edit from the whole answer to the open rest (`direction` -1), or back (1)."""
    chars = direction * closed.chars
    segments = direction * len(closed.pieces)
    return replace(
        edit, start=edit.start + chars, end=edit.end + chars, first=edit.first + segments, last=edit.last + segments
    )


def without_closed_gap(edit: Edit, closed: ClosedAnswer) -> Edit:
    """An edit without the white space at its beginning that is part of the closed beginning."""
    closed_length = max(0, closed.chars - edit.start)
    if not closed_length:
        return edit
    return replace(edit, start=edit.start + closed_length, text=edit.text[closed_length:])


def move_parts(parts: Sequence[Part], offset: int) -> tuple[Part, ...]:
    """Copies of the parts with `offset` added to their segment indexes."""
    return tuple(replace(part, index=part.index + offset) for part in parts)
