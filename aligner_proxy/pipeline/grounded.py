"""Answers held to the references of their policy, behind the gate: in a thread where much is to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from aligner_proxy.concurrency import beside
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.grounding.matching import Matcher
from aligner_proxy.grounding.page import page
from aligner_proxy.grounding.sentences import FactEdit, Grounder, Unsettled, apply
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.text.structure import Segment, split
from aligner_proxy.types import NOT_GROUNDED, Correction, Exchange, GroundedEdit, Grounding, Policy, Reference, Turn

_MATCHERS = 64
"""References that are kept taken apart, together as a policy has them."""
_MOST_QUESTION_CHARS = 4_000
_MOST_CLIENT_CHARS = 20_000


class GroundedCorrection:
    """A wrapper around the correction of a text that holds what goes out to the references. Satisfies `Inner`."""

    def __init__(self, inner: Inner, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    @property
    def deadline(self) -> float:
        """When the correction must be there."""
        return self._inner.deadline

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """The correction of a text, its facts those of the references."""
        corrected = await self._inner.correct(text, policy)
        verdict = await held(corrected.verdict, self._exchange, policy)
        return replace(corrected, verdict=verdict) if verdict is not corrected.verdict else corrected

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict."""
        return await self._inner.judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        """Whether there is a detector head under this policy."""
        return await self._inner.has_detector(policy)


async def held(verdict: Verdict, exchange: Exchange, policy: Policy) -> Verdict:
    """The verdict with its text held to the references; the same one where nothing is otherwise."""
    if not policy.references:
        return verdict
    chars = len(verdict.text) + sum(len(reference.text) for reference in policy.references)
    text, grounding = await beside(chars, partial(_grounded, verdict.text, policy.references, exchange.turns))
    return replace(verdict, text=text, grounding=grounding) if grounding is not NOT_GROUNDED else verdict


def _grounded(text: str, references: Sequence[Reference], turns: Sequence[Turn]) -> tuple[str, Grounding]:
    edits, unsettled = grounder(references, turns).answer(text)
    if not (edits or unsettled):
        return text, NOT_GROUNDED
    return apply(text, edits), _as_grounding(edits, unsettled)


def grounder(references: Iterable[Reference], turns: Sequence[Turn]) -> Grounder:
    """What holds one answer in this conversation to the references."""
    by_user = [turn.content for turn in turns if turn.role == "user"]
    question = by_user[-1][-_MOST_QUESTION_CHARS:] if by_user else ""
    said = "\n\n".join(by_user)[-_MOST_CLIENT_CHARS:]
    return Grounder.of(_matcher(tuple((reference.label, reference.text) for reference in references)), question, said)


@lru_cache(maxsize=_MATCHERS)
def _matcher(texts: tuple[tuple[str, str], ...]) -> Matcher:
    """What finds statements in these texts, each with its name."""
    return Matcher([page(name, text) for name, text in texts])


def _as_grounding(edits: Iterable[FactEdit], unsettled: Iterable[Unsettled]) -> Grounding:
    return Grounding(
        tuple(GroundedEdit(edit.start, edit.end, edit.text, edit.kind, edit.source) for edit in edits),
        tuple(GroundedEdit(part.start, part.end, "", part.kind, part.source) for part in unsettled),
    )


class GroundedStream:
    """Holds what goes out of a growing answer to the references, sentence by sentence."""

    def __init__(self, references: Sequence[Reference]) -> None:
        self._references = references
        self._grounder: Grounder | None = None
        self.grounding = NOT_GROUNDED

    async def begin(self, turns: Sequence[Turn]) -> None:
        """Take the references apart, where there are any."""
        if self._references and self._grounder is None:
            chars = sum(len(reference.text) for reference in self._references)
            self._grounder = await beside(chars, partial(grounder, self._references, turns))

    def passed(self, text: str, at: int) -> str:
        """What goes out in place of a piece of whole sentences that begins at this place of the answer."""
        if self._grounder is None or not text.strip():
            return text
        edits, unsettled = self._grounder.more(split(text))
        if not (edits or unsettled):
            return text
        found = _as_grounding(edits, unsettled)
        edited = tuple(_at(edit, at) for edit in found.edits)
        self.grounding += Grounding(edited, tuple(_at(part, at) for part in found.unsettled))
        return apply(text, edits)


def _at(edit: GroundedEdit, by: int) -> GroundedEdit:
    return replace(edit, start=edit.start + by, end=edit.end + by)


def whole_sentences(segments: Sequence[Segment], first: int, stop: int, start: int, end: int) -> bool:
    """Whether a stretch with the segments from `first` to `stop` begins and ends between segments."""
    begins = not first or segments[first - 1].end <= start
    return begins and (not stop or segments[stop - 1].end <= end)
