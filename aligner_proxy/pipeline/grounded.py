"""Answers held to the references of their policy, behind the gate: in a thread where much is to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from aligner_proxy.concurrency import beside
from aligner_proxy.correctors.fact_editor import Doubt, FactEditor
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.grounding.matching import Matcher
from aligner_proxy.grounding.page import read_page
from aligner_proxy.grounding.procedures import ORDER
from aligner_proxy.grounding.rewriting import accept_rewriting, merge_edits
from aligner_proxy.grounding.sentences import FactEdit, Grounder, UnsettledFact, apply_fact_edits
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.text.structure import Segment, split
from aligner_proxy.types import (
    GROUNDED,
    NOT_GROUNDED,
    Correction,
    EditorUse,
    Exchange,
    GroundedEdit,
    Grounding,
    Objective,
    Policy,
    Reference,
    Turn,
)

AGREES = Objective(GROUNDED, "Grounded: the response should agree with the operator's references")
"""What an editor is asked for under a policy without objectives."""
_MATCHERS = 64
"""References that are kept taken apart, together as a policy has them."""
_MOST_QUESTION_CHARS = 4_000
_MOST_CLIENT_CHARS = 20_000


class GroundedCorrection:
    """A wrapper around the correction of a text that holds what goes out to the references. Satisfies `Inner`."""

    def __init__(self, inner: Inner, exchange: Exchange, editor: FactEditor | None = None) -> None:
        self._inner = inner
        self._exchange = exchange
        self._editor = editor

    @property
    def deadline(self) -> float:
        """When the correction must be there."""
        return self._inner.deadline

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """The correction of a text, its facts those of the references."""
        corrected = await self._inner.correct(text, policy)
        verdict, use = await held(corrected.verdict, self._exchange, policy, self._editor)
        if verdict is corrected.verdict and use is None:
            return corrected
        correction = corrected.correction
        if use is not None:
            correction = replace(correction, editor=correction.editor + use if correction.editor else use)
        return replace(corrected, correction=correction, verdict=verdict)

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict."""
        return await self._inner.judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        """Whether there is a detector head under this policy."""
        return await self._inner.has_detector(policy)


async def held(
    verdict: Verdict, exchange: Exchange, policy: Policy, editor: FactEditor | None = None
) -> tuple[Verdict, EditorUse | None]:
    """The verdict with its text held to the references, the same one where nothing is otherwise; an editor's cost."""
    if not policy.references:
        return verdict, None
    chars = len(verdict.text) + sum(len(reference.text) for reference in policy.references)
    text = verdict.text
    find = partial(_found, text, policy, exchange.turns, doubts=editor is not None)
    edits, unsettled = await beside(chars, find)
    use = None
    if editor is not None and any(part.kind != ORDER for part in unsettled):
        decided, use = await _asked(editor, text, edits, unsettled, policy.references)
        edits, unsettled = await beside(chars, partial(find, doubts=False)) if decided is None else decided
    if not (edits or unsettled):
        return verdict, use
    return replace(verdict, text=apply_fact_edits(text, edits), grounding=_as_grounding(edits, unsettled)), use


def _found(
    text: str, policy: Policy, turns: Sequence[Turn], *, doubts: bool
) -> tuple[list[FactEdit], list[UnsettledFact]]:
    return grounder(policy, turns, doubts=doubts).check_answer(text)


_Decided = tuple[list[FactEdit], list[UnsettledFact]]


async def _asked(
    editor: FactEditor,
    text: str,
    edits: Sequence[FactEdit],
    unsettled: Sequence[UnsettledFact],
    references: Sequence[Reference],
) -> tuple[_Decided | None, EditorUse]:
    """What an editor makes of what is in doubt, None where it cannot be asked; and what it cost."""
    doubts = [Doubt(part.start, part.source) for part in unsettled if part.kind != ORDER]
    written, use = await editor.proposed(text, doubts, references)
    if written is None:
        return None, use
    chars = len(text) + sum(len(reference.text) for reference in references)
    decided = await beside(chars, partial(_decided, text, edits, unsettled, written, references))
    return decided, use + EditorUse(refused=len({part.start for part in decided[1] if part.kind != ORDER}))


