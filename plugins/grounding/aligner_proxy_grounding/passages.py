"""Reader of a page's lines: sentences, list items, cells of tables and front matter, each with what stands above it.

The text is read as Markdown. A heading counts as context for everything below it, a line that ends in a colon for the
list after it, the column's heading and the row's first cell for each cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aligner_proxy.text.structure import split
from aligner_proxy_grounding.forms.dates import DAYS
from aligner_proxy_grounding.forms.labels import names_place
from aligner_proxy_grounding.words import stem, words

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+\u2022]|\d{1,3}[.)]|[a-z][.)])\s+(.*)")
_ROW = re.compile(r"\s*\|(.*)\|\s*$")
_RULE = re.compile(r"[\s|:-]+")
# A number without a unit, as in the cells of tables.
_BARE = re.compile(r"\d{1,7}(?:[.,]\d{1,2})?|\d{1,3}(?:[,.]\d{3})+")
_BARE_HOURS = re.compile(r"\d{1,2} ?(?:to|till|until|[\u2013-]) ?\d{1,2}")
_DAYS_OR_HOURS = re.compile(
    rf"\b(?:{'|'.join(DAYS)}|mon|tues?|wed|thurs?|fri|sat|sun|hours|open|weekday|weekend)s?\b", re.I
)
_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n(?:(?!\1).*\n){1,80}?\1[ \t]*(?=\n|$)")
"""The lines of keys and values that begin a page, with the marks around them."""
_FRONT_LINE = re.compile(r"\s*([\w-]+)\s*[:=]\s*(.*)")
_NUMBER_OF = re.compile(r"(?:number|no\.|max\.?|maximum) (?:of )?", re.IGNORECASE)
_UNIT_OF_COLUMN = re.compile(
    r"(?:\(|\bin |^)((?:working |business )?(?:minutes|hours|days|weeks|months|years)|kg|km|%(?!\w))\)?$",
    re.IGNORECASE,
)
_THINGS = re.compile(r"(?:[^\W\d_]+ )?[^\W\d_]{2,}[^\W\d_s]s\b(?!')")
"""The beginning of a heading that names what is counted: "Projects", "API requests per minute"."""
_CURRENCY_OF_COLUMN = re.compile(
    r"(?:\(|\bin |, )(EUR|USD|GBP|CHF|PLN|INR|SEK|NOK|DKK|euros?|pounds|dollars|francs|rupees|kroner|kronor|"
    r"[\u20ac\u00a3$])(?=[),.;]|$)",
    re.IGNORECASE,
)
"""Units that a column heading names for the numbers below it."""
CURRENCY_OF_PAGE = re.compile(
    r"\b(?:prices?|amounts|fees|charges|rates|sums)\b[^.|\n]{0,40}?\b(?:in|are|NZ|US|Swiss|Canadian|Australian)\s"
    r"(?:[a-z ]{0,12}\s)?\(?(EUR|USD|GBP|CHF|PLN|INR|SEK|NOK|DKK|euros?|pounds|dollars|francs|rupees|kroner|kronor)\b",
    re.IGNORECASE,
)
"""Matches a sentence that names the currency of all amounts on the page."""
_COST = stem("cost")
_BOLD_LINE = re.compile(r"(?:\*\*|__)([^*_]{2,80}?)(?:\*\*|__):?")
_BOLD_LEVEL = 7
"""Heading level of a line in bold: below all others."""
_LEAD_IN = re.compile(r"(?:\*\*|__)([^*_]{2,80}?)[.:?!]?(?:\*\*|__)[.:]?(?=\s|$)")
"""Bold words at the start of a paragraph, which name its subject."""
_FENCE = re.compile(r"\s*(?:```|~~~)")
SAME_CLAUSE = 1.0
SAME_SENTENCE = 0.55
ABOVE = 0.5
"""How much a word counts if it is in the fact's clause, elsewhere in its sentence, or in a heading above it."""
TITLE = 0.15
"""The same for a word of the page's title, which is above everything."""
_TITLE_LEVEL = 1


@dataclass(frozen=True, slots=True)
class PagePassage:
    """A sentence of a page or a cell of a table; `above` is its context with weights, nearest first."""

    text: str
    line: int
    """Number of the line in which it begins, from 1."""
    above: tuple[tuple[str, float], ...] = ()
    paragraph: int = 0
    """Number of the line in which its paragraph, item or row begins."""
    is_cell: bool = False
    breaks: tuple[tuple[int, int], ...] = ()
    """(position in `text`, number of the line) for each further line that begins in it."""

    def line_at(self, place: int) -> int:
        """The number of the line that contains a position of `text`."""
        return next((line for start, line in reversed(self.breaks) if start <= place), self.line)


