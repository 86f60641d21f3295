"""References stage: checks outgoing text against the policy's references, after the gate.

Contradicted facts are replaced. If the policy names a judge or an editor, it decides the cases in doubt (doubts.py).
Long texts are checked in a thread.
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
"""Limit on the question; its end is read."""
_MAX_CLIENT_CHARS = 20_000
"""Limit on all that the client wrote; the end is read."""


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
                    chars, partial(grounder, self._policy, answer.exchange.turns), self._policy.tenant
                )

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Return the text with contradicted facts replaced, and a finding for each replaced or unsettled fact."""
        if outgoing.is_whole:
            return await self._release_whole(outgoing, answer)
        if self._grounder is None or not outgoing.has_whole_segments or not outgoing.text.strip():
            return outgoing
        # Look ahead for doubts before this piece's facts are added to the grounder's state.
        decision = await self._ask_ahead(outgoing, answer)
        by_words = FactDecision(*self._grounder.check_segments(split(outgoing.text)))
        if decision is None or decision.is_by_words:
            # the words decide; what the question to editor or judge cost still counts
            costs = decision or by_words
            decision = replace(by_words, editor=costs.editor, judge=costs.judge)
        return _with_edits(outgoing, decision)

    async def _release_whole(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Check a whole answer, and let judge and editor decide doubts if the policy names them.

        If nobody can be asked, the answer is checked again without them.
        """
        text = outgoing.text
        decider = DoubtDecider.for_answer(answer, self._references)
        chars = len(text) + sum(len(reference.text) for reference in self._references)
        find = partial(_find_contradictions, text, self._policy, answer.exchange.turns)
        decision = await run_off_loop(chars, partial(find, decider.arbiter), self._policy.tenant)
        if decider.arbiter is not Arbiter.WORDS and decision.has_doubts:
            decision = await decider.decide(text, decision)
            if decision.is_by_words:
                by_words = await run_off_loop(chars, partial(find, Arbiter.WORDS), self._policy.tenant)
                decision = replace(decision, edits=by_words.edits, doubtful=by_words.doubtful)
        return _with_edits(outgoing, decision)

    async def _ask_ahead(self, outgoing: Outgoing, answer: AnswerSoFar) -> FactDecision | None:
        """Return the decision of judge and editor on a piece of a streamed answer; None if nobody is asked."""
        decider = DoubtDecider.for_answer(answer, self._references)
        # in a text that earlier stages changed, positions are not those of the upstream's answer
        if decider.arbiter is Arbiter.WORDS or self._grounder is None or not outgoing.is_original:
            return None
        start = outgoing.start
        text = outgoing.text
        end = start + len(text)
        # positions of segments count from the first character that is no white space
        text_start = end - len(text.lstrip())
        ahead = self._grounder.copy_for(decider.arbiter).check_segments(split(answer.text[text_start:end]))
        by_words = FactDecision(*ahead)
        if not by_words.doubtful:
            return None
        decision = await decider.decide(answer.text[:end], _shift_all(by_words, text_start))
        return _shift_all(decision, -start)


def _with_edits(outgoing: Outgoing, decision: FactDecision) -> Outgoing:
    """Apply a decision to the text and add the findings, whose positions refer to the whole answer."""
    edits, doubtful = decision.edits, decision.doubtful
    if decision.editor or decision.judge:
        outgoing = replace(outgoing, editor=decision.editor, judge=decision.judge)
    if not (edits or doubtful):
        return outgoing
    start = outgoing.start
    findings = (
        *(
            Finding(GROUNDED, entry.start + start, entry.end + start, entry.kind, entry.source, entry.text)
            for entry in edits
        ),
        *(Finding(GROUNDED, entry.start + start, entry.end + start, entry.kind, entry.source) for entry in doubtful),
    )
    return replace(outgoing, text=apply_fact_edits(outgoing.text, edits), findings=outgoing.findings + findings)


def _shift_all(decision: FactDecision, by: int) -> FactDecision:
    """The decision with all positions moved by so many characters."""
    edits = [_shift_edit(edit, by) for edit in decision.edits]
    return replace(decision, edits=edits, doubtful=[_shift_doubt(doubt, by) for doubt in decision.doubtful])


def _shift_edit(edit: FactEdit, by: int) -> FactEdit:
    """The edit with its positions moved by so many characters."""
    return replace(edit, start=edit.start + by, end=edit.end + by)


def _shift_doubt(doubt: UnsettledFact, by: int) -> UnsettledFact:
    """The unsettled fact with its positions moved, and those of the edits that it offers."""
    words_edit = doubt.words_edit and _shift_edit(doubt.words_edit, by)
    question = doubt.question
    if question is not None:
        question = replace(
            question, values=tuple(replace(value, edit=_shift_edit(value.edit, by)) for value in question.values)
        )
    return replace(doubt, start=doubt.start + by, end=doubt.end + by, words_edit=words_edit, question=question)


def _find_contradictions(text: str, policy: Policy, turns: Sequence[Turn], arbiter: Arbiter) -> FactDecision:
    """What the comparison of words decides about a whole answer, and leaves to this arbiter."""
    return FactDecision(*grounder(policy, turns, arbiter).check_answer(text))


def grounder(policy: Policy, turns: Sequence[Turn], arbiter: Arbiter = Arbiter.WORDS) -> Grounder:
    """Create the grounder that checks one answer of this conversation against its policy's references."""
    by_user = [turn.content for turn in turns if turn.role == "user"]
    question = by_user[-1][-_MAX_QUESTION_CHARS:] if by_user else ""
    client_texts = "\n\n".join(by_user)[-_MAX_CLIENT_CHARS:]
    matcher = matcher_of(references_of(policy))
    certainty = policy.extension(CERTAINTY_KEY, REPLACE_FACTS_FROM)
    return Grounder.for_question(matcher, question, client_texts, arbiter=arbiter, replace_from=certainty)
