"""How likely it is that a statement is about the same matter as a fact of an answer.

The score of a statement is a weighted sum of counted features. The statements compete with each other and with "none of
them" (a softmax). The few weights (`evidence.yaml`) were fitted on six businesses by `python -m
models.experiments.grounding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from aligner_proxy_grounding.conditions import count_conditions
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd, seconds
from aligner_proxy_grounding.page import NOTHING_NEAR, FactContext, Statement
from aligner_proxy_grounding.passages import SAME_CLAUSE
from aligner_proxy_grounding.words import GENERIC, kin_of

_FILE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FOR_STATEMENT: Mapping[str, float] = _FILE["statement"]
FOR_NONE: Mapping[str, float] = _FILE["none"]
FOR_REPLACING: Mapping[str, float] = _FILE["replacing"]
"""Fitted weights by the names of the features: for a statement, for "none of them", and for `certainty`."""
OF_KIN = 0.6
"""How much a word counts if the other side has only a related word."""
_AROUND = 0.7
"""How much a word counts if it occurs near the sentence but not in it."""
_HALF = 0.5
"""Middle of the scale from 0 to 1: least weight of a subject word, and closeness of values that cannot be compared."""
_WHOLE = 1.5
"""Factor for the weight of a shared word before it is cut at 1, so that a word need not be in the same clause."""
_LITTLE = 4.0
"""A sentence whose subject words weigh less than this says too little about its subject."""
_HOURS_APART = 4 * 60
"""Difference of two times, in minutes, from which on they are not close at all."""
_LONGEST_TIMES = 99.0
"""Ratio of two values if the smaller one is zero or less."""
_NEAR = 4.0
"""Divisor of the weight of shared neighbouring words."""
_MAX_SCORE = 1.5
"""A higher score counts no more than this."""
_MIN_CHANCE = 1e-4
"""How far probabilities stay away from 0 and 1, so that their log-odds are finite."""
_MAX_CONDITIONS = 2.0
"""Further conditions, met or missed, count no more."""
_ADDRESSES = (FactKind.PHONE, FactKind.MAIL, FactKind.WEB, FactKind.NAME, FactKind.ADDRESS)


@dataclass(slots=True)
class FactSubject:
    """What a fact of an answer is about: the words of its sentence, and the words around it."""

    topic: Mapping[str, float]
    """Stems of its sentence, each with how much it counts from 0 to 1; those of the fact's own clause count 1."""
    context: Mapping[str, float] = field(default_factory=dict)
    """The same for stems of the question, the last heading and the sentences before."""
    near: FactContext = NOTHING_NEAR
    """The words right beside the fact."""
    question_words: Set[str] = frozenset()
    """Words of the question."""
    answer_words: Set[str] = frozenset()
    """Words of the answer so far."""
    other_facts: Sequence[Fact] = ()
    """The other facts of its sentence, and the facts that the client gave."""
    paragraphs: Set[tuple[str, int]] = frozenset()
    """Paragraphs of the references that confirm facts of this and the preceding sentences."""
    computed_for_sentence: dict[Hashable, Any] = field(default_factory=dict)
    """What `Matcher` keeps for the next fact of the sentence; all facts of a sentence share the dict."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Weights of words for facts of one kind, and the words that the pages contain."""

    weight: Callable[[str], float]
    """Gives the weight of a stem; rarer ones weigh more."""
    page_words: Set[str]
    """The stems on the pages."""
    page_kin: Set[int]
    """The groups of related words to which these stems belong (`words.kin_of`)."""

    def has_word(self, word: str) -> bool:
        """Whether the pages contain the word or a related one."""
        return word in self.page_words or not self.page_kin.isdisjoint(kin_of(word))

    def share(self, part: Iterable[tuple[str, float]], whole: Iterable[tuple[str, float]], besides: float) -> float:
        """Weight of `part` divided by the sum of the weight of `whole` and `besides`; both are (stem, count) pairs.

        `besides` keeps the share low if `whole` has only a few words, which may be shared by chance.
        """
        return self.sum(part) / (self.sum(whole) + besides)

    def sum(self, counted: Iterable[tuple[str, float]]) -> float:
        """Sum over the words of weight times count."""
        return sum(self.weight(word) * count for word, count in counted)


