"""Search for the statement of the references that is about the same matter as a fact of an answer.

Statements are ranked by the words they share with the sentence; rare words weigh more. Of the top ones the evidence is
weighed (`evidence.py`). The likeliest statement with another value replaces the fact if that is certain enough.
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
from aligner_proxy_grounding.evidence import FactSubject, StatementScorer, Vocabulary, certainty, log_odds, ratio
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd, Value, seconds
from aligner_proxy_grounding.forms.reading import Conventions
from aligner_proxy_grounding.page import ReferencePage, Statement, weight_of
from aligner_proxy_grounding.words import GENERIC, kin_of, stem

UNSETTLED = 0.4
"""Least certainty that a statement contradicts a fact, for the sentence to be reported as unsettled."""
DOUBTFUL_AGAINST = 0.3
"""Least probability that any statement is about the same matter with another value, for the editor to be asked about a
fact that another statement confirms. It is asked about every other fact that some statement may give otherwise."""
DOUBTFUL_TO_A_JUDGE = 0.1
"""The same for a judge, which cannot write what is not on the page, and is asked about all facts in one call."""
MAX_VALUES = 4
"""How many values of the references a judge may choose from; the right one is hardly ever behind them."""
MAX_RANKED = 300
"""How many statements of one form are ranked for a fact, those that share most words with its sentence; the ones with
the fact's value come on top. Without this limit 170 prices in a sentence would be compared with 3,000 prices on a page.
"""
MAX_WEIGHED = 10
"""How many top-ranked statements have their evidence weighed."""
CONFIRMS = 0.7
"""A statement with the same value confirms a fact if its score is at least this share of the best score."""
CONFIRMS_BESIDE = 0.6
"""The same for a statement in the paragraph or row of the best one."""
OF_THE_KIND = 0.4
"""Factor for the weight of words that only announce the kind of fact."""
_OF_KIND = {
    FactKind.PHONE: frozenset(map(stem, ("call", "contact"))),
    FactKind.MAIL: frozenset(map(stem, ("e-mail", "contact"))),
    FactKind.MONEY: frozenset(map(stem, ("cost", "pay"))),
}
"""These words: "call" before a telephone number says nothing about its subject."""
CONTEXT = 0.4
"""How much a word counts if it is not in the sentence but only around it."""
MAX_TIMES_LARGER = 8
"""A statement whose value is more than this many times larger or smaller replaces nothing."""
MAX_TIMES_OF_A_RIVAL = 50
"""A statement whose value is more than this many times larger or smaller is not even ranked."""
_SAME_PLACE = 1.4
"""Factor for a score if the statement's paragraph confirms other facts of the answer."""

_MET = 1.6
_MISSED = 0.5
"""Factors for a score, for each condition of the statement that is met or missed."""
_NO_RANGE = 0.75
"""Factor for a score if only one of the two facts belongs to a range that is written out."""
_OTHER_END = 0.45
"""Factor for a score if one is the lower end of a range and the other the upper end."""


class FactFinding(StrEnum):
    """What the references say about a fact."""

    NOTHING = "nothing"
    CONFIRMED = "confirmed"
    """A statement about the same matter has the same value."""
    CONTRADICTED = "otherwise"
    """A statement certainly about the same matter has another value."""
    UNSETTLED = "unsettled"
    """The same, but not certainly; or contact data that no reference has."""


@dataclass(frozen=True, slots=True)
class Match:
    """What the references say about one fact; `statement` is the one that contradicts or confirms it."""

    finding: FactFinding
    statement: Statement | None = None
    score: float = 0.0
    """Certainty of a contradiction from 0 to 1; of a confirmation the shared words' score."""


NO_MATCH = Match(FactFinding.NOTHING)


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """What matters of the answer around a fact: which statements other facts repeat, how many the sentence has."""

    repeated: Set[Statement] = frozenset()
    fact_count: int = 1


@dataclass(frozen=True, slots=True)
class FactCandidate:
    """The statement most likely to contradict a fact."""

    statement: Statement
    of_any: float
    """Probability that any statement with another value, this one included, is about the same matter."""
    counts: Mapping[str, float]
    """The features of the certainty, by the names of the weights."""

    @property
    def certainty(self) -> float:
        """Probability that the fact is wrong and the statement right."""
        return certainty(self.counts)

    def as_match(self, finding: FactFinding) -> Match:
        """The candidate as a match with this finding."""
        return Match(finding, self.statement, self.certainty)


