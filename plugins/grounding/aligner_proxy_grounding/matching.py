"""Search for the statement (a fact of a reference, with its words) that is about the same matter as an answer's fact.

Statements are ranked by the words that they share with the sentence; rare words weigh more. For the top statements,
`evidence.py` estimates the probabilities. The likeliest statement with another value replaces the fact if it is certain
enough that the fact is wrong and the statement right.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from heapq import nlargest
from typing import NamedTuple

from aligner_proxy_grounding.conditions import count_conditions
from aligner_proxy_grounding.evidence import (
    FactSubject,
    ScoredStatement,
    StatementScorer,
    Vocabulary,
    certainty,
    log_odds,
    ratio,
)
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd, Value, seconds
from aligner_proxy_grounding.forms.reading import Conventions
from aligner_proxy_grounding.page import ReferencePage, Statement, weight_of
from aligner_proxy_grounding.words import GENERIC, kin_of, stem

UNSETTLED = 0.4
"""From this certainty on that a statement contradicts a fact, the sentence is reported as unsettled."""
DOUBTFUL_AGAINST = 0.3
"""The editor is asked about a confirmed fact if the probability that any statement with another value is about the same
matter is at least this. It is asked about every other fact for which a statement may give another value."""
DOUBTFUL_TO_A_JUDGE = 0.1
"""The same probability for a judge. It is lower, because a judge cannot write what is not on the page, and is asked
about all facts in one call."""
MAX_VALUES = 4
"""How many values of the references a judge may choose from; the right one is hardly ever behind them."""
MAX_RANKED = 300
"""How many statements are ranked for a fact: those that share most words with its sentence, and as many with the fact's
value. Without this limit, 170 prices in a sentence would be compared with 3,000 prices on a page."""
MAX_WEIGHED = 10
"""For how many top-ranked statements the probability is estimated."""
CONFIRMS = 0.7
"""A statement with the same value confirms a fact if its score is at least this share of the best score."""
CONFIRMS_BESIDE = 0.6
"""This share is enough for a statement in the paragraph or row of the statement with the best score."""
ANNOUNCING_FACTOR = 0.4
"""Factor for the weight of words that only announce the kind of fact."""
_ANNOUNCING_STEMS = {
    FactKind.PHONE: frozenset(map(stem, ("call", "contact"))),
    FactKind.MAIL: frozenset(map(stem, ("e-mail", "contact"))),
    FactKind.MONEY: frozenset(map(stem, ("cost", "pay"))),
}
"""The stems of these words: "call" before a telephone number says nothing about its subject."""
CONTEXT_FACTOR = 0.4
"""Factor for how much a word counts that is not in the sentence but only in its context."""
MAX_TIMES_LARGER = 8
"""By words alone, a statement whose value is more than this many times larger or smaller replaces nothing."""
MAX_TIMES_OF_A_RIVAL = 50
"""A statement whose value is more than this many times larger or smaller is not even ranked."""
_SAME_PARAGRAPH_FACTOR = 1.4
"""Factor for a score if the statement's paragraph confirms other facts of the answer."""

_MET_FACTOR = 1.6
"""Factor for a score, for each condition of the statement that is met."""
_MISSED_FACTOR = 0.5
"""Factor for a score, for each condition of the statement that is missed."""
_ONE_RANGE_FACTOR = 0.75
"""Factor for a score if only one of the two facts belongs to a range that is written out."""
_OTHER_END_FACTOR = 0.45
"""Factor for a score if one fact is the lower end of a range and the other the upper end."""


class FactFinding(StrEnum):
    """What the references say about a fact."""

    NOTHING = "nothing"
    CONFIRMED = "confirmed"
    """A statement about the same matter has the same value."""
    CONTRADICTED = "otherwise"
    """A statement certainly about the same matter has another value."""
    UNSETTLED = "unsettled"
    """A statement that is probably about the same matter has another value; or contact data that no reference has."""


@dataclass(frozen=True, slots=True)
class Match:
    """What the references say about one fact."""

    finding: FactFinding
    statement: Statement | None = None
    """The statement that contradicts or confirms the fact, if any."""
    score: float = 0.0
    """For a contradiction its certainty, from 0 to 1; for a confirmation the score of the shared words."""