class WordCounts:
    """Lookup of how much a stem counts in a text; a related word of the text gives a reduced count."""

    def __init__(self, counts: Mapping[str, float]) -> None:
        self._counts = counts
        # Group of related words -> the highest count of its words in the text.
        self._kin: dict[int, float] = {}
        for word, count in counts.items():
            for group in kin_of(word):
                self._kin[group] = max(count, self._kin.get(group, 0.0))

    def __call__(self, stem: str) -> float:
        """The count of a stem, or `OF_KIN` times that of a related one if this is more; 0 without either."""
        own_count = self._counts.get(stem, 0.0)
        # the highest count that there is
        if own_count >= SAME_CLAUSE:
            return own_count
        related_count = max((self._kin.get(group, 0.0) for group in kin_of(stem)), default=0.0)
        return max(own_count, OF_KIN * related_count)


def ratio(old: Fact, new: Fact) -> float:
    """The larger of two values divided by the smaller; 1 for kinds without a ratio.

    A value many times as large is probably about something else.
    """
    if old.kind in (FactKind.TIME, FactKind.DATE, FactKind.SIZE) or not isinstance(old.value, Decimal):
        return 1.0
    in_seconds = old.kind is FactKind.DURATION
    old_value = seconds(old) if in_seconds else old.value
    new_value = seconds(new) if in_seconds else new.value
    assert isinstance(old_value, Decimal)
    assert isinstance(new_value, Decimal)
    if old_value == new_value:
        return 1.0
    return (
        float(max(old_value, new_value) / min(old_value, new_value))
        if min(old_value, new_value) > 0
        else _LONGEST_TIMES
    )


def _closeness(old: Fact, new: Fact) -> float:
    """Similarity of two values, from 0 to 1; `_HALF` for kinds whose values are not comparable.

    An outdated value is usually close to the current one, so closeness speaks for the same matter.
    """
    old_value = old.value
    new_value = new.value
    if old.kind is FactKind.TIME and isinstance(old_value, Decimal) and isinstance(new_value, Decimal):
        # a mistaken time is off by some hours, whatever its ratio
        return max(0.0, 1 - abs(int(old_value) - int(new_value)) / _HOURS_APART)
    if isinstance(old_value, Decimal):
        return 1 / ratio(old, new)
    if isinstance(old_value, str) and isinstance(new_value, str):
        if old.kind is FactKind.PHONE:
            return sum(
                old_digit == new_digit for old_digit, new_digit in zip(old_value, new_value, strict=False)
            ) / max(len(old_value), len(new_value))
        if old.kind is FactKind.MAIL:
            (name, _, host), (name2, _, host2) = old_value.partition("@"), new_value.partition("@")
            return _HALF * (name == name2) + _HALF * (host == host2)
    return _HALF


def log_odds(chance: float) -> float:
    """Log-odds of a probability, in nats; the probability is bounded away from 0 and 1."""
    bounded = min(max(chance, _MIN_CHANCE), 1 - _MIN_CHANCE)
    return math.log(bounded / (1 - bounded))


def certainty(counts: Mapping[str, float]) -> float:
    """Probability that a fact is wrong and a statement gives the right one (a logistic regression on `counts`)."""
    return 1 / (1 + math.exp(-sum(FOR_REPLACING[name] * value for name, value in counts.items())))


