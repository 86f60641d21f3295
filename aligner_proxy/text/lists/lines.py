"""Lines of an answer: headings, items, rows of tables and text, each with its segments."""

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
from aligner_proxy.text.sentence_ends import MARKS
from aligner_proxy.text.structure import FENCES, Segment

UNDERLINE = re.compile(r"[ \t]*(?:(?P<first>=+)|-{2,})[ \t]*")
_SENTENCE_END = re.compile(rf"[{MARKS}][\"'\u201d\u2019)\]*_]*$")
_DEFINITION = re.compile(r"[ \t]*(?::[ \t]+\S|<dd\b)", re.IGNORECASE)
"""Matches the beginning of a line that explains the term in the line above it."""
SIGNS = "*_ \t"
"""Emphasis and white space, which are no content."""
STROKE = re.compile(r"(?<!\\)\|")
"""Matches a bar that divides cells."""
_RULE_OF_TABLE = re.compile(r"[ \t>]*\|?[ \t:|-]*-[ \t:|-]*")
_LONGEST_TITLE = 8
"""Most words of an item that is the title of the text below it."""
CONTENT = re.compile(r"[^\W_]")
"""Matches a character that says something."""


@dataclass(frozen=True, slots=True)
class OutlineLine:
    """A line: its segments, and its kind."""

    segments: range
    text: str
    """The text up to the end of its last segment."""
    indent: int
    level: int
    """Level of a heading, `TITLE_LEVEL` for a title in emphasis, 0 for other lines."""
    mark: Mark | None
    follows_blank_line: bool
    """Whether an empty line precedes it."""
    is_open_row: bool = False
    """Whether it is a row without a bar at its beginning."""

    @property
    def is_row(self) -> bool:
        return self.is_open_row or self.text.lstrip(" \t>").startswith("|")

    @property
    def has_bar(self) -> bool:
        """Whether it may be the row of a table."""
        return not self.text.lstrip().startswith(FENCES) and STROKE.search(self.text) is not None

    @property
    def is_rule(self) -> bool:
        """Whether it has the form of the rule below the head of a table."""
        return _RULE_OF_TABLE.fullmatch(self.text) is not None

    @property
    def is_quoted(self) -> bool:
        return self.text.lstrip().startswith(">")

    @property
    def has_colon(self) -> bool:
        """Whether it ends in a colon."""
        return self.text.rstrip(SIGNS).endswith((":", "\uff1a"))

    @property
    def announces(self) -> bool:
        """Whether it is no heading and ends in a colon."""
        return not self.level and self.has_colon

    @property
    def content_start(self) -> int:
        """Where its words begin, behind its mark."""
        return self.mark.stop if self.mark is not None else 0

    @property
    def is_short(self) -> bool:
        """Whether it may be a title: a few words without an end mark, or a question."""
        words = self.text[self.content_start :].rstrip(SIGNS)
        is_open = words.endswith("?") or not _SENTENCE_END.search(words)
        return is_open and len(words.split()) <= _LONGEST_TITLE

    @property
    def is_plain(self) -> bool:
        """Whether it is a line of text, which a line of dashes or equals signs right below it makes a heading."""
        return self.mark is None and not self.level and not self.is_row and CONTENT.search(self.text) is not None

    @property
    def is_heading(self) -> bool:
        """Whether it only heads what follows. The title of an item counts as content and so is no heading."""
        if not self.level or (self.mark is not None and self.level == TITLE_LEVEL):
            return False
        # a sentence in emphasis may say all there is to say, but a question asks for what follows
        text = self.text.rstrip(SIGNS)
        return self.level != TITLE_LEVEL or text.endswith("?") or not _SENTENCE_END.search(text)

    @property
    def is_title(self) -> bool:
        """Whether it is a title without emphasis: a word with a number, or the first line of a note."""
        is_text = self.mark is None and not self.level
        return is_text and (bool(read_title_word(self.text)) or is_admonition(self.text))

    @property
    def is_definition(self) -> bool:
        """Whether it explains the term in the line above it."""
        return not self.follows_blank_line and _DEFINITION.match(self.text) is not None


def read_lines(pieces: Sequence[Segment], *, in_table: bool = False) -> Iterator[OutlineLine]:
    """Yield the lines; those of a table whose rows begin without a bar are marked as rows."""
    lines = list(_outline_lines(pieces))
    for number, line in enumerate(lines):
        if line.has_bar and not line.is_row:
            below = lines[number + 1 : number + 2]
            is_head = bool(below) and below[0].is_rule and below[0].has_bar and not below[0].follows_blank_line
            goes_on = in_table and not (number and line.follows_blank_line)
            if is_head or goes_on:
                line = replace(line, is_open_row=True, mark=None, level=0)
        in_table = line.is_row
        yield line


def _outline_lines(pieces: Sequence[Segment]) -> Iterator[OutlineLine]:
    """Yield the lines; a code block counts as one, and so do the empty lines at the start of a text."""
    start = 0
    gap = ""
    for i, piece in enumerate(pieces):
        if "\n" in piece.gap or i == len(pieces) - 1 or not piece.text.strip():
            yield make_line(pieces, range(start, i + 1), apart=gap.count("\n") > 1)
            start = i + 1
            gap = piece.gap if piece.text.strip() else piece.text + piece.gap


def make_line(pieces: Sequence[Segment], segments: range, *, apart: bool) -> OutlineLine:
    """The line of these segments; `apart`: an empty line precedes it."""
    text = "".join(pieces[i].text + pieces[i].gap for i in segments).rstrip()
    # code blocks and table rows have no markers
    mark = marks.read(text) if segments and not text.lstrip().startswith((*FENCES, "|")) else None
    # "**Q:" is no letter of a list
    mark = None if mark is not None and mark.style[1] == ":" and is_question(text) else mark
    lead = text[: len(text) - len(text.lstrip(" \t>"))]
    return OutlineLine(segments, text, marks.indent_of(lead), read_heading_level(text, mark), mark, apart)


def join_underlined(lines: Iterable[OutlineLine]) -> Iterator[OutlineLine]:
    """Yield the lines; a line of text and the dashes or equals signs right below it are one line, a heading."""
    title: OutlineLine | None = None
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


def find_line_start(pieces: Sequence[Segment], number: int) -> int:
    """The first segment of the line that contains segment `number`."""
    start = number
    while start > 0 and "\n" not in pieces[start - 1].gap and pieces[start - 1].text.strip():
        start -= 1
    return start


def stands_alone(mark: Mark, piece: Segment) -> bool:
    """Whether a segment that begins with a marker has nothing after it."""
    return not piece.text[mark.stop :].strip(SIGNS)
