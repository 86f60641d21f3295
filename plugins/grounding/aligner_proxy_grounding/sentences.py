"""Checks an answer against its references and replaces the facts that they contradict; read this first.

A fact is replaced if a reference statement very likely means the same fact and has a different value. The new value is
written in the notation of the answer. If this is less certain, the sentence is reported as unsettled. Everything else
stays: facts that the references do not mention, facts that the client gave, results of a sum. The same input always
gives the same edits, and each edit names the line of its reference.

Where this package says that "words" decide, it means this comparison by shared words, without a judge or an editor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from aligner_proxy.text.structure import Segment, split
from aligner_proxy_grounding.conditions import MAX_COMPARED
from aligner_proxy_grounding.derived import (
    follows_from_question,
    is_length_of_word,
    is_multiple,
    is_offset_from,
    is_result,
    is_within_range,
)
from aligner_proxy_grounding.evidence import FactSubject
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.matching import (
    DOUBTFUL_AGAINST,
    DOUBTFUL_TO_A_JUDGE,
    MAX_WEIGHED,
    NO_MATCH,
    AnswerContext,
    FactCandidate,
    FactFinding,
    Match,
    Matcher,
)
from aligner_proxy_grounding.notation import rewrite_fact
from aligner_proxy_grounding.page import Statement, find_neighbours, find_topics
from aligner_proxy_grounding.procedures import ORDER, Reordering, find_reorderings
from aligner_proxy_grounding.words import words

REPLACE_FACTS_FROM = 0.85
"""Least certainty at which a contradicted fact is replaced, if the policy sets no other."""
CERTAIN_WITHOUT_EDITOR = 0.95
"""From this certainty of words on, a judge that lets a sentence stand, or an editor that writes it as it is, does not
overrule them."""
MAX_FACTS = 400
"""Limit on the facts checked in one answer; the text after them stays unchanged."""
_COMPUTED = re.compile(
    r"\b(?:altogether|in total|total of|totals?|in all|sum|adds? up|(?:that|which) makes|"
    r"makes?(?= (?:[A-Z]{3} )?[\u20ac\u00a3$]?\d)|owe[sd]?|equals?|"
    r"comes? to(?! (?:more|less) than\b| (?:over|above|under)\b| \S+(?: \S+)? (?:per|a|each)\b)|"
    r"(?:that|which)(?: is|'s)(?= (?:[A-Z]{3} )?[\u20ac\u00a3$]?\d)(?! \d{1,3}(?:[.,]\d)? ?(?:%|per ?cent))|"
    r"saves?(?! (?:(?:you|up to) )?\S+ ?(?:%|per ?cent))|saved|end up|works? out (?:at|to|as))\b|=|\u00d7",
    re.IGNORECASE,
)
"""Words that announce a result computed for this client."""
_OF_THIS_CLIENT = re.compile(
    r"[\s*_]*(?:left|remaining|ago|old|earlier|to go|short|late|longer|shorter|sooner|cheaper|dearer)\b", re.IGNORECASE
)
"""Words after a duration or amount that relates to this client ("3 days left")."""
_QUOTED = re.compile(r"[\"\u201c\u201e\u00ab][^\"\u201c\u201d\u201e\u00ab\u00bb\n]{1,200}[\"\u201d\u201c\u00bb]")
"""Words between quotation marks."""
_DENIED = re.compile(
    r"\b(?:not|n't|no|instead of|rather than|never|wrong|unlike)\s"
    r"(?:(?:the|a|an|for|at|on|in|by|of|just|only|any)\s)*$|"
    r"\b(?:there is|there's|there are) no [^.!?]{0,40}$",
    re.IGNORECASE,
)
"""Words before a negated fact: "not 9 but 5"."""
_OF_THIS_ORDER = re.compile(
    r"(?<!if )(?<!when )(?<!once )(?<!unless )"
    r"\b(?:yesterday|last (?:week|month|year|night)|you (?:have )?(?:ordered|bought|paid|placed|sent|called|booked))\b"
    r"[^,;:.!?]*$",
    re.IGNORECASE,
)
"""Words before a fact of what this client has done: "You ordered at 3 pm"."""
_SENTENCES_BACK = 2
"""How many sentences before a sentence belong to its context."""
_QUESTION = 1.0
"""Weight of a word of the question or of the last heading in the context of a sentence."""
_BACK = 0.8
"""The same for a word of the sentence before; half of it for the one before that."""


class Arbiter(StrEnum):
    """Who decides about facts that the comparison of words leaves in doubt."""

    WORDS = "words"
    """Nobody else, so they stay unsettled."""
    EDITOR = "editor"
    JUDGE = "judge"


_DOUBTFUL_FROM = {Arbiter.WORDS: None, Arbiter.EDITOR: DOUBTFUL_AGAINST, Arbiter.JUDGE: DOUBTFUL_TO_A_JUDGE}
"""The `doubtful_from` of `Matcher.match` for each arbiter."""


@dataclass(frozen=True, slots=True)
class FactEdit:
    """An edit: `text` replaces the characters from `start` to `end` of the answer.

    `kind` names the fact's kind, or is `ORDER` for steps that change places; `source` is "name:line" of the reference.
    """

    start: int
    end: int
    text: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class UnsettledFact:
    """A sentence with a fact that references may contradict, without one replacement that is certain enough.

    `start` and `end` delimit the sentence, or the steps in another order. Contact data that no reference has is
    unsettled, too; then `source` is the name of the first reference without a line.
    """

    start: int
    end: int
    kind: str
    source: str
    words_edit: FactEdit | None = None
    """The edit of which the comparison of words is certain; it is made even if judge or editor let the fact stand."""
    question: FactQuestion | None = None
    """What a judge is asked about the fact; None if no judge is asked."""


@dataclass(frozen=True, slots=True)
class FactValue:
    """A value as a reference writes it, and the edit that writes it into the answer."""

    text: str
    edit: FactEdit


@dataclass(frozen=True, slots=True)
class FactQuestion:
    """Whether a fact of an answer is contradicted, and by which value of the references."""

    fact: str
    """The fact as the answer writes it."""
    values: tuple[FactValue, ...]
    """What words would write in its place, the likeliest first."""
    must_be_stated: bool
    """Whether it is contact data that no reference has, which stays unsettled whatever the verdict."""


@dataclass(slots=True)
class AnswerSentence:
    """One sentence of an answer with its facts."""

    start: int
    """Its position in the answer; positions of its facts count from here."""
    text: str
    facts: list[Fact]
    subjects: list[FactSubject]
    """For each fact what it is about."""
    before: str = ""
    """The preceding sentences."""
    confirming: list[Statement | None] = field(default_factory=list)
    """For each fact the statement that confirms it, or None."""
    paragraphs: set[tuple[str, int]] = field(default_factory=set)
    """Paragraphs of the references that confirm one of its facts."""


@dataclass(frozen=True, slots=True)
class ClientTexts:
    """What the client wrote: all of it, the facts in it, and the words of its question with their weight."""

    text: str = ""
    facts: Sequence[Fact] = ()
    question_words: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Grounder:
    """Checks one answer against its references, sentence by sentence."""

    matcher: Matcher
    arbiter: Arbiter = Arbiter.WORDS
    """Who decides unsettled facts; for a judge or an editor more facts count as unsettled."""
    replace_from: float = REPLACE_FACTS_FROM
    """Least certainty of a contradiction for the fact to be replaced."""
    _client: ClientTexts = ClientTexts()
    _before: list[str] = field(default_factory=list)
    """The last `_SENTENCES_BACK` sentences."""
    _terms: list[Fact] = field(default_factory=list)
    """Facts of the answer so far."""
    _words: set[str] = field(default_factory=set)
    """Words of the answer so far."""
    _heading: str = ""
    """The last heading, bold line or line that ends in a colon."""
    _repeat_counts: Counter[Statement] = field(default_factory=Counter)
    """How many facts of the answer each statement confirms."""
    _paragraphs: list[set[tuple[str, int]]] = field(default_factory=list)
    """For each of the last sentences, the paragraphs of the references that confirm one of its facts."""
    facts: int = 0
    """Number of facts of the answer so far."""

    @classmethod
    def for_question(
        cls,
        matcher: Matcher,
        question: str,
        client_text: str = "",
        *,
        arbiter: Arbiter = Arbiter.WORDS,
        replace_from: float = REPLACE_FACTS_FROM,
    ) -> Grounder:
        """Create the grounder of an answer to `question`; `client_text` is everything that the client wrote."""
        text = client_text or question
        facts = [fact for sentence in split(text) for fact in read_facts(sentence.text, matcher.conventions)]
        client = ClientTexts(text, facts, dict.fromkeys(words(question), _QUESTION))
        return cls(matcher, arbiter, replace_from, client)

    def copy_for(self, arbiter: Arbiter) -> Grounder:
        """A copy of this grounder for another arbiter, to look ahead at the next sentences.

        This grounder's own state does not change.
        """
        return replace(
            self,
            arbiter=arbiter,
            _terms=[*self._terms],
            _words={*self._words},
            _repeat_counts=Counter(self._repeat_counts),
        )

    def check_answer(self, text: str) -> tuple[list[FactEdit], list[UnsettledFact]]:
        """Return (edits, unsettled facts) of a whole answer; facts of later sentences help to decide earlier ones."""
        sentences = self.read_all(text)
        results = [self._decide_sentence(sentence) for sentence in sentences]
        edits = [edit for edits, _ in results for edit in edits]
        doubts = [doubt for _, of_sentence in results for doubt in of_sentence]
        for order in find_reorderings(text, self.matcher.procedures):
            if order.can_move:
                edits = _reorder_steps(order, edits)
            else:
                start = order.answer_steps[0].start
                end = order.answer_steps[-1].end
                doubts.append(UnsettledFact(start, end, ORDER, order.place))
        return edits, doubts

    def read_all(self, text: str) -> list[AnswerSentence]:
        """Read the sentences of a whole answer, and note which facts the references confirm."""
        sentences = [self._read_sentence(segment.start, segment.text) for segment in split(text)]
        for sentence in sentences:
            self._note_confirming(sentence)
        return sentences

    def facts_of(self, text: str) -> list[Fact]:
        """The facts of a sentence, read as the references write them."""
        return read_facts(text, self.matcher.conventions)

    def check_segments(self, segments: Iterable[Segment]) -> tuple[list[FactEdit], list[UnsettledFact]]:
        """Return (edits, unsettled facts) of the next sentences of an answer whose rest is not known yet."""
        edits: list[FactEdit] = []
        doubts: list[UnsettledFact] = []
        for segment in segments:
            sentence = self._read_sentence(segment.start, segment.text)
            self._note_confirming(sentence)
            changed, doubtful = self._decide_sentence(sentence)
            edits += changed
            doubts += doubtful
        return edits, doubts

    def _read_sentence(self, start: int, text: str) -> AnswerSentence:
        """Read the facts of the next sentence with their subjects, and add them to the state of the answer."""
        # code blocks are not about the references
        is_read = self.facts < MAX_FACTS and not text.lstrip().startswith(("```", "~~~"))
        facts = self.facts_of(text) if is_read else []
        self.facts += len(facts)
        self._terms += facts
        self._words |= set(words(text))
        subjects = self._find_subjects(text, facts)
        line = text.strip()
        # such a line names the subject of what follows
        if line.startswith("#") or line.endswith(":") or (line.startswith("**") and line.endswith("**")):
            self._heading = line
        before = " ".join(self._before)
        self._before = [*self._before, text][-_SENTENCES_BACK:]
        return AnswerSentence(start, text, facts, subjects, before)

    def _find_subjects(self, text: str, facts: Sequence[Fact]) -> list[FactSubject]:
        """Find for each fact of a sentence what it is about; the sentence's words are in the state already."""
        context_words = self._weigh_context_words()
        answer_words = frozenset(self._words)
        question_words = self._client.question_words.keys()
        computed: dict[Hashable, Any] = {}
        return [
            FactSubject(
                topic,
                context_words,
                neighbours,
                question_words,
                answer_words,
                # conditions are compared with so many facts only
                [*(other for other in facts[: MAX_COMPARED + 1] if other is not fact), *self._client.facts],
                computed_for_sentence=computed,
            )
            for fact, topic, neighbours in zip(
                facts, find_topics(text, facts), find_neighbours(text, facts), strict=True
            )
        ]

    def _weigh_context_words(self) -> dict[str, float]:
        """The weights of the words around the next sentence: of the question, the sentences before it, the heading.

        The words of a sentence weigh less, the further back it is.
        """
        weights = dict(self._client.question_words)
        for distance, sentence in enumerate(reversed(self._before), 1):
            for word in words(sentence):
                weights[word] = max(_BACK / distance, weights.get(word, 0.0))
        for word in words(self._heading):
            weights[word] = _QUESTION
        return weights

    def _note_confirming(self, sentence: AnswerSentence) -> None:
        """Record which statements confirm the facts of this sentence."""
        for fact, subject in zip(sentence.facts, sentence.subjects, strict=True):
            statement = self.matcher.confirming_statement(fact, subject)
            sentence.confirming.append(statement)
            if statement is not None:
                self._repeat_counts[statement] += 1
                sentence.paragraphs.add(statement.stretch)
        near = sentence.paragraphs.union(*self._paragraphs)
        self._paragraphs = [*self._paragraphs, sentence.paragraphs][-_SENTENCES_BACK:]
        for subject in sentence.subjects:
            subject.paragraphs = near

    def _decide_sentence(self, sentence: AnswerSentence) -> tuple[list[FactEdit], list[UnsettledFact]]:
        """Return (edits, unsettled facts) of one sentence that has been read."""
        edits: list[FactEdit] = []
        doubts: list[UnsettledFact] = []
        matches = [self.match_fact(sentence, number) for number in range(len(sentence.facts))]
        uses = Counter(match.statement for match in matches if self._is_certain(match))
        for number, (fact, match) in enumerate(zip(sentence.facts, matches, strict=True)):
            if match.finding not in (FactFinding.CONTRADICTED, FactFinding.UNSETTLED):
                continue
            # One statement cannot replace two facts: "9 to 5" must not become "10 to 10".
            is_shared = uses[match.statement] > 1
            if match.finding is FactFinding.CONTRADICTED and is_shared:
                continue
            edit = self._edit(sentence, number, match.statement)
            if match.finding is FactFinding.CONTRADICTED and edit is not None:
                edits += self._edits_of_other_end(sentence, number, match.statement, matches)
                if edit.text != sentence.text[edit.start - sentence.start : edit.end - sentence.start]:
                    edits.append(edit)
                continue
            source = match.statement.place if match.statement else self.matcher.name
            is_sure = self._is_certain(match) and not is_shared and self._may_replace(sentence, number, match.statement)
            end = sentence.start + len(sentence.text)
            question = self._make_question(sentence, number) if self.arbiter is Arbiter.JUDGE else None
            words_edit = edit if is_sure else None
            doubts.append(UnsettledFact(sentence.start, end, fact.kind.value, source, words_edit, question))
        return edits, doubts

    def _is_certain(self, match: Match) -> bool:
        """Whether the comparison of words is certain enough to replace the fact.

        If a judge or an editor decides, this takes the certainty `CERTAIN_WITHOUT_EDITOR`.
        """
        if match.finding is FactFinding.CONTRADICTED:
            return True
        return self.arbiter is not Arbiter.WORDS and match.score >= CERTAIN_WITHOUT_EDITOR

    def _make_question(self, sentence: AnswerSentence, number: int) -> FactQuestion:
        """What a judge is asked about a fact: the values that words could write in its place."""
        fact = sentence.facts[number]
        around = self._answer_context(sentence, number)
        statements = self.matcher.other_values(fact, sentence.subjects[number], around)
        edits = ((statement.fact.text, self._edit(sentence, number, statement)) for statement in statements)
        values = tuple(FactValue(text, edit) for text, edit in edits if edit is not None)
        return FactQuestion(fact.text, values, must_be_stated=not self.matcher.may_state(fact))

    def _edit(self, sentence: AnswerSentence, number: int, statement: Statement | None) -> FactEdit | None:
        """The edit that puts the value of a statement into a sentence; None if no notation is safe."""
        fact = sentence.facts[number]
        place = None if statement is None else rewrite_fact(fact, statement.fact, sentence.text)
        if place is None or statement is None:
            return None
        start, end, text = place
        return FactEdit(sentence.start + start, sentence.start + end, text, fact.kind.value, statement.place)

    def _edits_of_other_end(
        self, sentence: AnswerSentence, number: int, statement: Statement | None, matches: Sequence[Match]
    ) -> list[FactEdit]:
        """The edit of the other end of a range of which one end is replaced: "10 to 14" must not become "10 to 7".

        Empty if that end agrees, has an edit of its own, or cannot be written.
        """
        fact = sentence.facts[number]
        other_number = _other_end(sentence.facts, number)
        if statement is None or other_number is None or fact.side is not statement.fact.side:
            return []
        stated_facts = self.matcher.facts_of_sentence(statement)
        stated_number = next(n for n, stated in enumerate(stated_facts) if stated is statement.fact)
        other_stated_number = _other_end(stated_facts, stated_number)
        if other_stated_number is None or matches[other_number].finding is FactFinding.CONTRADICTED:
            return []
        other_fact = sentence.facts[other_number]
        other_stated = stated_facts[other_stated_number]
        if not other_fact.same_form(other_stated) or other_fact.agrees(other_stated):
            return []
        edit = self._edit(sentence, other_number, replace(statement, fact=other_stated))
        return [] if edit is None else [edit]

    def _is_claim_of_sentence(self, sentence: AnswerSentence, statement: Statement) -> bool:
        """Whether the weekday is what the sentence claims, and not a condition of another claim.

        "Deliveries arrive on Monday" claims the day; "on Mondays we open at 9" claims the time. The day is the claim if
        it is the only one and the statement's sentence confirms all times, dates and amounts beside it.
        """
        days = [fact for fact in sentence.facts if fact.kind is FactKind.WEEKDAY]
        others = [fact for fact in sentence.facts if fact.kind in (FactKind.TIME, FactKind.DATE, FactKind.MONEY)]
        stated = self.matcher.facts_of_sentence(statement)
        return len(days) == 1 and all(_is_among(fact, stated) for fact in others)

    def is_left_alone(self, sentence: AnswerSentence, fact: Fact) -> bool:
        """Whether a fact must not be checked: given by the client, quoted, negated, or a computed result."""
        if _is_among(fact, self._client.facts):
            return True
        # the client may have written the number with another noun or without one
        if fact.kind in (FactKind.AGE, FactKind.COUNT) and any(fact.value == own.value for own in self._client.facts):
            return True
        text = sentence.text
        # "Altogether that makes 24 euros" is computed for this client; "as you wrote, '9 euros'" quotes somebody.
        if _COMPUTED.search(text) or _is_quoted(text, fact):
            return True
        # with "at most" or "at least" it is a rule for everybody
        if _OF_THIS_CLIENT.match(text, fact.end) and fact.side is RangeEnd.NONE:
            return True
        if _DENIED.search(text, 0, fact.start) or _OF_THIS_ORDER.search(text, 0, fact.start):
            return True
        if is_length_of_word(fact, self._client.text):
            return True
        return is_result(fact, [*self._client.facts, *self._terms]) or follows_from_question(
            fact, self._client.facts, self._terms
        )

    def _is_derived(self, sentence: AnswerSentence, number: int) -> bool:
        """Whether a fact follows from the references.

        It is half or a multiple of a stated number, or a time that is a stated duration from another time.
        """
        fact = sentence.facts[number]
        subject = sentence.subjects[number]
        other_facts = [other for other in sentence.facts if other is not fact]
        factors = [*self._client.facts, *other_facts]
        text = f"{sentence.before} {sentence.text}"
        likeliest = self.matcher.rank_statements(fact, subject)[:MAX_WEIGHED]
        if any(is_multiple(fact, statement.fact, factors, text) for _, statement in likeliest):
            return True
        return is_offset_from(fact, other_facts, self.matcher.minutes_said_of(subject))

    def repeated_statements(self, excluded: Statement | None) -> set[Statement]:
        """The statements that confirm facts of the answer; `excluded` only if it confirms another fact, too."""
        return {statement for statement, count in self._repeat_counts.items() if count > (statement is excluded)}

    def find_candidate(self, sentence: AnswerSentence, number: int) -> FactCandidate | None:
        """The statement that could replace the sentence's fact with this number; None without one.

        A fact that is left alone (the client's own, quoted, denied or computed) has none.
        """
        fact = sentence.facts[number]
        if fact.inherited or self.is_left_alone(sentence, fact):
            return None
        candidate = self.matcher.find_candidate(fact, sentence.subjects[number], self._answer_context(sentence, number))
        return candidate if candidate and self._may_replace(sentence, number, candidate.statement) else None

    def match_fact(self, sentence: AnswerSentence, number: int) -> Match:
        """What the references say about the sentence's fact with this number.

        `NO_MATCH` if the fact must not be checked or may not be replaced.
        """
        fact = sentence.facts[number]
        if fact.inherited or self.is_left_alone(sentence, fact):
            return NO_MATCH
        around = self._answer_context(sentence, number)
        subject = sentence.subjects[number]
        match = self.matcher.match(
            fact, subject, around, replace_from=self.replace_from, doubtful_from=_DOUBTFUL_FROM[self.arbiter]
        )
        # the other findings replace nothing
        if match.finding is FactFinding.CONTRADICTED and match.statement is not None:
            return match if self._may_replace(sentence, number, match.statement) else NO_MATCH
        return match

    def _answer_context(self, sentence: AnswerSentence, number: int) -> AnswerContext:
        """What the rest of the answer says about the sentence's fact with this number."""
        return AnswerContext(self.repeated_statements(sentence.confirming[number]), len(sentence.facts))

    def _may_replace(self, sentence: AnswerSentence, number: int, statement: Statement | None) -> bool:
        """Whether nothing in the answer shows that the fact and the statement are about different things.

        `number` is that of the fact in the sentence. False without a statement.
        """
        if statement is None:
            return False
        fact = sentence.facts[number]
        stated = statement.fact
        # the sentence states both values
        if any(sentence_fact.same_form(stated) and sentence_fact.agrees(stated) for sentence_fact in sentence.facts):
            return False
        # "about ten days" is no contradiction of "8 to 12 days"
        if not fact.ranged and is_within_range(fact, self.matcher.facts_of_sentence(statement)):
            return False
        if fact.kind is FactKind.WEEKDAY and not self._is_claim_of_sentence(sentence, statement):
            return False
        # "until 5" does not mean the beginning of "9 to 6"
        if fact.side is not RangeEnd.NONE and stated.ranged and not fact.ranged and fact.side is not stated.side:
            return False
        return not self._is_derived(sentence, number)