NO_MATCH = Match(FactFinding.NOTHING)


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """What matters of the answer around a fact."""

    repeated_statements: Set[Statement] = frozenset()
    """The statements that other facts of the answer repeat."""
    fact_count: int = 1
    """How many facts the sentence has."""


@dataclass(frozen=True, slots=True)
class FactCandidate:
    """The statement most likely to contradict a fact."""

    statement: Statement
    chance_of_any: float
    """Probability that any statement with another value, this one included, is about the same matter."""
    features: Mapping[str, float]
    """The features of `evidence.certainty`, by the names of the weights."""

    @property
    def is_far(self) -> bool:
        """Whether the values differ too much for a replacement by words alone."""
        return self.features["times"] > MAX_TIMES_LARGER

    @property
    def certainty(self) -> float:
        """Probability that the fact is wrong and the statement right."""
        return certainty(self.features)

    def as_match(self, finding: FactFinding) -> Match:
        """The candidate as a match with this finding."""
        return Match(finding, self.statement, self.certainty)


class SharingStatements(NamedTuple):
    """The statements of one kind that share words with a sentence, by their indexes in the list of the kind."""

    weights: Mapping[int, float]
    """The weight of the words that each statement shares."""
    ranked: Collection[int]
    """The indexes of the statements to rank: all, or the `MAX_RANKED` best ones if there are more."""
    topic_size: float
    """The weight of all words of the sentence (`Matcher._size`)."""


class PageWords:
    """The stems (words without endings) of some references with their weights: rare stems weigh more."""

    def __init__(self, pages: Sequence[ReferencePage]) -> None:
        self._sentence_counts: dict[str, int] = {}
        """In how many sentences of all pages each stem occurs."""
        for page in pages:
            for word, count in page.word_counts.items():
                self._sentence_counts[word] = self._sentence_counts.get(word, 0) + count
        sentences = sum(page.sentences for page in pages)
        self._weights = {
            word: weight_of(word, self._sentence_counts, sentences) for word in {*self._sentence_counts, *GENERIC}
        }
        # no page contains "", so this is the weight of any unknown word
        self._unknown_weight = weight_of("", self._sentence_counts, sentences)
        self._kin = {group for word in self._sentence_counts for group in kin_of(word)}
        """The groups of related words to which stems of the pages belong."""

    def weight(self, word: str, kind: FactKind) -> float:
        """The weight of a stem in a sentence with a fact of this kind."""
        weight = self._weights.get(word, self._unknown_weight)
        return weight * ANNOUNCING_FACTOR if word in _ANNOUNCING_STEMS.get(kind, ()) else weight

    def vocabulary(self, kind: FactKind) -> Vocabulary:
        """Return the vocabulary of the pages, with the weights for facts of one kind."""
        return Vocabulary(lambda word: self.weight(word, kind), self._sentence_counts.keys(), self._kin)


