"""A reference, taken apart: its statements with their facts, each with its line and the words for what it is about.

Read as Markdown: a heading speaks for all below it, a line that ends in a colon for the list behind it, the head of a
column and the first cell of a row for each cell. The work grows linearly with the text, which is bounded.
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
from aligner_proxy_grounding.forms import DAYS, read_facts
from aligner_proxy_grounding.procedures import Procedure, procedures
from aligner_proxy_grounding.words import GENERIC, stem, words

MOST_CHARS = 100_000
"""Characters of one reference; of a longer one nothing is used, since what is not read might say otherwise."""
_PAGES = 64
"""References that are kept taken apart, those of all policies together."""
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+\u2022]|\d{1,3}[.)]|[a-z][.)])\s+(.*)")
_ROW = re.compile(r"\s*\|(.*)\|\s*$")
_RULE = re.compile(r"[\s|:-]+")
_WORKDAYS = re.compile(r"\bweekdays?\b", re.IGNORECASE)
_STERLING = re.compile(r"\u00a3|\bGBP\b")
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
"""Units that the head of a column names for the numbers below it."""
_MONEY_OF_PAGE = re.compile(
    r"\b(?:prices?|amounts|fees|charges|rates|sums)\b[^.|\n]{0,40}?\b(?:in|are|NZ|US|Swiss|Canadian|Australian)\s"
    r"(?:[a-z ]{0,12}\s)?\(?(EUR|USD|GBP|CHF|PLN|INR|SEK|NOK|DKK|euros?|pounds|dollars|francs|rupees|kroner|kronor)\b",
    re.IGNORECASE,
)
"""What a page says of all its amounts."""
_COST = stem("cost")
_BOLD_LINE = re.compile(r"(?:\*\*|__)([^*_]{2,80}?)(?:\*\*|__):?")
_BOLD_LEVEL = 7
"""A line in bold is a heading below all others."""
_LEAD_IN = re.compile(r"(?:\*\*|__)([^*_]{2,80}?)[.:?!]?(?:\*\*|__)[.:]?(?=\s|$)")
"""Bold words at the beginning of a paragraph: what it is about."""
_FENCE = re.compile(r"\s*(?:```|~~~)")
_CLAUSE = re.compile(
    r"(?<=\)),?|"
    + r";|:(?=\s)|\s[\u2013\u2014-]\s|,?\s(?:but|while|whereas|although|otherwise)\s|,(?=\s)|\sand\s(?=[^\d])"
)
_RATE = re.compile(r"[\s*_]*(?:per|an?|each|every|in each|for each|for every|/)\s+([^\W\d_]+)", re.IGNORECASE)
_NEAR = 3
"""Words beside a fact that are looked at on each side."""
SAME_CLAUSE = 1.0
SAME_SENTENCE = 0.55
ABOVE = 0.5
"""How much a word counts that stands in the fact's clause, in its sentence, or above it."""
TITLE = 0.15
_TITLE_LEVEL = 1
_LIGHT = 0.35
"""What a word counts that may stand anywhere, against others of its rarity."""


@dataclass(frozen=True, slots=True)
class FactContext:
    """The words right before and behind a fact, and what it holds for each of: per month, a night."""

    before: frozenset[str] = frozenset()
    behind: frozenset[str] = frozenset()
    rate: str = ""


NOTHING_NEAR = FactContext()


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A fact of a reference and what it is about: each word with its weight."""

    fact: Fact
    source: str
    line: int
    about: Mapping[str, float] = field(repr=False)
    sentence: int = 0
    """Number of the sentence on its page; the cells of a row are one."""
    paragraph: int = 0
    """Number of the paragraph, item or row on its page."""
    alone: bool = True
    """No other fact of its kind stands in its sentence."""
    near: FactContext = NOTHING_NEAR
    conditions: tuple[Fact, ...] = field(default=(), repr=False)
    """Facts of its clause, its row's label and its column's head: it may hold for them alone."""

    @property
    def stretch(self) -> tuple[str, int]:
        """The paragraph, item or row in which it stands."""
        return self.source, self.paragraph

    @property
    def place(self) -> str:
        """Where it stands, for people: file:line."""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class _PagePassage:
    """A sentence of a page, or a cell of a table; `above` is what speaks for it, from near to far."""

    text: str
    line: int
    above: tuple[tuple[str, float], ...] = ()
    paragraph: int = 0
    is_cell: bool = False
    breaks: tuple[tuple[int, int], ...] = ()
    """Where further lines begin in it, with their numbers."""

    def line_at(self, place: int) -> int:
        """The line of a place in it."""
        return next((line for start, line in reversed(self.breaks) if start <= place), self.line)


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePage:
    """One reference, taken apart."""

    name: str
    statements: tuple[Statement, ...]
    lines: int = 0
    word_counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Each word of the page, and in how many sentences it stands."""
    sentences: int = 0
    procedures: tuple[Procedure, ...] = ()
    pounds_weigh: bool = True
    """It names no sterling, so pounds are a weight."""


