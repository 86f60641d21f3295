"""Parser of references (pages): finds their statements, each a fact with its line and the stems it is about.

Its work grows linearly with the length of the text, which is limited.
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
_CACHED_PAGES = 64
"""How many parsed references are cached, over all policies."""
_DAY_GROUPS = re.compile(r"\b(?:(?P<work>weekdays?)|(?P<weekend>weekends?)|(?P<all>daily|every day))\b", re.IGNORECASE)
# A date in which one number can only be the day, or words for the order.
_DATE_ORDER = re.compile(
    r"(?<![\d/])(?:(?P<month_first>(?:0?\d|1[0-2])/(?:1[3-9]|2\d|3[01])/(?:19|20)\d\d|\bmm?/dd?/|\bmonth/day\b)"
    r"|(?:1[3-9]|2\d|3[01])/(?:0?\d|1[0-2])/(?:19|20)\d\d|\bdd?/mm?/|\bday/month\b)",
    re.IGNORECASE,
)
_STERLING = re.compile(r"\u00a3|\bGBP\b")
# Where a clause ends: a bracket, a mark, a dash, or a conjunction; before digits "and" may join two facts.
_CLAUSE_END = re.compile(
    r"(?<=\)),?|"
    + r";|:(?=\s)|\s[\u2013\u2014-]\s|,?\s(?:but|while|whereas|although|otherwise)\s|,(?=\s)|\sand\s(?=[^\d])"
)
# What an amount is for: "a month", "per night", "/day".
_RATE = re.compile(r"[\s*_]*(?:per|an?|each|every|in each|for each|for every|/)\s+([^\W\d_]+)", re.IGNORECASE)
_NEIGHBOURS_PER_SIDE = 3
"""How many words on each side of a fact are its neighbours."""
_GENERIC_FACTOR = 0.35
"""Factor for the weight of a generic word."""


@dataclass(frozen=True, slots=True)
class FactContext:
    """Stems of the words right before and behind a fact, and its rate: "month" for "per month", "" without one."""

    before: frozenset[str] = frozenset()
    behind: frozenset[str] = frozenset()
    rate: str = ""


NO_NEIGHBOURS = FactContext()


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A fact of a reference and the weighted words that it is about."""

    fact: Fact
    source: str
    """Name of the reference, as edits show it."""
    line: int
    word_weights: Mapping[str, float] = field(repr=False)
    """Stems of the words around the fact, each with how much it counts: 1 in its clause, less elsewhere in its sentence
    and in headings."""
    sentence: int = 0
    """Number of the sentence on its page; all cells of a row have the same number."""
    paragraph: int = 0
    """Number of the paragraph, item or row on its page."""
    is_only_of_kind: bool = True
    """Whether no other fact of its kind is in its sentence."""
    neighbours: FactContext = NO_NEIGHBOURS
    conditions: tuple[Fact, ...] = field(default=(), repr=False)
    """The other facts of its clause, its row's label and its column's heading; the fact may apply only under them."""

    @property
    def paragraph_id(self) -> tuple[str, int]:
        """(name of the reference, number of the paragraph, item or row): what identifies the statement's paragraph."""
        return self.source, self.paragraph

    @property
    def place(self) -> str:
        """The statement's place for people: "name:line"."""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePage:
    """A parsed reference."""

    name: str
    statements: tuple[Statement, ...]
    lines: int = 0
    """How many lines the page has."""
    word_counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    """In how many sentences each stem of the page occurs."""
    sentences: int = 0
    """How many sentences and cells the page has."""
    procedures: tuple[Procedure, ...] = ()
    conventions: Conventions = PLAIN


@lru_cache(maxsize=_CACHED_PAGES)
def read_page(name: str, text: str) -> ReferencePage:
    """Parse the text of the reference `name`; the page is empty if the text is longer than `MAX_CHARS`."""
    if len(text) > MAX_CHARS:
        return ReferencePage(name, ())
    passages = list(read_passages(text))
    conventions = _find_conventions(text)
    statements: list[Statement] = []
    word_counts = Counter[str]()
    for number, passage in enumerate(passages):
        facts = read_facts(passage.text, conventions)
        own_words = set(words(_blank_facts(passage.text, facts)))
        context_words = {word for context_text, _ in passage.context for word in words(context_text)}
        word_counts.update(own_words | context_words)
        statements += _statements_of(passage, number, facts, name, conventions)
    return ReferencePage(
        name,
        tuple(statements),
        lines=text.count("\n") + 1,
        word_counts=word_counts,
        sentences=len(passages),
        procedures=procedures(text, name),
        conventions=conventions,
    )


