"""Check of an answer against its references: replaces the facts that they contradict. Read this module first.

A fact is replaced if a statement of a reference is very likely about the same matter and has a different value. The new
value is written in the notation of the answer. If this is less certain, the fact is reported as unsettled. Everything
else stays: facts that the references do not mention, facts that the client gave, results of a sum. The same input
always gives the same edits, and each edit names the line of its reference.

Where this package says that "words" decide, it means this comparison by shared words, without a judge or an editor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from aligner_proxy.text.structure import Segment, split
from aligner_proxy_grounding.conditions import MAX_COMPARED
from aligner_proxy_grounding.derived import (
    follows_from_question,
    is_allowed_case,
    is_length_of_word,
    is_multiple,
    is_offset_from,
    is_result,
    is_within_range,
)
from aligner_proxy_grounding.evidence import FactSubject
from aligner_proxy_grounding.exempt_facts import is_exempt
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
"""A contradicted fact is replaced from this certainty on, if the policy sets no other."""
CERTAIN_WITHOUT_EDITOR = 0.95
"""From this certainty on, the edit of the comparison of words is made even if judge or editor lets the fact stand."""
MAX_FACTS = 400
"""Limit on the facts checked in one answer; the text after them stays unchanged."""
_CONTEXT_SENTENCES = 2
"""How many sentences before a sentence belong to its context."""
_QUESTION_WEIGHT = 1.0
"""Weight of a word of the question or of the last heading in the context of a sentence."""
_LAST_SENTENCE_WEIGHT = 0.8
"""Weight of a word of the last sentence in the context of a sentence; the words of the sentence before it have half."""


class Arbiter(StrEnum):
    """Who decides about unsettled facts: the comparison of words cannot say whether references contradict them."""

    WORDS = "words"
    """Nobody, so these facts stay unsettled."""
    EDITOR = "editor"
    JUDGE = "judge"


_DOUBTFUL_FROM = {Arbiter.WORDS: None, Arbiter.EDITOR: DOUBTFUL_AGAINST, Arbiter.JUDGE: DOUBTFUL_TO_A_JUDGE}
"""The `doubtful_from` of `Matcher.match` for each arbiter."""


@dataclass(frozen=True, slots=True)
class FactEdit:
    """An edit: `text` replaces the answer's characters from `start` to before `end`.

    `kind` names the fact's kind, or is `ORDER` for steps that change places; `source` is "name:line" of the reference.
    """

    start: int
    end: int
    text: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class UnsettledFact:
    """A fact that references may contradict, for which no replacement is certain enough.

    `start` and `end` delimit its sentence in the answer, or the steps that are in another order. `kind` and `source`
    are those of `FactEdit`. Contact data that no reference has is unsettled, too; then `source` is the name of the
    first reference, without a line.
    """

    start: int
    end: int
    kind: str
    source: str
    words_edit: FactEdit | None = None
    """The edit of which the comparison of words is certain, so that it is made even if judge or editor lets the fact
    stand; None if it is not certain."""
    question: FactQuestion | None = None
    """What a judge is asked about the fact; None if no judge is asked."""


@dataclass(frozen=True, slots=True)
class FactValue:
    """A value as a reference writes it, and the edit that writes it into the answer."""

    text: str
    edit: FactEdit


@dataclass(frozen=True, slots=True)
class FactQuestion:
    """The question to a judge whether a fact of an answer is contradicted, and by which value of the references."""

    fact: str
    """The fact as the answer writes it."""
    values: tuple[FactValue, ...]
    """The values that the comparison of words would write in its place, the likeliest first."""
    must_be_stated: bool
    """Whether the fact is contact data that no reference has, which stays unsettled whatever the verdict."""


@dataclass(slots=True)
class AnswerSentence:
    """One sentence of an answer with its facts."""

    start: int
    """Its position in the answer; positions of its facts count from here."""
    text: str
    facts: list[Fact]
    subjects: list[FactSubject]
    """For each fact what it is about."""
    text_before: str = ""
    """The last `_CONTEXT_SENTENCES` sentences before it."""
    confirming: list[Statement | None] = field(default_factory=list)
    """For each fact the statement that confirms it, or None."""
    paragraphs: set[tuple[str, int]] = field(default_factory=set)
    """`paragraph_id` of the statements that confirm one of its facts."""


@dataclass(frozen=True, slots=True)
class ClientTexts:
    """What the client wrote, with its facts."""

    text: str = ""
    facts: Sequence[Fact] = ()
    question_words: Mapping[str, float] = field(default_factory=dict)
    """The weight of each stem of the client's question."""