@lru_cache(maxsize=_PAGES)
def read_page(name: str, text: str) -> ReferencePage:
    """The page of a text; empty where the text is too long to be read whole."""
    if len(text) > MOST_CHARS:
        return ReferencePage(name, ())
    passages = list(_passages(text))
    money = _MONEY_OF_PAGE.search(text)
    pounds_weigh = not (_STERLING.search(text) or (money and money.group(1).lower() == "pounds"))
    statements: list[Statement] = []
    word_counts = Counter[str]()
    for number, passage in enumerate(passages):
        facts = read_facts(passage.text, pounds_weigh=pounds_weigh)
        heads = [
            f
            for text, weight in passage.above
            if weight == SAME_CLAUSE
            for f in read_facts(text, pounds_weigh=pounds_weigh)
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
        name, tuple(statements), lines, word_counts, len(passages), procedures(text, name), pounds_weigh
    )


def _add_headings(about: dict[str, float], above: Sequence[tuple[str, float]]) -> dict[str, float]:
    about = dict(about)
    for text, weight in above:
        for word in (*words(text), *_days(text)):
            about[word] = max(weight, about.get(word, 0.0))
    return about


def topics(text: str, facts: Sequence[Fact]) -> list[dict[str, float]]:
    """For each fact of a sentence the words that say what it is about, those of its clause above the others."""
    bare = _blank_facts(text, facts)
    ends = [*(match.start() for match in _CLAUSE.finditer(bare)), len(bare)]
    clauses: list[tuple[int, int]] = []
    start = 0
    for end in ends:
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
        if fact.kind is not FactKind.WEEKDAY:
            about |= _weekdays_around(fact, facts, bare)
        result.append(about)
    return result


def siblings(text: str, facts: Sequence[Fact]) -> list[list[Fact]]:
    """For each fact of a sentence the others of its clause."""
    ends = [match.start() for match in _CLAUSE.finditer(_blank_facts(text, facts))]
    clause = [sum(end <= fact.start for end in ends) for fact in facts]
    return [[other for m, other in enumerate(facts) if m != n and clause[m] == clause[n]] for n in range(len(facts))]


def neighbours(text: str, facts: Sequence[Fact]) -> list[FactContext]:
    """For each fact of a sentence the words right beside it."""
    bare = _blank_facts(text, facts)
    result = []
    for fact in facts:
        rate = _RATE.match(text, fact.end)
        each = next(words(rate.group(1)), rate.group(1).lower()) if rate else ""
        before = [*words(bare[: fact.start])][-_NEAR:]
        behind = [*words(bare[fact.end :])][:_NEAR]
        result.append(FactContext(frozenset(before), frozenset(behind), each))
    return result


def _weekdays_around(fact: Fact, facts: Sequence[Fact], text: str) -> dict[str, float]:
    """The days of the week for which a fact holds, where they stand beside it."""
    days = [other for other in facts if other.kind is FactKind.WEEKDAY]
    before = [day for day in days if day.start < fact.start]
    workdays = max((match.start() for match in _WORKDAYS.finditer(text, 0, fact.start)), default=-1)
    if workdays > max((day.start for day in before), default=-1):
        return dict.fromkeys(DAYS[:5], SAME_CLAUSE)
    if not days:
        return {}
    nearest = max(before, key=lambda day: day.start) if before else min(days, key=lambda day: day.start)
    if nearest.side is RangeEnd.HIGH and nearest.ranged:
        low = next((day for day in reversed(before) if day.side is RangeEnd.LOW and day.ranged), None)
        if low is not None:
            return dict.fromkeys(_days_between(low, nearest), SAME_CLAUSE)
    return {str(nearest.value): SAME_CLAUSE}


def _days_between(first: Fact, last: Fact) -> list[str]:
    start = DAYS.index(str(first.value))
    end = DAYS.index(str(last.value))
    return [DAYS[n % len(DAYS)] for n in range(start, (end if end >= start else end + len(DAYS)) + 1)]


