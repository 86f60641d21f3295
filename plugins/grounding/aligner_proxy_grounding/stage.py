"""References stage: checks outgoing text against the policy's references, after the gate.

Contradicted facts are replaced. If the policy names an editor, it decides the cases in doubt. Long texts are checked in
a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TypeVar

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, Stage
from aligner_proxy.text.structure import split
from aligner_proxy.types import EditorUse, Finding, Policy, Turn
from aligner_proxy_grounding.fact_editor import Doubt, FactEditor
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.procedures import ORDER
from aligner_proxy_grounding.references import GROUNDED, Reference, references_of
from aligner_proxy_grounding.rewriting import accept_rewriting, merge_edits, words_edits
from aligner_proxy_grounding.sentences import REPLACE_FACTS_FROM, FactEdit, Grounder, UnsettledFact, apply_fact_edits

CERTAINTY_KEY = "replace_facts_from"
_MATCHERS = 64
"""How many parsed sets of references are cached; a set is what one policy has."""
_MOST_QUESTION_CHARS = 4_000
"""Limit on the question; its end is read."""
_MOST_CLIENT_CHARS = 20_000
"""Limit on all that the client wrote; the end is read."""


_Decided = tuple[list[FactEdit], list[UnsettledFact]]


class GroundingStage(Stage):
    """Checks an answer against its references: a whole answer at once, a streamed one sentence by sentence."""

    order = 20

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._references = references_of(policy)
        self._grounder: Grounder | None = None
        """The state of a streamed answer so far."""

    async def admit(self, answer: AnswerSoFar) -> None:
        """Parse the references before the first text of a streamed answer goes out."""
        if not answer.is_whole and self._grounder is None:
            chars = sum(len(reference.text) for reference in self._references)
            async with asyncio.timeout(self._policy.deadline_s):
                self._grounder = await run_off_loop(chars, partial(grounder, self._policy, answer.exchange.turns))

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Return the text with contradicted facts replaced."""
        if outgoing.is_whole:
            return await self._release_whole(outgoing, answer)
        if self._grounder is None or not outgoing.has_whole_segments or not outgoing.text.strip():
            return outgoing
        # Look ahead for the editor's doubts before this piece's facts are added to the grounder's state.
        decided, use = await self._ask_ahead(outgoing, answer)
        replaced = self._grounder.check_segments(split(outgoing.text))
        edits, doubtful = decided or replaced
        return _with_edits(outgoing, edits, doubtful, use)

    async def _release_whole(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Check a whole answer, and let the editor decide doubts if the policy names one.

        If the editor cannot be called, the answer is checked again without it.
        """
        text = outgoing.text
        references = self._references
        editor = _fact_editor(answer)
        chars = len(text) + sum(len(reference.text) for reference in references)
        find = partial(_find_contradictions, text, self._policy, answer.exchange.turns)
        edits, doubtful = await run_off_loop(chars, partial(find, doubts=editor is not None))
        use = None
        if editor is not None and any(part.kind != ORDER for part in doubtful):
            decided, use = await _ask(editor, text, edits, doubtful, references)
            if decided is None:
                decided = await run_off_loop(chars, partial(find, doubts=False))
            edits, doubtful = decided
        return _with_edits(outgoing, edits, doubtful, use)

    async def _ask_ahead(self, outgoing: Outgoing, answer: AnswerSoFar) -> tuple[_Decided | None, EditorUse | None]:
        """Return the editor's decision on a piece of a streamed answer (None if it is not asked), and the cost."""
        editor = _fact_editor(answer)
        # in a text that earlier stages changed, positions are not those of the upstream's answer
        if editor is None or self._grounder is None or not outgoing.is_original:
            return None, None
        start = outgoing.start
        text = outgoing.text
        end = start + len(text)
        # positions count from here; the piece may begin with white space
        text_start = end - len(text.lstrip())
        edits, doubtful = self._grounder.copy_with_doubts().check_segments(split(answer.text[text_start:end]))
        if not doubtful:
            return None, None
        placed = [_shift(part, text_start) for part in doubtful]
        decided, use = await _ask(
            editor, answer.text[:end], [_shift(edit, text_start) for edit in edits], placed, self._references
        )
        if decided is None:
            return None, use
        return ([_shift(edit, -start) for edit in decided[0]], [_shift(part, -start) for part in decided[1]]), use


def _fact_editor(answer: AnswerSoFar) -> FactEditor | None:
    """The editor to ask about doubts; None if the policy names none."""
    editor = answer.editor
    return None if editor is None else FactEditor(editor, answer.exchange.turns)


def _with_edits(
    outgoing: Outgoing, edits: Sequence[FactEdit], doubtful: Sequence[UnsettledFact], use: EditorUse | None
) -> Outgoing:
    """Apply the edits to the text and add the findings, whose positions refer to the whole answer."""
    if not (edits or doubtful):
        return replace(outgoing, editor=use) if use else outgoing
    start = outgoing.start
    findings = (
        *(Finding(GROUNDED, one.start + start, one.end + start, one.kind, one.source, one.text) for one in edits),
        *(Finding(GROUNDED, one.start + start, one.end + start, one.kind, one.source) for one in doubtful),
    )
    return replace(
        outgoing, text=apply_fact_edits(outgoing.text, edits), findings=outgoing.findings + findings, editor=use
    )


_Placed = TypeVar("_Placed", FactEdit, UnsettledFact)


def _shift(placed: _Placed, by: int) -> _Placed:
    moved = replace(placed, start=placed.start + by, end=placed.end + by)
    if isinstance(moved, UnsettledFact) and moved.words_edit is not None:
        return replace(moved, words_edit=_shift(moved.words_edit, by))
    return moved


def _find_contradictions(
    text: str, policy: Policy, turns: Sequence[Turn], *, doubts: bool
) -> tuple[list[FactEdit], list[UnsettledFact]]:
    return grounder(policy, turns, doubts=doubts).check_answer(text)


async def _ask(
    editor: FactEditor,
    text: str,
    edits: Sequence[FactEdit],
    doubtful: Sequence[UnsettledFact],
    references: Sequence[Reference],
) -> tuple[_Decided | None, EditorUse]:
    """Return the editor's decision on the doubts (None if it cannot be asked), and the cost."""
    doubts = [Doubt(part.start, part.source) for part in doubtful if part.kind != ORDER]
    sentences, use = await editor.ask_for_sentences(text, doubts, references)
    if sentences is None:
        return None, use
    chars = len(text) + sum(len(reference.text) for reference in references)
    decided = await run_off_loop(chars, partial(_take_written, text, edits, doubtful, sentences, references))
    # a sentence with several doubts is refused once
    return decided, use + EditorUse(refused=len({part.start for part in decided[1] if part.kind != ORDER}))


def _take_written(
    text: str,
    edits: Sequence[FactEdit],
    doubtful: Sequence[UnsettledFact],
    sentences: Mapping[int, str],
    references: Sequence[Reference],
) -> _Decided:
    """Return the edits including the editor's, and the doubts that remain because its sentence was refused.

    `sentences` has the editor's sentences by the positions where they begin.
    """
    matcher = _matcher_of(references)
    ends = {part.start: part.end for part in doubtful}
    decided: list[FactEdit] = []
    refused_starts: set[int] = set()
    for start, sentence in sentences.items():
        further = accept_rewriting(text[start : ends[start]], sentence, matcher, start)
        decided += words_edits(doubtful, start) if further == [] else further or ()
        if further is None:
            refused_starts.add(start)
    rest = [part for part in doubtful if part.kind == ORDER or part.start in refused_starts]
    return merge_edits(edits, decided), rest


def grounder(policy: Policy, turns: Sequence[Turn], *, doubts: bool = False) -> Grounder:
    """Create the grounder that checks one answer of this conversation against its policy's references."""
    by_user = [turn.content for turn in turns if turn.role == "user"]
    question = by_user[-1][-_MOST_QUESTION_CHARS:] if by_user else ""
    client_texts = "\n\n".join(by_user)[-_MOST_CLIENT_CHARS:]
    matcher = _matcher_of(references_of(policy))
    certainty = policy.extension(CERTAINTY_KEY, REPLACE_FACTS_FROM)
    return Grounder.for_question(matcher, question, client_texts, doubts=doubts, replace_from=certainty)


def _matcher_of(references: Iterable[Reference]) -> Matcher:
    return _matcher(tuple((reference.label, reference.text) for reference in references))


@lru_cache(maxsize=_MATCHERS)
def _matcher(texts: tuple[tuple[str, str], ...]) -> Matcher:
    """The matcher for these (name, text) references, cached."""
    return Matcher([read_page(name, text) for name, text in texts])
