"""The texts of one answer, such as the text blocks of a message, and the decision about all of them together.

Each text is corrected by itself, but only all of them show whether anything remains of their answer. If nothing does,
the refusal text stands in place of the first, and the others are left out. If something remains, only those texts are
left out of which nothing remains.

In a stream, a text of which nothing remains waits until the answer ends or until it is clear that something else of the
answer is delivered. The texts after it wait, too, since they are part of the decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from aligner_proxy.pipeline.outcomes import EMPTIED
from aligner_proxy.pipeline.stages.eligibility import AnswerForm, reads_as_json
from aligner_proxy.pipeline.stages.refusal_text import RefusalText
from aligner_proxy.plugins.stage import AnswerSoFar
from aligner_proxy.text import fragments
from aligner_proxy.text.refusals import is_refusal
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Exchange, IfNothingRemains, Outcome, Policy, Status

JudgedText = tuple[Exchange, Outcome]
"""The exchange of one text, and the outcome that follows from this text alone."""
_TEXT_BREAK = "\n\n"
"""Separates the texts of one answer, which are looked at as one."""


class AnswerTexts:
    """The decision about all `count` texts of a whole answer. Each text calls `decide`; the calls wait for one another.

    `refusal_text` returns the stage that decides under a policy.
    """

    def __init__(self, refusal_text: Callable[[Policy], RefusalText], count: int) -> None:
        self._refusal_text = refusal_text
        self._count = count
        self._began_at = time.monotonic()
        self._waiting: dict[int, JudgedText] = {}
        """The texts for which `decide` was called, by the index of their choice or text block."""
        self._changed = asyncio.Event()
        """Wakes the calls that wait, so that they check their condition again."""
        self._lock = asyncio.Lock()
        """Lets only the first call decide; the others take its result."""
        self._joint_outcomes: Mapping[int, Outcome] | None = None
        """The decided outcomes by index; None until all texts wait."""

    async def decide(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """The final outcome of a text, once all texts wait and are decided together.

        `outcome` is what follows from the text alone; it stays so if something of the whole answer remains.
        """
        self._waiting[exchange.index] = (exchange, outcome)
        self.note_change()
        await self._wait_until(self._is_complete)
        async with self._lock:
            if self._joint_outcomes is None:
                self._joint_outcomes = await self._decide_all()
        return self._joint_outcomes.get(exchange.index, outcome)

    def note_change(self) -> None:
        """Wake the calls of `decide`, which check again whether they have to wait."""
        self._changed.set()

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()` is true, which is checked after each `note_change`."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def _is_complete(self) -> bool:
        """Whether everything is known that the decision depends on."""
        return len(self._waiting) == self._count

    async def _decide_all(self) -> Mapping[int, Outcome]:
        """Decide about all texts; return their outcomes by index."""
        return await self._decide_together(self._began_at)

    async def _decide_together(self, began_at: float, sent_text: str = "") -> Mapping[int, Outcome]:
        """Decide about all texts that wait as if they were one; return the outcome of each by index.

        `began_at` is when the deadline began (`time.monotonic()`). `sent_text` of their answer has gone out.
        """
        outcomes = {index: outcome for index, (_, outcome) in self._waiting.items()}
        texts = [self._waiting[index] for index in sorted(outcomes) if (self._waiting[index][0].answer or "").strip()]
        if not any(outcome.flagged_count for _, outcome in texts) or any(map(_is_delivered_anyway, texts)):
            return outcomes
        exchange, joined = _join_texts(texts, sent_text)
        answer = AnswerSoFar(
            exchange,
            exchange.answer or "",
            joined.policy,
            began_at + joined.policy.deadline_s,
            sent_chars=len(sent_text),
        )
        started_at = time.perf_counter()
        joint_outcome = await self._refusal_text(joined.policy).finalize(joined, answer)
        if joint_outcome is joined:
            return outcomes
        ms = (time.perf_counter() - started_at) * 1000
        return outcomes | {exchange.index: outcome for exchange, outcome in _share_outcome(joint_outcome, texts, ms)}


class UnfinishedText(Protocol):
    """A text of a stream, as far as the decision about its answer needs it."""

    @property
    def length(self) -> int:
        """Number of characters of the original received so far."""

    @property
    def has_ended(self) -> bool:
        """Whether all of it has come."""

    @property
    def done(self) -> bool:
        """Whether everything is decided."""

    def render(self, start: int, end: int) -> str:
        """The output for these characters of the original."""


class GrowingTexts(AnswerTexts):
    """The texts of an answer that is being written, by index; `texts` grows with the stream.

    `facts` returns everything known about the answer besides its texts.
    """

    def __init__(
        self,
        refusal_text: Callable[[Policy], RefusalText],
        texts: Mapping[int, UnfinishedText],
        facts: Callable[[], Exchange],
    ) -> None:
        super().__init__(refusal_text, 0)
        self._texts = texts
        """All texts received so far, by index."""
        self._facts = facts
        self._has_ended = False
        """Whether the stream has ended, so that no further text comes."""
        self._is_released = False
        """Whether no text has to wait any longer, since something else of the answer is delivered."""
        self._has_room = True
        """Whether there is room for a text that waits."""

    @property
    def is_withheld(self) -> bool:
        """Whether a text waits for the decision."""
        return bool(self._waiting) and not self._is_released

    async def decide(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """The final outcome of a text; at once, unless nothing of this text remains or an earlier text waits."""
        if self._is_released or not (outcome.reason == EMPTIED or self.is_withheld):
            return outcome
        # the facts in `exchange` may be out of date
        if not self._has_room or self._has_other_content() or any(map(_makes_sense_alone, self._sent_texts())):
            self.release()
            return outcome
        return await super().decide(exchange, outcome)

    async def wait_for_earlier(self, index: int) -> None:
        """Wait until every earlier text that has ended is decided, or waits itself.

        Nothing of this text can be delivered before, so the wait costs no time.
        """
        await self._wait_until(lambda: not any(other < index and self._is_judging(other) for other in self._texts))

    def check(self) -> None:
        """Let the texts that wait be left out if something other than text has come."""
        if self.is_withheld and self._has_other_content():
            self.release()

    def _has_other_content(self) -> bool:
        """Whether the answer calls tools, or has parts that are not text."""
        facts = self._facts()
        return facts.tool_calls or facts.non_text

    def release(self) -> None:
        """Let the texts that wait be left out, because something else is delivered, or room is needed."""
        self._is_released = True
        self.note_change()

    def free_room(self) -> None:
        """Let the texts that wait be left out, and from now on those that would have to wait."""
        self._has_room = False
        if self.is_withheld:
            self.release()

    def end(self) -> None:
        """Note that the answer has ended; texts that wait for it are decided."""
        self._has_ended = True
        self.note_change()

    def close(self) -> None:
        """Forget the texts, which refer to this object in turn; the cycle would keep them until garbage collection."""
        self._texts = {}

    def _is_judging(self, index: int) -> bool:
        """Whether the text of this index has ended, is not decided, and does not wait for the other texts."""
        text = self._texts[index]
        return text.has_ended and not text.done and index not in self._waiting

    def _is_complete(self) -> bool:
        """Whether the answer has ended and each text is done or waits, or none has to wait any longer."""
        is_over = self._has_ended and all(text.done or index in self._waiting for index, text in self._texts.items())
        return is_over or self._is_released

    async def _decide_all(self) -> Mapping[int, Outcome]:
        """Decide about the texts that wait; each keeps its own outcome if other text that makes sense goes out."""
        # a text that was given up meanwhile has gone out unchanged
        self._waiting = {index: text for index, text in self._waiting.items() if not self._texts[index].done}
        sent_texts = self._sent_texts()
        if self._is_released or any(map(_makes_sense_alone, sent_texts)):
            return {index: outcome for index, (_, outcome) in self._waiting.items()}
        return await self._decide_together(time.monotonic(), _TEXT_BREAK.join(sent_texts))

    def _sent_texts(self) -> list[str]:
        """What goes out of the texts that are decided."""
        done = (text for _, text in sorted(self._texts.items()) if text.done)
        return [output for text in done if (output := text.render(0, text.length).strip())]


def _is_delivered_anyway(text: JudgedText) -> bool:
    """Whether a text goes out whatever is decided about its answer: it was not judged, or is JSON."""
    exchange, outcome = text
    return outcome.edited is None or (outcome.reason != EMPTIED and AnswerForm(exchange).is_structured)


def _makes_sense_alone(text: str) -> bool:
    """Whether a text that has gone out makes sense alone, is a refusal, or is JSON, which is not judged as prose."""
    if is_refusal(text) or reads_as_json(text) is not False:
        return True
    pieces = [piece.text for piece in split(text)]
    return bool(fragments.independent_segments(pieces, [True] * len(pieces)))


def _join_texts(texts: Sequence[JudgedText], sent_text: str) -> JudgedText:
    """The exchange and outcome of all texts joined to one; `sent_text` counts as a part of the edited text."""
    exchanges = [exchange for exchange, _ in texts]
    outcomes = [outcome for _, outcome in texts]
    exchange = replace(
        exchanges[-1],
        answer=_TEXT_BREAK.join(exchange.answer or "" for exchange in exchanges),
        tool_calls=any(exchange.tool_calls for exchange in exchanges),
        non_text=any(exchange.non_text for exchange in exchanges),
        inner=False,
    )
    joined = replace(
        outcomes[0],
        edited=_TEXT_BREAK.join(filter(None, (sent_text, *(outcome.edited for outcome in outcomes)))),
        correction=Correction("", tuple(segment for outcome in outcomes for segment in outcome.segments)),
        findings=tuple(finding for outcome in outcomes for finding in outcome.findings),
        # each attempt may have had another threshold; the lowest counts more as near it
        caution=min(outcome.threshold for outcome in outcomes),
    )
    return exchange, joined


def _share_outcome(joint_outcome: Outcome, texts: Sequence[JudgedText], ms: float) -> list[JudgedText]:
    """The joint outcome as the outcome of each text: the first gets the text to deliver, the others become empty.

    `ms` is what the joint decision took; the first text is charged with it and with the editor's cost.
    """
    status = joint_outcome.status
    reason = joint_outcome.reason
    # a blocked answer delivers nothing, so each text keeps its own edited form, for the audit
    is_blocked = joint_outcome.policy.if_nothing_remains is IfNothingRemains.BLOCK
    shared_outcomes: list[JudgedText] = []
    for number, (exchange, own_outcome) in enumerate(texts):
        is_first = number == 0
        edited = joint_outcome.edited if is_first else ""
        if is_blocked:
            edited = own_outcome.edited
        text = edited if status is Status.CORRECTED else own_outcome.text
        outcome = replace(own_outcome, status=status, reason=reason, text=text, edited=edited)
        if is_first and outcome.correction is not None and joint_outcome.correction is not None:
            correction = outcome.correction.with_editor(joint_outcome.correction.editor)
            outcome = replace(outcome, correction=correction, ms=outcome.ms + ms)
        shared_outcomes.append((exchange, outcome))
    return shared_outcomes