def _decided(
    text: str,
    edits: Sequence[FactEdit],
    unsettled: Sequence[UnsettledFact],
    written: Mapping[int, str],
    references: Sequence[Reference],
) -> _Decided:
    """The edits with those of an editor, and what stays unsettled: sentences of which it wrote what may not be taken.

    `written` has its sentences by the places where they begin.
    """
    matcher = _matcher_of(references)
    ends = {part.start: part.end for part in unsettled}
    decided: list[FactEdit] = []
    refused: set[int] = set()
    for start, sentence in written.items():
        further = accept_rewriting(text[start : ends[start]], sentence, matcher, start)
        decided += further or ()
        if further is None:
            refused.add(start)
    rest = [part for part in unsettled if part.kind == ORDER or part.start in refused]
    return merge_edits(edits, decided), rest


def grounder(policy: Policy, turns: Sequence[Turn], *, doubts: bool = False) -> Grounder:
    """What holds one answer in this conversation to the references of its policy."""
    by_user = [turn.content for turn in turns if turn.role == "user"]
    question = by_user[-1][-_MOST_QUESTION_CHARS:] if by_user else ""
    said = "\n\n".join(by_user)[-_MOST_CLIENT_CHARS:]
    matcher = _matcher_of(policy.references)
    return Grounder.for_question(matcher, question, said, doubts=doubts, replace_from=policy.replace_facts_from)


def _matcher_of(references: Iterable[Reference]) -> Matcher:
    return _matcher(tuple((reference.label, reference.text) for reference in references))


@lru_cache(maxsize=_MATCHERS)
def _matcher(texts: tuple[tuple[str, str], ...]) -> Matcher:
    """What finds statements in these texts, each with its name."""
    return Matcher([read_page(name, text) for name, text in texts])


def _as_grounding(edits: Iterable[FactEdit], unsettled: Iterable[UnsettledFact]) -> Grounding:
    return Grounding(
        tuple(GroundedEdit(edit.start, edit.end, edit.text, edit.kind, edit.source) for edit in edits),
        tuple(GroundedEdit(part.start, part.end, "", part.kind, part.source) for part in unsettled),
    )


@dataclass(frozen=True, slots=True)
class _Looked:
    """What an editor has decided of the piece of an answer that goes out next."""

    text: str
    at: int
    decided: _Decided


class GroundedStream:
    """Holds what goes out of a growing answer to the references, sentence by sentence."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._references = policy.references
        self._grounder: Grounder | None = None
        self._looked: _Looked | None = None
        self.grounding = NOT_GROUNDED

    async def begin(self, turns: Sequence[Turn]) -> None:
        """Take the references apart, where there are any."""
        if self._references and self._grounder is None:
            chars = sum(len(reference.text) for reference in self._references)
            self._grounder = await beside(chars, partial(grounder, self._policy, turns))

    async def look(self, answer: str, start: int, end: int, editor: FactEditor | None) -> EditorUse | None:
        """Ask the editor about whole sentences of the answer that are to go out next; what that cost."""
        text = answer[start:end]
        begun = start + len(text) - len(text.lstrip())
        if self._grounder is None or editor is None or begun == end:
            return None
        edits, unsettled = self._grounder.copy_with_doubts().check_segments(split(answer[begun:end]))
        if not unsettled:
            return None
        placed = [replace(part, start=part.start + begun, end=part.end + begun) for part in unsettled]
        moved = [replace(edit, start=edit.start + begun, end=edit.end + begun) for edit in edits]
        decided, use = await _asked(editor, answer[:end], moved, placed, self._references)
        if decided is not None:
            own = [replace(edit, start=edit.start - start, end=edit.end - start) for edit in decided[0]]
            rest = [replace(part, start=part.start - start, end=part.end - start) for part in decided[1]]
            self._looked = _Looked(text, start, (own, rest))
        return use

    def passed(self, text: str, at: int) -> str:
        """What goes out in place of a piece of whole sentences that begins at this place of the answer."""
        if self._grounder is None or not text.strip():
            return text
        edits, unsettled = self._grounder.check_segments(split(text))
        looked = self._looked
        if looked is not None and (looked.text, looked.at) == (text, at):
            edits, unsettled = looked.decided
        if not (edits or unsettled):
            return text
        found = _as_grounding(edits, unsettled)
        edited = tuple(_at(edit, at) for edit in found.edits)
        self.grounding += Grounding(edited, tuple(_at(part, at) for part in found.unsettled))
        return apply_fact_edits(text, edits)


def _at(edit: GroundedEdit, by: int) -> GroundedEdit:
    return replace(edit, start=edit.start + by, end=edit.end + by)


def whole_sentences(segments: Sequence[Segment], first: int, stop: int, start: int, end: int) -> bool:
    """Whether a stretch with the segments from `first` to `stop` begins and ends between segments."""
    begins = not first or segments[first - 1].end <= start
    return begins and (not stop or segments[stop - 1].end <= end)
