"""Stage of the pipeline that checks outgoing text against the policy's references, after the gate.

Contradicted facts are replaced. If the policy names a judge or an editor, it decides about facts that are unsettled
(`doubts.py`). Long texts are checked in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.structure import split
from aligner_proxy.types import Finding, Policy, Turn
from aligner_proxy_grounding.doubts import DoubtDecider, FactDecision
from aligner_proxy_grounding.references import GROUNDED, matcher_of, references_of
from aligner_proxy_grounding.sentences import (
    REPLACE_FACTS_FROM,
    Arbiter,
    FactEdit,
    Grounder,
    UnsettledFact,
    apply_fact_edits,
)

CERTAINTY_KEY = "replace_facts_from"
_MAX_QUESTION_CHARS = 4_000
"""Of a longer question, only the last characters are read."""
_MAX_CLIENT_CHARS = 20_000
"""If the client wrote more, only the last characters are read."""


class GroundingStage(Stage):
    """Checks an answer against its references: a whole answer at once, a streamed one sentence by sentence."""

    order = 20
    """Position among the stages of plugins; lower ones run first."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._references = references_of(policy)
        self._grounder: Grounder | None = None
        """The state of a streamed answer so far; None for a whole answer, and before `admit`."""

    async def admit(self, answer: AnswerSoFar) -> None:
        """Parse the references before the first text of a streamed answer goes out.

        Raises `TimeoutError` if that takes longer than the policy's deadline.
        """
        if not answer.is_whole and self._grounder is None:
            chars = sum(len(reference.text) for reference in self._references)
            async with asyncio.timeout(self._policy.deadline_s):
                self._grounder = await run_off_loop(
                    chars, partial(make_grounder, self._policy, answer.exchange.turns), self._policy.tenant
                )

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Return the text with contradicted facts replaced, and a finding for each replaced or unsettled fact."""
        if outgoing.is_whole:
            return await self._release_whole(outgoing, answer)
        if self._grounder is None or not outgoing.has_whole_segments or not outgoing.text.strip():
            return outgoing
        # `check_segments` adds the facts of this part to the grounder's state, so the models are asked before it
        decision = await self._ask_about_part(outgoing, answer)
        by_words = FactDecision(*self._grounder.check_segments(split(outgoing.text)))
        if decision is None or decision.is_by_words:
            # the comparison of words decides, but what asking judge or editor cost still counts
            costs = decision or by_words
            decision = replace(by_words, editor=costs.editor, judge=costs.judge)
        return _apply_decision(outgoing, decision)

    async def _release_whole(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Check a whole answer; if the policy names a judge or an editor, these models decide about unsettled facts.

        If no model answers, the answer is checked again without models, because then fewer facts count as unsettled.
        """
        text = outgoing.text
        decider = DoubtDecider(self._references, answer.exchange.turns, answer.judge, answer.editor)
        chars = len(text) + sum(len(reference.text) for reference in self._references)

        def check_text(arbiter: Arbiter) -> FactDecision:
            return FactDecision(*make_grounder(self._policy, answer.exchange.turns, arbiter).check_answer(text))

        decision = await run_off_loop(chars, partial(check_text, decider.arbiter), self._policy.tenant)
        if decider.arbiter is not Arbiter.WORDS and decision.has_doubts:
            decision = await decider.decide(text, decision)
            if decision.is_by_words:
                by_words = await run_off_loop(chars, partial(check_text, Arbiter.WORDS), self._policy.tenant)
                decision = replace(decision, edits=by_words.edits, unsettled_facts=by_words.unsettled_facts)
        return _apply_decision(outgoing, decision)

    async def _ask_about_part(self, outgoing: Outgoing, answer: AnswerSoFar) -> FactDecision | None:
        """Have judge and editor decide about the unsettled facts of a part of a stream; None if no model is asked.

        The positions of the decision count from the part's beginning.
        """
        decider = DoubtDecider(self._references, answer.exchange.turns, answer.judge, answer.editor)
        # if earlier stages changed the text, its positions are not those of `answer.text`, which the models read
        if decider.arbiter is Arbiter.WORDS or self._grounder is None or not outgoing.is_original:
            return None
        start = outgoing.start
        end = start + len(outgoing.text)
        # positions of segments count from the first character that is not white space
        text_start = end - len(outgoing.text.lstrip())
        segments = split(answer.text[text_start:end])
        by_words = FactDecision(*self._grounder.copy_for(decider.arbiter).check_segments(segments))
        if not by_words.unsettled_facts:
            return None
        # judge and editor see the whole answer so far
        decision = await decider.decide(answer.text[:end], _shift_decision(by_words, text_start))
        return _shift_decision(decision, -start)


def _apply_decision(outgoing: Outgoing, decision: FactDecision) -> Outgoing:
    """Apply a decision to the text, and add its findings, whose positions count from the beginning of the answer."""
    if decision.editor or decision.judge:
        outgoing = replace(outgoing, editor=decision.editor, judge=decision.judge)
    if not (decision.edits or decision.unsettled_facts):
        return outgoing
    start = outgoing.start
    replaced_findings = [
        Finding(GROUNDED, edit.start + start, edit.end + start, edit.kind, edit.source, edit.text)
        for edit in decision.edits
    ]
    unsettled_findings = [
        Finding(GROUNDED, fact.start + start, fact.end + start, fact.kind, fact.source)
        for fact in decision.unsettled_facts
    ]
    new_text = apply_fact_edits(outgoing.text, decision.edits)
    return replace(outgoing, text=new_text, findings=(*outgoing.findings, *replaced_findings, *unsettled_findings))


def _shift_decision(decision: FactDecision, distance: int) -> FactDecision:
    """Return a decision with all positions moved by `distance` characters."""
    edits = [_shift_edit(edit, distance) for edit in decision.edits]
    unsettled_facts = [_shift_fact(fact, distance) for fact in decision.unsettled_facts]
    return replace(decision, edits=edits, unsettled_facts=unsettled_facts)


def _shift_edit(edit: FactEdit, distance: int) -> FactEdit:
    """Return an edit with its positions moved by `distance` characters."""
    return replace(edit, start=edit.start + distance, end=edit.end + distance)


def _shift_fact(fact: UnsettledFact, distance: int) -> UnsettledFact:
    """Return an unsettled fact with its positions moved by `distance` characters, and those of its edits."""
    words_edit = fact.words_edit and _shift_edit(fact.words_edit, distance)
    question = fact.question
    if question is not None:
        values = tuple(replace(value, edit=_shift_edit(value.edit, distance)) for value in question.values)
        question = replace(question, values=values)
    start = fact.start + distance
    end = fact.end + distance
    return replace(fact, start=start, end=end, words_edit=words_edit, question=question)


def make_grounder(policy: Policy, turns: Sequence[Turn], arbiter: Arbiter = Arbiter.WORDS) -> Grounder:
    """Create the grounder that checks one answer of this conversation against its policy's references."""
    user_texts = [turn.content for turn in turns if turn.role == "user"]
    question = user_texts[-1][-_MAX_QUESTION_CHARS:] if user_texts else ""
    client_text = "\n\n".join(user_texts)[-_MAX_CLIENT_CHARS:]
    matcher = matcher_of(references_of(policy))
    certainty = policy.extension(CERTAINTY_KEY, REPLACE_FACTS_FROM)
    return Grounder.for_question(matcher, question, client_text, arbiter=arbiter, replace_from=certainty)