def _with_unit(cell: str, column: str, above: Sequence[tuple[str, float]], currency: str) -> str:
    """Return a cell; to a bare number add the unit of its column's heading, else that of headings above the table.

    Without any unit the number counts what the row's label or the column's heading names: in the column "Plus", "Users
    | 5" is read as "5 Users", and in the column "Users", "Plus | 5" is, too. "12" in the column "Room" is "Room 12".

    The first two entries of `above` are the row's label and the column's heading. `currency` is the currency named for
    the whole page ("" for none); it applies to tables of prices.
    """
    labels = " ".join(text for text, _ in above[:2])
    if _BARE_HOURS.fullmatch(cell) and _DAYS_OR_HOURS.search(labels):
        return f"hours {cell}"
    if not _BARE.fullmatch(cell):
        return cell
    unit = _UNIT_OF_COLUMN.search(column)
    if unit:
        return f"{cell} {unit.group(1)}"
    headings = [column] if _CURRENCY_OF_COLUMN.search(column) else [text for text, _ in above[2:]]
    units = {match.group(1).lower() for text in headings for match in _CURRENCY_OF_COLUMN.finditer(text)}
    if not units and currency and _COST in {word for text, _ in above for word in words(text)}:
        units = {currency}
    if units:
        # with several currencies in the headings it is open which one applies
        return f"{cell} {units.pop()}" if len(units) == 1 else cell
    if names_place(column):
        return f"{column} {cell}"
    return f"{cell} {_name_things(_NUMBER_OF.sub('', above[0][0]), _NUMBER_OF.sub('', column))}".rstrip()


def _name_things(row: str, column: str) -> str:
    """What a bare number in a table counts, by the label of its row and the heading of its column."""
    if not _THINGS.match(column):
        return row
    # "Plus" is the name of a plan here, and "Users" what is counted: it may be either, so the number counts both
    return f"{row} {column}" if _THINGS.match(row) else column


def read_passages(text: str) -> Iterator[PagePassage]:
    """The sentences and cells of a page with their context."""
    currency = CURRENCY_OF_PAGE.search(text)
    reader = _PageReader(currency.group(1).lower() if currency else "")
    front = _FRONT_MATTER.match(text)
    front_lines = front.group().count("\n") + 1 if front else 0
    for number, line in enumerate(text.split("\n"), 1):
        yield from reader.front_line(number, line) if number <= front_lines else reader.line(number, line)
    yield from reader.paragraph_ends()


