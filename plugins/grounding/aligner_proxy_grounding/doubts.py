"""Decisions about unsettled facts: the comparison of words with the references cannot say if such a fact is wrong.

A judge model says which unsettled facts are contradicted; an editor model rewrites their sentences. A decision "by
words" is one of the comparison of words, without a model. The judge chooses among the values that it found, and the
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
from aligner_proxy.plugins.stage import PolicyEditor, PolicyJudge
from aligner_proxy.types import EditorUse, JudgeUse, Turn
from aligner_proxy_grounding.fact_editor import ask_for_sentences
from aligner_proxy_grounding.fact_judge import FactVerdict, JudgedFact, ask_about_facts
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
    """Asks a judge and an editor, either of which may be missing, about the facts of one answer that are unsettled.

    A fact is unsettled if the comparison of its words with the references cannot say whether they contradict it.
    """

    references: Sequence[Reference]
    turns: Sequence[Turn]
    judge: PolicyJudge | None
    editor: PolicyEditor | None

    @property
    def arbiter(self) -> Arbiter:
        """Who decides about unsettled facts first: the judge if there is one, else the editor, else nobody (WORDS)."""
        if self.judge is not None:
            return Arbiter.JUDGE
        return Arbiter.WORDS if self.editor is None else Arbiter.EDITOR

    async def decide(self, text: str, decision: FactDecision) -> FactDecision:
        """Ask the judge about the unsettled facts of a decision, and the editor about what the judge cannot settle.

        `decision` is what the comparison of words found in `text`. Return it with the edits that follow from the
        replies, and with the facts that stay unsettled. Raises `JudgeFailed` if the judge fails and the policy blocks
        the answer then.
        """
        judge_use = None
        if self.judge is not None:
            judged_facts, judge_use = await ask_about_facts(
                self.judge, self.turns, text, decision.unsettled_facts, self.references
            )
            # None means that the judge failed; then the editor decides
            if judged_facts is not None:
                judged_decision, facts_to_write = apply_verdicts(decision, judged_facts, may_clear=self.judge.may_clear)
                return replace(await self._write_facts(text, judged_decision, facts_to_write), judge=judge_use)
        if self.editor is None:
            return replace(decision, judge=judge_use, is_by_words=True)
        return replace(await self._ask_editor(self.editor, text, decision), judge=judge_use)

    async def _write_facts(
        self, text: str, decision: FactDecision, facts_to_write: Sequence[UnsettledFact]
    ) -> FactDecision:
        """Return the judge's decision, with the editor's edits for facts whose right value the judge did not find.

        The facts in `facts_to_write` for which the editor makes no edit become unsettled facts of the decision.
        """
        if self.editor is None or not facts_to_write:
            return replace(decision, unsettled_facts=[*decision.unsettled_facts, *facts_to_write])
        by_editor = await self._ask_editor(self.editor, text, replace(decision, unsettled_facts=facts_to_write))
        # `is_by_words` means that the editor could not be called
        edits = decision.edits if by_editor.is_by_words else by_editor.edits
        new_edits = [edit for edit in edits if edit not in decision.edits]
        still_unwritten = [
            fact for fact in facts_to_write if not any(fact.start <= edit.start < fact.end for edit in new_edits)
        ]
        unsettled_facts = [*decision.unsettled_facts, *still_unwritten]
        # the judge has decided, so the comparison of words must not decide again
        return replace(by_editor, edits=edits, unsettled_facts=unsettled_facts, is_by_words=False)

    async def _ask_editor(self, editor: PolicyEditor, text: str, decision: FactDecision) -> FactDecision:
        """Ask the editor to rewrite the sentences with unsettled facts, and return the decision with its edits.

        If the editor cannot be called, the edits stay those of `decision`, and `is_by_words` is true.
        """
        # steps in the wrong order are not a fact that an editor could write
        asked_facts = [fact for fact in decision.unsettled_facts if fact.kind != ORDER]
        sentences, editor_use = await ask_for_sentences(editor, self.turns, text, asked_facts, self.references)
        if sentences is None:
            return replace(decision, editor=editor_use, is_by_words=True)
        chars = len(text) + sum(len(reference.text) for reference in self.references)
        by_editor = await run_off_loop(chars, partial(_accept_sentences, text, decision, sentences, self.references))
        # `start` is that of the sentence, so a refused sentence with several facts counts once
        refused_count = len({fact.start for fact in by_editor.unsettled_facts if fact.kind != ORDER})
        return replace(by_editor, editor=editor_use + EditorUse(refused=refused_count))


def apply_verdicts(
    by_words: FactDecision, judged_facts: Sequence[JudgedFact], *, may_clear: bool = False
) -> tuple[FactDecision, list[UnsettledFact]]:
    """Apply the judge's verdicts to a decision; return (new decision, facts whose right value the editor has to find).

    The new decision has edits with the values that the judge chose. If the judge lets a fact stand, an edit of which
    the comparison of words is certain (`words_edit`) is made nevertheless, unless `may_clear` lets the judge prevent
    it.
    """
    # facts with equal fields may occur, so verdicts are found by identity
    judged_by_id = {id(judged_fact.fact): judged_fact for judged_fact in judged_facts}
    # as in the comparison of words, one value cannot replace two facts of a sentence
    use_counts = Counter(
        (judged_fact.fact.start, judged_fact.edit.source, judged_fact.edit.text)
        for judged_fact in judged_facts
        if judged_fact.edit
    )
    edits: list[FactEdit] = []
    unsettled_facts: list[UnsettledFact] = []
    facts_to_write: list[UnsettledFact] = []
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
                facts_to_write.append(fact)
        # from here on the judge lets the fact stand
        elif fact.words_edit is not None and not may_clear:
            edits.append(fact.words_edit)
        elif fact.question and fact.question.must_be_stated:
            unsettled_facts.append(fact)
    return FactDecision(merge_edits(by_words.edits, edits), unsettled_facts), facts_to_write


def _accept_sentences(
    text: str, decision: FactDecision, sentences: Mapping[int, str], references: Sequence[Reference]
) -> FactDecision:
    """Add to a decision the edits of the editor's sentences, if these change only facts to what a reference states.

    The facts of a refused sentence stay unsettled; all other facts are settled.

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
            # an unchanged sentence does not overrule the edits of which the comparison of words is certain
            accepted_edits += words_edits(decision.unsettled_facts, start)
    unsettled_facts = [fact for fact in decision.unsettled_facts if fact.kind == ORDER or fact.start in refused_starts]
    return FactDecision(merge_edits(decision.edits, accepted_edits), unsettled_facts)
