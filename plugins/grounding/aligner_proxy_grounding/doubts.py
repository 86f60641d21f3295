"""Decisions about facts that the comparison of words leaves unsettled: a judge says which are contradicted.

"By words" means here: by this comparison, without a model. The judge chooses among the values that it found, and the
chosen value is written in the notation of the answer. If the judge chooses none of them, the editor writes the
sentence; without an editor the fact stays unsettled. Where there is no judge, or the judge fails, the editor alone
decides about every unsettled fact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.plugins.stage import AnswerSoFar
from aligner_proxy.types import EditorUse, JudgeUse
from aligner_proxy_grounding.fact_editor import FactEditor
from aligner_proxy_grounding.fact_judge import FactJudge, FactVerdict, JudgedFact
from aligner_proxy_grounding.procedures import ORDER
from aligner_proxy_grounding.references import Reference, matcher_of
from aligner_proxy_grounding.rewriting import accept_rewriting, merge_edits, words_edits
from aligner_proxy_grounding.sentences import Arbiter, FactEdit, UnsettledFact


@dataclass(frozen=True, slots=True)
class FactDecision:
    """The edits of a text and what stays unsettled, with the use of the models that decided it."""

    edits: Sequence[FactEdit]
    unsettled_facts: Sequence[UnsettledFact]
    editor: EditorUse | None = None
    """What asking the editor cost; None if it was not asked."""
    judge: JudgeUse | None = None
    """What asking the judge cost; None if it was not asked."""
    is_by_words: bool = False
    """Whether no model could be asked, so that the comparison of words has to decide again."""

    @property
    def has_doubts(self) -> bool:
        """Whether there is a fact about which a judge or an editor can be asked."""
        return any(fact.kind != ORDER for fact in self.unsettled_facts)


@dataclass(frozen=True, slots=True)
class DoubtDecider:
    """Judge and editor of one answer, either of which may be missing, and the references that they are shown."""

    references: Sequence[Reference]
    judge: FactJudge | None
    editor: FactEditor | None

    @classmethod
    def for_answer(cls, answer: AnswerSoFar, references: Sequence[Reference]) -> DoubtDecider:
        """Create the decider of an answer, with the judge and the editor that its policy names."""
        turns = answer.exchange.turns
        judge, editor = answer.judge, answer.editor
        return cls(
            references,
            None if judge is None else FactJudge(judge, turns),
            None if editor is None else FactEditor(editor, turns),
        )

    @property
    def arbiter(self) -> Arbiter:
        """Who decides doubts first: the judge if there is one, else the editor, else the comparison of words."""
        if self.judge is not None:
            return Arbiter.JUDGE
        return Arbiter.WORDS if self.editor is None else Arbiter.EDITOR

    async def decide(self, text: str, decision: FactDecision) -> FactDecision:
        """Ask the judge and then the editor about what the comparison of words left unsettled in a text.

        `decision` is that of the comparison of words. Return it with the edits that follow from the replies, and with
        what stays unsettled. Raises `JudgeFailed` if the judge fails and the policy blocks the answer then.
        """
        judge_use = None
        if self.judge is not None:
            judged_facts, judge_use = await self.judge.ask_about_facts(text, decision.unsettled_facts, self.references)
            # None means that the judge failed
            if judged_facts is not None:
                judged_decision, unwritten_facts = apply_verdicts(
                    decision, judged_facts, may_clear=self.judge.may_clear
                )
                return replace(await self._write_facts(text, judged_decision, unwritten_facts), judge=judge_use)
        if self.editor is None:
            return replace(decision, judge=judge_use, is_by_words=True)
        return replace(await self._ask_editor(self.editor, text, decision), judge=judge_use)

    async def _write_facts(
        self, text: str, decision: FactDecision, unwritten_facts: Sequence[UnsettledFact]
    ) -> FactDecision:
        """Return a decision with the editor's edits for `unwritten_facts`; those without an edit stay unsettled."""
        if self.editor is None or not unwritten_facts:
            return replace(decision, unsettled_facts=[*decision.unsettled_facts, *unwritten_facts])
        by_editor = await self._ask_editor(self.editor, text, replace(decision, unsettled_facts=unwritten_facts))
        edits = decision.edits if by_editor.is_by_words else by_editor.edits
        new_edits = [edit for edit in edits if edit not in decision.edits]
        still_unwritten = [
            fact for fact in unwritten_facts if not any(fact.start <= edit.start < fact.end for edit in new_edits)
        ]
        unsettled_facts = [*decision.unsettled_facts, *still_unwritten]
        # the judge has decided, so the comparison of words must not decide again
        return replace(by_editor, edits=edits, unsettled_facts=unsettled_facts, is_by_words=False)

    async def _ask_editor(self, editor: FactEditor, text: str, decision: FactDecision) -> FactDecision:
        """Return a decision with what the editor writes in place of the sentences with unsettled facts.

        If the editor cannot be called, the edits stay those of `decision`, and `is_by_words` is true.
        """
        asked_facts = [fact for fact in decision.unsettled_facts if fact.kind != ORDER]
        sentences, editor_use = await editor.ask_for_sentences(text, asked_facts, self.references)
        if sentences is None:
            return replace(decision, editor=editor_use, is_by_words=True)
        chars = len(text) + sum(len(reference.text) for reference in self.references)
        by_editor = await run_off_loop(chars, partial(_accept_sentences, text, decision, sentences, self.references))
        # a sentence with several unsettled facts is refused once
        refused_count = len({fact.start for fact in by_editor.unsettled_facts if fact.kind != ORDER})
        return replace(by_editor, editor=editor_use + EditorUse(refused=refused_count))


