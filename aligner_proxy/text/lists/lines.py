"""Lines of an answer: headings, list items, rows of tables and text, each with the indexes of its segments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.headings import (
    TITLE_LEVEL,
    is_admonition,
    is_question,
    read_heading_level,
    read_title_word,
)
from aligner_proxy.text.lists.marks import Mark
from aligner_proxy.text.sentence_ends import MARKS, PICTURES_BEHIND
from aligner_proxy.text.structure import FENCES, Segment

UNDERLINE = re.compile(r"[ \t]*(?:(?P<first>=+)|-{2,})[ \t]*")
_SENTENCE_END = re.compile(rf"[{MARKS}][\"'\u201c\u201d\u2018\u2019\u00ab\u00bb)\]*_]*{PICTURES_BEHIND}$")
_DEFINITION = re.compile(r"[ \t]*(?::[ \t]+\S|<dd\b)", re.IGNORECASE)
"""Matches the beginning of a line that explains the term in the line above it."""
SIGNS = "*_ \t"
"""Emphasis and white space, which are no content."""
STROKE = re.compile(r"(?<!\\)\|")
"""Matches a bar that divides cells."""
_UNITS = (
    r"[$\u20ac\u00a3%]|eur|euros?|usd|chf|gbp|kcal|kj|mg|kg|g|ml|cl|l|cm|mm|km|m|h|hrs?|hours?|min|minutes|s|days?|"
    r"am|pm|uhr"
)
_NUMBER = r"[~+<>-]?[$\u20ac\u00a3]?[ \u00a0]?\d[\d.,:']*[ \u00a0]?"
AMOUNT = re.compile(rf"{_NUMBER}(?:{_UNITS})?", re.IGNORECASE)
"""Matches a cell with nothing but an amount or a time, which is no name."""
BARE_VALUE = re.compile(
    rf"{_NUMBER}(?:{_UNITS}|weeks?|months?|years?|nights?|[kmgt]b|[kmg]bit/s|k?wh?|px|pages?|pieces?|users?|seats?)?"
    r"(?: (?:charge|fee|each|extra|(?:a|per) \w+))?"
    r"|yes|no|none|free|included|unlimited|on request|n/?a|ja|nein|kostenlos|auf anfrage|oui|non|gratuit|gratis",
    re.IGNORECASE,
)
"""Matches a cell with nothing but an amount, a time or a word such as "free", which says nothing by itself."""
_TABLE_RULE = re.compile(r"[ \t>]*\|?[ \t:|-]*-[ \t:|-]*")
_MAX_TITLE_WORDS = 8
"""Most words of an item that is the title of the text below it."""
CONTENT = re.compile(r"[^\W_]")
"""Matches a character that says something."""


@dataclass(frozen=True, slots=True)
class OutlineLine:
    """One line of an answer."""

    segments: range
    """Indexes of the line's segments."""
    text: str
    """The text of the line, without white space at its end."""
    indent: int
    """Columns of white space before the words or the marker; a quotation sign counts as one."""
    level: int
    """Level of a heading (headings.py), `TITLE_LEVEL` for a title in emphasis, 0 for other lines."""
    mark: Mark | None
    """The list marker with which the line begins; None if there is none."""
    follows_blank_line: bool
    """Whether an empty line precedes the line."""
    is_open_row: bool = False
    """Whether the line is the row of a table without a bar at its beginning."""

    @property
    def is_row(self) -> bool:
        """Whether the line is the row of a table."""
        return self.is_open_row or self.text.lstrip(" \t>").startswith("|")

    @property
    def has_bar(self) -> bool:
        """Whether the line has a bar, so that it may be the row of a table."""
        return not self.text.lstrip().startswith(FENCES) and STROKE.search(self.text) is not None

    @property
    def is_rule(self) -> bool:
        """Whether the line looks like the rule below the head of a table ("|---|")."""
        return _TABLE_RULE.fullmatch(self.text) is not None

    @property
    def is_quoted(self) -> bool:
        """Whether the line belongs to a quotation in Markdown."""
        return self.text.lstrip().startswith(">")

    @property
    def has_colon(self) -> bool:
        """Whether the line ends in a colon, perhaps in emphasis."""
        return self.text.rstrip(SIGNS).endswith((":", "\uff1a"))

    @property
    def announces(self) -> bool:
        """Whether the line is no heading and ends in a colon, so that it announces what follows."""
        return not self.level and self.has_colon

    @property
    def content_start(self) -> int:
        """Offset in `text` at which the words begin, behind the marker."""
        return self.mark.stop if self.mark is not None else 0

    @property
    def is_short(self) -> bool:
        """Whether the line may be a title: a few words without an end mark, or a short question."""
        words = self.text[self.content_start :].rstrip(SIGNS)
        may_be_title = words.endswith("?") or not _SENTENCE_END.search(words)
        return may_be_title and len(words.split()) <= _MAX_TITLE_WORDS

    @property
    def is_plain(self) -> bool:
        """Whether the line is text: no item, heading or row. A line of dashes right below would make it a heading."""
        return self.mark is None and not self.level and not self.is_row and CONTENT.search(self.text) is not None

    @property
    def is_heading(self) -> bool:
        """Whether the line only heads what follows. A list item in emphasis does not count, since it has content."""
        if not self.level or (self.mark is not None and self.level == TITLE_LEVEL):
            return False
        # a sentence in emphasis may be complete by itself, but a question needs the answer that follows
        text = self.text.rstrip(SIGNS)
        return self.level != TITLE_LEVEL or text.endswith("?") or not _SENTENCE_END.search(text)

    @property
    def is_title(self) -> bool:
        """Whether the line is a title without emphasis: a word with a number ("Day 2"), or the first line of a note."""
        is_text = self.mark is None and not self.level
        return is_text and (bool(read_title_word(self.text)) or is_admonition(self.text))

    @property
    def is_definition(self) -> bool:
        """Whether the line explains the term in the line above it."""
        return not self.follows_blank_line and _DEFINITION.match(self.text) is not None


