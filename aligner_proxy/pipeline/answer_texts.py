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
_TEXT_SEPARATOR = "\n\n"
"""Stands between the texts of one answer when they are joined for the decision."""


class AnswerTexts:
    """The decision about all texts of a whole answer, of which there are `count`.

    `decide` is called once for each text, and the calls wait for one another. `open_refusal_stage` returns the stage
    that decides under a policy.
    """

    def __init__(self, open_refusal_stage: Callable[[Policy], RefusalText], count: int) -> None:
        self._open_refusal_stage = open_refusal_stage
        self._count = count
        self._began_at = time.monotonic()
        self._waiting_texts: dict[int, JudgedText] = {}
        """The texts for which `decide` was called, by the index of their choice or text block."""
        self._changed = asyncio.Event()
        """Wakes the calls that wait, so that they check their condition again."""
        self._lock = asyncio.Lock()
        """Lets only the first call of `decide` make the decision; the other calls take its result."""
        self._joint_outcomes: Mapping[int, Outcome] | None = None
        """The decided outcomes by the texts' index; None before the decision."""

    async def decide(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """Wait until all texts are judged; return the final outcome of this text.

        `outcome` follows from the text alone. It is also the final outcome if something of the whole answer remains.
        """
        self._waiting_texts[exchange.index] = (exchange, outcome)
        self.note_change()
        await self._wait_until(self._is_complete)
        async with self._lock:
            if self._joint_outcomes is None:
                self._joint_outcomes = await self._decide_all()
        return self._joint_outcomes.get(exchange.index, outcome)

    def note_change(self) -> None:
        """Let the calls that wait check again whether they still have to wait."""
        self._changed.set()

    async def _wait_until(self, may_go_on: Callable[[], bool]) -> None:
        """Return once `may_go_on()` is true; it is called at once, and again after each `note_change`."""
        while not may_go_on():
            self._changed.clear()
            await self._changed.wait()

    def _is_complete(self) -> bool:
        """Whether all texts wait, so that the decision can be made."""
        return len(self._waiting_texts) == self._count

    async def _decide_all(self) -> Mapping[int, Outcome]:
        """Decide about all texts; return their outcomes by index."""
        return await self._decide_together(self._began_at)

    async def _decide_together(self, began_at: float, sent_text: str = "") -> Mapping[int, Outcome]:
        """Decide about all waiting texts as if they were one; return the outcome of each by its index.

        `began_at` is when their deadline began (`time.monotonic()`). `sent_text` is what has gone out of the answer's
        other texts. Texts of white space keep their own outcome.
        """
        own_outcomes = {index: outcome for index, (_, outcome) in self._waiting_texts.items()}
        waiting_texts = [self._waiting_texts[index] for index in sorted(self._waiting_texts)]
        texts = [(exchange, outcome) for exchange, outcome in waiting_texts if (exchange.answer or "").strip()]
        if not any(outcome.flagged_count for _, outcome in texts) or any(map(_is_delivered_anyway, texts)):
            return own_outcomes
        joined_exchange, joined_outcome = _join_texts(texts, sent_text)
        policy = joined_outcome.policy
        joined_answer = AnswerSoFar(
            joined_exchange,
            joined_exchange.answer or "",
            policy,
            deadline=began_at + policy.deadline_s,
            sent_chars=len(sent_text),
        )
        started_at = time.perf_counter()
        joint_outcome = await self._open_refusal_stage(policy).finalize(joined_outcome, joined_answer)
        # the same object means that something of the answer remains
        if joint_outcome is joined_outcome:
            return own_outcomes
        ms = (time.perf_counter() - started_at) * 1000
        shared_outcomes = _share_outcome(joint_outcome, texts, ms)
        return own_outcomes | {exchange.index: outcome for exchange, outcome in shared_outcomes}


class UnfinishedText(Protocol):
    """A text of a stream. Its positions are character offsets into the upstream's text."""

    @property
    def length(self) -> int:
        """Number of characters of the original received so far."""

    @property
    def has_ended(self) -> bool:
        """Whether all of the text has come."""

    @property
    def done(self) -> bool:
        """Whether it is decided what goes out for all of the text."""

    def render(self, start: int, end: int) -> str:
        """The text that goes out for the characters `start` to `end`."""


class GrowingTexts(AnswerTexts):
    """The decision about the texts of an answer that is being written.

    `texts` has all texts received so far by index, and grows with the stream. `get_facts` returns the exchange as known
    so far, whose text does not count.
    """

    def __init__(
        self,
        open_refusal_stage: Callable[[Policy], RefusalText],
        texts: Mapping[int, UnfinishedText],
        get_facts: Callable[[], Exchange],
    ) -> None:
        # the number of texts is not known before the answer ends, and `_is_complete` does not use it here
        super().__init__(open_refusal_stage, count=0)
        self._texts = texts
        self._get_facts = get_facts
        self._has_ended = False
        """Whether the stream has ended, so that no further text comes."""
        self._is_released = False
        """Whether texts need not wait any longer, because something else of the answer is delivered."""
        self._may_wait = True
        """Whether the buffer for held-back text has room for a text that waits."""

    @property
    def is_withheld(self) -> bool:
        """Whether a text waits for the decision, so that later texts have to wait, too."""
        return bool(self._waiting_texts) and not self._is_released

    async def decide(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """Return the final outcome of a text.

        A text of which something remains, while no other text waits, has its own `outcome` at once. So has any text as
        soon as something else of the answer is certain to be delivered. All others wait until the answer ends.
        """
        if self._is_released or not (outcome.reason == EMPTIED or self.is_withheld):
            return outcome
        has_delivered_text = any(map(_makes_sense_alone, self._list_sent_texts()))
        if not self._may_wait or self._has_other_content() or has_delivered_text:
            self.release()
            return outcome
        return await super().decide(exchange, outcome)

    async def wait_for_earlier(self, index: int) -> None:
        """Wait until each text before `index` that has ended is decided, or waits for the decision about the answer.

        Nothing of the text with this index can be delivered before, so the wait costs no time.
        """
        await self._wait_until(lambda: not any(other < index and self._is_judging(other) for other in self._texts))

    def check(self) -> None:
        """Release the waiting texts if something other than text has come."""
        if self.is_withheld and self._has_other_content():
            self.release()

    def _has_other_content(self) -> bool:
        """Whether the answer calls tools, or has parts that are not text."""
        facts = self._get_facts()
        return facts.tool_calls or facts.non_text

    def release(self) -> None:
        """Let the waiting texts have their own outcomes, by which they are left out of the answer.

        Called when something else of the answer is delivered, or the buffer for held-back text is full.
        """
        self._is_released = True
        self.note_change()

    def free_room(self) -> None:
        """Release the waiting texts, and from now on let no text wait. Called when the buffer is full."""
        self._may_wait = False
        if self.is_withheld:
            self.release()

    def end(self) -> None:
        """Note that the answer has ended, so that the waiting texts are decided."""
        self._has_ended = True
        self.note_change()

    def close(self) -> None:
        """Drop the references to the texts, which refer to this object; the cycle would keep them in memory."""
        self._texts = {}

    def _is_judging(self, index: int) -> bool:
        """Whether the text of this index has ended, but is not yet decided and does not wait for the other texts."""
        text = self._texts[index]
        return text.has_ended and not text.done and index not in self._waiting_texts

    def _is_complete(self) -> bool:
        """Whether the decision can be made: the answer has ended and each text is done or waits, or need not wait."""
        if self._is_released:
            return True
        return self._has_ended and all(text.done or index in self._waiting_texts for index, text in self._texts.items())

    async def _decide_all(self) -> Mapping[int, Outcome]:
        """Decide about the waiting texts; each keeps its own outcome if other text that makes sense goes out."""
        # a text whose correction was given up meanwhile has gone out unchanged, so it does not wait
        self._waiting_texts = {
            index: text for index, text in self._waiting_texts.items() if not self._texts[index].done
        }
        sent_texts = self._list_sent_texts()
        if self._is_released or any(map(_makes_sense_alone, sent_texts)):
            return {index: outcome for index, (_, outcome) in self._waiting_texts.items()}
        return await self._decide_together(time.monotonic(), _TEXT_SEPARATOR.join(sent_texts))

    def _list_sent_texts(self) -> list[str]:
        """What goes out for each decided text, in order; texts of which only white space goes out are left out."""
        done_texts = [text for _, text in sorted(self._texts.items()) if text.done]
        outputs = [text.render(0, text.length).strip() for text in done_texts]
        return [output for output in outputs if output]


def _is_delivered_anyway(text: JudgedText) -> bool:
    """Whether a text is delivered whatever is decided about its answer, because it was not judged, or is JSON."""
    exchange, outcome = text
    return outcome.edited is None or (outcome.reason != EMPTIED and AnswerForm(exchange).is_structured)


def _makes_sense_alone(text: str) -> bool:
    """Whether a text that has gone out is an answer by itself: a sentence that makes sense alone, a refusal or JSON."""
    if is_refusal(text) or reads_as_json(text) is not False:
        return True
    segments = [segment.text for segment in split(text)]
    # all of its segments stay
    stays = [True] * len(segments)
    return bool(fragments.independent_segments(segments, stays))


def _join_texts(texts: Sequence[JudgedText], sent_text: str) -> JudgedText:
    """Join the judged texts of an answer to one: an exchange with the whole answer, and an outcome with all segments.

    The edited text begins with `sent_text`, which has gone out already.
    """
    exchanges = [exchange for exchange, _ in texts]
    outcomes = [outcome for _, outcome in texts]
    edited_texts = [sent_text, *(outcome.edited for outcome in outcomes)]
    joined_exchange = replace(
        exchanges[-1],
        answer=_TEXT_SEPARATOR.join(exchange.answer or "" for exchange in exchanges),
        tool_calls=any(exchange.tool_calls for exchange in exchanges),
        non_text=any(exchange.non_text for exchange in exchanges),
        inner=False,  # nothing follows the whole answer
    )
    joined_outcome = replace(
        outcomes[0],
        edited=_TEXT_SEPARATOR.join(filter(None, edited_texts)),
        # its text is left empty, because the edited text is in `edited`
        correction=Correction(text="", segments=tuple(segment for outcome in outcomes for segment in outcome.segments)),
        findings=tuple(finding for outcome in outcomes for finding in outcome.findings),
        # The outcome's threshold. Each text may have had another; with the lowest, more segments are nearly flagged.
        caution=min(outcome.threshold for outcome in outcomes),
    )
    return joined_exchange, joined_outcome


def _share_outcome(joint_outcome: Outcome, texts: Sequence[JudgedText], ms: float) -> list[JudgedText]:
    """Give each text its share of the joint outcome: the first gets the text to deliver, the others become empty.

    The first text is also charged with the editor's cost and with `ms`, the milliseconds that the joint decision took.
    """
    status = joint_outcome.status
    reason = joint_outcome.reason
    # of a blocked answer nothing is delivered, so each text keeps its own edited text, for the audit
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
