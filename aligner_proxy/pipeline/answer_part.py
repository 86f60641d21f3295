"""Correction of one part of an answer that goes out while it is being written.

A part is the whole answer, unless the answer is very long (growing_answer.py). Incoming text passes the stages'
admission and is judged by the engine, which reads along. It is then released segment by segment, finalized at its end
and reported, by the same stages as a whole answer. If a stage holds the part, or the engine cannot judge it before its
end, the part is corrected as a whole. When anything fails, or the answer turns out not to be editable, all undecided
text goes out as the upstream wrote it.

If the engine loses its session, or was full or unreachable, it reads the text again from the beginning, within the
deadline (resumable_session.py). A verdict depends only on the text before it, so the verdicts come out the same. If
nothing has gone out yet, the answer is instead held and corrected as a whole. This module knows no wire formats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from aligner_proxy.gate.judge import Verdict
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.answer_texts import GrowingTexts
from aligner_proxy.pipeline.outcomes import build_outcome, gate_reason
from aligner_proxy.pipeline.part_state import PartState
from aligner_proxy.pipeline.pipeline import Pipeline, build_failure
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.pipeline.resumable_session import LOST, ResumableSession
from aligner_proxy.pipeline.second_reading import GrowingReading
from aligner_proxy.pipeline.segment_release import SegmentRelease
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.pipeline.stages.repairs import ListNumbers, Notes, OpeningWord
from aligner_proxy.plugins.api import Corrected
from aligner_proxy.plugins.stage import AnswerSoFar, Hold, Outgoing, Stage, Stop
from aligner_proxy.text.json_answer import begins_json
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.program_text import begins_data
from aligner_proxy.types import Correction, Exchange, IfNothingRemains, Outcome, Policy, Status

Result = TypeVar("Result")


class HoldUntilEnd(Stage):
    """Holds every answer until its end, so that it is corrected as a whole."""

    order = 10

    async def admit(self, answer: AnswerSoFar) -> Hold:
        return Hold()


class AnswerPart:
    """Corrects one part as it grows. Text is decided once it is known what goes out for it.

    Positions are character offsets into the part's original text. `get_facts` returns the exchange as known so far,
    whose text does not count. `notify` is called whenever more of the text is decided. `hold_until_end` says whether
    the part is corrected as a whole at its end, and `is_continuation` whether other parts of the answer come before it.
    The parts of one answer share its `numbering` of lists, and its `reading`, which reads segments a second time; None
    for new ones. `texts` decides about all texts of the answer together; None if this is the only text.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: Policy,
        get_facts: Callable[[], Exchange],
        notify: Callable[[], None],
        *,
        hold_until_end: bool = False,
        is_continuation: bool = False,
        numbering: Numbering | None = None,
        reading: GrowingReading | None = None,
        texts: GrowingTexts | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._state = PartState(policy, get_facts, notify, is_part=is_continuation, models=pipeline)
        """The text received, its verdicts, and what goes out for it."""
        self._texts = texts
        """Decides about all texts of the answer together; None if this is the only text."""
        self._list_numbers = ListNumbers(numbering or Numbering())
        own_stages: list[Stage] = [self._list_numbers, Notes(), OpeningWord()]
        if hold_until_end:
            own_stages = [HoldUntilEnd(), self._list_numbers]
        self._stages = pipeline.stages(policy, own_stages=own_stages, grows=True)
        self._session = ResumableSession(pipeline, policy, self._state.exchange)
        """The session in which the engine reads the text as it comes, and writes the replacements."""
        self._reading = reading or GrowingReading(policy, pipeline.score)
        """Reads segments a second time before they go out, if the policy requires that."""
        self._release = SegmentRelease(self._state, self._stages, self._session)
        """Decides what goes out for judged segments, in order."""
        self._whole_outcome: Outcome | None = None
        """The outcome of a part that was held and corrected as a whole; None for a part released by segments."""
        self._ending_outcome: Outcome | None = None
        """The outcome by which a stage replaced the unsent rest of the part; None if no stage did."""
        self._has_news = asyncio.Event()
        """Set when text or the end of the part has come, to wake `_decide_all`."""
        self._deciding: asyncio.Task[None] | None = asyncio.create_task(self._decide_all())
        """The task that decides until the part is over; None after `aclose`."""

    @property
    def length(self) -> int:
        """Number of characters received so far."""
        return self._state.received.length

    @property
    def original(self) -> str:
        """The text received so far, as the upstream wrote it."""
        return self._state.received.text

    @property
    def replacements(self) -> ReplacementMap:
        """The replacements that are decided."""
        return self._state.delivery

    @property
    def has_output(self) -> bool:
        """Whether anything but white space is known to go out."""
        delivery = self._state.delivery
        # text that is still undecided when the part is over goes out unchanged
        return delivery.has_text or (self.done and self.length > delivery.end)

    @property
    def done(self) -> bool:
        """Whether everything is decided: all text that came, and any text that may still come."""
        return self._state.is_over

    @property
    def stopped(self) -> Outcome | None:
        """The outcome of a part that was corrected as a whole, or given up, which has no text; None for other parts."""
        stop = self._state.stop
        return self._whole_outcome if stop is None else Outcome(stop.status, stop.reason, None, self._state.policy)

    @property
    def is_answer_replaced(self) -> bool:
        """Whether a refusal text, another answer or nothing went out in place of the answer or its rest.

        Then nothing more of the answer goes out, even if the upstream sends text after the end.
        """
        ending = self._ending_outcome or self._whole_outcome
        return self.done and ending is not None and ending.reason in outcomes.REPLACING_REASONS

    @property
    def may_be_structured(self) -> bool:
        """Whether a program reads the answer, or it begins like JSON or other data."""
        text = self._state.received.text
        return self._state.facts().structured or begins_json(text) or begins_data(text)

    async def feed(self, piece: str) -> None:
        """Take more of the answer's text. Text after the end goes out unchanged, or not if the answer is replaced."""
        state = self._state
        is_first = not state.received.text
        state.received.text += piece
        if state.received.has_ended or state.is_over:
            if self.is_answer_replaced:
                state.send(self.length, "", is_changed=True)
            return
        if not is_first or await self._begin():
            state.received.cut(piece)
            await self._attempt(self._session.feed(piece))
            self._has_news.set()

    async def end(self, *, is_last: bool = True) -> None:
        """End the part. If it is not the last, more parts of the answer follow, each corrected as a separate text."""
        state = self._state
        state.is_part |= not is_last
        if not (state.received.has_ended or state.is_over):
            state.received.end()
            await self._attempt(self._session.end())
            self._has_news.set()

    def check(self) -> None:
        """Give up the part if the answer may no longer be edited; called when something other than text arrived."""
        state = self._state
        if state.is_over:
            return
        reason = eligibility.find_early_reason(state.facts(), state.policy)
        if reason is not None:
            state.close(Stop(Status.SKIPPED, reason.value))

    def close(self, status: Status, reason: str) -> None:
        """Give up the part: all undecided text goes out unchanged."""
        self._state.close(Stop(status, reason))

    def is_decided(self, end: int) -> bool:
        """Whether the output for the first `end` characters is decided."""
        return self.done or end <= self._state.delivery.end

    def render(self, start: int, end: int) -> str:
        """What goes out for the characters `start` to `end`, all of which must be decided."""
        return self._state.delivery.render(start, end, self._state.received.text)

    async def wait_until_over(self) -> None:
        """Wait until everything is decided."""
        await self._state.over.wait()

    def outcome(self) -> Outcome:
        """The outcome of the part, once the stream has ended."""
        state = self._state
        text = self.render(0, self.length)
        answer = state.answer(is_final=True)
        if self._whole_outcome is not None:
            # text may have come after the end, so the outcome gets all text that went out
            return self._list_numbers.report(replace(self._whole_outcome, text=text), answer)
        outcome = self._build_outcome(text, answer)
        if self._ending_outcome is not None:
            outcome = replace(outcome, status=self._ending_outcome.status, reason=self._ending_outcome.reason)
            # the editor may have written the replacement of the rest, whose cost this part's tally does not include
            if outcome.correction and self._ending_outcome.correction:
                correction = replace(outcome.correction, editor=self._ending_outcome.correction.editor)
                outcome = replace(outcome, correction=correction)
        else:
            stop = self._find_stop()
            if stop is not None:
                outcome = replace(outcome, status=stop.status, reason=stop.reason)
        return self._stages.report(replace(outcome, text=text, ms=state.ms), answer)

    def _build_outcome(self, text: str, answer: AnswerSoFar) -> Outcome:
        """The outcome of a part released by segments, for which `text` goes out, if nothing stopped it."""
        state = self._state
        tally = state.tally
        scores = state.verdicts_up_to(self.length)
        charged_corrections = [*tally.corrections, self._session.judge_cost]
        correction = Correction(text, scores, aligner=tally.aligner).with_cost_of(charged_corrections)
        reason = gate_reason(tally.refused_rules, is_changed=state.delivery.is_changed)
        verdict = Verdict(text, reason, tally.edits, tuple(tally.refused_rules), findings=tally.findings)
        return build_outcome(answer, Corrected(correction, None, verdict))

    def _find_stop(self) -> Stop | None:
        """The status and reason of a part that was not judged to its end; None if it was."""
        state = self._state
        stop = state.stop
        if stop is not None and stop.status is Status.FAILED:
            return stop
        # edits that went out before the rest was given up count as a correction
        status = Status.CORRECTED if state.delivery.is_changed else Status.SKIPPED
        skip = eligibility.check(state.exchange(), state.policy)
        if skip is not None:
            return Stop(status, skip.value)
        return None if stop is None else Stop(status, stop.reason)

    async def aclose(self) -> None:
        """Cancel the task that decides, and close the engine's session."""
        deciding = self._deciding
        self._deciding = None  # breaks a reference cycle that would keep the text until garbage collection
        if deciding is not None:
            deciding.cancel()
            await asyncio.wait({deciding})
        await self._session.aclose()

    async def _begin(self) -> bool:
        """Open the engine's session; return False if the part is over, because the answer may not be edited."""
        is_open = await self._attempt(self._session.begin())
        if not is_open:
            self.check()
        elif not self.done:
            aligner = await self._pipeline.describe_aligner(self._state.policy)
            if aligner is not None:
                self._state.tally.aligner = aligner.content_hash
        return not self.done

    async def _attempt(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """Await `work` and return its result; if it fails, give up the part for the error's reason and return None."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - part of the pipeline's boundary
            outcome = build_failure(error, self._state.exchange(), self._state.policy)
            self.close(outcome.status, str(outcome.reason))
            return None

    async def _decide_all(self) -> None:
        """Decide about the text as it comes, until everything is decided or the part is given up."""
        state = self._state
        while not self.done:
            await self._has_news.wait()
            self._has_news.clear()
            # further segments may come while some are decided
            while not self.done and (state.received.has_ended or state.has_unjudged_segments):
                await self._attempt(self._decide_next())

    async def _decide_next(self) -> None:
        """Admit, judge and release new segments; if they have to wait for the whole part, correct it at its end.

        Raises one of the `LOST` errors if the session is lost after text has gone out.
        """
        state = self._state
        if self._texts is not None and not (state.is_part or state.delivery.end):
            await self._texts.wait_for_earlier(state.facts.latest().index)
        if not state.received.text.strip():
            if state.received.has_ended:
                await self._release.finish()
            return
        try:
            is_held = await self._is_held()
            needs_whole = (is_held and not state.delivery.end) or not await self._release_judged()
        except LOST:
            if state.delivery.end:
                raise
            needs_whole = True
        if needs_whole and not self.done:
            await self._correct_whole()

    def _answer_for_stages(self, *, is_final: bool = False) -> AnswerSoFar:
        """The answer so far for stages, with what they have to know about the other texts of the answer."""
        answer = self._state.answer(is_final=is_final)
        if self._texts is None:
            return answer
        return replace(answer, is_one_of_several=True, is_withheld=self._texts.is_withheld)

    async def _is_held(self) -> bool:
        """Whether a stage holds the answer until its end. If a stage stops the correction, the part is given up."""
        admission = await self._stages.admit(self._answer_for_stages())
        if isinstance(admission, Stop):
            self._state.close(admission)
        return isinstance(admission, Hold)

    async def _release_judged(self) -> bool:
        """Judge and release as many segments as possible; return False if the part must be corrected as a whole."""
        state = self._state
        if self.done:
            return True
        releasable_count = await self._judge_new()
        if releasable_count is None:
            return False
        # Asked again, because with the new verdicts a stage may want to decide about the whole before more goes out.
        is_held = await self._is_held()
        if is_held and not state.delivery.end:
            return False
        if self.done or (state.is_judged and state.delivery.end and await self._finalize()):
            return True
        # text that has gone out cannot be corrected again as part of the whole, so only the rest waits
        if is_held and not state.is_judged:
            return True
        await self._release.release(releasable_count)
        if state.is_judged:
            await self._release.release_rest()
        return True

    async def _judge_new(self) -> int | None:
        """Judge new segments; return how many segments in all may go out, or None if only the whole can be judged."""
        state = self._state
        known_count = len(state.verdicts.all)
        if known_count < len(state.received.segments) and not await self._wait_for_verdicts(known_count):
            return None
        if not self._reading.is_due:
            return len(state.verdicts.all)
        releasable_count, second_verdicts = await self._reading.read(state, known_count)
        state.verdicts.flag(second_verdicts)
        self._release.note_flagged(second_verdicts)
        return releasable_count

    async def _wait_for_verdicts(self, known_count: int) -> bool:
        """Wait for more than `known_count` verdicts and store them; False if the engine gives none before the end."""
        state = self._state
        async with asyncio.timeout(state.policy.deadline_s):
            verdicts = await self._session.wait_for_verdicts(known_count, may_reopen=state.delivery.end > 0)
        if verdicts is None:
            return False
        is_end = state.received.has_ended and not state.is_part
        state.verdicts.accept(verdicts, state.received.segments, state.received.decided, is_end=is_end)
        return True

    async def _finalize(self) -> bool:
        """Let the stages replace the unsent text, and send the replacement; return whether the part is over."""
        state = self._state
        answer = self._answer_for_stages(is_final=True)
        outcome_so_far = self._build_outcome(self.render(0, state.delivery.end), answer)
        ending_outcome = await self._stages.finalize(outcome_so_far, answer)
        if self._texts is not None and ending_outcome is not outcome_so_far:
            ending_outcome = await self._texts.decide(answer.exchange, ending_outcome)
        # the same object means that no stage wants another text in place of the rest
        if ending_outcome is outcome_so_far or self.done:
            return self.done
        self._ending_outcome = ending_outcome
        if outcomes.blocks(ending_outcome):
            self.close(Status.FAILED, str(ending_outcome.reason))
        else:
            # a new paragraph, because the beginning of the answer has gone out before
            ending = f"\n\n{ending_outcome.text}" if ending_outcome.text else ""
            state.send(self.length, ending, is_changed=True)
            await self._release.finish()
        return True

    async def _correct_whole(self) -> None:
        """Wait for the end of the answer, then correct it as a whole."""
        state = self._state
        while not state.received.has_ended:
            self._has_news.clear()
            await self._has_news.wait()
        policy = state.policy
        texts = self._texts
        if state.is_part:  # one part cannot show that nothing of the whole answer remains
            policy = replace(policy, if_nothing_remains=IfNothingRemains.ORIGINAL)
            texts = None
        session = await self._session.hold()
        whole_outcome = await self._pipeline.align(state.exchange(), policy, session, texts)
        if self.done:  # the part was given up meanwhile and went out unchanged
            return
        self._whole_outcome = whole_outcome
        if whole_outcome.text is not None:
            outgoing = await self._list_numbers.release(Outgoing(whole_outcome.text), state.answer())
            state.send(self.length, outgoing.text, is_changed=outgoing.text != self.original)
        await self._release.finish()
