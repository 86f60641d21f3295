"""Probability that a statement (a fact of a reference, with its words) is about the same matter as a fact of an answer.

The statements that may be, and the possibility that none of them is, each get a weighted sum of features; a softmax
turns the sums into probabilities. The weights (`evidence.yaml`) were fitted on six businesses by `python -m
models.experiments.grounding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from aligner_proxy_grounding.conditions import count_conditions
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd, seconds
from aligner_proxy_grounding.page import NO_NEIGHBOURS, FactContext, Statement
from aligner_proxy_grounding.passages import SAME_CLAUSE
from aligner_proxy_grounding.words import GENERIC, kin_of

_FILE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FOR_STATEMENT: Mapping[str, float] = _FILE["statement"]
"""Fitted weight of each feature of a statement."""
FOR_NONE: Mapping[str, float] = _FILE["none"]
"""Fitted weight of each feature that speaks for "none of the statements"."""
FOR_REPLACING: Mapping[str, float] = _FILE["replacing"]
"""Fitted weight of each feature of `certainty`."""
OF_KIN = 0.6
"""How much a word counts if the other text has only a related word."""
_COUNT_IN_CONTEXT = 0.7
"""How much a word counts if it occurs near the sentence but not in it."""
_MIN_STATEMENT_COUNT = 0.5
"""Words that count less, which are those of titles and earlier sentences, are not among the words of a statement."""
_EXTRA_WEIGHT = 0.5
"""The `extra` of most calls of `Vocabulary.share`."""
_UNKNOWN_CLOSENESS = 0.5
"""The closeness of two values that cannot be compared."""
_COVERAGE_FACTOR = 1.5
"""Factor for how much a shared word counts before this is cut at 1, so that a word need not be in the same clause."""
_MIN_SUBJECT_WEIGHT = 4.0
"""A sentence whose subject words weigh less than this says too little about its subject."""
_NOT_CLOSE_MINUTES = 4 * 60
"""Difference of two times from which on they are not close at all."""
_RATIO_TO_ZERO = 99.0
"""What `ratio` returns if the smaller value is zero or less."""
_NEIGHBOURS_DIVISOR = 4.0
"""The weight of shared neighbouring words is divided by this."""
_MAX_SCORE = 1.5
"""A higher score counts no more than this."""
_MIN_CHANCE = 1e-4
"""How far probabilities stay away from 0 and 1, so that their log-odds are finite."""
_MAX_CONDITIONS = 2.0
"""Further conditions, met or missed, count no more."""
_ADDRESSES = (FactKind.PHONE, FactKind.MAIL, FactKind.WEB, FactKind.NAME, FactKind.ADDRESS)


@dataclass(slots=True)
class FactSubject:
    """What a fact of an answer is about: the stems (words without endings) of its sentence and the texts around it."""

    topic: Mapping[str, float]
    """How much each stem of its sentence counts, from 0 to 1; the stems of the fact's own clause count 1."""
    context: Mapping[str, float] = field(default_factory=dict)
    """How much each stem of the question, the last heading and the sentences before counts, from 0 to 1."""
    neighbours: FactContext = NO_NEIGHBOURS
    """The words right beside the fact."""
    question_words: Set[str] = frozenset()
    """Stems of the question."""
    answer_words: Set[str] = frozenset()
    """Stems of the answer so far."""
    other_facts: Sequence[Fact] = ()
    """The other facts of its sentence, and the facts that the client gave."""
    paragraphs: Set[tuple[str, int]] = frozenset()
    """`paragraph_id` of the statements that confirm facts of this and the preceding sentences."""
    sentence_cache: dict[Hashable, Any] = field(default_factory=dict)
    """What `Matcher` computed for one fact and reuses for the sentence's other facts, which share the dict."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The stems (words without endings) of the references, with the weight of each for facts of one kind."""

    weight: Callable[[str], float]
    """Returns the weight of a stem; rarer stems weigh more."""
    page_words: Set[str]
    """The stems on the pages."""
    page_kin: Set[int]
    """The groups of related words to which these stems belong (`words.kin_of`)."""

    def has_word(self, word: str) -> bool:
        """Whether the pages contain the stem or a related one."""
        return word in self.page_words or not self.page_kin.isdisjoint(kin_of(word))

    def share(self, part: Iterable[tuple[str, float]], whole: Iterable[tuple[str, float]], extra: float) -> float:
        """Return which share of the weight of `whole` is that of `part`; both are (stem, how much it counts) pairs.

        The weight `extra` is added to that of `whole`. It keeps the share low if `whole` has only a few words, which
        `part` may have by chance.
        """
        return self.sum(part) / (self.sum(whole) + extra)

    def sum(self, word_counts: Iterable[tuple[str, float]]) -> float:
        """Sum up weight times count over (stem, how much it counts) pairs."""
        return sum(self.weight(word) * count for word, count in word_counts)


