"""Closing of a growing answer: finds the beginning that the gate need not read again to judge later edits.

It ends before an unedited segment that has gone out. If the text has lists or tables, that segment begins a line that
belongs to none of them; in prose it begins a sentence into which no quotation, bracket or number can extend. The closed
beginning must also contain everything its edits may not lose, so that later text can neither restore nor break it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aligner_proxy.gate.completion import Followed
from aligner_proxy.gate.edits import Candidate, ClosedAnswer, Edit, Part, TextFacts, has_outline
from aligner_proxy.gate.pair_completion import outside_pairs
from aligner_proxy.gate.rules import KEEPS, SIGNS_OF_ITEMS, Rule
from aligner_proxy.text.lists.outline import Outline, remaining_signs
from aligner_proxy.text.structure import Segment

LEAST_CHARS = 400
"""A shorter beginning is not closed, because reading it again is cheaper."""
_NEAR_CHARS = 400
"""Maximum length of a quotation in characters."""
_PLAIN_BEGINNING = re.compile(r"[^\W\d_](?![.)])")
"""A letter at the beginning that is not the marker of an item, as in a) or b."""
_OPEN = re.compile(
    r"(?<![\w\"])\"(?=\S)[^\"]*$|[\u201c\u201e\u00ab\u300c\u300e][^\u201c\u201d\u00bb\u300d\u300f]*$"
    # An open bracket, or a number and names that may be continued by a street name.
    r"|[(\[][^()\[\]]*$|\d[A-Za-z]?,? (?:[A-Z][\w'.-]{0,40}\s){1,4}$"
)
"""Matches the end of a text if a quotation, citation or address has begun there."""


def last_closable(
    before: TextFacts, upstream_pieces: Sequence[Segment], pieces: Sequence[Segment], count: int, edits: Followed
) -> int:
    """The last of the first `count` segments of the open rest before which it can be closed; 0 if there is none.

    `upstream_pieces` are the segments as the upstream wrote them, `pieces` those of the folded text.
    """
    covered = {number for edit in edits for number in range(edit.first, edit.last)}
    fresh = set(Outline(upstream_pieces).fresh) if before.read(has_outline) else None
    outside = outside_pairs(before.text, pieces)
    for number in range(min(count, len(pieces)) - 1, 0, -1):
        # the loop goes backwards, so all further segments are even nearer to the beginning
        if pieces[number].start < LEAST_CHARS:
            return 0
        if (
            number not in covered
            and outside[number]
            and (number in fresh if fresh is not None else _stands_apart(before, pieces, number))
        ):
            return number
    return 0


def _stands_apart(before: TextFacts, pieces: Sequence[Segment], number: int) -> bool:
    """Whether no fact within a sentence can extend across the start of this segment."""
    if "\n" in pieces[number - 1].gap:
        return True
    start = pieces[number].start
    line = before.text.rfind("\n", 0, start) + 1
    # an odd number of backticks before it in its line: a code span is open
    in_code = before.text.count("`", line, start) % 2
    is_open = in_code or _OPEN.search(before.text, max(line, start - _NEAR_CHARS), start)
    return not is_open and _PLAIN_BEGINNING.match(pieces[number].text) is not None


def can_close(candidate: Candidate, rules: Mapping[str, Rule]) -> bool:
    """Whether the gate need not read the beginning of a growing answer again.

    No rule about lost content objects to it, it ends with a line, and it has the same list items and table rows as the
    original's beginning.
    """
    if any(name in KEEPS and rule(candidate) for name, rule in rules.items()):
        return False
    if not candidate.before.read(has_outline):
        return True
    # otherwise the open rest would continue a line of the closed text, which has lists or tables
    if not candidate.after.text.endswith("\n"):
        return False
    removed = candidate.removed_segments
    before = candidate.before
    after = candidate.after
    return all(
        remaining_signs(before.in_rest(signs), removed) == remaining_signs(after.in_rest(signs))
        for signs in SIGNS_OF_ITEMS
    )


def moved_edit(edit: Edit, closed: ClosedAnswer, direction: int) -> Edit:
    """Translate the positions of an edit from the whole answer to the open rest (-1), or back (1)."""
    chars = direction * closed.chars
    count = direction * len(closed.pieces)
    return replace(
        edit, start=edit.start + chars, end=edit.end + chars, first=edit.first + count, last=edit.last + count
    )


def moved_parts(parts: Sequence[Part], by: int) -> tuple[Part, ...]:
    """The same parts with their segment numbers shifted."""
    return tuple(replace(part, index=part.index + by) for part in parts)
