"""Decisions about facts that the comparison of words leaves in doubt: a judge says which are contradicted.

"Words" are here and below that comparison, as opposed to a model. The judge chooses among the values that words found,
and the chosen value is written in the notation of the answer. If the judge chooses none of them, the editor writes the
sentence; without an editor the fact stays unsettled. Where there is no judge, or the judge fails, the editor alone
decides about every doubt.
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
    doubtful: Sequence[UnsettledFact]
    editor: EditorUse | None = None
    """What asking the editor cost; None if it was not asked."""
    judge: JudgeUse | None = None
    """The same for the judge."""
    is_by_words: bool = False
    """Whether nobody could be asked, so that words have to decide again."""

    @property
    def has_doubts(self) -> bool:
        """Whether there is a fact about which a judge or an editor can be asked."""
        return any(doubt.kind != ORDER for doubt in self.doubtful)


@dataclass(frozen=True, slots=True)
class DoubtDecider:
    """Judge and editor of one answer, either of which may be missing, and the references that they are shown."""

    references: Sequence[Reference]
    judge: FactJudge | None
    editor: FactEditor | None

    @classmethod
    def for_answer(cls, answer: AnswerSoFar, references: Sequence[Reference]) -> DoubtDecider:
        """Open the models that the policy of an answer names."""
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

    async def decide(self, text: str, by_words: FactDecision) -> FactDecision:
        """Return the edits of a text and what stays unsettled, after asking the judge and then the editor.

        `by_words` is what the comparison of words decided. Raises `JudgeFailed` if the judge fails and the policy
        blocks the answer then.
        """
        use = None
        if self.judge is not None:
            judged_facts, use = await self.judge.ask_about_facts(text, by_words.doubtful, self.references)
            if judged_facts is not None:
                decided, unwritten = apply_verdicts(by_words, judged_facts, may_clear=self.judge.may_clear)
                return replace(await self._write(text, decided, unwritten), judge=use)
        if self.editor is None:
            return replace(by_words, judge=use, is_by_words=True)
        return replace(await self._ask_editor(self.editor, text, by_words), judge=use)

    async def _write(self, text: str, decided: FactDecision, unwritten: Sequence[UnsettledFact]) -> FactDecision:
        """Return `decided` with the editor's edits for `unwritten`; what the editor does not write stays unsettled."""
        if self.editor is None or not unwritten:
            return replace(decided, doubtful=[*decided.doubtful, *unwritten])
        by_editor = await self._ask_editor(self.editor, text, replace(decided, doubtful=unwritten))
        edits = decided.edits if by_editor.is_by_words else by_editor.edits
        new_edits = [edit for edit in edits if edit not in decided.edits]
        unwritten_still = [
            doubt for doubt in unwritten if not any(doubt.start <= edit.start < doubt.end for edit in new_edits)
        ]
        return replace(by_editor, edits=edits, doubtful=[*decided.doubtful, *unwritten_still], is_by_words=False)

    async def _ask_editor(self, editor: FactEditor, text: str, by_words: FactDecision) -> FactDecision:
        """Return the decision with what the editor writes in place of the sentences in doubt.

        If the editor cannot be called, the edits stay those of `by_words`, and `is_by_words` is true.
        """
        doubts = [doubt for doubt in by_words.doubtful if doubt.kind != ORDER]
        sentences, use = await editor.ask_for_sentences(text, doubts, self.references)
        if sentences is None:
            return replace(by_words, editor=use, is_by_words=True)
        chars = len(text) + sum(len(reference.text) for reference in self.references)
        decided = await run_off_loop(chars, partial(_take_written, text, by_words, sentences, self.references))
        # a sentence with several doubts is refused once
        refused_count = len({doubt.start for doubt in decided.doubtful if doubt.kind != ORDER})
        return replace(decided, editor=use + EditorUse(refused=refused_count))


def apply_verdicts(
    by_words: FactDecision, judged_facts: Sequence[JudgedFact], *, may_clear: bool = False
) -> tuple[FactDecision, list[UnsettledFact]]:
    """Return (edits with the values that the judge chose and what stays unsettled, facts that the editor must write).

    Where the judge lets a fact stand, an edit that words are certain of is made nevertheless, unless `may_clear`.
    """
    judged_by_doubt = {id(judged_fact.doubt): judged_fact for judged_fact in judged_facts}
    # one value cannot replace two facts of a sentence, as with words alone
    uses = Counter(
        (judged_fact.doubt.start, judged_fact.edit.source, judged_fact.edit.text)
        for judged_fact in judged_facts
        if judged_fact.edit
    )
    written_edits: list[FactEdit] = []
    unsettled_facts: list[UnsettledFact] = []
    unwritten: list[UnsettledFact] = []
    for doubt in by_words.doubtful:
        judged_fact = judged_by_doubt.get(id(doubt))
        if doubt.kind == ORDER:
            # a judge is not asked about the order of steps
            unsettled_facts.append(doubt)
        elif judged_fact is None or judged_fact.verdict is FactVerdict.CONTRADICTED:
            edit = judged_fact.edit if judged_fact else doubt.words_edit
            if edit and uses[doubt.start, edit.source, edit.text] <= 1:
                written_edits.append(edit)
            else:
                unwritten.append(doubt)
        # from here on the judge lets the fact stand
        elif doubt.words_edit is not None and not may_clear:
            written_edits.append(doubt.words_edit)
        elif doubt.question and doubt.question.must_be_stated:
            unsettled_facts.append(doubt)
    return FactDecision(merge_edits(by_words.edits, written_edits), unsettled_facts), unwritten


def _take_written(
    text: str, by_words: FactDecision, sentences: Mapping[int, str], references: Sequence[Reference]
) -> FactDecision:
    """Return the edits including the editor's, and the doubts that remain because the editor's sentence was refused.

    `sentences` has the editor's sentences by the positions in `text` where the sentences in doubt begin.
    """
    matcher = matcher_of(references)
    ends = {doubt.start: doubt.end for doubt in by_words.doubtful}
    decided: list[FactEdit] = []
    refused_starts: set[int] = set()
    for start, sentence in sentences.items():
        edits = accept_rewriting(text[start : ends[start]], sentence, matcher, start)
        if edits is None:
            refused_starts.add(start)
        elif edits:
            decided += edits
        else:
            # the editor left the sentence unchanged, so what the comparison of words is certain of is still to be done
            decided += words_edits(by_words.doubtful, start)
    remaining = [doubt for doubt in by_words.doubtful if doubt.kind == ORDER or doubt.start in refused_starts]
    return FactDecision(merge_edits(by_words.edits, decided), remaining)
