"""Correction of one part of an answer that goes out while it is being written.

A part is the whole answer, unless the answer is very long (growing_answer.py). Incoming text passes the stages'
admission and is judged by the engine, which reads along. It is then released segment by segment, finalized at its end
and reported, by the same stages as a whole answer. If a stage holds the part, or the engine cannot judge it before its
end, the part is corrected as a whole. When anything fails, or the answer turns out not to be editable, all undecided
text goes out as the upstream wrote it.

If the engine loses its session, or was full or unreachable, it reads the text again from the beginning, within the
deadline (resumable_session.py). Verdicts are causal, so they come out the same. If nothing has gone out
yet, the answer is held and corrected as a whole instead, which is better. This module knows no wire formats.
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
from aligner_proxy.pipeline.stages.list_numbers import ListNumbers
from aligner_proxy.pipeline.stages.notes import Notes
from aligner_proxy.pipeline.stages.opening_word import OpeningWord
from aligner_proxy.plugins.api import Corrected
from aligner_proxy.plugins.stage import AnswerSoFar, Hold, Outgoing, Stage, Stop
from aligner_proxy.text.json_answer import begins_json
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.program_text import begins_data
from aligner_proxy.types import Correction, Exchange, IfNothingRemains, Outcome, Policy, Status

Result = TypeVar("Result")


class Held(Stage):
    """Holds every answer until its end."""

    order = 10

    async def admit(self, answer: AnswerSoFar) -> Hold:
        return Hold()


class AnswerPart:
    """Corrects one part as it grows. Positions are character offsets into the original text.

    `facts` returns everything known about the answer besides its text. `notify` is called whenever more of the text is
    decided. With `whole`, nothing is decided before the part ends. With `inner`, the part begins in the middle of an
    answer. The parts of one answer share its `numbering` of lists, and its `reading`, which reads segments a second
    time; both are new for the first part. `texts` are all texts of the answer, if there may be others.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: Policy,
        facts: Callable[[], Exchange],
        notify: Callable[[], None],
        *,
        whole: bool = False,
        inner: bool = False,
        numbering: Numbering | None = None,
        reading: GrowingReading | None = None,
        texts: GrowingTexts | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._state = PartState(policy, facts, notify, is_part=inner, models=pipeline)
        """The text received, its verdicts, and what goes out for it."""
        self._texts = texts
        """All texts of the answer, if there may be others; None if the part decides alone."""
        self._numbers = ListNumbers(numbering or Numbering())
        own_stages = [Held(), self._numbers] if whole else [self._numbers, Notes(), OpeningWord()]
        self._stages = pipeline.stages(policy, own=own_stages, grows=True)
        self._session = ResumableSession(pipeline, policy, self._state.exchange)
        """The engine reads the text in it as it comes, and writes the replacements."""
        self._reading = reading or GrowingReading(policy, pipeline.score)
        """Reads segments a second time before they go out, if the policy requires that."""
        self._release = SegmentRelease(self._state, self._stages, self._session)
        """Decides what goes out for judged segments, in order."""
        self._whole_outcome: Outcome | None = None
        """The outcome of a part that was held and corrected as a whole; None for a part released by segments."""
        self._ending_outcome: Outcome | None = None
        """The outcome that a stage chose at the end, if only fragments of the answer had gone out by then."""
        self._more = asyncio.Event()
        """Set when text or the end of the part has come, for the task that decides."""
        self._work: asyncio.Task[None] | None = asyncio.create_task(self._decide())
        """The task that decides until the part is over; None once the part is closed by `aclose`."""

    @property
    def length(self) -> int:
        """Number of characters of the original received so far."""
        return self._state.received.length

    @property
    def original(self) -> str:
        """The text received so far, as the upstream wrote it."""
        return self._state.received.text

    @property
    def replacements(self) -> ReplacementMap:
        """What goes out for the text that is decided."""
        return self._state.delivery

    @property
    def has_output(self) -> bool:
        """Whether anything but white space goes out, as far as it is decided."""
        delivery = self._state.delivery
        # what is undecided when the part is over goes out unchanged
        return delivery.has_text or (self.done and self.length > delivery.end)

    @property
    def done(self) -> bool:
        """Whether everything is decided: what came, and whatever may still come."""
        return self._state.is_over

    @property
    def stopped(self) -> Outcome | None:
        """The outcome, without its text, if the part was held, or given up before all was judged; otherwise None."""
        stop = self._state.stop
        return self._whole_outcome if stop is None else Outcome(stop.status, stop.reason, None, self._state.policy)

    @property
    def is_answer_replaced(self) -> bool:
        """Whether a refusal text, another answer or nothing went out in place of the answer.

        Then nothing more of the answer goes out, even if the upstream goes on after its own end.
        """
        ending = self._ending_outcome or self._whole_outcome
        return self.done and ending is not None and ending.reason in outcomes.REPLACING_REASONS

    @property
    def may_be_structured(self) -> bool:
        """Whether a program reads the answer, or it begins like JSON or other data."""
        text = self._state.received.text
        return self._state.facts().structured or begins_json(text) or begins_data(text)

    async def feed(self, piece: str) -> None:
        """Take more of the answer. Text after the end goes out unchanged, or not at all (`is_answer_replaced`)."""
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
            self._more.set()

    async def end(self, *, last: bool = True) -> None:
        """End the part. With `last` false, the answer goes on, and what follows is corrected as a separate text."""
        state = self._state
        state.is_part |= not last
        if not (state.received.has_ended or state.is_over):
            state.received.end()
            await self._attempt(self._session.end())
            self._more.set()

    def check(self) -> None:
        """Check again whether the answer may be edited, because something other than text arrived; close it if not."""
        state = self._state
        if not state.is_over and (reason := eligibility.find_early_reason(state.facts(), state.policy)) is not None:
            state.close(Stop(Status.SKIPPED, reason.value))

    def close(self, status: Status, reason: str) -> None:
        """Give up the part: all undecided text goes out unchanged."""
        self._state.close(Stop(status, reason))

    def is_decided(self, end: int) -> bool:
        """Whether the output for the first `end` characters is decided."""
        return self.done or end <= self._state.delivery.end

    def render(self, start: int, end: int) -> str:
        """The output for these characters of the original, all of which must be decided."""
        return self._state.delivery.render(start, end, self._state.received.text)

    async def wait_until_over(self) -> None:
        """Wait until nothing is left to decide."""
        await self._state.over.wait()

    def outcome(self) -> Outcome:
        """The outcome of the part, once the stream has ended."""
        state = self._state
        text = self.render(0, self.length)
        answer = state.answer(is_final=True)
        if self._whole_outcome is not None:
            # text may have come after the end, so the outcome gets all that went out
            return self._numbers.report(replace(self._whole_outcome, text=text), answer)
        outcome = self._build_outcome(text, answer)
        if self._ending_outcome is not None:
            outcome = replace(outcome, status=self._ending_outcome.status, reason=self._ending_outcome.reason)
            # the editor may have written the ending, which the tally of this part does not include
            if outcome.correction and self._ending_outcome.correction:
                correction = replace(outcome.correction, editor=self._ending_outcome.correction.editor)
                outcome = replace(outcome, correction=correction)
        elif (stop := self._find_stop()) is not None:
            outcome = replace(outcome, status=stop.status, reason=stop.reason)
        return self._stages.report(replace(outcome, text=text, ms=state.ms), answer)

    def _build_outcome(self, text: str, answer: AnswerSoFar) -> Outcome:
        """The outcome of a wholly judged part for which `text` goes out."""
        state = self._state
        tally = state.tally
        scores = state.verdicts_up_to(self.length)
        parts = [*tally.corrections, self._session.judge_cost]
        correction = Correction(text, scores, aligner=tally.aligner).with_cost_of(parts)
        reason = gate_reason(tally.refused_rules, changed=state.delivery.is_changed)
        verdict = Verdict(text, reason, tally.edits, tuple(tally.refused_rules), findings=tally.findings)
        return build_outcome(answer, Corrected(correction, None, verdict))

    def _find_stop(self) -> Stop | None:
        """The status and reason of a part that was not wholly judged; None if it was."""
        state = self._state
        stop = state.stop
        if stop is not None and stop.status is Status.FAILED:
            return stop
        # an edit may have gone out before the rest was given up
        status = Status.CORRECTED if state.delivery.is_changed else Status.SKIPPED
        skip = eligibility.check(state.exchange(), state.policy)
        if skip is not None:
            return Stop(status, skip.value)
        return None if stop is None else Stop(status, stop.reason)

    async def aclose(self) -> None:
        """Cancel the work in progress and close the engine session."""
        work = self._work
        self._work = None  # breaks a reference cycle that would keep the text until garbage collection
        if work is not None:
            work.cancel()
            await asyncio.wait({work})
        await self._session.aclose()

    async def _begin(self) -> bool:
        """Open an engine session that reads along; return False if the part is over, as it may not be edited."""
        if not await self._attempt(self._session.begin()):
            self.check()
        elif not self.done and (about := await self._pipeline.describe_aligner(self._state.policy)):
            self._state.tally.aligner = about.content_hash
        return not self.done

    async def _attempt(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """Await `work` and return its result; an error closes the part with the reason of the error, and gives None."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - part of the pipeline's boundary
            outcome = build_failure(error, self._state.exchange(), self._state.policy)
            self.close(outcome.status, str(outcome.reason))
            return None

    async def _decide(self) -> None:
        """Loop until everything is decided or the part is given up."""
        state = self._state
        while not self.done:
            await self._more.wait()
            self._more.clear()
            # segments may come while others are decided
            while not self.done and (state.received.has_ended or state.has_unjudged_segments):
                await self._attempt(self._decide_more())

    async def _decide_more(self) -> None:
        """Admit, judge and release new segments; if these must wait for the whole part, correct it at its end."""
        state = self._state
        if self._texts is not None and not (state.is_part or state.delivery.end):
            await self._texts.wait_for_earlier(state.facts.latest().index)
        if not state.received.text.strip():
            return await self._release.finish() if state.received.has_ended else None
        try:
            is_whole = (await self._is_held() and not state.delivery.end) or not await self._release_judged()
        except LOST:
            if state.delivery.end:
                raise
            is_whole = True
        return await self._correct_whole() if is_whole and not self.done else None

    def _answer_for_stages(self, *, is_final: bool = False) -> AnswerSoFar:
        """The answer so far, with what stages ask about the other texts of the answer."""
        answer = self._state.answer(is_final=is_final)
        if self._texts is None:
            return answer
        return replace(answer, is_one_of_several=True, is_withheld=self._texts.is_withheld)

    async def _is_held(self) -> bool:
        """Whether a stage holds the answer until its end. If a stage stops the correction, closes the part instead."""
        admission = await self._stages.admit(self._answer_for_stages())
        if isinstance(admission, Stop):
            self._state.close(admission)
        return isinstance(admission, Hold)

    async def _release_judged(self) -> bool:
        """Judge and release as many segments as possible; return False if only the whole answer can be judged."""
        state = self._state
        if self.done:
            return True
        releasable = await self._judge_new()
        if releasable is None:
            return False
        # With the new verdicts a stage may want to decide about the whole, before any of what they judge goes out.
        is_held = await self._is_held()
        if is_held and not state.delivery.end:
            return False
        if self.done or (state.is_judged and state.delivery.end and await self._finalize()):
            return True
        # text that has gone out cannot be corrected again as part of the whole; the rest waits
        if is_held and not state.is_judged:
            return True
        await self._release.release(releasable)
        if state.is_judged:
            await self._release.release_rest()
        return True

    async def _judge_new(self) -> int | None:
        """Judge the new segments; return how many may go out in all, or None if only the whole can be judged."""
        state = self._state
        known_count = len(state.verdicts.all)
        if known_count < len(state.received.segments) and not await self._judge(known_count):
            return None
        if not self._reading.is_due:
            return len(state.verdicts.all)
        releasable, flagged = await self._reading.read(state, known_count)
        state.verdicts.flag(flagged)
        self._release.note_flagged(flagged)
        return releasable

    async def _judge(self, known_count: int) -> bool:
        """Wait for further verdicts; return False if the engine gives none before the end of the answer."""
        state = self._state
        async with asyncio.timeout(state.policy.deadline_s):
            verdicts = await self._session.wait_for_verdicts(known_count, again=state.delivery.end > 0)
        if verdicts is None:
            return False
        is_end = state.received.has_ended and not state.is_part
        state.verdicts.accept(verdicts, state.received.segments, state.received.decided, is_end=is_end)
        return True

    async def _finalize(self) -> bool:
        """Let the stages replace what has not gone out yet, and send it; return whether the part is over."""
        state = self._state
        answer = self._answer_for_stages(is_final=True)
        so_far = self._build_outcome(self.render(0, state.delivery.end), answer)
        ending = await self._stages.finalize(so_far, answer)
        if self._texts is not None and ending is not so_far:
            ending = await self._texts.decide(answer.exchange, ending)
        # the same outcome: no stage wants another text in place of the rest
        if ending is so_far or self.done:
            return self.done
        self._ending_outcome = ending
        if outcomes.blocks(ending):
            self.close(Status.FAILED, str(ending.reason))
        else:
            # a new paragraph, because fragments of the answer have gone out before
            state.send(self.length, f"\n\n{ending.text}" if ending.text else "", is_changed=True)
            await self._release.finish()
        return True

    async def _correct_whole(self) -> None:
        """Wait for the end of the answer, then correct it as a whole."""
        state = self._state
        while not state.received.has_ended:
            self._more.clear()
            await self._more.wait()
        policy = state.policy
        texts = self._texts
        if state.is_part:  # one part cannot show that nothing of the whole answer remains
            policy = replace(policy, if_nothing_remains=IfNothingRemains.ORIGINAL)
            texts = None
        whole = await self._pipeline.align(state.exchange(), policy, await self._session.hold(), texts)
        if self.done:  # it was closed meanwhile and went out unchanged
            return
        self._whole_outcome = whole
        if whole.text is not None:
            outgoing = await self._numbers.release(Outgoing(whole.text), state.answer())
            state.send(self.length, outgoing.text, is_changed=outgoing.text != self.original)
        await self._release.finish()