def _days(text: str) -> list[str]:
    """The days of the week that a heading or the head of a column speaks of."""
    days = [fact for fact in read_facts(text) if fact.kind is FactKind.WEEKDAY]
    weekdays = [str(day.value) for day in days]
    for low, high in pairwise(days):
        if low.ranged and low.side is RangeEnd.LOW and high.side is RangeEnd.HIGH:
            weekdays += _days_between(low, high)
    return weekdays


def _blank_facts(text: str, facts: Sequence[Fact]) -> str:
    """The text without its facts, each character that stays where it was."""
    for fact in facts:
        text = text[: fact.start] + " " * (fact.end - fact.start) + text[fact.end :]
    return text


def weight_of(word: str, word_counts: Mapping[str, int], sentences: int) -> float:
    """How much a shared word says: the rarer on the page, the more; a word that may stand anywhere says little."""
    rarity = math.log(1 + (sentences + 1) / (word_counts.get(word, 0) + 0.5))
    return rarity * _LIGHT if word in GENERIC else rarity


def _with_unit(cell: str, column: str, above: Sequence[tuple[str, float]], money: str) -> str:
    """A bare number of a table with the unit that the head of its column names, or else the headings.

    `money` is the currency that the whole page speaks of; it goes where the table is one of prices.
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
    return f"{cell} {units.pop()}" if len(units) == 1 else cell


def _passages(text: str) -> Iterator[_PagePassage]:
    """The sentences and cells of a page with what stands above them."""
    money = _MONEY_OF_PAGE.search(text)
    reader = _PageReader(money.group(1).lower() if money else "")
    for number, line in enumerate(text.split("\n"), 1):
        yield from reader.line(number, line)
    yield from reader.paragraph_ends()


class _PageReader:
    """Reader of the lines of a page, one after the other."""

    def __init__(self, money: str) -> None:
        self._money = money
        self._headings: dict[int, str] = {}
        self._paragraph: list[tuple[int, str]] = []
        self._announced = ""
        """The line that ends in a colon, for the list behind it."""
        self._parents: list[tuple[int, str]] = []
        """Items that others are nested below, with their indents."""
        self._indent: int | None = None
        self._head: list[str] | None = None
        self._before = ""
        """The sentence that was last."""
        self._in_code = False

    def line(self, number: int, line: str) -> Iterator[_PagePassage]:
        """One more line."""
        if _FENCE.match(line):
            yield from self.paragraph_ends()
            self._in_code = not self._in_code
            return
        if self._in_code:
            return
        line = line.removeprefix("> ")
        yield from self._text_line(number, line)

    def _text_line(self, number: int, line: str) -> Iterator[_PagePassage]:
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
        elif not self._paragraph and (bold := _BOLD_LINE.fullmatch(line.strip())):
            yield from self._heading(number, _BOLD_LEVEL, bold.group(1))
        elif item:
            self._item(number, len(item.group(1)), item.group(2))
        elif line.strip():
            self._paragraph.append((number, line.strip()))

    def _heading(self, number: int, level: int, text: str) -> Iterator[_PagePassage]:
        self._headings = {above: title for above, title in self._headings.items() if above < level}
        yield _PagePassage(text, number, self._headings_above())
        self._headings[level] = text
        self._announced = ""
        self._parents = []
        self._before = ""

    def _headings_above(self) -> tuple[tuple[str, float], ...]:
        titles = sorted(self._headings.items(), reverse=True)
        return tuple((title, TITLE if level == _TITLE_LEVEL else ABOVE) for level, title in titles)

    def _row(self, number: int, row: str) -> Iterator[_PagePassage]:
        cells = [cell.strip() for cell in row.split("|")]
        if _RULE.fullmatch(row):
            return
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
        self._parents = [(at, parent) for at, parent in self._parents if at < indent]
        self._indent = indent
        self._paragraph = [(number, text)]

    def paragraph_ends(self) -> Iterator[_PagePassage]:
        """The sentences of the paragraph or item that has ended."""
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
            context = [(pieces[n - 1].text, ABOVE / 2)] if n else []
            context += [(first, ABOVE / 2)] if n > 1 else []
            context += [(lead.group(1), ABOVE)] if lead and n else []
            breaks = tuple((at - piece.start, line) for at, line in starts if piece.start < at < piece.end)
            yield _PagePassage(piece.text, number, (*above, *context), lines[0][0], breaks=breaks)
        text = joined.rstrip()
        if is_item:
            self._parents.append((indent or 0, text))
        elif text.endswith(":"):
            self._announced = pieces[-1].text if pieces else text
        else:
            self._announced = ""