def apply_verdicts(
    by_words: FactDecision, judged_facts: Sequence[JudgedFact], *, may_clear: bool = False
) -> tuple[FactDecision, list[UnsettledFact]]:
    """Return (decision after the judge's verdicts, facts that the editor has to write).

    The decision has the edits with the values that the judge chose. Where the judge lets a fact stand, an edit of which
    the comparison of words is certain is made nevertheless. `may_clear`: whether the judge may overrule this edit, too.
    """
    judged_by_id = {id(judged_fact.fact): judged_fact for judged_fact in judged_facts}
    # as in the comparison of words, one value cannot replace two facts of a sentence
    use_counts = Counter(
        (judged_fact.fact.start, judged_fact.edit.source, judged_fact.edit.text)
        for judged_fact in judged_facts
        if judged_fact.edit
    )
    edits: list[FactEdit] = []
    unsettled_facts: list[UnsettledFact] = []
    unwritten_facts: list[UnsettledFact] = []
    for fact in by_words.unsettled_facts:
        judged_fact = judged_by_id.get(id(fact))
        if fact.kind == ORDER:
            # a judge is not asked about the order of steps
            unsettled_facts.append(fact)
        elif judged_fact is None or judged_fact.verdict is FactVerdict.CONTRADICTED:
            edit = judged_fact.edit if judged_fact else fact.words_edit
            if edit and use_counts[fact.start, edit.source, edit.text] <= 1:
                edits.append(edit)
            else:
                unwritten_facts.append(fact)
        # from here on the judge lets the fact stand
        elif fact.words_edit is not None and not may_clear:
            edits.append(fact.words_edit)
        elif fact.question and fact.question.must_be_stated:
            unsettled_facts.append(fact)
    return FactDecision(merge_edits(by_words.edits, edits), unsettled_facts), unwritten_facts


def _accept_sentences(
    text: str, decision: FactDecision, sentences: Mapping[int, str], references: Sequence[Reference]
) -> FactDecision:
    """Return a decision with the edits of the editor's sentences; facts of sentences that are refused stay unsettled.

    `sentences` has the editor's sentences by the position in `text` at which the sentence that each replaces begins.
    """
    matcher = matcher_of(references)
    sentence_ends = {fact.start: fact.end for fact in decision.unsettled_facts}
    accepted_edits: list[FactEdit] = []
    refused_starts: set[int] = set()
    for start, sentence in sentences.items():
        edits = accept_rewriting(text[start : sentence_ends[start]], sentence, matcher, start)
        if edits is None:
            refused_starts.add(start)
        elif edits:
            accepted_edits += edits
        else:
            # the editor left the sentence unchanged, but does not overrule the edits of which the words are certain
            accepted_edits += words_edits(decision.unsettled_facts, start)
    unsettled_facts = [fact for fact in decision.unsettled_facts if fact.kind == ORDER or fact.start in refused_starts]
    return FactDecision(merge_edits(decision.edits, accepted_edits), unsettled_facts)
