"""Parser of references: splits one into statements, each with its fact, its line and the words it is about.

The text is read as Markdown. A heading counts as context for everything below it, a line that ends in a colon for the
list after it, the column's heading and the row's first cell for each cell. The work grows linearly with the text, which
is bounded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from aligner_proxy.text.structure import split
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.dates import DAYS
from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.forms.reading import PLAIN, Conventions
from aligner_proxy_grounding.procedures import Procedure, procedures
from aligner_proxy_grounding.words import GENERIC, stem, words

MOST_CHARS = 100_000
"""Limit for one reference. A longer one is not used at all, since its unread part might contradict the rest."""
_PAGES = 64
"""How many parsed references are cached, over all policies."""
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+\u2022]|\d{1,3}[.)]|[a-z][.)])\s+(.*)")
_ROW = re.compile(r"\s*\|(.*)\|\s*$")
_RULE = re.compile(r"[\s|:-]+")
_WORKDAYS = re.compile(r"\bweekdays?\b", re.IGNORECASE)
# A date of which one number can only be the day, or words for the order.
_DATE_ORDER = re.compile(
    r"(?<![\d/])(?:(?P<month_first>(?:0?\d|1[0-2])/(?:1[3-9]|2\d|3[01])/(?:19|20)\d\d|\bmm?/dd?/|\bmonth/day\b)"
    r"|(?:1[3-9]|2\d|3[01])/(?:0?\d|1[0-2])/(?:19|20)\d\d|\bdd?/mm?/|\bday/month\b)",
    re.IGNORECASE,
)
_STERLING = re.compile(r"\u00a3|\bGBP\b")
# A number without a unit, as in the cells of tables.
_BARE = re.compile(r"\d{1,7}(?:[.,]\d{1,2})?")
_UNIT_OF_COLUMN = re.compile(
    r"(?:\(|\bin |^)((?:working |business )?(?:minutes|hours|days|weeks|months|years)|kg|km|%(?!\w))\)?$",
    re.IGNORECASE,
)
_MONEY_OF_COLUMN = re.compile(
    r"(?:\(|\bin |, )(EUR|USD|GBP|CHF|PLN|INR|SEK|NOK|DKK|euros?|pounds|dollars|francs|rupees|kroner|kronor|"
    r"[\u20ac\u00a3$])(?=[),.;]|$)",
    re.IGNORECASE,
)
"""Units that a column heading names for the numbers below it."""
_MONEY_OF_PAGE = re.compile(
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
# Where a clause ends: a bracket, a mark, a dash, or a conjunction; before digits "and" may join two facts.
_CLAUSE = re.compile(
    r"(?<=\)),?|"
    + r";|:(?=\s)|\s[\u2013\u2014-]\s|,?\s(?:but|while|whereas|although|otherwise)\s|,(?=\s)|\sand\s(?=[^\d])"
)
# What an amount is for: "a month", "per night", "/day".
_RATE = re.compile(r"[\s*_]*(?:per|an?|each|every|in each|for each|for every|/)\s+([^\W\d_]+)", re.IGNORECASE)
_NEAR = 3
"""How many words on each side of a fact are its neighbours."""
SAME_CLAUSE = 1.0
SAME_SENTENCE = 0.55
ABOVE = 0.5
"""How much a word counts if it is in the fact's clause, elsewhere in its sentence, or above it."""
TITLE = 0.15
"""The same for a word of the page's title, which stands above everything."""
_TITLE_LEVEL = 1
_LIGHT = 0.35
"""Factor for the weight of a generic word."""


@dataclass(frozen=True, slots=True)
class FactContext:
    """The words right before and after a fact, and its rate: "month" in "per month", "night" in "a night"."""

    before: frozenset[str] = frozenset()
    behind: frozenset[str] = frozenset()
    rate: str = ""