def _is_among(fact: Fact, others: Iterable[Fact]) -> bool:
    """Whether one of the other facts has the same form and value."""
    return any(fact.same_form(other) and fact.agrees(other) for other in others)


def _other_end(facts: Sequence[Fact], number: int) -> int | None:
    """The number of the fact that is the other end of the range that this fact begins or ends; None without one."""
    fact = facts[number]
    side = RangeEnd.HIGH if fact.side is RangeEnd.LOW else RangeEnd.LOW
    other = number + (1 if fact.side is RangeEnd.LOW else -1)
    if not fact.ranged or not 0 <= other < len(facts):
        return None
    return other if facts[other].ranged and facts[other].side is side else None


def _reorder_steps(order: Reordering, edits: Sequence[FactEdit]) -> list[FactEdit]:
    """Return the edits, and further ones that write each step of the answer where the reference has it.

    An edit inside a step that moves is applied to the text of the step, and moves with it.
    """
    # (the step that the answer has in this place, the step that belongs there)
    moves = [(old, new) for old, new in zip(order.answer_steps, order.steps, strict=True) if old != new]
    result = [edit for edit in edits if not any(old.start <= edit.start < old.end for old, _ in moves)]
    for old, new in moves:
        edits_inside = [
            replace(edit, start=edit.start - new.start, end=edit.end - new.start)
            for edit in edits
            if new.start <= edit.start < new.end
        ]
        result.append(FactEdit(old.start, old.end, apply_fact_edits(new.body, edits_inside), ORDER, order.place))
    return result


def _is_quoted(text: str, fact: Fact) -> bool:
    """Whether a fact is inside quotation marks, so somebody else's words."""
    return any(match.start() < fact.start and fact.end < match.end() for match in _QUOTED.finditer(text))


def apply_fact_edits(text: str, edits: Sequence[FactEdit]) -> str:
    """Return the text with the edits applied."""
    pieces: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join(pieces) + text[at:]
