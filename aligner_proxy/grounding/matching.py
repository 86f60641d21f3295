"""Which statement of the references speaks of what a fact of an answer speaks of.

By the words that both share, the rarer the more. A statement is chosen only where it is far ahead of every other one
that says something else; a fact that some statement about as near confirms is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from aligner_proxy.grounding.facts import Fact, Kind, Side, seconds
from aligner_proxy.grounding.page import Page, Statement, weight_of
from aligner_proxy.grounding.words import GENERIC, stem

LEAST = 0.5
"""Evidence that a statement speaks of the same, below which nothing is done."""
OF_STRANGE = 0.4
OF_SHARED = 0.05
MOST_SHARED = 8.0
"""Evidence is the score, less the share of what the statement knows nothing of, and more the more words are shared."""
CONFIRMS = 0.7
"""A statement that says the same confirms a fact from this share of the best score on."""
AHEAD = 0.85
"""A statement that says something else is a rival from this share of the best score on."""
OF_THE_KIND = 0.4
_OF_KIND = {
    Kind.PHONE: frozenset(map(stem, ("call", "contact"))),
    Kind.MAIL: frozenset(map(stem, ("e-mail", "contact"))),
    Kind.MONEY: frozenset(map(stem, ("cost", "pay"))),
}
"""Words that say no more than which kind of fact follows, and what is left of their weight."""
CONTEXT = 0.4
AROUND = 0.3
DISTINCT = 0.6
"""Weight of what tells a statement from a rival, and stands in the answer."""
FAR_MORE = 2.0
MOST_TIMES = 8
MOST_TIMES_OF_A_RIVAL = 50
BESIDE_TAKEN = 0.75
_SAME_PLACE = 1.4
_NO_RANGE = 0.75
_OTHER_END = 0.45
"""What is left of a score where one is the lower end of a range, the other the higher."""


def _times(old: Fact, new: Fact) -> float:
    """How many times the smaller of two values the larger is: what is many times as much is something else."""
    if old.kind in (Kind.TIME, Kind.DATE, Kind.SIZE) or not isinstance(old.value, Decimal):
        return 1.0
    one, other = (seconds(old), seconds(new)) if old.kind is Kind.DURATION else (old.value, new.value)
    assert isinstance(one, Decimal)
    assert isinstance(other, Decimal)
    return float(max(one, other) / min(one, other)) if min(one, other) > 0 else (1.0 if one == other else 99.0)


def _in_one_sentence(one: Statement, other: Statement) -> bool:
    return one.sentence == other.sentence and one.source == other.source


class Finding(StrEnum):
    """What the references say of a fact."""

    NOTHING = "nothing"
    CONFIRMED = "confirmed"
    OTHERWISE = "otherwise"
    SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class Match:
    """What the references say of one fact; `statement` is the one that says otherwise, or confirms."""

    finding: Finding
    statement: Statement | None = None
    score: float = 0.0


NO_MATCH = Match(Finding.NOTHING)


@dataclass(slots=True)
class Subject:
    """What a fact of an answer is about: the words of its sentence, and those around it."""

    about: Mapping[str, float]
    around: Mapping[str, float] = field(default_factory=dict)
    paragraphs: Set[int] = frozenset()
    """Paragraphs of the references that confirm what stands around it."""


class Matcher:
    """Finds the statements of some pages for the facts of an answer."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self.pounds_weigh = all(page.pounds_weigh for page in pages)
        self._known: dict[str, int] = {}
        for page in pages:
            for word, count in page.known.items():
                self._known[word] = self._known.get(word, 0) + count
        self._sentences = sum(page.sentences for page in pages)
        self._weights = {word: weight_of(word, self._known, self._sentences) for word in {*self._known, *GENERIC}}
        self._of_unknown = weight_of("", self._known, self._sentences)
        self._by_kind: dict[Kind, list[Statement]] = {}
        self._by_sentence: dict[tuple[str, int], list[Fact]] = {}
        self._at: dict[tuple[Kind, str], list[tuple[int, float]]] = {}
        """Where a word stands: the statements of a kind by their numbers, with its weight in each."""
        self._sizes: dict[Kind, list[float]] = {}
        for page in pages:
            for statement in page.statements:
                self._add(statement)

    def _add(self, statement: Statement) -> None:
        kind = statement.fact.kind
        of_kind = self._by_kind.setdefault(kind, [])
        for word, weight in statement.about.items():
            self._at.setdefault((kind, word), []).append((len(of_kind), weight))
        of_kind.append(statement)
        self._sizes.setdefault(kind, []).append(self._size(statement.about, kind))
        self._by_sentence.setdefault((statement.source, statement.sentence), []).append(statement.fact)

    def match(self, fact: Fact, subject: Subject, taken: Set[Statement] = frozenset()) -> Match:
        """What the references say of a fact; statements that are `taken` confirm another fact of the answer."""
        scored = self.ranked(fact, subject)
        if not scored:
            return NO_MATCH
        best = scored[0][0]
        for score, statement in scored:
            if score >= CONFIRMS * best and fact.agrees(statement.fact):
                return Match(Finding.CONFIRMED, statement, score)
        free = [(score, statement) for score, statement in scored if statement not in taken]
        if not free or free[0][0] < BESIDE_TAKEN * best or _times(fact, free[0][1].fact) > MOST_TIMES:
            return NO_MATCH
        score, first = free[0]
        if self._evidence(score, subject, first) < LEAST:
            return NO_MATCH
        rivals = [
            statement
            for value, statement in free[1:]
            if (value >= AHEAD * score or _in_one_sentence(first, statement))
            and not first.fact.agrees(statement.fact)
            and not self._prevails(fact, subject, first, statement)
        ]
        return Match(Finding.SEVERAL if rivals else Finding.OTHERWISE, first, score)

    def ranked(self, fact: Fact, subject: Subject) -> list[tuple[float, Statement]]:
        """The statements with a fact of the same form, the one that speaks most of the same first."""
        kind = fact.kind
        shared: dict[int, float] = {}
        for word in subject.about.keys() | subject.around.keys():
            own = max(subject.about.get(word, 0.0), CONTEXT * subject.around.get(word, 0.0))
            weight = self._weight(word, kind) * own
            for number, among in self._at.get((kind, word), ()):
                shared[number] = shared.get(number, 0.0) + weight * among
        size = self._size(subject.about, kind)
        scored = [
            (self._score(fact, subject, statement, shared[number], size * self._sizes[kind][number]), statement)
            for number, statement in ((number, self._by_kind[kind][number]) for number in sorted(shared))
            if fact.same_form(statement.fact) and _times(fact, statement.fact) <= MOST_TIMES_OF_A_RIVAL
        ]
        return sorted(scored, key=lambda pair: -pair[0])

    def beside(self, statement: Statement) -> list[Fact]:
        """The facts of the sentence in which a statement stands."""
        return self._by_sentence[statement.source, statement.sentence]

    def _score(self, fact: Fact, subject: Subject, statement: Statement, shared: float, sizes: float) -> float:
        """How much two sentences speak of the same, which share words of this weight; `sizes` is the weight of all."""
        score = shared / math.sqrt(sizes)
        if Side.NONE not in (fact.side, statement.fact.side) and fact.side is not statement.fact.side:
            score *= _OTHER_END
        if fact.ranged is not statement.fact.ranged:
            score *= _NO_RANGE
        if statement.paragraph in subject.paragraphs:
            score *= _SAME_PLACE
        return score

    def _size(self, about: Mapping[str, float], kind: Kind) -> float:
        """The weight of what a sentence is about, at least 1."""
        return 1.0 + sum(self._weight(word, kind) * weight * weight for word, weight in about.items())

    def _weight(self, word: str, kind: Kind) -> float:
        weight = self._weights.get(word, self._of_unknown)
        return weight * OF_THE_KIND if word in _OF_KIND.get(kind, ()) else weight

    def _evidence(self, score: float, subject: Subject, statement: Statement) -> float:
        """How sure it is that a statement speaks of the same."""
        shared = min(self._own(subject, statement), MOST_SHARED)
        return score - OF_STRANGE * self._strange(subject, statement) + OF_SHARED * shared

    def _prevails(self, fact: Fact, subject: Subject, first: Statement, rival: Statement) -> bool:
        """Whether what tells two statements apart stands in the answer, for the first of them."""
        if Side.NONE is not fact.side is first.fact.side is not rival.fact.side is not Side.NONE:
            return True
        for_first = 0.0
        for_rival = 0.0
        for word in first.about.keys() | rival.about.keys():
            own = max(subject.about.get(word, 0.0), CONTEXT * subject.around.get(word, 0.0))
            more = first.about.get(word, 0.0) - rival.about.get(word, 0.0)
            weight = self._weight(word, fact.kind)
            for_first += weight * own * max(more, 0.0)
            for_rival += weight * own * max(-more, 0.0)
        return for_first >= DISTINCT and for_first >= FAR_MORE * for_rival

    def _own(self, subject: Subject, statement: Statement) -> float:
        """The weight of the words that the two sentences share by themselves."""
        shared = subject.about.keys() & statement.about.keys()
        kind = statement.fact.kind
        return sum(self._weight(word, kind) * subject.about[word] * statement.about[word] for word in shared)

    def _strange(self, subject: Subject, statement: Statement) -> float:
        """The share of what the fact is about of which the statement knows nothing."""
        strange = 0.0
        whole = 0.0
        around = ((word, AROUND * weight) for word, weight in subject.around.items() if word not in subject.about)
        for word, weight in (*subject.about.items(), *around):
            if word in GENERIC:
                continue
            size = self._weight(word, statement.fact.kind) * weight * weight
            whole += size
            if word not in statement.about:
                strange += size
        return strange / whole if whole else 0.0