NOTHING_NEAR = FactContext()


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A fact of a reference and the weighted words that it is about."""

    fact: Fact
    source: str
    line: int
    about: Mapping[str, float] = field(repr=False)
    sentence: int = 0
    """Number of the sentence on its page; all cells of a row have the same."""
    paragraph: int = 0
    """Number of the paragraph, item or row on its page."""
    alone: bool = True
    """Whether no other fact of its kind is in its sentence."""
    near: FactContext = NOTHING_NEAR
    conditions: tuple[Fact, ...] = field(default=(), repr=False)
    """The other facts of its clause, of its row's label and its column's heading; it may apply to them only."""

    @property
    def stretch(self) -> tuple[str, int]:
        """The paragraph, item or row that contains it, as an identifier."""
        return self.source, self.paragraph

    @property
    def place(self) -> str:
        """Its place for people: file:line."""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class _PagePassage:
    """A sentence of a page or a cell of a table; `above` is its context with weights, nearest first."""

    text: str
    line: int
    above: tuple[tuple[str, float], ...] = ()
    paragraph: int = 0
    is_cell: bool = False
    breaks: tuple[tuple[int, int], ...] = ()
    """Where further lines begin in it, and the numbers of these lines."""

    def line_at(self, place: int) -> int:
        """The line number of a position in it."""
        return next((line for start, line in reversed(self.breaks) if start <= place), self.line)


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePage:
    """One parsed reference."""

    name: str
    statements: tuple[Statement, ...]
    lines: int = 0
    word_counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    """In how many sentences each word of the page occurs."""
    sentences: int = 0
    procedures: tuple[Procedure, ...] = ()
    conventions: Conventions = PLAIN


@lru_cache(maxsize=_PAGES)
def read_page(name: str, text: str) -> ReferencePage:
    """Parse a text; the page is empty if the text is too long to be read whole."""
    if len(text) > MOST_CHARS:
        return ReferencePage(name, ())
    passages = list(_passages(text))
    conventions = _conventions_of(text)
    statements: list[Statement] = []
    word_counts = Counter[str]()
    for number, passage in enumerate(passages):
        facts = read_facts(passage.text, conventions)
        heads = [
            f
            for text, weight in passage.above
            # only the row's label and the column's heading have this weight
            if weight == SAME_CLAUSE
            for f in read_facts(text, conventions)
        ]
        word_counts.update(
            set(words(_blank_facts(passage.text, facts))) | {w for text, _ in passage.above for w in words(text)}
        )
        kinds = Counter(fact.kind for fact in facts)
        statements += [
            Statement(
                fact,
                name,
                passage.line_at(fact.start),
                about,
                # negative, so that no row has the number of a sentence
                -passage.line if passage.is_cell else number,
                passage.paragraph,
                alone=kinds[fact.kind] == 1,
                near=near,
                conditions=(*beside, *heads),
            )
            for fact, about, near, beside in zip(
                facts,
                topics(passage.text, facts),
                neighbours(passage.text, facts),
                siblings(passage.text, facts),
                strict=True,
            )
            for about in [_add_headings(about, passage.above)]
        ]
    lines = text.count("\n") + 1
    return ReferencePage(
        name, tuple(statements), lines, word_counts, len(passages), procedures(text, name), conventions
    )


def _conventions_of(text: str) -> Conventions:
    """What the page tells of pounds and of the order of day and month."""
    money = _MONEY_OF_PAGE.search(text)
    has_sterling = _STERLING.search(text) or (money and money.group(1).lower() == "pounds")
    orders = {bool(match["month_first"]) for match in _DATE_ORDER.finditer(text)}
    return Conventions(not has_sterling, orders.pop() if len(orders) == 1 else None)


def _add_headings(about: dict[str, float], above: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Add the words and weekdays of the context; a word keeps its largest weight."""
    about = dict(about)
    for text, weight in above:
        for word in (*words(text), *_days(text)):
            about[word] = max(weight, about.get(word, 0.0))
    return about


def topics(text: str, facts: Sequence[Fact]) -> list[dict[str, float]]:
    """For each fact of a sentence its subject words and weights; words of the fact's own clause weigh most."""
    bare = _blank_facts(text, facts)
    ends = [*(match.start() for match in _CLAUSE.finditer(bare)), len(bare)]
    clauses: list[tuple[int, int]] = []
    start = 0
    for end in ends:
        # a piece without words, such as a lone amount, belongs to the clause before it
        if clauses and not any(words(bare[start:end])):
            clauses[-1] = (clauses[-1][0], end)
        else:
            clauses.append((start, end))
        start = end
    by_clause = [set(words(bare[start:end])) for start, end in clauses]
    every = set().union(*by_clause)
    result = []
    for fact in facts:
        own = next((n for n, (start, end) in enumerate(clauses) if start <= fact.start < end), len(clauses) - 1)
        about = dict.fromkeys(every, SAME_SENTENCE) | dict.fromkeys(by_clause[own], SAME_CLAUSE)
        # the day is the value of such a fact, not its subject
        if fact.kind is not FactKind.WEEKDAY:
            about |= _weekdays_around(fact, facts, bare)
        result.append(about)
    return result