@dataclass(slots=True)
class Grounder:
    """Checks one answer against its references, and makes edits of the facts that they contradict.

    A fact is unsettled if a statement (a fact of a reference) may contradict it, but not surely enough for an edit.
    """

    matcher: Matcher
    arbiter: Arbiter = Arbiter.WORDS
    """Who decides unsettled facts; for a judge or an editor, more facts count as unsettled."""
    replace_from: float = REPLACE_FACTS_FROM
    """From this certainty of a contradiction on, the fact is replaced."""
    _client: ClientTexts = ClientTexts()
    _last_sentences: list[str] = field(default_factory=list)
    """The last `_CONTEXT_SENTENCES` sentences."""
    _answer_facts: list[Fact] = field(default_factory=list)
    """Facts of the answer so far."""
    _answer_words: set[str] = field(default_factory=set)
    """Stems of the answer so far."""
    _heading: str = ""
    """The last heading, bold line or line that ends in a colon."""
    _repeat_counts: Counter[Statement] = field(default_factory=Counter)
    """How many facts of the answer each statement confirms."""
    _paragraphs: list[set[tuple[str, int]]] = field(default_factory=list)
    """For each of the last sentences, `paragraph_id` of the statements that confirm one of its facts."""

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
        client = ClientTexts(text, facts, dict.fromkeys(words(question), _QUESTION_WEIGHT))
        return cls(matcher, arbiter, replace_from, client)

    def copy_for(self, arbiter: Arbiter) -> Grounder:
        """Return a copy of this grounder for another arbiter, which can check sentences ahead of this grounder.

        The copy shares no state, so this grounder does not change.
        """
        return replace(
            self,
            arbiter=arbiter,
            _answer_facts=[*self._answer_facts],
            _answer_words={*self._answer_words},
            _repeat_counts=Counter(self._repeat_counts),
        )

    def check_answer(self, text: str) -> tuple[list[FactEdit], list[UnsettledFact]]:
        """Return (edits, unsettled facts) of a whole answer; later sentences help to decide about earlier ones."""
        edits, unsettled_facts = self._decide_sentences(self.read_all(text))
        for reordering in find_reorderings(text, self.matcher.procedures):
            if reordering.can_move:
                edits = _reorder_steps(reordering, edits)
            else:
                start = reordering.answer_steps[0].start
                end = reordering.answer_steps[-1].end
                unsettled_facts.append(UnsettledFact(start, end, ORDER, reordering.place))
        return edits, unsettled_facts

    def read_all(self, text: str) -> list[AnswerSentence]:
        """Read the sentences of a whole answer, and record which facts the references confirm."""
        sentences = [self._read_sentence(segment.start, segment.text) for segment in split(text)]
        for sentence in sentences:
            self._note_confirming(sentence)
        return sentences

    def facts_of(self, text: str) -> list[Fact]:
        """Read the facts of a sentence; what can be read in two ways is read as the references mean it."""
        return read_facts(text, self.matcher.conventions)

    def check_segments(self, segments: Iterable[Segment]) -> tuple[list[FactEdit], list[UnsettledFact]]:
        """Return (edits, unsettled facts) of the next sentences of a streamed answer, whose rest is not known yet."""
        # each sentence is decided before the next one is read
        return self._decide_sentences(self._read_confirmed(segment) for segment in segments)

    def _read_confirmed(self, segment: Segment) -> AnswerSentence:
        """Read the next sentence, and record which of its facts the references confirm."""
        sentence = self._read_sentence(segment.start, segment.text)
        self._note_confirming(sentence)
        return sentence

    def _read_sentence(self, start: int, text: str) -> AnswerSentence:
        """Read the next sentence, which begins at `start`, with its facts and their subjects; add it to the state."""
        # code blocks are not about the references
        is_read = len(self._answer_facts) < MAX_FACTS and not text.lstrip().startswith(("```", "~~~"))
        facts = self.facts_of(text) if is_read else []
        self._answer_facts += facts
        self._answer_words |= set(words(text))
        subjects = self._find_subjects(text, facts)
        line = text.strip()
        # a heading, an introduction or a bold line names the subject of what follows
        if line.startswith("#") or line.endswith(":") or (line.startswith("**") and line.endswith("**")):
            self._heading = line
        text_before = " ".join(self._last_sentences)
        self._last_sentences = [*self._last_sentences, text][-_CONTEXT_SENTENCES:]
        return AnswerSentence(start, text, facts, subjects, text_before)

    def _find_subjects(self, text: str, facts: Sequence[Fact]) -> list[FactSubject]:
        """Find what each fact of the sentence `text` is about; its words must be in `_answer_words` already."""
        context_words = self._weigh_context_words()
        answer_words = frozenset(self._answer_words)
        topics = find_topics(text, facts)
        neighbours = find_neighbours(text, facts)
        sentence_cache: dict[Hashable, Any] = {}
        subjects = []
        for fact, topic, fact_neighbours in zip(facts, topics, neighbours, strict=True):
            # conditions are compared with at most `MAX_COMPARED` facts
            other_facts = [other for other in facts[: MAX_COMPARED + 1] if other is not fact]
            subjects.append(
                FactSubject(
                    topic,
                    context_words,
                    fact_neighbours,
                    question_words=self._client.question_words.keys(),
                    answer_words=answer_words,
                    other_facts=[*other_facts, *self._client.facts],
                    sentence_cache=sentence_cache,
                )
            )
        return subjects

    def _weigh_context_words(self) -> dict[str, float]:
        """Return the weights of the stems (words without endings) in question, last sentences and last heading.

        The further back a sentence is, the less its words weigh.
        """
        weights = dict(self._client.question_words)
        for distance, sentence in enumerate(reversed(self._last_sentences), 1):
            for word in words(sentence):
                weights[word] = max(_LAST_SENTENCE_WEIGHT / distance, weights.get(word, 0.0))
        for word in words(self._heading):
            weights[word] = _QUESTION_WEIGHT
        return weights

    def _note_confirming(self, sentence: AnswerSentence) -> None:
        """Record which statements confirm the facts of this sentence, and which paragraphs are near its subjects."""
        for fact, subject in zip(sentence.facts, sentence.subjects, strict=True):
            statement = self.matcher.confirming_statement(fact, subject)
            sentence.confirming.append(statement)
            if statement is not None:
                self._repeat_counts[statement] += 1
                sentence.paragraphs.add(statement.paragraph_id)
        nearby_paragraphs = sentence.paragraphs.union(*self._paragraphs)
        self._paragraphs = [*self._paragraphs, sentence.paragraphs][-_CONTEXT_SENTENCES:]
        for subject in sentence.subjects:
            subject.paragraphs = nearby_paragraphs

    def _decide_sentences(self, sentences: Iterable[AnswerSentence]) -> tuple[list[FactEdit], list[UnsettledFact]]:
        """Return (edits, unsettled facts) of these sentences."""
        edits: list[FactEdit] = []
        unsettled_facts: list[UnsettledFact] = []
        for sentence in sentences:
            self._decide_sentence(sentence, edits, unsettled_facts)
        return edits, unsettled_facts

    def _decide_sentence(
        self, sentence: AnswerSentence, edits: list[FactEdit], unsettled_facts: list[UnsettledFact]
    ) -> None:
        """Append the edits and the unsettled facts of one sentence that `_read_sentence` has returned."""
        matches = [self.match_fact(sentence, index) for index in range(len(sentence.facts))]
        use_counts = Counter(match.statement for match in matches if self._is_certain(match))
        for index, (fact, match) in enumerate(zip(sentence.facts, matches, strict=True)):
            if match.finding not in (FactFinding.CONTRADICTED, FactFinding.UNSETTLED):
                continue
            # One statement cannot replace two facts: "9 to 5" must not become "10 to 10".
            is_used_twice = use_counts[match.statement] > 1
            if match.finding is FactFinding.CONTRADICTED and is_used_twice:
                continue
            edit = self._make_edit(sentence, index, match.statement)
            if match.finding is FactFinding.CONTRADICTED and edit is not None:
                edits += self._edits_of_other_end(sentence, index, match.statement, matches)
                # facts of unequal value may have the same text
                if edit.text != sentence.text[edit.start - sentence.start : edit.end - sentence.start]:
                    edits.append(edit)
                continue
            is_edit_certain = (
                self._is_certain(match) and not is_used_twice and self._may_replace(sentence, index, match.statement)
            )
            unsettled_facts.append(
                UnsettledFact(
                    sentence.start,
                    sentence.start + len(sentence.text),
                    fact.kind.value,
                    source=match.statement.place if match.statement else self.matcher.name,
                    words_edit=edit if is_edit_certain else None,
                    question=self._make_question(sentence, index) if self.arbiter is Arbiter.JUDGE else None,
                )
            )

    def _is_certain(self, match: Match) -> bool:
        """Whether a match is certain enough to replace the fact, whatever a judge or an editor decides.

        This is so for a contradicted fact, whose certainty has been compared with `replace_from`. If there is a judge
        or an editor, no fact is contradicted, and an unsettled fact needs a certainty of `CERTAIN_WITHOUT_EDITOR`.
        """
        if match.finding is FactFinding.CONTRADICTED:
            return True
        return self.arbiter is not Arbiter.WORDS and match.score >= CERTAIN_WITHOUT_EDITOR

    def _make_question(self, sentence: AnswerSentence, index: int) -> FactQuestion:
        """Make the question to a judge: which value, if any, contradicts the sentence's fact with this index."""
        fact = sentence.facts[index]
        values: list[FactValue] = []
        context = self._answer_context(sentence, index)
        for statement in self.matcher.other_values(fact, sentence.subjects[index], context):
            edit = self._make_edit(sentence, index, statement)
            if edit is not None:
                values.append(FactValue(statement.fact.text, edit))
        return FactQuestion(fact.text, tuple(values), must_be_stated=not self.matcher.may_state(fact))

    def _make_edit(self, sentence: AnswerSentence, index: int, statement: Statement | None) -> FactEdit | None:
        """Make the edit that writes the value of a statement in place of the sentence's fact with this index.

        None if no notation is safe, or if `statement` is None.
        """
        if statement is None:
            return None
        fact = sentence.facts[index]
        rewriting = rewrite_fact(fact, statement.fact, sentence.text)
        if rewriting is None:
            return None
        start, end, text = rewriting
        return FactEdit(sentence.start + start, sentence.start + end, text, fact.kind.value, statement.place)

    def _edits_of_other_end(
        self, sentence: AnswerSentence, index: int, statement: Statement | None, matches: Sequence[Match]
    ) -> list[FactEdit]:
        """If one end of a range is replaced, return the edit of its other end: "10 to 14" must not become "10 to 7".

        `statement` replaces the fact with this index; `matches` has the match of each fact of the sentence. The list is
        empty if the fact is no end of a range, or if its other end agrees, has its own edit, or cannot be written.
        """
        other_index = _other_end(sentence.facts, index)
        if statement is None or other_index is None or sentence.facts[index].side is not statement.fact.side:
            return []
        stated_facts = self.matcher.facts_of_sentence(statement)
        stated_index = next(position for position, stated in enumerate(stated_facts) if stated is statement.fact)
        other_stated_index = _other_end(stated_facts, stated_index)
        if other_stated_index is None or matches[other_index].finding is FactFinding.CONTRADICTED:
            return []
        other_fact = sentence.facts[other_index]
        other_stated = stated_facts[other_stated_index]
        if not other_fact.same_form(other_stated) or other_fact.agrees(other_stated):
            return []
        edit = self._make_edit(sentence, other_index, replace(statement, fact=other_stated))
        return [] if edit is None else [edit]

    def _is_claim_of_sentence(self, sentence: AnswerSentence, statement: Statement) -> bool:
        """Whether the weekday of a sentence is what the sentence claims, and not a condition of another claim.

        "Deliveries arrive on Monday" claims the day; "on Mondays we open at 9" claims the time. The day is the claim if
        the sentence has no other day, and the statement's sentence confirms all its times, dates and amounts.
        """
        days = [fact for fact in sentence.facts if fact.kind is FactKind.WEEKDAY]
        other_facts = [fact for fact in sentence.facts if fact.kind in (FactKind.TIME, FactKind.DATE, FactKind.MONEY)]
        stated_facts = self.matcher.facts_of_sentence(statement)
        return len(days) == 1 and all(_is_among(fact, stated_facts) for fact in other_facts)

    def is_left_alone(self, sentence: AnswerSentence, fact: Fact) -> bool:
        """Whether a fact must not be checked: given by the client, quoted, negated, or a computed result."""
        if _is_among(fact, self._client.facts):
            return True
        # the client may have written the number with another noun or without a noun
        client_values = [client_fact.value for client_fact in self._client.facts]
        if fact.kind in (FactKind.AGE, FactKind.COUNT) and fact.value in client_values:
            return True
        if is_exempt(sentence.text, fact):
            return True
        if is_length_of_word(fact, self._client.text):
            return True
        if is_result(fact, [*self._client.facts, *self._answer_facts]):
            return True
        return follows_from_question(fact, self._client.facts, self._answer_facts)

    def _is_derived(self, sentence: AnswerSentence, index: int) -> bool:
        """Whether the sentence's fact with this index follows from the references.

        It does if it is half or a multiple of a stated number, or a time that is a stated duration from another time.
        """
        fact = sentence.facts[index]
        subject = sentence.subjects[index]
        other_facts = [other for other in sentence.facts if other is not fact]
        text = f"{sentence.text_before} {sentence.text}"
        for _, statement in self.matcher.rank_statements(fact, subject)[:MAX_WEIGHED]:
            if is_multiple(fact, statement.fact, [*self._client.facts, *other_facts], text):
                return True
        return is_offset_from(fact, other_facts, self.matcher.find_durations(subject))

    def repeated_statements(self, excluded: Statement | None) -> set[Statement]:
        """The statements that confirm facts of the answer; `excluded` only if it confirms at least two."""
        return {statement for statement, count in self._repeat_counts.items() if statement is not excluded or count > 1}

    def find_candidate(self, sentence: AnswerSentence, index: int) -> FactCandidate | None:
        """Return the statement that could replace the sentence's fact with this index; None if there is none.

        A fact that must not be checked (the client's own, quoted, negated or computed) has none.
        """
        fact = sentence.facts[index]
        if fact.inherited or self.is_left_alone(sentence, fact):
            return None
        context = self._answer_context(sentence, index)
        candidate = self.matcher.find_candidate(fact, sentence.subjects[index], context)
        if candidate is None or not self._may_replace(sentence, index, candidate.statement):
            return None
        return candidate

    def match_fact(self, sentence: AnswerSentence, index: int) -> Match:
        """Return what the references say about the sentence's fact with this index.

        `NO_MATCH` if the fact must not be checked or may not be replaced.
        """
        fact = sentence.facts[index]
        if fact.inherited or self.is_left_alone(sentence, fact):
            return NO_MATCH
        match = self.matcher.match(
            fact,
            sentence.subjects[index],
            self._answer_context(sentence, index),
            replace_from=self.replace_from,
            doubtful_from=_DOUBTFUL_FROM[self.arbiter],
        )
        # only a contradicted fact is replaced
        if match.finding is FactFinding.CONTRADICTED and match.statement is not None:
            return match if self._may_replace(sentence, index, match.statement) else NO_MATCH
        return match

    def _answer_context(self, sentence: AnswerSentence, index: int) -> AnswerContext:
        """Return the context that `Matcher` needs for the sentence's fact with this index."""
        return AnswerContext(self.repeated_statements(sentence.confirming[index]), len(sentence.facts))

    def _may_replace(self, sentence: AnswerSentence, index: int, statement: Statement | None) -> bool:
        """Whether nothing in the answer shows that a fact and a statement are about different things.

        `index` is that of the fact in the sentence. False without a statement.
        """
        if statement is None:
            return False
        fact = sentence.facts[index]
        stated = statement.fact
        # if the sentence has the statement's value elsewhere, the fact is something else
        if any(sentence_fact.same_form(stated) and sentence_fact.agrees(stated) for sentence_fact in sentence.facts):
            return False
        # the unit may be left out: "42 minutes, which is less than the usual 52"
        if any(sentence_fact.inherited and sentence_fact.value == stated.value for sentence_fact in sentence.facts):
            return False
        if is_allowed_case(fact, stated, sentence.text):
            return False
        # "about ten days" is no contradiction of "8 to 12 days"
        if not fact.ranged and is_within_range(fact, self.matcher.facts_of_sentence(statement)):
            return False
        if fact.kind is FactKind.WEEKDAY and not self._is_claim_of_sentence(sentence, statement):
            return False
        # "until 5" does not mean the beginning of "9 to 6"
        if fact.side is not RangeEnd.NONE and stated.ranged and not fact.ranged and fact.side is not stated.side:
            return False
        return not self._is_derived(sentence, index)


