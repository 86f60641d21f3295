"""Lines of a growing answer that are held back until the next text comes, because they may be removed with it.

A heading, the head of a table or a line that announces a list is removed if nothing of the text below it stays. A line
of text turns out to be a heading if an underline (a line of dashes or equals signs) follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from aligner_proxy.text.lists.frames import opens_frame
from aligner_proxy.text.lists.headings import is_run_in_title
from aligner_proxy.text.lists.lines import UNDERLINE, OutlineLine, find_line_start, make_line, stands_alone
from aligner_proxy.text.lists.ordinals import is_inline_number
from aligner_proxy.text.structure import Segment

_UNDERLINE_BEGINNING = re.compile(r"[ \t]*(?:(?:=+|-{2,})[ \t]*(?:\n|\Z)|-\Z)")
"""Matches an underline at the beginning of a text, or what may become an underline where the text ends."""
_DEFINITION_BEGINNING = re.compile(r"[ \t]*(?::(?:[ \t]|\Z)|<(?:d?\Z|dd\b))", re.IGNORECASE)
"""Matches the beginning of a line that explains the term above it, or what may become one where the text ends."""


def is_underline(pieces: Sequence[Segment], index: int) -> bool:
    """Whether segment `index` is an underline, which makes the line above it a heading."""
    if index == 0 or pieces[index - 1].gap.count("\n") != 1 or not UNDERLINE.fullmatch(pieces[index].text):
        return False
    return _line_up_to(pieces, index - 1).is_plain


def is_table_rule(pieces: Sequence[Segment], index: int) -> bool:
    """Whether segment `index` is the rule below the first row of a table ("|---|")."""
    if index == 0 or pieces[index - 1].gap.count("\n") != 1 or "|" not in pieces[index].text:
        return False
    return _line_up_to(pieces, index).is_rule and _line_up_to(pieces, index - 1).has_bar


def may_be_underlined(pieces: Sequence[Segment], index: int, following: str) -> bool:
    """Whether segment `index` ends a line that an underline makes a heading, or may make one.

    `following` is the text behind the segment as far as it has come.
    """
    if pieces[index].gap.count("\n") != 1 or not _UNDERLINE_BEGINNING.match(following):
        return False
    line = _line_up_to(pieces, index)
    return line.is_plain and replace(line, level=1).is_heading


def depends_on_next(pieces: Sequence[Segment], index: int, following: str = "") -> bool:
    """Whether the unflagged segment `index` may have to be removed together with the segments after it.

    This holds for a lone marker, a heading, a line that ends in a colon, a term before its definition, and the head of
    a table, which is a row without a row before it, and the rule below it. `following` is the text behind the segment
    as far as it has come.
    """
    segment = pieces[index]
    if is_inline_number(pieces, index):
        return True
    begins_line = index == 0 or "\n" in pieces[index - 1].gap
    ends_line = "\n" in segment.gap
    # the lines named above are removed only with their first or last segment
    if not segment.text.strip() or not (begins_line or ends_line):
        return False
    line = _line_up_to(pieces, index)
    is_term = segment.gap.count("\n") == 1 and not line.is_definition and _DEFINITION_BEGINNING.match(following)
    if is_term or is_underline(pieces, index) or may_be_underlined(pieces, index, following):
        return True
    heads_next = line.announces or line.is_heading or line.is_title or (begins_line and opens_frame(segment.text))
    if heads_next or _may_be_title(pieces, line, segment):
        return True
    if not (line.is_row or (line.has_bar and ends_line)):
        return False
    index_before = line.segments.start - 1
    if index_before < 0 or line.is_rule:
        return True
    return not _line_up_to(pieces, index_before).has_bar


def _may_be_title(pieces: Sequence[Segment], line: OutlineLine, segment: Segment) -> bool:
    """Whether a line, of which `segment` is the last known one, may be only a marker, or the title of the text below.

    An item can be such a title only if the item before it has text below it, too.
    """
    is_first = len(line.segments) == 1
    if is_first and is_run_in_title(segment.text, line.content_start):
        return True
    if line.mark is None:
        return False
    if is_first and stands_alone(line.mark, segment):
        return True
    index_before = line.segments.start - 1
    if "\n" not in segment.gap or index_before < 0 or not line.is_short:
        return False
    line_above = _line_up_to(pieces, index_before)
    return line_above.mark is None or line_above.indent > line.indent


def _line_up_to(pieces: Sequence[Segment], index: int) -> OutlineLine:
    """The line that contains segment `index`, up to the end of that segment."""
    segments = range(find_line_start(pieces, index), index + 1)
    return make_line(pieces, segments, follows_blank_line=False)