def _statements_of(
    passage: PagePassage, number: int, facts: Sequence[Fact], source: str, conventions: Conventions
) -> list[Statement]:
    """Make a statement of each fact of a passage, which is passage `number` of the reference `source`.

    `facts` are those of the passage, in text order.
    """
    # only the row's label and the column's heading have this weight
    labels = [text for text, weight in passage.context if weight == SAME_CLAUSE]
    facts_of_labels = [fact for label in labels for fact in read_facts(label, conventions)]
    kind_counts = Counter(fact.kind for fact in facts)
    topics = find_topics(passage.text, facts)
    neighbours = find_neighbours(passage.text, facts)
    siblings = find_siblings(passage.text, facts)
    return [
        Statement(
            fact,
            source,
            line=passage.line_at(fact.start),
            word_weights=_add_context(topic, passage.context),
            # all cells of a row share a number, which is negative, so that no sentence has it
            sentence=-passage.line if passage.is_cell else number,
            paragraph=passage.paragraph,
            is_only_of_kind=kind_counts[fact.kind] == 1,
            neighbours=fact_neighbours,
            conditions=(*facts_of_clause, *facts_of_labels),
        )
        for fact, topic, fact_neighbours, facts_of_clause in zip(facts, topics, neighbours, siblings, strict=True)
    ]


def _find_conventions(text: str) -> Conventions:
    """Find how a page means what can be read in two ways: "pounds" as money, and the month of "3/4/2026".

    Pounds are a weight unless the page names sterling. `month_first` is None if no date shows the order, or if dates
    disagree.
    """
    currency = CURRENCY_OF_PAGE.search(text)
    has_sterling = _STERLING.search(text) or (currency and currency.group(1).lower() == "pounds")
    orders = {bool(match["month_first"]) for match in _DATE_ORDER.finditer(text)}
    return Conventions(pounds_weigh=not has_sterling, month_first=orders.pop() if len(orders) == 1 else None)


