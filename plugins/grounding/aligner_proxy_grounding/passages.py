"""Reader of a reference's passages: sentences, list items, cells of tables and front matter, each with its context.

The text is read as Markdown. A heading is context of everything below it, a line that ends in a colon of the list after
it, the column's heading and the row's first cell of each cell.
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
# A number without a unit, as in the cells of tables; the words before it say that it is a limit: "up to 5".
_BARE_NUMBER = re.compile(
    r"(?P<bound>(?:up to|at (?:most|least)|max\.?|min\.?|from|over|under|more than|fewer than|less than|bis(?: zu)?|ab|"
    r"h\u00f6chstens|mindestens|jusqu'\u00e0|hasta|desde) )?(?:\d{1,7}(?:[.,]\d{1,2})?|\d{1,3}(?:[,.]\d{3})+)",
    re.IGNORECASE,
)
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
_PLURAL_NOUN = re.compile(r"(?:[^\W\d_]+ )?[^\W\d_]{2,}[^\W\d_s]s\b(?!')")
"""The beginning of a heading that names what is counted: "Projects", "API requests per minute"."""
_CURRENCY_OF_COLUMN = re.compile(
    r"(?:\(|\bin |, )(EUR|USD|GBP|CHF|PLN|INR|SEK|NOK|DKK|euros?|pounds|dollars|francs|rupees|kroner|kronor|"
    r"[\u20ac\u00a3$])(?=[),.;]|$)",
    re.IGNORECASE,
)
"""A currency that a column heading names for the numbers below it."""
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
"""How much a word counts if it is in the fact's clause."""
SAME_SENTENCE = 0.55
"""How much a word counts if it is elsewhere in the fact's sentence."""
ABOVE = 0.5
"""How much a word counts if it is in a heading above the fact."""
TITLE = 0.15
"""How much a word counts if it is in the page's title, which is above everything."""
_TITLE_LEVEL = 1
_Context = Sequence[tuple[str, float]]
"""(text, how much its words count) pairs."""


@dataclass(frozen=True, slots=True)
class PagePassage:
    """A sentence of a page, or a cell of a table, with its place and its context."""

    text: str
    line: int
    """Number of the line in which it begins, from 1."""
    context: tuple[tuple[str, float], ...] = ()
    """(text, how much its words count): headings and other texts that say what the passage is about, nearest first."""
    paragraph: int = 0
    """Number of the line in which its paragraph, item or row begins."""
    is_cell: bool = False
    further_lines: tuple[tuple[int, int], ...] = ()
    """(position in `text`, number of the line) for each further line that begins in it."""

    def line_at(self, position: int) -> int:
        """The number of the line that contains a position of `text`."""
        return next((line for start, line in reversed(self.further_lines) if start <= position), self.line)


def _with_unit(cell: str, column: str, context: _Context, currency: str) -> str:
    """Return the text of a table's cell; to a bare number, add the unit that its column or a heading above names.

    If no heading names a unit, the number counts what the row's label or the column's heading names: in the column
    "Plus", "Users | 5" is read as "5 Users", and so is "Plus | 5" in the column "Users". "12" in the column "Room" is
    "Room 12".

    `column` is the column's heading. The context has (text, weight) pairs: the row's label, the column's heading, and
    the headings above. `currency` is that of the whole page ("" for none), which is used in tables of prices.
    """
    labels = " ".join(text for text, _ in context[:2])
    if _BARE_HOURS.fullmatch(cell) and _DAYS_OR_HOURS.search(labels):
        return f"hours {cell}"
    number = _BARE_NUMBER.fullmatch(cell)
    if number is None:
        return cell
    unit = _UNIT_OF_COLUMN.search(column)
    if unit:
        return f"{cell} {unit.group(1)}"
    headings = [column] if _CURRENCY_OF_COLUMN.search(column) else [text for text, _ in context[2:]]
    currencies = {match.group(1).lower() for text in headings for match in _CURRENCY_OF_COLUMN.finditer(text)}
    if not currencies and currency and _COST in {word for text, _ in context for word in words(text)}:
        currencies = {currency}
    if currencies:
        # with several currencies in the headings, it is unknown which of them applies
        return f"{cell} {currencies.pop()}" if len(currencies) == 1 else cell
    if names_place(column) and not number["bound"]:
        return f"{column} {cell}"
    first_label, _ = context[0]
    things = _name_things(_NUMBER_OF.sub("", first_label), _NUMBER_OF.sub("", column))
    return f"{cell} {things}".rstrip()