class Matcher:
    """Finds the statements of some references (pages) that are about a fact of an answer.

    A statement is a fact of a page, with the words around it.
    """

    def __init__(self, pages: Sequence[ReferencePage]) -> None:
        self.name = pages[0].name if pages else ""
        """The name of the first page."""
        # The pages decide the order of day and month only if those that show an order agree.
        orders = {page.conventions.month_first for page in pages} - {None}
        self.conventions = Conventions(
            pounds_weigh=all(page.conventions.pounds_weigh for page in pages),
            month_first=orders.pop() if len(orders) == 1 else None,
        )
        self.procedures = tuple(procedure for page in pages for procedure in page.procedures)
        self._words = PageWords(pages)
        self.vocabularies = {kind: self._words.vocabulary(kind) for kind in FactKind}
        self._hosts: set[str] = set()
        """The hosts of web and mail addresses on the pages."""
        self._by_kind: dict[FactKind, list[Statement]] = {}
        """The statements of each kind of fact. The attributes below name a statement by its index in this list."""
        self._sizes: dict[FactKind, list[float]] = {}
        """For each statement of a kind, the weight of its words (`_size`)."""
        self._indexes_by_word: dict[tuple[FactKind, str], list[tuple[int, float]]] = {}
        """By kind and stem: (index of a statement, how much the stem counts in it) pairs."""
        self._indexes_by_value: dict[tuple[FactKind, Value], list[int]] = {}
        """By kind and value: the indexes of the statements with this value."""
        self._by_sentence: dict[tuple[str, int], list[Fact]] = {}
        """By source and number of a sentence: the facts of the sentence."""
        for page in pages:
            for statement in page.statements:
                self._add(statement)

    def _add(self, statement: Statement) -> None:
        """Index a statement by its kind and words, and by its sentence."""
        kind = statement.fact.kind
        if kind in (FactKind.WEB, FactKind.MAIL):
            self._hosts.add(_host(statement.fact))
        statements_of_kind = self._by_kind.setdefault(kind, [])
        index = len(statements_of_kind)
        statements_of_kind.append(statement)
        self._sizes.setdefault(kind, []).append(self._size(statement.word_weights, kind))
        for word, weight in statement.word_weights.items():
            self._indexes_by_word.setdefault((kind, word), []).append((index, weight))
        self._indexes_by_value.setdefault((kind, statement.fact.value), []).append(index)
        self._by_sentence.setdefault((statement.source, statement.sentence), []).append(statement.fact)

    def match(
        self,
        fact: Fact,
        subject: FactSubject,
        context: AnswerContext,
        *,
        replace_from: float,
        doubtful_from: float | None = None,
    ) -> Match:
        """Return whether the references confirm or contradict a fact, or leave it unsettled.

        Without `doubtful_from`, the fact is contradicted if another value is right with at least the certainty
        `replace_from`. If a judge or an editor decides in the end, `doubtful_from` is set, and no fact is contradicted:
        a fact is unsettled if a statement with another value shares a word with its sentence. But a fact that another
        statement confirms is unsettled only if some other value is meant with at least the probability `doubtful_from`.
        """
        scored_statements = self.rank_statements(fact, subject)
        confirmation = self._confirming_match(fact, scored_statements)
        is_confirmed = confirmation is not None
        candidate = self._choose_candidate(fact, subject, context, scored_statements, is_confirmed=is_confirmed)
        match_without_candidate = confirmation or (NO_MATCH if self.may_state(fact) else Match(FactFinding.UNSETTLED))
        if candidate is None or candidate.is_far:
            if doubtful_from is not None and not is_confirmed:
                related_statement = self._related_statement(fact, subject)
                # a judge or an editor may know that "24 hours" contradicts "2 hours"
                if related_statement is None and candidate and candidate.chance_of_any >= DOUBTFUL_AGAINST:
                    related_statement = candidate.statement
                if related_statement is not None:
                    return Match(FactFinding.UNSETTLED, related_statement)
            return match_without_candidate
        if doubtful_from is not None:
            # the judge or editor decides, so it may be asked about much less likely contradictions
            is_unsettled = not is_confirmed or candidate.chance_of_any >= doubtful_from
            return candidate.as_match(FactFinding.UNSETTLED) if is_unsettled else match_without_candidate
        if candidate.certainty >= replace_from:
            return candidate.as_match(FactFinding.CONTRADICTED)
        # a confirmed fact is not reported
        if not is_confirmed and candidate.certainty >= UNSETTLED:
            return candidate.as_match(FactFinding.UNSETTLED)
        return match_without_candidate

    def find_candidate(self, fact: Fact, subject: FactSubject, context: AnswerContext) -> FactCandidate | None:
        """Return the statement most likely to replace a fact; None if no statement may."""
        scored_statements = self.rank_statements(fact, subject)
        is_confirmed = self._confirming_match(fact, scored_statements) is not None
        candidate = self._choose_candidate(fact, subject, context, scored_statements, is_confirmed=is_confirmed)
        return None if candidate is None or candidate.is_far else candidate

    def _choose_candidate(
        self,
        fact: Fact,
        subject: FactSubject,
        context: AnswerContext,
        scored_statements: Sequence[ScoredStatement],
        *,
        is_confirmed: bool,
    ) -> FactCandidate | None:
        """Return the statement with another value that is likeliest to contradict the fact, with its features.

        None if no statement has another value. `scored_statements` come from `rank_statements`. `is_confirmed`: whether
        a statement with the same value confirms the fact.
        """
        top_statements = scored_statements[:MAX_WEIGHED]
        scorer = StatementScorer(fact, subject, self.vocabularies[fact.kind])
        chances = scorer.chances(top_statements, context.repeated_statements)
        candidates = [
            (chance, score, statement)
            for chance, (score, statement) in zip(chances, top_statements, strict=True)
            if statement not in context.repeated_statements and not fact.agrees(statement.fact)
        ]
        if not candidates:
            return None
        _, score, likeliest = max(candidates, key=lambda candidate: candidate[0])
        times_as_much = ratio(fact, likeliest.fact)
        # statements that give the same value support each other
        chance_of_value = sum(chance for chance, _, statement in candidates if statement.fact.agrees(likeliest.fact))
        chance_of_any = sum(chance for chance, _, _ in candidates)
        best_score, _ = scored_statements[0]
        # 0 if no statement has the answer's value
        agreeing_score = next((score for score, statement in scored_statements if fact.agrees(statement.fact)), 0.0)
        features = {
            "always": 1.0,
            "log_odds": log_odds(chance_of_value),
            "any": chance_of_any,
            "near_best": score / best_score,
            "agreeing_near_best": agreeing_score / best_score,
            "confirmed": float(is_confirmed),
            "facts": float(context.fact_count),
            "times": times_as_much,
            "gap": _relative_lead(scored_statements, likeliest.fact),
        }
        return FactCandidate(likeliest, chance_of_any, features)

    def other_values(self, fact: Fact, subject: FactSubject, context: AnswerContext) -> list[Statement]:
        """Return the statements whose values a judge may choose in place of the fact, likeliest first.

        There is one for each value, at most `MAX_VALUES`, of the same kind and unit. Values more than
        `MAX_TIMES_LARGER` times larger or smaller come behind all others. Before them may be a statement that has only
        a word in common with the sentence, or a related word.
        """
        top_statements = self.rank_statements(fact, subject)[:MAX_WEIGHED]
        scorer = StatementScorer(fact, subject, self.vocabularies[fact.kind])
        chances = scorer.chances(top_statements, context.repeated_statements)
        by_chance = sorted(zip(chances, top_statements, strict=True), key=lambda pair: -pair[0])
        likeliest_statements = [scored_statement.statement for _, scored_statement in by_chance]
        is_far = {statement: ratio(fact, statement.fact) > MAX_TIMES_LARGER for statement in likeliest_statements}
        statements = [statement for statement in likeliest_statements if not is_far[statement]]
        related_statement = self._related_statement(fact, subject)
        if related_statement is not None:
            statements.append(related_statement)
        statements += [statement for statement in likeliest_statements if is_far[statement]]
        distinct_statements: list[Statement] = []
        for statement in statements:
            earlier_facts = [fact, *(earlier.fact for earlier in distinct_statements)]
            if not any(statement.fact.agrees(earlier_fact) for earlier_fact in earlier_facts):
                distinct_statements.append(statement)
        return distinct_statements[:MAX_VALUES]

    def confirming_statement(self, fact: Fact, subject: FactSubject) -> Statement | None:
        """Return the statement with the same value whose score is close to the best; None if there is none."""
        match = self._confirming_match(fact, self.rank_statements(fact, subject))
        return None if match is None else match.statement

    def _confirming_match(self, fact: Fact, scored_statements: Sequence[ScoredStatement]) -> Match | None:
        """Return the best-ranked statement with the same value, as a match.

        None if no statement has this value, or if its score is too far below the best score.
        """
        if not scored_statements:
            return None
        best_score, best_statement = scored_statements[0]
        for score, statement in scored_statements:
            needed_share = CONFIRMS_BESIDE if statement.paragraph_id == best_statement.paragraph_id else CONFIRMS
            if score >= needed_share * best_score and fact.agrees(statement.fact):
                return Match(FactFinding.CONFIRMED, statement, score)
        return None

    def rank_statements(self, fact: Fact, subject: FactSubject) -> list[ScoredStatement]:
        """Score the statements that have a comparable fact and share a word with the subject; return them best first.

        The higher the score, the likelier fact and statement are about the same matter; scores have no fixed scale.
        """
        kind = fact.kind
        statements = self._by_kind.get(kind, [])
        sizes = self._sizes.get(kind, [])
        sharing = self._sharing_statements(fact, subject)
        indexes_with_value = self._indexes_by_value.get((kind, fact.value), [])[:MAX_RANKED]
        indexes = {*sharing.ranked, *(index for index in indexes_with_value if index in sharing.weights)}
        scored_statements: list[ScoredStatement] = []
        # in the order of the pages, so that statements of equal scores always have the same order
        for index in sorted(indexes):
            statement = statements[index]
            if fact.same_form(statement.fact) and ratio(fact, statement.fact) <= MAX_TIMES_OF_A_RIVAL:
                # divided as in a cosine, so that long sentences gain nothing by their many words
                similarity = sharing.weights[index] / math.sqrt(sharing.topic_size * sizes[index])
                score = self._score(fact, subject, statement, similarity)
                scored_statements.append(ScoredStatement(score, statement))
        return sorted(scored_statements, key=lambda scored_statement: -scored_statement.score)

    def _sharing_statements(self, fact: Fact, subject: FactSubject) -> SharingStatements:
        """Return the statements that share words with the subject, from the cache of the sentence if possible.

        Facts of a sentence have the same result if kind, unit and topic are the same.
        """
        key = (self, fact.kind, fact.unit, frozenset(subject.topic.items()))
        sharing: SharingStatements | None = subject.sentence_cache.get(key)
        if sharing is None:
            sharing = self._find_sharing_statements(fact, subject)
            subject.sentence_cache[key] = sharing
        return sharing

    def _find_sharing_statements(self, fact: Fact, subject: FactSubject) -> SharingStatements:
        """Find the statements that share words with the subject, and choose which of them to rank.

        Each shared word adds the product of three numbers to a statement's weight: how rare the word is, how much it
        counts in the answer's sentence, and how much in the statement's.
        """
        kind = fact.kind
        weights: dict[int, float] = {}
        for word in subject.topic.keys() | subject.context.keys():
            count_in_subject = max(subject.topic.get(word, 0.0), CONTEXT_FACTOR * subject.context.get(word, 0.0))
            weight = self._words.weight(word, kind) * count_in_subject
            for index, count_in_statement in self._indexes_by_word.get((kind, word), ()):
                weights[index] = weights.get(index, 0.0) + weight * count_in_statement
        ranked: Collection[int] = weights
        if len(weights) > MAX_RANKED:
            statements = self._by_kind[kind]
            sizes = self._sizes[kind]
            comparable = [index for index in weights if fact.same_form(statements[index].fact)]
            # of statements with equal weights, the first ones of the pages are ranked
            ranked = nlargest(
                MAX_RANKED, sorted(comparable), key=lambda index: weights[index] / math.sqrt(sizes[index])
            )
        return SharingStatements(weights, ranked, self._size(subject.topic, kind))

    def may_state(self, fact: Fact) -> bool:
        """Whether an answer may state a fact although no statement is about the same matter.

        Contact data must be on the pages (of a web address, only its host); all other facts may be stated.
        """
        if fact.kind is FactKind.WEB:
            return _host(fact) in self._hosts
        return fact.kind not in (FactKind.PHONE, FactKind.MAIL) or self.find_statement(fact) is not None

    def _related_statement(self, fact: Fact, subject: FactSubject) -> Statement | None:
        """Return the first statement with another value that may be about the same matter; None if there is none.

        It has a comparable value of similar size, and shares a word, or a related word, with the sentence or the
        question. Without such a word, two numbers in one street and two age limits are enough.
        """
        subject_words = {*subject.topic, *subject.question_words} - GENERIC
        subject_groups = {group for word in subject_words for group in kin_of(word)}
        for statement in self._by_kind.get(fact.kind, ()):
            if not fact.same_form(statement.fact) or fact.agrees(statement.fact):
                continue
            if ratio(fact, statement.fact) > MAX_TIMES_LARGER:
                continue
            if _is_related_value(fact, statement.fact):
                return statement
            statement_words = statement.word_weights.keys() - GENERIC
            if not subject_words.isdisjoint(statement_words):
                return statement
            if any(not subject_groups.isdisjoint(kin_of(word)) for word in statement_words):
                return statement
        return None

    def find_statement(self, fact: Fact) -> Statement | None:
        """Return the first statement with the same value, whatever it is about; None if there is none."""
        for statement in self._by_kind.get(fact.kind, ()):
            if fact.same_form(statement.fact) and fact.agrees(statement.fact):
                return statement
        return None

    def find_durations(self, subject: FactSubject) -> set[Decimal]:
        """Return the durations, in minutes, of the statements that share a word with the subject."""
        # generic words are left out, because any two sentences may share them
        subject_words = subject.topic.keys() - GENERIC
        return {
            seconds(statement.fact) / 60
            for statement in self._by_kind.get(FactKind.DURATION, ())
            if not subject_words.isdisjoint(statement.word_weights)
        }

    def facts_of_sentence(self, statement: Statement) -> list[Fact]:
        """The facts of the sentence that contains a statement."""
        return self._by_sentence[statement.source, statement.sentence]

    def _score(self, fact: Fact, subject: FactSubject, statement: Statement, similarity: float) -> float:
        """Return the score of a statement: the similarity of its words to the subject, times other factors."""
        score = similarity
        if RangeEnd.NONE not in (fact.side, statement.fact.side) and fact.side is not statement.fact.side:
            score *= _OTHER_END_FACTOR
        # a time without a range seldom means one end of "9 to 5"
        if fact.ranged is not statement.fact.ranged:
            score *= _ONE_RANGE_FACTOR
        if statement.paragraph_id in subject.paragraphs:
            score *= _SAME_PARAGRAPH_FACTOR
        if statement.conditions:
            met_count, missed_count = count_conditions(statement.conditions, subject.other_facts)
            score *= _MET_FACTOR ** min(met_count, 2) * _MISSED_FACTOR ** min(missed_count, 2)
        return score

    def _size(self, word_counts: Mapping[str, float], kind: FactKind) -> float:
        """Return the weight of all words of a sentence, by which the weight of the shared words is divided.

        `word_counts` says how much each stem of the sentence counts. 1 is added, so that a short sentence does not get
        a high score by one shared word.
        """
        return 1.0 + sum(self._words.weight(word, kind) * count * count for word, count in word_counts.items())


def _is_related_value(one: Fact, other: Fact) -> bool:
    """Whether two comparable facts are probably about the same matter, whatever their sentences say.

    This holds for two numbers in one street, and for two ages from which on something is allowed.
    """
    if one.kind is FactKind.ADDRESS:
        return _street(one) == _street(other)
    return one.kind is FactKind.AGE and RangeEnd.HIGH not in (one.side, other.side)


def _street(fact: Fact) -> str:
    """The name of the street in an address, without the number."""
    return " ".join(word for word in str(fact.value).split() if not word[0].isdigit())


def _host(fact: Fact) -> str:
    """The host of a web or mail address."""
    return str(fact.value).rpartition("@")[2].partition("/")[0]


def _relative_lead(scored_statements: Sequence[ScoredStatement], fact: Fact) -> float:
    """How much higher the best score of statements with this fact's value is than that of all other statements.

    The difference is a share of the higher of the two scores, and negative if another value has the best score.
    """
    own_best = max(score for score, statement in scored_statements if statement.fact.agrees(fact))
    other_best = max((score for score, statement in scored_statements if not statement.fact.agrees(fact)), default=0.0)
    return (own_best - other_best) / max(own_best, other_best)