def _is_among(fact: Fact, others: Iterable[Fact]) -> bool:
    """Whether one of the other facts is comparable and has the same value."""
    return any(fact.same_form(other) and fact.agrees(other) for other in others)


def _other_end(facts: Sequence[Fact], index: int) -> int | None:
    """The index of the other end of the range of which the fact with this index is an end; None if there is none."""
    fact = facts[index]
    is_low = fact.side is RangeEnd.LOW
    other_index = index + 1 if is_low else index - 1
    if not fact.ranged or not 0 <= other_index < len(facts):
        return None
    other_fact = facts[other_index]
    other_side = RangeEnd.HIGH if is_low else RangeEnd.LOW
    return other_index if other_fact.ranged and other_fact.side is other_side else None


def _reorder_steps(reordering: Reordering, edits: Sequence[FactEdit]) -> list[FactEdit]:
    """Return `edits`, and further edits that write each step of the answer in the place that the reference gives it.

    An edit inside a step that moves is applied to the text of the step, and moves with it.
    """
    # (old: the step that the answer has in this place, new: the step that belongs there)
    moves = [
        (old, new) for old, new in zip(reordering.answer_steps, reordering.reordered_steps, strict=True) if old != new
    ]
    all_edits = [edit for edit in edits if not any(old.start <= edit.start < old.end for old, _ in moves)]
    for old, new in moves:
        edits_inside = [
            replace(edit, start=edit.start - new.start, end=edit.end - new.start)
            for edit in edits
            if new.start <= edit.start < new.end
        ]
        new_text = apply_fact_edits(new.body, edits_inside)
        all_edits.append(FactEdit(old.start, old.end, new_text, ORDER, reordering.place))
    return all_edits


def apply_fact_edits(text: str, edits: Sequence[FactEdit]) -> str:
    """Return the text with the edits applied, which must not overlap."""
    pieces: list[str] = []
    last_end = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces.append(text[last_end : edit.start])
        pieces.append(edit.text)
        last_end = edit.end
    return "".join(pieces) + text[last_end:]