def _name_things(row: str, column: str) -> str:
    """Return what a bare number in a table counts: the label of its row, the heading of its column, or both."""
    # "Users" is counted, and "Plus" is the name of a plan; both look like what is counted, so the number counts both
    if _PLURAL_NOUN.match(column):
        return f"{row} {column}" if _PLURAL_NOUN.match(row) else column
    if _PLURAL_NOUN.match(row) or not column:
        return row
    # neither has the ending of a plural, as in German ("Italienisch A2", "Pl\u00e4tze"); the first words count
    return f"{column.split()[-1]} {row}"


def read_passages(text: str) -> Iterator[PagePassage]:
    """Iterate over the sentences and cells of a page, in text order."""
    currency = CURRENCY_OF_PAGE.search(text)
    reader = _PageReader(currency.group(1).lower() if currency else "")
    front_matter = _FRONT_MATTER.match(text)
    front_line_count = front_matter.group().count("\n") + 1 if front_matter else 0
    for number, line in enumerate(text.split("\n"), 1):
        if number <= front_line_count:
            yield from reader.read_front_line(number, line)
        else:
            yield from reader.read_line(number, line)
    yield from reader.end_paragraph()


class _PageReader:
    """Line-by-line reader of a page, which remembers headings, lists and the table around the current line.

    Its methods yield the passages that a line completes: sentences, cells and headings.
    """

    def __init__(self, currency: str) -> None:
        self._currency = currency
        """The currency that the page names for all its amounts; "" for none."""
        self._headings: dict[int, str] = {}
        """The headings above the current line, by level: 1 is the title."""
        self._paragraph: list[tuple[int, str]] = []
        """(number, text) of the lines of the paragraph or item that has not ended yet."""
        self._list_introduction = ""
        """The last line that ended in a colon; it is context of the list after it."""
        self._parent_items: list[tuple[int, str]] = []
        """(indent, text) of the list items that may contain the next item, with growing indents."""
        self._indent: int | None = None
        """Spaces before the current list item; None outside of items."""
        self._column_headings: list[str] | None = None
        """Headings of the columns of the current table; None outside of tables."""
        self._in_code = False

    def read_front_line(self, number: int, line: str) -> Iterator[PagePassage]:
        """Read a line "key: value" of front matter; yield it as a passage, but treat the title as a heading."""
        entry = _FRONT_LINE.fullmatch(line)
        if entry is None:
            return
        key = entry.group(1).replace("_", " ")
        value = entry.group(2).strip("\"' ")
        if key.lower() == "title":
            yield from self._read_heading(number, _TITLE_LEVEL, value)
        else:
            self._paragraph = [(number, f"{key}: {value}")]
            yield from self.end_paragraph()

    def read_line(self, number: int, line: str) -> Iterator[PagePassage]:
        """Read the line with this number; yield the passages that it completes."""
        if _FENCE.match(line):
            yield from self.end_paragraph()
            self._in_code = not self._in_code
            return
        if self._in_code:
            return
        # quotations are read like other text
        yield from self._read_text_line(number, line.removeprefix("> "))

    def _read_text_line(self, number: int, line: str) -> Iterator[PagePassage]:
        """Read a line outside of code: a table row, heading, list item, or part of a paragraph."""
        row = _ROW.match(line)
        heading = _HEADING.match(line)
        item = _ITEM.match(line)
        if row is None:
            self._column_headings = None
        if row or heading or item or not line.strip():
            yield from self.end_paragraph()
        if row:
            yield from self._read_row(number, row.group(1))
        elif heading:
            yield from self._read_heading(number, len(heading.group(1)), heading.group(2))
        # inside a paragraph a bold line is only emphasis
        elif not self._paragraph and (bold := _BOLD_LINE.fullmatch(line.strip())):
            yield from self._read_heading(number, _BOLD_LEVEL, bold.group(1))
        elif item:
            self._begin_item(number, len(item.group(1)), item.group(2))
        elif line.strip():
            self._paragraph.append((number, line.strip()))

    def _read_heading(self, number: int, level: int, text: str) -> Iterator[PagePassage]:
        """Yield a heading as a passage; it replaces the headings of its level and below, and ends lists."""
        self._headings = {
            other_level: heading for other_level, heading in self._headings.items() if other_level < level
        }
        yield PagePassage(text, number, self._headings_above())
        self._headings[level] = text
        self._list_introduction = ""
        self._parent_items = []

    def _headings_above(self) -> tuple[tuple[str, float], ...]:
        """(heading, how much its words count) for the headings above the current line, nearest first."""
        # the nearest heading has the highest level
        headings = sorted(self._headings.items(), reverse=True)
        return tuple((heading, TITLE if level == _TITLE_LEVEL else ABOVE) for level, heading in headings)

    def _read_row(self, number: int, row: str) -> Iterator[PagePassage]:
        """Yield the cells of a table row, each with its column's heading and the row's first cell as context."""
        cells = [cell.strip() for cell in row.split("|")]
        # the line of dashes below the column headings
        if _RULE.fullmatch(row):
            return
        # the first row of a table names its columns
        if self._column_headings is None:
            self._column_headings = cells
            return
        row_label = cells[0]
        for index, cell in enumerate(cells):
            column = self._column_headings[index] if index < len(self._column_headings) else ""
            context = [(column, SAME_CLAUSE), *self._headings_above()]
            if index > 0:
                context.insert(0, (row_label, SAME_CLAUSE))
            text = _with_unit(cell, column, context, self._currency)
            yield PagePassage(text, number, tuple(context), paragraph=number, is_cell=True)

    def _begin_item(self, number: int, indent: int, text: str) -> None:
        """Begin a list item; only items with a smaller indent can contain it."""
        self._parent_items = [
            (parent_indent, parent) for parent_indent, parent in self._parent_items if parent_indent < indent
        ]
        self._indent = indent
        self._paragraph = [(number, text)]

    def end_paragraph(self) -> Iterator[PagePassage]:
        """End the current paragraph or item: yield its sentences, and remember what is context of the next item."""
        lines = self._paragraph
        indent = self._indent
        self._paragraph = []
        self._indent = None
        if not lines:
            return
        context = list(self._headings_above())
        if indent is not None:
            context += [(parent, ABOVE) for _, parent in self._parent_items]
            context.append((self._list_introduction, ABOVE))
        yield from _split_paragraph(lines, context)
        text = " ".join(line for _, line in lines).rstrip()
        if indent is not None:
            self._parent_items.append((indent, text))
        elif text.endswith(":"):
            # only the last sentence introduces the list
            sentences = split(text)
            self._list_introduction = sentences[-1].text if sentences else text
        else:
            self._list_introduction = ""