def siblings(text: str, facts: Sequence[Fact]) -> list[list[Fact]]:
    """For each fact of a sentence the other facts of its clause."""
    ends = [match.start() for match in _CLAUSE.finditer(_blank_facts(text, facts))]
    clause = [sum(end <= fact.start for end in ends) for fact in facts]
    return [[other for m, other in enumerate(facts) if m != n and clause[m] == clause[n]] for n in range(len(facts))]


def neighbours(text: str, facts: Sequence[Fact]) -> list[FactContext]:
    """For each fact of a sentence the words next to it, and its rate."""
    bare = _blank_facts(text, facts)
    result = []
    for fact in facts:
        rate = _RATE.match(text, fact.end)
        # words() leaves out function words
        each = next(words(rate.group(1)), rate.group(1).lower()) if rate else ""
        before = [*words(bare[: fact.start])][-_NEAR:]
        behind = [*words(bare[fact.end :])][:_NEAR]
        result.append(FactContext(frozenset(before), frozenset(behind), each))
    return result


def _weekdays_around(fact: Fact, facts: Sequence[Fact], text: str) -> dict[str, float]:
    """The days of the week to which a fact applies, if the sentence names any."""
    days = [other for other in facts if other.kind is FactKind.WEEKDAY]
    before = [day for day in days if day.start < fact.start]
    workdays = max((match.start() for match in _WORKDAYS.finditer(text, 0, fact.start)), default=-1)
    # "weekdays" stands nearer before the fact than any day
    if workdays > max((day.start for day in before), default=-1):
        return dict.fromkeys(DAYS[:5], SAME_CLAUSE)
    if not days:
        return {}
    # the last day before the fact, else the first one after it
    nearest = max(before, key=lambda day: day.start) if before else min(days, key=lambda day: day.start)
    if nearest.side is RangeEnd.HIGH and nearest.ranged:
        # "Monday to Friday" applies to the days between as well
        low = next((day for day in reversed(before) if day.side is RangeEnd.LOW and day.ranged), None)
        if low is not None:
            return dict.fromkeys(_days_between(low, nearest), SAME_CLAUSE)
    return {str(nearest.value): SAME_CLAUSE}


def _days_between(first: Fact, last: Fact) -> list[str]:
    start = DAYS.index(str(first.value))
    end = DAYS.index(str(last.value))
    # "Saturday to Monday" goes past the end of the week
    return [DAYS[n % len(DAYS)] for n in range(start, (end if end >= start else end + len(DAYS)) + 1)]


def _days(text: str) -> list[str]:
    """The days of the week that a heading or column heading names; ranges are expanded."""
    days = [fact for fact in read_facts(text) if fact.kind is FactKind.WEEKDAY]
    weekdays = [str(day.value) for day in days]
    for low, high in pairwise(days):
        if low.ranged and low.side is RangeEnd.LOW and high.side is RangeEnd.HIGH:
            weekdays += _days_between(low, high)
    return weekdays


def _blank_facts(text: str, facts: Sequence[Fact]) -> str:
    """The text with its facts replaced by spaces, so that positions stay the same."""
    for fact in facts:
        text = text[: fact.start] + " " * (fact.end - fact.start) + text[fact.end :]
    return text


def weight_of(word: str, word_counts: Mapping[str, int], sentences: int) -> float:
    """Weight of a shared word: higher the rarer it is on the page, and reduced for generic words."""
    # the smoothing gives unknown words a finite weight, the largest one
    rarity = math.log(1 + (sentences + 1) / (word_counts.get(word, 0) + 0.5))
    return rarity * _LIGHT if word in GENERIC else rarity


def _with_unit(cell: str, column: str, above: Sequence[tuple[str, float]], money: str) -> str:
    """Add to a bare number in a table the unit from its column's heading, else from the headings above the table.

    The first two entries of `above` are the row's and the column's headings. `money` is the currency named for the
    whole page; it applies to tables of prices.
    """
    if not _BARE.fullmatch(cell):
        return cell
    unit = _UNIT_OF_COLUMN.search(column)
    if unit:
        return f"{cell} {unit.group(1)}"
    heads = [column] if _MONEY_OF_COLUMN.search(column) else [text for text, _ in above[2:]]
    units = {match.group(1).lower() for text in heads for match in _MONEY_OF_COLUMN.finditer(text)}
    if not units and money and _COST in {word for text, _ in above for word in words(text)}:
        units = {money}
    # with several currencies in the headings it is open which one applies
    return f"{cell} {units.pop()}" if len(units) == 1 else cell