class _PageReader:
    """Line-by-line reader of a page."""

    def __init__(self, currency: str) -> None:
        self._currency = currency
        """The currency that the page names for all its amounts; "" for none."""
        self._headings: dict[int, str] = {}
        """The headings above the current line, by level: 1 is the title."""
        self._paragraph: list[tuple[int, str]] = []
        """(number, text) of the lines of the paragraph or item that has not ended yet."""
        self._announced = ""
        """The last line that ended in a colon; it is context for the list after it."""
        self._parents: list[tuple[int, str]] = []
        """(indent, text) of the list items that may contain the next one, with growing indents."""
        self._indent: int | None = None
        """Spaces before the current list item; None outside of items."""
        self._head: list[str] | None = None
        """Headings of the columns of the current table; None outside of tables."""
        self._in_code = False

    def front_line(self, number: int, line: str) -> Iterator[PagePassage]:
        """Read a line of front matter, a key and its value; yields a passage, for a title the heading of the page."""
        entry = _FRONT_LINE.fullmatch(line)
        if entry is None:
            return
        key, value = entry.group(1).replace("_", " "), entry.group(2).strip("\"' ")
        if key.lower() == "title":
            yield from self._read_heading(number, _TITLE_LEVEL, value)
        else:
            self._paragraph = [(number, f"{key}: {value}")]
            yield from self.paragraph_ends()

    def line(self, number: int, line: str) -> Iterator[PagePassage]:
        """Read one line; yields the passages that it completes."""
        if _FENCE.match(line):
            yield from self.paragraph_ends()
            self._in_code = not self._in_code
            return
        if self._in_code:
            return
        # quotations are read like other text
        line = line.removeprefix("> ")
        yield from self._text_line(number, line)

    def _text_line(self, number: int, line: str) -> Iterator[PagePassage]:
        """Read a line outside of code: a table row, heading, list item, or part of a paragraph."""
        row = _ROW.match(line)
        heading = _HEADING.match(line)
        item = _ITEM.match(line)
        if row is None:
            self._head = None
        if row or heading or item or not line.strip():
            yield from self.paragraph_ends()
        if row:
            yield from self._read_row(number, row.group(1))
        elif heading:
            yield from self._read_heading(number, len(heading.group(1)), heading.group(2))
        # inside a paragraph a bold line is only emphasis
        elif not self._paragraph and (bold := _BOLD_LINE.fullmatch(line.strip())):
            yield from self._read_heading(number, _BOLD_LEVEL, bold.group(1))
        elif item:
            self._item(number, len(item.group(1)), item.group(2))
        elif line.strip():
            self._paragraph.append((number, line.strip()))

    def _read_heading(self, number: int, level: int, text: str) -> Iterator[PagePassage]:
        """Yield a heading as a passage; it replaces the headings of its level and below, and ends lists."""
        self._headings = {above: title for above, title in self._headings.items() if above < level}
        yield PagePassage(text, number, self._headings_above())
        self._headings[level] = text
        self._announced = ""
        self._parents = []

    def _headings_above(self) -> tuple[tuple[str, float], ...]:
        """(heading, how much its words count) for the headings above the current line, nearest first."""
        # the nearest heading has the highest level
        titles = sorted(self._headings.items(), reverse=True)
        return tuple((title, TITLE if level == _TITLE_LEVEL else ABOVE) for level, title in titles)

    def _read_row(self, number: int, row: str) -> Iterator[PagePassage]:
        """Yield the cells of a table row, each with its column's heading and the row's first cell as context."""
        cells = [cell.strip() for cell in row.split("|")]
        # the line of dashes below the column headings
        if _RULE.fullmatch(row):
            return
        # the first row of a table names its columns
        if self._head is None:
            self._head = cells
            return
        label = cells[0]
        for n, cell in enumerate(cells):
            column = self._head[n] if n < len(self._head) else ""
            above = [(column, SAME_CLAUSE), *self._headings_above()]
            if n:
                above.insert(0, (label, SAME_CLAUSE))
            yield PagePassage(
                _with_unit(cell, column, above, self._currency), number, tuple(above), number, is_cell=True
            )

    def _item(self, number: int, indent: int, text: str) -> None:
        """Start a list item; items with the same or a larger indent are no longer its parents."""
        self._parents = [(at, parent) for at, parent in self._parents if at < indent]
        self._indent = indent
        self._paragraph = [(number, text)]

    def paragraph_ends(self) -> Iterator[PagePassage]:
        """Yield the sentences of the paragraph or item that has ended, and reset the state."""
        lines = self._paragraph
        indent = self._indent
        self._paragraph = []
        self._indent = None
        if not lines:
            return
        is_item = indent is not None
        above = list(self._headings_above())
        if is_item:
            above += [(parent, ABOVE) for _, parent in self._parents]
            above.append((self._announced, ABOVE))
        starts: list[tuple[int, int]] = []
        joined = ""
        for number, line in lines:
            starts.append((len(joined), number))
            joined += line + " "
        pieces = split(joined.rstrip())
        first = pieces[0].text if pieces else ""
        lead = _LEAD_IN.match(first)
        for n, piece in enumerate(pieces):
            # that of the last line that begins at or before the sentence
            number = next(number for at, number in reversed(starts) if at <= piece.start)
            # the sentence before and the first one of the paragraph say less than a heading
            context = [(pieces[n - 1].text, ABOVE / 2)] if n else []
            context += [(first, ABOVE / 2)] if n > 1 else []
            context += [(lead.group(1), ABOVE)] if lead and n else []
            breaks = tuple((at - piece.start, line) for at, line in starts if piece.start < at < piece.end)
            yield PagePassage(piece.text, number, (*above, *context), lines[0][0], breaks=breaks)
        text = joined.rstrip()
        if is_item:
            self._parents.append((indent or 0, text))
        elif text.endswith(":"):
            # only the last sentence introduces the list
            self._announced = pieces[-1].text if pieces else text
        else:
            self._announced = ""