class StatementScorer:
    """Scores the statements that may be about one fact of an answer."""

    def __init__(self, fact: Fact, subject: FactSubject, vocabulary: Vocabulary) -> None:
        self._fact = fact
        self._subject = subject
        self._vocabulary = vocabulary
        # How much each stem of the sentence and of its context counts.
        everything = dict(subject.topic)
        for word, count in subject.context.items():
            everything[word] = max(everything.get(word, 0.0), _AROUND * count)
        # The same with and without related words.
        self._everything = WordCounts(everything)
        self._exact = everything
        # (stem, count) of the words that say what the sentence is about.
        self._own = [(word, count) for word, count in subject.topic.items() if word not in GENERIC]

    def chances(self, scored: Sequence[tuple[float, Statement]], repeated: Set[Statement]) -> list[float]:
        """Probability of each statement to be about the same matter as the fact; the remainder to 1 is "none of them".

        `scored` are (score, statement) pairs, `repeated` the statements that other facts of the answer repeat.
        """
        sums = []
        for score, statement in scored:
            evidence = self.evidence_for(statement, score, statement in repeated)
            sums.append(sum(FOR_STATEMENT[name] * value for name, value in evidence.items()))
        sum_for_none = sum(FOR_NONE[name] * value for name, value in self.evidence_for_none(scored).items())
        # a softmax; the largest sum is subtracted from all, so that exp() cannot overflow
        largest = max([sum_for_none, *sums])
        parts = [math.exp(value - largest) for value in sums]
        whole = sum(parts) + math.exp(sum_for_none - largest)
        return [part / whole for part in parts]

    def evidence_for(self, statement: Statement, score: float, is_taken: bool) -> dict[str, float]:
        """The features for and against one statement, by the names of the weights in `FOR_STATEMENT`.

        `is_taken` says that another fact of the answer already repeats the statement.
        """
        fact = self._fact
        stated = statement.fact
        subject = self._subject
        words = self._vocabulary
        # the statement's own words: those of the title and of earlier sentences weigh less, and are left out
        weighty_words = [(word, count) for word, count in statement.about.items() if count >= _HALF]
        clause_words = [(word, 1.0) for word, count in weighty_words if count >= SAME_CLAUSE]
        of_statement = WordCounts(statement.about)
        known_words = [(word, count) for word, count in self._own if word in words.page_words]
        known_question = [(word, 1.0) for word in subject.question_words if words.has_word(word)]
        # the ends, or the rates, are compared only if both facts have one
        sides = RangeEnd.NONE not in (fact.side, stated.side)
        rated = "" not in (subject.near.rate, statement.near.rate)
        same_rate = subject.near.rate == statement.near.rate
        met_count, missed_count = count_conditions(statement.conditions, subject.other_facts)
        in_clause = [(word, self._exact.get(word, 0.0)) for word, _ in clause_words]
        in_its = [(word, count * self._everything(word)) for word, count in weighty_words]
        in_known = [(word, count * min(1.0, _WHOLE * statement.about.get(word, 0.0))) for word, count in known_words]
        in_asked = [(word, min(1.0, _WHOLE * of_statement(word))) for word, _ in known_question]
        return {
            "shared": min(score, _MAX_SCORE),
            "clause_covered": words.share(in_clause, clause_words, _HALF),
            "statement_covered": words.share(in_its, weighty_words, _HALF),
            "sentence_covered": words.share(in_known, known_words, _HALF),
            "question_covered": words.share(in_asked, known_question, 1.0),
            "same_side": float(sides and fact.side is stated.side),
            "other_side": float(sides and fact.side is not stated.side),
            "one_is_a_range": float(fact.ranged is not stated.ranged),
            "same_paragraph": float(statement.stretch in subject.paragraphs),
            "close": _closeness(fact, stated),
            "taken": float(is_taken),
            "words_before": words.sum((word, 1.0) for word in subject.near.before & statement.near.before) / _NEAR,
            "words_behind": words.sum((word, 1.0) for word in subject.near.behind & statement.near.behind) / _NEAR,
            "same_rate": float(rated and same_rate) - float(rated and not same_rate),
            "conditions_met": min(met_count, _MAX_CONDITIONS),
            "conditions_missed": min(missed_count, _MAX_CONDITIONS),
        }

    def evidence_for_none(self, scored: Sequence[tuple[float, Statement]]) -> dict[str, float]:
        """The features for "none of the statements", by the names of the fitted weights.

        `unknown` words are not on the page, `strange` ones have nothing similar on it either. Kinds of facts are
        features because some kinds, such as addresses, more often have no statement.
        """
        subject = self._subject
        words = self._vocabulary
        kind = self._fact.kind
        topic = [(word, 1.0) for word in subject.question_words & subject.answer_words if word not in GENERIC]
        topical_question = [(word, 1.0) for word in subject.question_words if word not in GENERIC]
        values = len({str(statement.fact.value) for _, statement in scored})
        return {
            "always": 1.0,
            "topic_unknown": words.share(
                ((word, 1.0) for word, _ in topic if word not in words.page_words), topic, 1.0
            ),
            "topic_strange": words.share(((word, 1.0) for word, _ in topic if not words.has_word(word)), topic, 1.0),
            "sentence_strange": words.share(
                ((word, count) for word, count in self._own if not words.has_word(word)), self._own, _HALF
            ),
            "question_strange": words.share(
                ((word, 1.0) for word, _ in topical_question if not words.has_word(word)), topical_question, _HALF
            ),
            "few_values": 1 / (1 + values),
            "address": float(kind in _ADDRESSES),
            "count": float(kind in (FactKind.COUNT, FactKind.LABEL, FactKind.VERSION)),
            "time": float(kind in (FactKind.TIME, FactKind.DATE)),
            "weekday": float(kind is FactKind.WEEKDAY),
            "says_little": float(words.sum(self._own) < _LITTLE),
        }