class SharingStatements(NamedTuple):
    """The statements of one kind that share words with a sentence, by their numbers within the kind."""

    weights: Mapping[int, float]
    """For each statement the weight of the words that it shares."""
    ranked: Collection[int]
    """The statements to rank: at most `MAX_RANKED`, unless all of them are."""
    topic_size: float
    """The weight of all words of the sentence (`Matcher._size`)."""


class PageWords:
    """The words of some pages with their weights: rare ones weigh more."""

    def __init__(self, pages: Sequence[ReferencePage]) -> None:
        # Stem -> number of sentences of all pages that have it.
        self._counts: dict[str, int] = {}
        for page in pages:
            for word, count in page.word_counts.items():
                self._counts[word] = self._counts.get(word, 0) + count
        sentences = sum(page.sentences for page in pages)
        self._weights = {word: weight_of(word, self._counts, sentences) for word in {*self._counts, *GENERIC}}
        # no page contains "", so this is the weight of any unknown word
        self._of_unknown = weight_of("", self._counts, sentences)
        # The groups of related words to which stems of the pages belong.
        self._kin = {group for word in self._counts for group in kin_of(word)}

    def weight(self, word: str, kind: FactKind) -> float:
        """The weight of a word beside a fact of this kind."""
        weight = self._weights.get(word, self._of_unknown)
        return weight * OF_THE_KIND if word in _OF_KIND.get(kind, ()) else weight

    def vocabulary(self, kind: FactKind) -> Vocabulary:
        """The words and weights for facts of one kind."""
        return Vocabulary(lambda word: self.weight(word, kind), self._counts.keys(), self._kin)