def _add_context(topic: Mapping[str, float], context: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return a topic with the words and weekdays of `context` added, which is given as (text, weight) pairs.

    A topic says how much each stem counts. A word that occurs several times keeps its largest weight.
    """
    word_weights = dict(topic)
    for text, weight in context:
        for word in (*words(text), *_read_days(text)):
            word_weights[word] = max(weight, word_weights.get(word, 0.0))
    return word_weights


def find_topics(text: str, facts: Sequence[Fact]) -> list[dict[str, float]]:
    """Return, for each fact of a sentence, its topic: how much each stem (word without ending) counts for its subject.

    The words of the fact's own clause count most. A topic also has the weekdays to which the fact applies.
    """
    text_without_facts = _blank_facts(text, facts)
    ends = [*(match.start() for match in _CLAUSE_END.finditer(text_without_facts)), len(text_without_facts)]
    clauses: list[tuple[int, int]] = []
    start = 0
    for end in ends:
        # text without words, such as a lone amount, belongs to the clause before it
        if clauses and not any(words(text_without_facts[start:end])):
            last_start, _ = clauses[-1]
            clauses[-1] = (last_start, end)
        else:
            clauses.append((start, end))
        start = end
    words_by_clause = [set(words(text_without_facts[start:end])) for start, end in clauses]
    all_words = set().union(*words_by_clause)
    topics = []
    for fact in facts:
        clause_index = next(
            (index for index, (start, end) in enumerate(clauses) if start <= fact.start < end), len(clauses) - 1
        )
        topic = dict.fromkeys(all_words, SAME_SENTENCE) | dict.fromkeys(words_by_clause[clause_index], SAME_CLAUSE)
        # the day is the value of a weekday, not its subject
        if fact.kind is not FactKind.WEEKDAY:
            topic |= _weekdays_around(fact, facts, text_without_facts)
        topics.append(topic)
    return topics


def find_siblings(text: str, facts: Sequence[Fact]) -> list[list[Fact]]:
    """Return, for each fact of a sentence, the other facts of its clause, which may be conditions of the fact."""
    clause_ends = [match.start() for match in _CLAUSE_END.finditer(_blank_facts(text, facts))]
    # the index of a fact's clause is the number of clauses that end before the fact
    clause_indexes = [sum(end <= fact.start for end in clause_ends) for fact in facts]
    siblings = []
    for fact, clause_index in zip(facts, clause_indexes, strict=True):
        in_clause = [other for other, index in zip(facts, clause_indexes, strict=True) if index == clause_index]
        siblings.append([other for other in in_clause if other is not fact])
    return siblings


def find_neighbours(text: str, facts: Sequence[Fact]) -> list[FactContext]:
    """Return, for each fact of a sentence, the words next to it, and its rate ("month" of "€5 per month")."""
    text_without_facts = _blank_facts(text, facts)
    neighbours = []
    for fact in facts:
        rate = ""
        if rate_match := _RATE.match(text, fact.end):
            # a function word has no stem here, so it stands for itself
            rate = next(words(rate_match.group(1)), rate_match.group(1).lower())
        before = [*words(text_without_facts[: fact.start])][-_NEIGHBOURS_PER_SIDE:]
        behind = [*words(text_without_facts[fact.end :])][:_NEIGHBOURS_PER_SIDE]
        neighbours.append(FactContext(frozenset(before), frozenset(behind), rate))
    return neighbours


def _weekdays_around(fact: Fact, facts: Sequence[Fact], text: str) -> dict[str, float]:
    """The days of the week to which a fact applies, each with its weight; empty if the sentence names none.

    These are the nearest days before the fact, or else the first days after it: "Mon to Fri 9 to 5, Sat 10 to 4". They
    may be named by a group such as "weekdays". `facts` are all facts of the sentence.
    """
    days = [other for other in facts if other.kind is FactKind.WEEKDAY]
    days_before = [day for day in days if day.start < fact.start]
    day_group = max(_DAY_GROUPS.finditer(text, 0, fact.start), key=lambda match: match.start(), default=None)
    if day_group is None and not days:
        day_group = _DAY_GROUPS.search(text, fact.end)
    # a group such as "weekdays" is nearer before the fact than any day
    if day_group is not None and day_group.start() > max((day.start for day in days_before), default=-1):
        return dict.fromkeys(_days_of_group(day_group), SAME_CLAUSE)
    if not days:
        return {}
    # the last day before the fact, else the first day after it
    nearest = max(days_before, key=lambda day: day.start) if days_before else min(days, key=lambda day: day.start)
    if nearest.side is RangeEnd.HIGH and nearest.ranged:
        # "Monday to Friday" applies to the days between as well
        low = next((day for day in reversed(days_before) if day.side is RangeEnd.LOW and day.ranged), None)
        if low is not None:
            return dict.fromkeys(_days_between(low, nearest), SAME_CLAUSE)
    return {str(nearest.value): SAME_CLAUSE}


def _days_of_group(group: re.Match[str]) -> Sequence[str]:
    """The days that a match of `_DAY_GROUPS` names: "weekdays", "weekends" or "daily"."""
    if group["all"]:
        return DAYS
    return DAYS[:5] if group["work"] else DAYS[5:]


def _days_between(first: Fact, last: Fact) -> list[str]:
    """The days from one weekday to another, both included."""
    start = DAYS.index(str(first.value))
    end = DAYS.index(str(last.value))
    if end < start:
        # "Saturday to Monday" goes past the end of the week
        end += len(DAYS)
    return [DAYS[index % len(DAYS)] for index in range(start, end + 1)]


def _read_days(text: str) -> list[str]:
    """The days of the week that a heading or column heading names; ranges and "weekends" are expanded."""
    day_facts = [fact for fact in read_facts(text) if fact.kind is FactKind.WEEKDAY]
    days = [str(fact.value) for fact in day_facts]
    for low, high in pairwise(day_facts):
        if low.ranged and low.side is RangeEnd.LOW and high.side is RangeEnd.HIGH:
            days += _days_between(low, high)
    for group in _DAY_GROUPS.finditer(text):
        days += _days_of_group(group)
    return days


def _blank_facts(text: str, facts: Sequence[Fact]) -> str:
    """Replace the facts of a text by spaces, so that positions stay the same."""
    for fact in facts:
        text = text[: fact.start] + " " * (fact.end - fact.start) + text[fact.end :]
    return text


def weight_of(word: str, word_counts: Mapping[str, int], sentences: int) -> float:
    """Weight of a stem: the rarer the stem is on the pages, the higher; reduced for words that fit any subject.

    `word_counts` says in how many of the `sentences` of the pages each stem occurs.
    """
    # because of the 0.5, a word that does not occur has a finite weight, the largest of all
    rarity = math.log(1 + (sentences + 1) / (word_counts.get(word, 0) + 0.5))
    return rarity * _GENERIC_FACTOR if word in GENERIC else rarity
