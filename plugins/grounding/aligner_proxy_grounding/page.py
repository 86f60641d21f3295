"""Parser of references: splits one into statements, each with its fact, its line and the words it is about.

The work grows linearly with the text, which is bounded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.dates import DAYS
from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.forms.reading import PLAIN, Conventions
from aligner_proxy_grounding.passages import CURRENCY_OF_PAGE, SAME_CLAUSE, SAME_SENTENCE, PagePassage, read_passages
from aligner_proxy_grounding.procedures import Procedure, procedures
from aligner_proxy_grounding.words import GENERIC, words

MAX_CHARS = 100_000
"""Limit for one reference. A longer one is not used at all, since its unread part might contradict the rest."""
_PAGES = 64
"""How many parsed references are cached, over all policies."""
_DAY_GROUPS = re.compile(r"\b(?:(?P<work>weekdays?)|(?P<weekend>weekends?)|(?P<all>daily|every day))\b", re.IGNORECASE)
# A date of which one number can only be the day, or words for the order.
_DATE_ORDER = re.compile(
    r"(?<![\d/])(?:(?P<month_first>(?:0?\d|1[0-2])/(?:1[3-9]|2\d|3[01])/(?:19|20)\d\d|\bmm?/dd?/|\bmonth/day\b)"
    r"|(?:1[3-9]|2\d|3[01])/(?:0?\d|1[0-2])/(?:19|20)\d\d|\bdd?/mm?/|\bday/month\b)",
    re.IGNORECASE,
)
_STERLING = re.compile(r"\u00a3|\bGBP\b")
# Where a clause ends: a bracket, a mark, a dash, or a conjunction; before digits "and" may join two facts.
_CLAUSE = re.compile(
    r"(?<=\)),?|"
    + r";|:(?=\s)|\s[\u2013\u2014-]\s|,?\s(?:but|while|whereas|although|otherwise)\s|,(?=\s)|\sand\s(?=[^\d])"
)
# What an amount is for: "a month", "per night", "/day".
_RATE = re.compile(r"[\s*_]*(?:per|an?|each|every|in each|for each|for every|/)\s+([^\W\d_]+)", re.IGNORECASE)
_NEAR = 3
"""How many words on each side of a fact are its neighbours."""
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
    """Name of the reference, as edits show it."""
    line: int
    about: Mapping[str, float] = field(repr=False)
    """Stems of the words around the fact, each with how much it counts: 1 in its clause, less in its sentence and for
    what stands above."""
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


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePage:
    """One parsed reference."""

    name: str
    statements: tuple[Statement, ...]
    lines: int = 0
    """Number of its lines."""
    word_counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    """In how many sentences each word of the page occurs."""
    sentences: int = 0
    """Number of its sentences and cells."""
    procedures: tuple[Procedure, ...] = ()
    conventions: Conventions = PLAIN


@lru_cache(maxsize=_PAGES)
def read_page(name: str, text: str) -> ReferencePage:
    """Parse a text; the page is empty if the text is too long to be read whole."""
    if len(text) > MAX_CHARS:
        return ReferencePage(name, ())
    passages = list(read_passages(text))
    conventions = _conventions_of(text)
    statements: list[Statement] = []
    word_counts = Counter[str]()
    for number, passage in enumerate(passages):
        facts = read_facts(passage.text, conventions)
        own_words = set(words(_blank_facts(passage.text, facts)))
        words_above = {word for text, _ in passage.above for word in words(text)}
        word_counts.update(own_words | words_above)
        statements += _statements_of(passage, number, facts, name, conventions)
    lines = text.count("\n") + 1
    return ReferencePage(
        name, tuple(statements), lines, word_counts, len(passages), procedures(text, name), conventions
    )


def _statements_of(
    passage: PagePassage, number: int, facts: Sequence[Fact], source: str, conventions: Conventions
) -> list[Statement]:
    """A statement for each fact of a sentence or cell; `number` is that of the passage on the page `source`."""
    # only the row's label and the column's heading have this weight
    labels = [text for text, weight in passage.above if weight == SAME_CLAUSE]
    facts_of_labels = [fact for label in labels for fact in read_facts(label, conventions)]
    kinds = Counter(fact.kind for fact in facts)
    topics = find_topics(passage.text, facts)
    neighbours = find_neighbours(passage.text, facts)
    siblings = find_siblings(passage.text, facts)
    return [
        Statement(
            fact,
            source,
            passage.line_at(fact.start),
            _add_headings(topic, passage.above),
            # negative, so that no row has the number of a sentence
            -passage.line if passage.is_cell else number,
            passage.paragraph,
            alone=kinds[fact.kind] == 1,
            near=near,
            conditions=(*facts_of_clause, *facts_of_labels),
        )
        for fact, topic, near, facts_of_clause in zip(facts, topics, neighbours, siblings, strict=True)
    ]


def _conventions_of(text: str) -> Conventions:
    """How the page writes what can be read in two ways: whether pounds are money, and which of day and month is first.

    Pounds are a weight unless the page names sterling. The order is unknown (None) if no date shows it.
    """
    currency = CURRENCY_OF_PAGE.search(text)
    has_sterling = _STERLING.search(text) or (currency and currency.group(1).lower() == "pounds")
    orders = {bool(match["month_first"]) for match in _DATE_ORDER.finditer(text)}
    return Conventions(not has_sterling, orders.pop() if len(orders) == 1 else None)


def _add_headings(about: dict[str, float], above: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return `about` with the words and weekdays of `above`, (text, weight) pairs; a word keeps its largest weight."""
    about = dict(about)
    for text, weight in above:
        for word in (*words(text), *_read_days(text)):
            about[word] = max(weight, about.get(word, 0.0))
    return about


