"""Lines of a growing answer that wait for what follows, because they may have to go together with it.

A heading, the head of a table or a line that announces a list goes if nothing of what follows stays. A line of text may
turn out to be a heading, when an underline comes.
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
"""Matches an underline at the beginning of a text, or what may become one where the text ends."""

_DEFINITION_BEGINNING = re.compile(r"[ \t]*(?::(?:[ \t]|\Z)|<(?:d?\Z|dd\b))", re.IGNORECASE)
"""Matches a line that explains the term in the line above it, or what may become one where the text ends."""


def is_underline(pieces: Sequence[Segment], number: int) -> bool:
    """Whether a segment is the line of dashes or equals signs that makes the line above it a heading."""
    if not number or pieces[number - 1].gap.count("\n") != 1 or not UNDERLINE.fullmatch(pieces[number].text):
        return False
    return _line_up_to(pieces, number - 1).is_plain


def may_be_underlined(pieces: Sequence[Segment], number: int, following: str) -> bool:
    """Whether a segment ends a line that an underline makes a heading, as far as the text `following` it is known."""
    if pieces[number].gap.count("\n") != 1 or not _UNDERLINE_BEGINNING.match(following):
        return False
    line = _line_up_to(pieces, number)
    return line.is_plain and replace(line, level=1).is_heading


def depends_on_next(pieces: Sequence[Segment], number: int, following: str = "") -> bool:
    """Whether the unflagged segment `number` may have to be removed together with the segments after it.

    This holds for a lone marker, a heading, a line that ends in a colon, a term before its definition, and the head of
    a table: a row without a row before it, and the rule below it. `following` is what is known of the text after the
    segment.
    """
    piece = pieces[number]
    # a segment in the middle of its line neither begins nor ends one of these
    begins = number == 0 or "\n" in pieces[number - 1].gap
    if is_inline_number(pieces, number):
        return True
    if not piece.text.strip() or not (begins or "\n" in piece.gap):
        return False
    line = _line_up_to(pieces, number)
    is_term = piece.gap.count("\n") == 1 and not line.is_definition and _DEFINITION_BEGINNING.match(following)
    if is_term or is_underline(pieces, number) or may_be_underlined(pieces, number, following):
        return True
    heads = line.announces or line.is_heading or line.is_title or (begins and opens_frame(piece.text))
    if heads or _may_be_title(pieces, line, piece):
        return True
    if not (line.is_row or (line.has_bar and "\n" in piece.gap)):
        return False
    last = line.segments.start - 1
    if last < 0 or line.is_rule:
        return True
    return not _line_up_to(pieces, last).has_bar


def _may_be_title(pieces: Sequence[Segment], line: OutlineLine, piece: Segment) -> bool:
    """Whether a line, known up to a segment, may be only a mark or the title of what follows.

    The title of the text below it is an item only if the item before it had some.
    """
    is_first = len(line.segments) == 1
    if is_first and is_run_in_title(piece.text, line.content_start):
        return True
    if line.mark is None or (is_first and stands_alone(line.mark, piece)):
        return line.mark is not None
    last = line.segments.start - 1
    if "\n" not in piece.gap or last < 0 or not line.is_short:
        return False
    above = _line_up_to(pieces, last)
    return above.mark is None or above.indent > line.indent


def _line_up_to(pieces: Sequence[Segment], number: int) -> OutlineLine:
    """The line that contains segment `number`, up to the end of that segment."""
    return make_line(pieces, range(find_line_start(pieces, number), number + 1), apart=False)