def read_lines(pieces: Sequence[Segment], *, in_table: bool = False) -> Iterator[OutlineLine]:
    """Yield the lines of an answer with the segments `pieces`.

    `in_table` says whether the answer begins within a table, that is, whether its first line may be a further row. A
    line with a bar inside a table becomes an "open" row, even if it does not begin with a bar.
    """
    lines = list(_outline_lines(pieces))
    for index, line in enumerate(lines):
        if line.has_bar and not line.is_row:
            line_below = lines[index + 1] if index + 1 < len(lines) else None
            is_head = (
                line_below is not None
                and line_below.is_rule
                and line_below.has_bar
                and not line_below.follows_blank_line
            )
            continues_table = in_table and not (index and line.follows_blank_line)
            if is_head or continues_table:
                line = replace(line, is_open_row=True, mark=None, level=0)
        in_table = line.is_row
        yield line


def _outline_lines(pieces: Sequence[Segment]) -> Iterator[OutlineLine]:
    """Yield the lines; a code block counts as one line, and so do the empty lines at the beginning of the text."""
    start = 0
    gap = ""  # the white space before the present line
    for index, segment in enumerate(pieces):
        is_blank = not segment.text.strip()
        if "\n" in segment.gap or index == len(pieces) - 1 or is_blank:
            yield make_line(pieces, range(start, index + 1), follows_blank_line=gap.count("\n") > 1)
            start = index + 1
            gap = segment.text + segment.gap if is_blank else segment.gap


def make_line(pieces: Sequence[Segment], segments: range, *, follows_blank_line: bool) -> OutlineLine:
    """The line that consists of these `segments` of `pieces`."""
    text = "".join(pieces[i].text + pieces[i].gap for i in segments).rstrip()
    # code blocks and table rows have no markers
    mark = marks.read(text) if segments and not text.lstrip().startswith((*FENCES, "|")) else None
    # "**Q:" is the label of a question, no letter of a list
    if mark is not None and mark.style[1] == ":" and is_question(text):
        mark = None
    space_before = text[: len(text) - len(text.lstrip(" \t>"))]
    return OutlineLine(
        segments=segments,
        text=text,
        indent=marks.indent_of(space_before),
        level=read_heading_level(text, mark),
        mark=mark,
        follows_blank_line=follows_blank_line,
    )


def join_underlined(lines: Iterable[OutlineLine]) -> Iterator[OutlineLine]:
    """Yield the lines, but a line of text and the dashes or equals signs right below it as one line, a heading."""
    title: OutlineLine | None = None  # the last line, if it is text that may be underlined
    for line in lines:
        underline = None if title is None or line.follows_blank_line else UNDERLINE.fullmatch(line.text)
        if title is not None and underline is not None:
            level = 1 if underline["first"] else 2
            segments = range(title.segments.start, line.segments.stop)
            yield replace(title, segments=segments, level=level)
            title = None
            continue
        if title is not None:
            yield title
        title = line if line.is_plain else None
        if title is None:
            yield line
    if title is not None:
        yield title


def find_line_start(pieces: Sequence[Segment], index: int) -> int:
    """The index of the first segment of the line that contains segment `index`."""
    start = index
    while start > 0 and "\n" not in pieces[start - 1].gap and pieces[start - 1].text.strip():
        start -= 1
    return start


def stands_alone(mark: Mark, segment: Segment) -> bool:
    """Whether a segment that begins with this marker has no words behind it."""
    return not segment.text[mark.stop :].strip(SIGNS)