def find_topics(text: str, facts: Sequence[Fact]) -> list[dict[str, float]]:
    """For each fact of a sentence, its subject words with how much they count: those of its own clause count most."""
    text_without_facts = _blank_facts(text, facts)
    ends = [*(match.start() for match in _CLAUSE.finditer(text_without_facts)), len(text_without_facts)]
    clauses: list[tuple[int, int]] = []
    start = 0
    for end in ends:
        # a piece without words, such as a lone amount, belongs to the clause before it
        if clauses and not any(words(text_without_facts[start:end])):
            clauses[-1] = (clauses[-1][0], end)
        else:
            clauses.append((start, end))
        start = end
    words_by_clause = [set(words(text_without_facts[start:end])) for start, end in clauses]
    all_words = set().union(*words_by_clause)
    result = []
    for fact in facts:
        clause_number = next(
            (n for n, (start, end) in enumerate(clauses) if start <= fact.start < end), len(clauses) - 1
        )
        topic = dict.fromkeys(all_words, SAME_SENTENCE) | dict.fromkeys(words_by_clause[clause_number], SAME_CLAUSE)
        # the day is the value of such a fact, not its subject
        if fact.kind is not FactKind.WEEKDAY:
            topic |= _weekdays_around(fact, facts, text_without_facts)
        result.append(topic)
    return result


def find_siblings(text: str, facts: Sequence[Fact]) -> list[list[Fact]]:
    """For each fact of a sentence, the other facts of its clause."""
    clause_ends = [match.start() for match in _CLAUSE.finditer(_blank_facts(text, facts))]
    # a clause has as its number how many clauses end before it
    clause_of = [sum(end <= fact.start for end in clause_ends) for fact in facts]
    return [
        [other for m, other in enumerate(facts) if m != n and clause_of[m] == clause_of[n]] for n in range(len(facts))
    ]


def find_neighbours(text: str, facts: Sequence[Fact]) -> list[FactContext]:
    """For each fact of a sentence, the words next to it, and its rate ("month" of "€5 per month")."""
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
    """The days of the week to which a fact applies, each with its weight; empty if the sentence names none.

    They are the nearest before the fact, else the first after it: "Mon to Fri 9 to 5, Sat 10 to 4".
    """
    days = [other for other in facts if other.kind is FactKind.WEEKDAY]
    before = [day for day in days if day.start < fact.start]
    group = max(_DAY_GROUPS.finditer(text, 0, fact.start), key=lambda match: match.start(), default=None)
    if group is None and not days:
        group = _DAY_GROUPS.search(text, fact.end)
    # "weekdays" is nearer before the fact than any day
    if group is not None and group.start() > max((day.start for day in before), default=-1):
        return dict.fromkeys(_days_of_group(group), SAME_CLAUSE)
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


def _days_of_group(group: re.Match[str]) -> Sequence[str]:
    """The days that a match of "weekdays", "weekends" or "daily" names."""
    if group["all"]:
        return DAYS
    return DAYS[:5] if group["work"] else DAYS[5:]


def _days_between(first: Fact, last: Fact) -> list[str]:
    """The days from one weekday to another, both included."""
    start = DAYS.index(str(first.value))
    end = DAYS.index(str(last.value))
    # "Saturday to Monday" goes past the end of the week
    return [DAYS[n % len(DAYS)] for n in range(start, (end if end >= start else end + len(DAYS)) + 1)]


def _read_days(text: str) -> list[str]:
    """The days of the week that a heading or column heading names; ranges and "weekends" are expanded."""
    days = [fact for fact in read_facts(text) if fact.kind is FactKind.WEEKDAY]
    weekdays = [str(day.value) for day in days]
    for low, high in pairwise(days):
        if low.ranged and low.side is RangeEnd.LOW and high.side is RangeEnd.HIGH:
            weekdays += _days_between(low, high)
    return weekdays + [day for group in _DAY_GROUPS.finditer(text) for day in _days_of_group(group)]


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