class WordCounts:
    """Function from a stem to how much it counts in a text, where a related word of the text counts a little less."""

    def __init__(self, counts: Mapping[str, float]) -> None:
        self._counts = counts
        self._group_counts: dict[int, float] = {}
        """The highest count that a word of the text has, for each group of related words."""
        for word, count in counts.items():
            for group in kin_of(word):
                self._group_counts[group] = max(count, self._group_counts.get(group, 0.0))

    def __call__(self, stem: str) -> float:
        """Return the count of a stem, or `OF_KIN` times that of a related stem if this is more; 0 without either."""
        own_count = self._counts.get(stem, 0.0)
        # no related word can count more than this
        if own_count >= SAME_CLAUSE:
            return own_count
        related_count = max((self._group_counts.get(group, 0.0) for group in kin_of(stem)), default=0.0)
        return max(own_count, OF_KIN * related_count)


def ratio(old: Fact, new: Fact) -> float:
    """The larger of two values of one kind divided by the smaller; 1 for kinds whose values have no ratio.

    Values of very different size are probably about different matters.
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
    smaller, larger = sorted((old_value, new_value))
    return float(larger / smaller) if smaller > 0 else _RATIO_TO_ZERO


def _closeness(old: Fact, new: Fact) -> float:
    """Similarity of two values of one kind, from 0 to 1; `_UNKNOWN_CLOSENESS` if they cannot be compared.

    An outdated value is usually close to the current one, so close values are more likely about the same matter.
    """
    old_value = old.value
    new_value = new.value
    if old.kind is FactKind.TIME and isinstance(old_value, Decimal) and isinstance(new_value, Decimal):
        # a mistaken time is off by some hours, whatever its ratio
        return max(0.0, 1 - abs(int(old_value) - int(new_value)) / _NOT_CLOSE_MINUTES)
    if isinstance(old_value, Decimal):
        return 1 / ratio(old, new)
    if isinstance(old_value, str) and isinstance(new_value, str):
        if old.kind is FactKind.PHONE:
            equal_digits = sum(
                old_digit == new_digit for old_digit, new_digit in zip(old_value, new_value, strict=False)
            )
            return equal_digits / max(len(old_value), len(new_value))
        if old.kind is FactKind.MAIL:
            old_name, _, old_host = old_value.partition("@")
            new_name, _, new_host = new_value.partition("@")
            return ((old_name == new_name) + (old_host == new_host)) / 2
    return _UNKNOWN_CLOSENESS


def log_odds(chance: float) -> float:
    """Log-odds of a probability, in nats; finite, because a probability near 0 or 1 counts as `_MIN_CHANCE` from it."""
    limited_chance = min(max(chance, _MIN_CHANCE), 1 - _MIN_CHANCE)
    return math.log(limited_chance / (1 - limited_chance))


def certainty(features: Mapping[str, float]) -> float:
    """Probability that a fact is wrong and a statement is right, by a logistic regression on `features`.

    The names of the features are those of `FOR_REPLACING`.
    """
    weighted_sum = sum(FOR_REPLACING[name] * value for name, value in features.items())
    return 1 / (1 + math.exp(-weighted_sum))


class ScoredStatement(NamedTuple):
    """A statement with its score, which is higher the likelier it is about the same matter as a fact of an answer."""

    score: float
    statement: Statement


class StatementScorer:
    """Estimates, for one fact of an answer, which statement is about the same matter.

    Features are numbers that speak for or against a statement, such as the share of common words.
    """

    def __init__(self, fact: Fact, subject: FactSubject, vocabulary: Vocabulary) -> None:
        self._fact = fact
        self._subject = subject
        self._vocabulary = vocabulary
        self._subject_counts = dict(subject.topic)
        """How much each stem of the sentence and of its context counts."""
        for word, count in subject.context.items():
            self._subject_counts[word] = max(self._subject_counts.get(word, 0.0), _COUNT_IN_CONTEXT * count)
        self._count_in_subject = WordCounts(self._subject_counts)
        self._topic_words = [(word, count) for word, count in subject.topic.items() if word not in GENERIC]
        """(stem, how much it counts) of the words that say what the sentence is about."""

    def chances(self, scored_statements: Sequence[ScoredStatement], repeated_statements: Set[Statement]) -> list[float]:
        """Return, for each statement, the probability that it is about the same matter as the fact.

        The rest to a sum of 1 is the probability that none of them is. `scored_statements` come from
        `Matcher.rank_statements`; `repeated_statements` are those whose values other facts of the answer already have.
        """
        weighted_sums = []
        for score, statement in scored_statements:
            evidence = self.evidence_for(statement, score, is_repeated=statement in repeated_statements)
            weighted_sums.append(sum(FOR_STATEMENT[name] * value for name, value in evidence.items()))
        evidence_for_none = self.evidence_for_none(scored_statements)
        sum_for_none = sum(FOR_NONE[name] * value for name, value in evidence_for_none.items())
        # a softmax; the largest sum is subtracted from all sums, so that exp() cannot overflow
        largest_sum = max([sum_for_none, *weighted_sums])
        exponentials = [math.exp(weighted_sum - largest_sum) for weighted_sum in weighted_sums]
        total = sum(exponentials) + math.exp(sum_for_none - largest_sum)
        return [exponential / total for exponential in exponentials]

    def evidence_for(self, statement: Statement, score: float, *, is_repeated: bool) -> dict[str, float]:
        """Return the features for and against one statement, by the names of the weights in `FOR_STATEMENT`.

        `score` is that of `Matcher.rank_statements`. `is_repeated`: whether another fact of the answer already has the
        value of the statement.
        """
        fact = self._fact
        stated_fact = statement.fact
        subject = self._subject
        vocabulary = self._vocabulary
        # these lists are (stem, how much it counts) pairs
        statement_words = [
            (word, count) for word, count in statement.word_weights.items() if count >= _MIN_STATEMENT_COUNT
        ]
        clause_words = [(word, 1.0) for word, count in statement_words if count >= SAME_CLAUSE]
        sentence_words = [(word, count) for word, count in self._topic_words if word in vocabulary.page_words]
        question_words = [(word, 1.0) for word in subject.question_words if vocabulary.has_word(word)]
        # the same lists, with counts reduced to how far the other text has the word
        count_in_statement = WordCounts(statement.word_weights)
        covered_clause = [(word, self._subject_counts.get(word, 0.0)) for word, _ in clause_words]
        covered_statement = [(word, count * self._count_in_subject(word)) for word, count in statement_words]
        covered_sentence = [
            (word, count * min(1.0, _COVERAGE_FACTOR * statement.word_weights.get(word, 0.0)))
            for word, count in sentence_words
        ]
        covered_question = [(word, min(1.0, _COVERAGE_FACTOR * count_in_statement(word))) for word, _ in question_words]
        # the ends of ranges, or the rates, are compared only if both facts have one
        have_sides = RangeEnd.NONE not in (fact.side, stated_fact.side)
        have_rates = "" not in (subject.neighbours.rate, statement.neighbours.rate)
        is_same_rate = subject.neighbours.rate == statement.neighbours.rate
        met_count, missed_count = count_conditions(statement.conditions, subject.other_facts)
        shared_before = subject.neighbours.before & statement.neighbours.before
        shared_behind = subject.neighbours.behind & statement.neighbours.behind
        return {
            "shared": min(score, _MAX_SCORE),
            "clause_covered": vocabulary.share(covered_clause, clause_words, _EXTRA_WEIGHT),
            "statement_covered": vocabulary.share(covered_statement, statement_words, _EXTRA_WEIGHT),
            "sentence_covered": vocabulary.share(covered_sentence, sentence_words, _EXTRA_WEIGHT),
            "question_covered": vocabulary.share(covered_question, question_words, 1.0),
            "same_side": float(have_sides and fact.side is stated_fact.side),
            "other_side": float(have_sides and fact.side is not stated_fact.side),
            "one_is_a_range": float(fact.ranged is not stated_fact.ranged),
            "same_paragraph": float(statement.paragraph_id in subject.paragraphs),
            "close": _closeness(fact, stated_fact),
            "taken": float(is_repeated),
            "words_before": vocabulary.sum((word, 1.0) for word in shared_before) / _NEIGHBOURS_DIVISOR,
            "words_behind": vocabulary.sum((word, 1.0) for word in shared_behind) / _NEIGHBOURS_DIVISOR,
            "same_rate": float(have_rates and is_same_rate) - float(have_rates and not is_same_rate),
            "conditions_met": min(met_count, _MAX_CONDITIONS),
            "conditions_missed": min(missed_count, _MAX_CONDITIONS),
        }

    def evidence_for_none(self, scored_statements: Sequence[ScoredStatement]) -> dict[str, float]:
        """Return the features for "none of the statements", by the names of the weights in `FOR_NONE`.

        An `unknown` word is not on the pages; a `strange` word has not even a related word there. Kinds of facts are
        features because some kinds, such as addresses, more often have no statement.
        """
        subject = self._subject
        vocabulary = self._vocabulary
        kind = self._fact.kind
        # these lists are (stem, how much it counts) pairs
        topic = [(word, 1.0) for word in subject.question_words & subject.answer_words if word not in GENERIC]
        unknown_topic = [(word, count) for word, count in topic if word not in vocabulary.page_words]
        strange_topic = [(word, count) for word, count in topic if not vocabulary.has_word(word)]
        strange_sentence = [(word, count) for word, count in self._topic_words if not vocabulary.has_word(word)]
        question = [(word, 1.0) for word in subject.question_words if word not in GENERIC]
        strange_question = [(word, count) for word, count in question if not vocabulary.has_word(word)]
        value_count = len({str(statement.fact.value) for _, statement in scored_statements})
        return {
            "always": 1.0,
            "topic_unknown": vocabulary.share(unknown_topic, topic, 1.0),
            "topic_strange": vocabulary.share(strange_topic, topic, 1.0),
            "sentence_strange": vocabulary.share(strange_sentence, self._topic_words, _EXTRA_WEIGHT),
            "question_strange": vocabulary.share(strange_question, question, _EXTRA_WEIGHT),
            "few_values": 1 / (1 + value_count),
            "address": float(kind in _ADDRESSES),
            "count": float(kind in (FactKind.COUNT, FactKind.LABEL, FactKind.VERSION)),
            "time": float(kind in (FactKind.TIME, FactKind.DATE)),
            "weekday": float(kind is FactKind.WEEKDAY),
            "says_little": float(vocabulary.sum(self._topic_words) < _MIN_SUBJECT_WEIGHT),
        }