class Matcher:
    """Finds the statements of some pages that are about the facts of an answer."""

    def __init__(self, pages: Sequence[ReferencePage]) -> None:
        self.name = pages[0].name if pages else ""
        """The name of the first page."""
        # The pages decide the order of day and month only if those that show it agree.
        orders = {page.conventions.month_first for page in pages} - {None}
        self.conventions = Conventions(
            all(page.conventions.pounds_weigh for page in pages), orders.pop() if len(orders) == 1 else None
        )
        self.procedures = tuple(procedure for page in pages for procedure in page.procedures)
        self._words = PageWords(pages)
        self.vocabularies = {kind: self._words.vocabulary(kind) for kind in FactKind}
        self._hosts: set[str] = set()
        """The hosts of web and mail addresses on the pages."""
        self._by_kind: dict[FactKind, list[Statement]] = {}
        self._by_sentence: dict[tuple[str, int], list[Fact]] = {}
        """(source, number of the sentence) -> the facts of the sentence."""
        self._numbers_by_word: dict[tuple[FactKind, str], list[tuple[int, float]]] = {}
        """Index by kind and word: the statements' numbers within the kind, and the word's weight in each."""
        self._sizes: dict[FactKind, list[float]] = {}
        """For each statement of a kind, by its number, the weight of its words (`_size`)."""
        self._numbers_by_value: dict[tuple[FactKind, Value], list[int]] = {}
        """Kind and value -> the numbers, within the kind, of the statements with this value."""
        for page in pages:
            for statement in page.statements:
                self._add(statement)

    def _add(self, statement: Statement) -> None:
        """Index a statement by its kind and words, and by its sentence."""
        kind = statement.fact.kind
        if kind in (FactKind.WEB, FactKind.MAIL):
            self._hosts.add(_host(statement.fact))
        of_kind = self._by_kind.setdefault(kind, [])
        # its index in this list, which it is appended to below
        number = len(of_kind)
        for word, weight in statement.about.items():
            self._numbers_by_word.setdefault((kind, word), []).append((number, weight))
        self._numbers_by_value.setdefault((kind, statement.fact.value), []).append(number)
        of_kind.append(statement)
        self._sizes.setdefault(kind, []).append(self._size(statement.about, kind))
        self._by_sentence.setdefault((statement.source, statement.sentence), []).append(statement.fact)

    def match(
        self,
        fact: Fact,
        subject: FactSubject,
        around: AnswerContext,
        *,
        replace_from: float,
        doubtful_from: float | None = None,
    ) -> Match:
        """What the references say about a fact, which is contradicted from the certainty `replace_from` on.

        `doubtful_from` is set if a judge or an editor will decide. Then no fact is contradicted, however certain; it is
        unsettled as soon as a statement with another value shares a word, or, for a fact that another statement
        confirms, from this probability on that any other value is meant.
        """
        scored = self.rank_statements(fact, subject)
        confirmed = self._confirming_match(fact, scored)
        candidate = self._choose_candidate(fact, subject, around, scored, is_confirmed=confirmed is not None)
        # what is said if nothing contradicts the fact
        uncontradicted = confirmed or (NO_MATCH if self.may_state(fact) else Match(FactFinding.UNSETTLED))
        is_asked_about = doubtful_from is not None
        if candidate is None:
            related = self._related_statement(fact, subject) if is_asked_about and confirmed is None else None
            return uncontradicted if related is None else Match(FactFinding.UNSETTLED, related)
        if doubtful_from is not None:
            # somebody else decides, so it may be asked about much less likely contradictions
            is_asked = confirmed is None or candidate.of_any >= doubtful_from
            return candidate.as_match(FactFinding.UNSETTLED) if is_asked else uncontradicted
        if candidate.certainty >= replace_from:
            return candidate.as_match(FactFinding.CONTRADICTED)
        # a confirmed fact is not reported
        if confirmed is None and candidate.certainty >= UNSETTLED:
            return candidate.as_match(FactFinding.UNSETTLED)
        return uncontradicted

    def find_candidate(self, fact: Fact, subject: FactSubject, around: AnswerContext) -> FactCandidate | None:
        """The statement most likely to replace a fact; None if there is none."""
        scored = self.rank_statements(fact, subject)
        is_confirmed = self._confirming_match(fact, scored) is not None
        return self._choose_candidate(fact, subject, around, scored, is_confirmed=is_confirmed)

    def _choose_candidate(
        self,
        fact: Fact,
        subject: FactSubject,
        around: AnswerContext,
        scored: Sequence[tuple[float, Statement]],
        *,
        is_confirmed: bool,
    ) -> FactCandidate | None:
        """Return the likeliest of the statements with another value, with the features for its certainty.

        None if there is none, or if its value is too many times larger or smaller. `scored` has the statements, best
        first; `is_confirmed` says that one of them has the same value.
        """
        weighed = scored[:MAX_WEIGHED]
        chances = StatementScorer(fact, subject, self.vocabularies[fact.kind]).chances(weighed, around.repeated)
        candidates = [
            (chance, score, statement)
            for chance, (score, statement) in zip(chances, weighed, strict=True)
            if statement not in around.repeated and not fact.agrees(statement.fact)
        ]
        if not candidates:
            return None
        _, score, likeliest = max(candidates, key=lambda candidate: candidate[0])
        times_as_much = ratio(fact, likeliest.fact)
        if times_as_much > MAX_TIMES_LARGER:
            return None
        # statements that give the same value support each other
        chance_of_value = sum(chance for chance, _, statement in candidates if statement.fact.agrees(likeliest.fact))
        of_any = sum(chance for chance, _, _ in candidates)
        best_score = scored[0][0]
        # 0 if no statement has the answer's value
        agreeing_score = next((score for score, statement in scored if fact.agrees(statement.fact)), 0.0)
        counts = {
            "always": 1.0,
            "log_odds": log_odds(chance_of_value),
            "any": of_any,
            "near_best": score / best_score,
            "agreeing_near_best": agreeing_score / best_score,
            "confirmed": float(is_confirmed),
            "facts": float(around.fact_count),
            "times": times_as_much,
            "gap": _gap(scored, likeliest.fact),
        }
        return FactCandidate(likeliest, of_any, counts)

    def other_values(self, fact: Fact, subject: FactSubject, around: AnswerContext) -> list[Statement]:
        """The likeliest other values that could replace the fact, one statement for each, at most `MAX_VALUES`.

        They are of the same kind and unit, and at most `MAX_TIMES_LARGER` times larger or smaller. The last one may be
        a statement that only shares a related word.
        """
        weighed = self.rank_statements(fact, subject)[:MAX_WEIGHED]
        chances = StatementScorer(fact, subject, self.vocabularies[fact.kind]).chances(weighed, around.repeated)
        ranked = sorted(zip(chances, weighed, strict=True), key=lambda known_fact: -known_fact[0])
        of_similar_size = [statement for _, (_, statement) in ranked if ratio(fact, statement.fact) <= MAX_TIMES_LARGER]
        related = self._related_statement(fact, subject)
        others: list[Statement] = []
        for statement in [*of_similar_size, *([related] if related else [])]:
            if not any(statement.fact.agrees(known_fact) for known_fact in (fact, *(other.fact for other in others))):
                others.append(statement)
        return others[:MAX_VALUES]

    def confirming_statement(self, fact: Fact, subject: FactSubject) -> Statement | None:
        """The statement with the same value whose score is close to the best; None without one."""
        match = self._confirming_match(fact, self.rank_statements(fact, subject))
        return None if match is None else match.statement

    def _confirming_match(self, fact: Fact, scored: Sequence[tuple[float, Statement]]) -> Match | None:
        """The best-ranked statement with the same value, if its score is close enough to the best score."""
        for score, statement in scored:
            near = CONFIRMS_BESIDE if statement.stretch == scored[0][1].stretch else CONFIRMS
            if score >= near * scored[0][0] and fact.agrees(statement.fact):
                return Match(FactFinding.CONFIRMED, statement, score)
        return None

    def rank_statements(self, fact: Fact, subject: FactSubject) -> list[tuple[float, Statement]]:
        """(score, statement) for the statements that have a comparable fact and share a word, best first."""
        kind = fact.kind
        statements = self._by_kind.get(kind, [])
        sizes = self._sizes.get(kind, [])
        sharing = self._sharing_statements(fact, subject)
        with_value = self._numbers_by_value.get((kind, fact.value), [])[:MAX_RANKED]
        numbers = {*sharing.ranked, *(number for number in with_value if number in sharing.weights)}
        # in the order of the pages, so that equal scores are ranked alike each time
        scored = [
            (
                self._score(fact, subject, statement, sharing.weights[number], sharing.topic_size * sizes[number]),
                statement,
            )
            for number, statement in ((number, statements[number]) for number in sorted(numbers))
            if fact.same_form(statement.fact) and ratio(fact, statement.fact) <= MAX_TIMES_OF_A_RIVAL
        ]
        return sorted(scored, key=lambda pair: -pair[0])

    def _sharing_statements(self, fact: Fact, subject: FactSubject) -> SharingStatements:
        """The statements that share words with the subject; computed once for all facts of a sentence that are alike.

        Facts are alike if they have the same kind, unit and topic.
        """
        key = (self, fact.kind, fact.unit, frozenset(subject.topic.items()))
        sharing: SharingStatements | None = subject.computed_for_sentence.get(key)
        if sharing is None:
            sharing = self._find_sharing_statements(fact, subject)
            subject.computed_for_sentence[key] = sharing
        return sharing

    def _find_sharing_statements(self, fact: Fact, subject: FactSubject) -> SharingStatements:
        """The statements that share words with the subject, and which of them to rank.

        Each shared word adds the product of three weights to a statement: how rare the word is, how near it stands to
        the fact in the answer, and how near to the value in the statement.
        """
        kind = fact.kind
        weights: dict[int, float] = {}
        for word in subject.topic.keys() | subject.context.keys():
            in_subject = max(subject.topic.get(word, 0.0), CONTEXT * subject.context.get(word, 0.0))
            weight = self._words.weight(word, kind) * in_subject
            for number, in_statement in self._numbers_by_word.get((kind, word), ()):
                weights[number] = weights.get(number, 0.0) + weight * in_statement
        ranked: Collection[int] = weights
        if len(weights) > MAX_RANKED:
            statements = self._by_kind[kind]
            sizes = self._sizes[kind]
            same_form = [number for number in weights if fact.same_form(statements[number].fact)]
            # of equal weights, the first statements of the pages are ranked
            ranked = nlargest(MAX_RANKED, sorted(same_form), key=lambda n: weights[n] / math.sqrt(sizes[n]))
        return SharingStatements(weights, ranked, self._size(subject.topic, kind))

    def may_state(self, fact: Fact) -> bool:
        """Whether an answer may state this fact if no statement is about its matter; contact data must be on the pages.

        Of a web address only the host must be on the pages.
        """
        if fact.kind is FactKind.WEB:
            return _host(fact) in self._hosts
        return fact.kind not in (FactKind.PHONE, FactKind.MAIL) or self.find_statement(fact) is not None

    def _related_statement(self, fact: Fact, subject: FactSubject) -> Statement | None:
        """The first statement with another value that has a word of sentence or question, a related word or value.

        None if there is none of the same kind and of similar size.
        """
        words = {*subject.topic, *subject.question_words} - GENERIC
        kin = {group for word in words for group in kin_of(word)}
        for statement in self._by_kind.get(fact.kind, ()):
            if not fact.same_form(statement.fact) or fact.agrees(statement.fact):
                continue
            if ratio(fact, statement.fact) > MAX_TIMES_LARGER:
                continue
            if _is_related_value(fact, statement.fact):
                return statement
            about = statement.about.keys() - GENERIC
            if not words.isdisjoint(about) or any(not kin.isdisjoint(kin_of(word)) for word in about):
                return statement
        return None

    def find_statement(self, fact: Fact) -> Statement | None:
        """Any statement with the same value, whatever it is about; None without one."""
        of_kind = self._by_kind.get(fact.kind, ())
        return next(
            (statement for statement in of_kind if fact.same_form(statement.fact) and fact.agrees(statement.fact)), None
        )

    def minutes_said_of(self, subject: FactSubject) -> set[Decimal]:
        """The durations, in minutes, in statements that share a word with the subject."""
        # any two sentences may share a generic word
        shared = subject.topic.keys() - GENERIC
        durations = [
            statement
            for statement in self._by_kind.get(FactKind.DURATION, ())
            if not shared.isdisjoint(statement.about)
        ]
        return {seconds(statement.fact) / 60 for statement in durations}

    def facts_of_sentence(self, statement: Statement) -> list[Fact]:
        """The facts of the sentence that contains a statement."""
        return self._by_sentence[statement.source, statement.sentence]

    def _score(self, fact: Fact, subject: FactSubject, statement: Statement, shared: float, sizes: float) -> float:
        """A score that is higher the likelier fact and statement are about the same matter; it has no fixed scale.

        `shared` is the weight of the words that both have, `sizes` the product of the weights of their words.
        """
        # as in a cosine, so that long sentences gain nothing by their many words
        score = shared / math.sqrt(sizes)
        if RangeEnd.NONE not in (fact.side, statement.fact.side) and fact.side is not statement.fact.side:
            score *= _OTHER_END
        # one end of "9 to 5" is seldom meant by a time without a range
        if fact.ranged is not statement.fact.ranged:
            score *= _NO_RANGE
        if statement.stretch in subject.paragraphs:
            score *= _SAME_PLACE
        if statement.conditions:
            met_count, missed_count = count_conditions(statement.conditions, subject.other_facts)
            score *= _MET ** min(met_count, 2) * _MISSED ** min(missed_count, 2)
        return score

    def _size(self, about: Mapping[str, float], kind: FactKind) -> float:
        """Weight of the words that a sentence is about, plus 1, so that short sentences do not win by one word."""
        return 1.0 + sum(self._words.weight(word, kind) * weight * weight for word, weight in about.items())


def _is_related_value(one: Fact, other: Fact) -> bool:
    """Whether two facts of one form are probably about the same matter, whatever their sentences say.

    So are two numbers in one street, and two ages from which on something is allowed.
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


def _gap(scored: Sequence[tuple[float, Statement]], first: Fact) -> float:
    """By how much the best statement with this value outranks the best one with another, as a share of the higher."""
    mine = max(score for score, statement in scored if statement.fact.agrees(first))
    rival = max((score for score, statement in scored if not statement.fact.agrees(first)), default=0.0)
    return (mine - rival) / max(mine, rival)