def _split_paragraph(lines: Sequence[tuple[int, str]], context: _Context) -> Iterator[PagePassage]:
    """Yield the sentences of a paragraph or list item as passages, each with its context.

    `lines` are (number, text) of its lines. To the context of each sentence are added the bold words with which the
    paragraph begins, the first sentence, and the sentence before.
    """
    line_starts: list[tuple[int, int]] = []
    text = ""
    for number, line in lines:
        line_starts.append((len(text), number))
        text += line + " "
    first_line, _ = lines[0]
    sentences = split(text.rstrip())
    first_text = sentences[0].text if sentences else ""
    lead_in = _LEAD_IN.match(first_text)
    for index, sentence in enumerate(sentences):
        # the sentence begins in the last line that begins at or before it
        number = next(number for start, number in reversed(line_starts) if start <= sentence.start)
        # the sentence before and the first sentence of the paragraph say less than a heading
        sentence_context = [*context]
        if index > 0:
            sentence_context.append((sentences[index - 1].text, ABOVE / 2))
        if index > 1:
            sentence_context.append((first_text, ABOVE / 2))
        if lead_in and index > 0:
            sentence_context.append((lead_in.group(1), ABOVE))
        further_lines = tuple(
            (start - sentence.start, number) for start, number in line_starts if sentence.start < start < sentence.end
        )
        yield PagePassage(
            sentence.text, number, tuple(sentence_context), paragraph=first_line, further_lines=further_lines
        )