def _passages(text: str) -> Iterator[_PagePassage]:
    """The sentences and cells of a page with their context."""
    money = _MONEY_OF_PAGE.search(text)
    reader = _PageReader(money.group(1).lower() if money else "")
    for number, line in enumerate(text.split("\n"), 1):
        yield from reader.line(number, line)
    yield from reader.paragraph_ends()


class _PageReader:
    """Line-by-line reader of a page."""

    def __init__(self, money: str) -> None:
        self._money = money
        self._headings: dict[int, str] = {}
        self._paragraph: list[tuple[int, str]] = []
        self._announced = ""
        """The last line that ended in a colon; it is context for the list after it."""
        self._parents: list[tuple[int, str]] = []
        """Items that contain the current one, with their indents."""
        self._indent: int | None = None
        self._head: list[str] | None = None
        self._in_code = False

    def line(self, number: int, line: str) -> Iterator[_PagePassage]:
        """Read one line; yields what it completes."""
        if _FENCE.match(line):
            yield from self.paragraph_ends()
            self._in_code = not self._in_code
            return
        if self._in_code:
            return
        # quotations are read like other text
        line = line.removeprefix("> ")
        yield from self._text_line(number, line)

    def _text_line(self, number: int, line: str) -> Iterator[_PagePassage]:
        """Read a line outside of code: a table row, heading, list item, or part of a paragraph."""
        row = _ROW.match(line)
        heading = _HEADING.match(line)
        item = _ITEM.match(line)
        if row is None:
            self._head = None
        if row or heading or item or not line.strip():
            yield from self.paragraph_ends()
        if row:
            yield from self._row(number, row.group(1))
        elif heading:
            yield from self._heading(number, len(heading.group(1)), heading.group(2))
        # inside a paragraph a bold line is only emphasis
        elif not self._paragraph and (bold := _BOLD_LINE.fullmatch(line.strip())):
            yield from self._heading(number, _BOLD_LEVEL, bold.group(1))
        elif item:
            self._item(number, len(item.group(1)), item.group(2))
        elif line.strip():
            self._paragraph.append((number, line.strip()))

    def _heading(self, number: int, level: int, text: str) -> Iterator[_PagePassage]:
        """Yield a heading as a passage; it replaces the headings of its level and below, and ends lists."""
        self._headings = {above: title for above, title in self._headings.items() if above < level}
        yield _PagePassage(text, number, self._headings_above())
        self._headings[level] = text
        self._announced = ""
        self._parents = []

    def _headings_above(self) -> tuple[tuple[str, float], ...]:
        # the nearest heading has the highest level
        titles = sorted(self._headings.items(), reverse=True)
        return tuple((title, TITLE if level == _TITLE_LEVEL else ABOVE) for level, title in titles)

    def _row(self, number: int, row: str) -> Iterator[_PagePassage]:
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
            yield _PagePassage(_with_unit(cell, column, above, self._money), number, tuple(above), number, is_cell=True)

    def _item(self, number: int, indent: int, text: str) -> None:
        """Start a list item; items with the same or a larger indent are no longer its parents."""
        self._parents = [(at, parent) for at, parent in self._parents if at < indent]
        self._indent = indent
        self._paragraph = [(number, text)]

    def paragraph_ends(self) -> Iterator[_PagePassage]:
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
            number = next(number for at, number in reversed(starts) if at <= piece.start)
            # the sentence before and the first one of the paragraph say less than a heading
            context = [(pieces[n - 1].text, ABOVE / 2)] if n else []
            context += [(first, ABOVE / 2)] if n > 1 else []
            context += [(lead.group(1), ABOVE)] if lead and n else []
            breaks = tuple((at - piece.start, line) for at, line in starts if piece.start < at < piece.end)
            yield _PagePassage(piece.text, number, (*above, *context), lines[0][0], breaks=breaks)
        text = joined.rstrip()
        if is_item:
            self._parents.append((indent or 0, text))
        elif text.endswith(":"):
            # only the last sentence introduces the list
            self._announced = pieces[-1].text if pieces else text
        else:
            self._announced = ""
