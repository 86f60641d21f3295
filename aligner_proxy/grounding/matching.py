"""Which statement of the references speaks of what a fact of an answer speaks of.

By the words that both share, the rarer the more. A statement is chosen only where it is far ahead of every other one
that says something else; a fact that some statement about as near confirms is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from aligner_proxy.grounding.facts import Fact, Kind, Side
from aligner_proxy.grounding.page import Page, Statement, weight_of
from aligner_proxy.grounding.words import GENERIC

LEAST = 0.34
"""A statement that scores less does not speak of the same."""
LEAST_OWN = 0.8
"""Weight of what both sentences share by themselves, without what stands around them."""
CONFIRMS = 0.6
"""A statement that says the same confirms a fact from this share of the best score on."""
AHEAD = 0.8
"""A statement that says something else is a rival from this share of the best score on."""
STRANGE = 0.5
"""Most of the weight of the fact's clause that may be words of which the statement knows nothing."""
CONTEXT = 0.4
_OTHER_END = 0.45
"""What is left of a score where one is the lower end of a range, the other the higher."""


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


class Matcher:
    """Finds the statements of some pages for the facts of an answer."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = pages
        self._known: dict[str, int] = {}
        for page in pages:
            for word, count in page.known.items():
                self._known[word] = self._known.get(word, 0) + count
        self._sentences = sum(page.sentences for page in pages)
        self._by_kind: dict[Kind, list[Statement]] = {}
        for page in pages:
            for statement in page.statements:
                self._by_kind.setdefault(statement.fact.kind, []).append(statement)

    def match(self, fact: Fact, subject: Subject, taken: Set[Statement] = frozenset()) -> Match:
        """What the references say of a fact; statements that are `taken` confirm another fact of the answer."""
        candidates = [s for s in self._by_kind.get(fact.kind, ()) if fact.same_form(s.fact)]
        scored = sorted(((self._score(fact, subject, s), s) for s in candidates), key=lambda pair: -pair[0])
        scored = [(score, statement) for score, statement in scored if score > 0]
        if not scored:
            return NO_MATCH
        best = scored[0][0]
        for score, statement in scored:
            if score >= CONFIRMS * best and fact.agrees(statement.fact):
                return Match(Finding.CONFIRMED, statement, score)
        score, first = scored[0]
        if score < LEAST or self._strange(subject, first) > STRANGE or self._own(subject, first) < LEAST_OWN:
            return NO_MATCH
        rivals = [s for value, s in scored[1:] if value >= AHEAD * best and not first.fact.agrees(s.fact)]
        if rivals:
            return Match(Finding.SEVERAL, first, score)
        if first in taken:
            return NO_MATCH
        return Match(Finding.OTHERWISE, first, score)

    def _score(self, fact: Fact, subject: Subject, statement: Statement) -> float:
        shared = 0.0
        for word, weight in statement.about.items():
            own = max(subject.about.get(word, 0.0), CONTEXT * subject.around.get(word, 0.0))
            if own:
                shared += self._weight(word) * own * weight
        if not shared:
            return 0.0
        score = shared / ((self._size(subject.about) + 1.0) * (self._size(statement.about) + 1.0)) ** 0.5
        if Side.NONE not in (fact.side, statement.fact.side) and fact.side is not statement.fact.side:
            score *= _OTHER_END
        return score

    def _size(self, about: Mapping[str, float]) -> float:
        return sum(self._weight(word) * weight * weight for word, weight in about.items())

    def _weight(self, word: str) -> float:
        return weight_of(word, self._known, self._sentences)

    def _own(self, subject: Subject, statement: Statement) -> float:
        """The weight of the words that the two sentences share by themselves."""
        shared = subject.about.keys() & statement.about.keys()
        return sum(self._weight(word) * subject.about[word] * statement.about[word] for word in shared)

    def _strange(self, subject: Subject, statement: Statement) -> float:
        """The share of what the fact is about of which the statement knows nothing."""
        strange = 0.0
        whole = 0.0
        for word, weight in subject.about.items():
            if word in GENERIC:
                continue
            size = self._weight(word) * weight * weight
            whole += size
            if word not in statement.about:
                strange += size
        return strange / whole if whole else 0.0
