"""Correction of one text while it grows: a choice or text part that is released segment by segment.

Segment after segment is decided in order and never taken back: one that is not flagged goes out as it is, a flagged
stretch is replaced as soon as the first segment behind it that stays is known, and what the gate refuses goes out as it
is, too. When anything fails, or the answer turns out to be none that may be edited, all that is undecided goes out as
the upstream wrote it. Wire formats are not known here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from aligner_proxy import eligibility, failures
from aligner_proxy.engine.protocol import Span
from aligner_proxy.errors import EngineFault
from aligner_proxy.gate import Verdict
from aligner_proxy.instead import EditTally, objection, placed
from aligner_proxy.outcomes import gate_reason, judged
from aligner_proxy.pipeline import Pipeline, failed
from aligner_proxy.reader import LOST, Result, ResumableSession
from aligner_proxy.segments import Cutter, Segment
from aligner_proxy.stretches import ReplacementMap
from aligner_proxy.types import (
    Correction,
    Exchange,
    JsonStrings,
    Outcome,
    Policy,
    SegmentScore,
    SkipReason,
    Status,
)

_BEGUN = "Begun."
"""Stands for an answer of which only the beginning is there: its words and its length do not say anything yet."""


class StreamingCorrection:
    """Corrects one text piece by piece.

    `exchange` is the answer so far; `notify` is called whenever more of it is decided. Places are characters of the
    original.
    """

    def __init__(
        self, pipeline: Pipeline, policy: Policy, exchange: Callable[[], Exchange], notify: Callable[[], None]
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._exchange = exchange
        self._notify = notify
        self.done = False
        """All that came or may still come is decided."""
        self.changed = False
        """Something else goes out in place of some segment."""
        self._text = ""
        self._cutter = Cutter()
        self._segments: list[Segment] = []
        self._ended = False
        self._verdicts: tuple[SegmentScore, ...] = ()
        self._behind: SegmentScore | None = None
        """The verdict on the place behind the last segment; flagged, something is missing there."""
        self._next = 0
        """The first segment that is not decided."""
        self._replacements = ReplacementMap()
        self._tally = EditTally()
        self._closed: tuple[Status, str] | None = None
        self._whole: Outcome | None = None
        """The outcome of an answer that was held and corrected as a whole."""
        self._ended_at = 0.0
        self._ms = 0.0
        self._session = ResumableSession(pipeline, policy, exchange)
        self._more = asyncio.Event()
        self._work = asyncio.create_task(self._decide())

    @property
    def length(self) -> int:
        """How much of the original has come."""
        return len(self._text)

    async def feed(self, text: str) -> None:
        """More of the answer. What comes after its end goes out as it is."""
        first = not self._text
        self._text += text
        if self._ended or self.done:
            return
        if self.length > self._policy.max_answer_chars:
            self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
        elif not first or await self._begin():
            self._segments += self._cutter.feed(text)
            await self._attempt(self._session.feed(text))
            self._more.set()

    async def end(self) -> None:
        """The answer has ended."""
        if not (self._ended or self.done):
            self._ended = True
            self._ended_at = time.perf_counter()
            self._segments += self._cutter.end()
            await self._attempt(self._session.end())
            self._more.set()

    def check(self) -> None:
        """Look again whether the answer may be edited: something came that is not its text."""
        reason = None if self.done else eligibility.check(replace(self._exchange(), answer=_BEGUN), self._policy)
        whole = reason is SkipReason.STRUCTURED_OUTPUT and self._policy.json_strings is JsonStrings.CORRECT
        if reason is not None and not whole:
            self.close(Status.SKIPPED, reason.value)

    def close(self, status: Status, reason: str) -> None:
        """All that is undecided goes out as it is."""
        if not self.done:
            self._closed = (status, reason)
            self._seal()

    def decided(self, end: int) -> bool:
        """Whether it is known what goes out in place of the first `end` characters."""
        return self.done or end <= self._replacements.end

    def out(self, start: int, end: int) -> str:
        """What goes out in place of these characters, which have to be decided."""
        return self._replacements.out(start, end, self._text)

    def outcome(self) -> Outcome:
        """What became of the answer, once the stream has ended."""
        text = self.out(0, self.length)
        if self._whole is not None:
            return replace(self._whole, text=text)  # more may have come behind the end
        tally = self._tally
        scores = self._verdicts_up_to(self.length)
        correction = Correction(text, scores, aligner=tally.aligner).with_cost_of(tally.corrections)
        reason = gate_reason(tally.refused, changed=self.changed)
        verdict = Verdict(text, reason, tally.edits, tuple(tally.refused))
        outcome = judged(self._exchange(), self._text, self._policy, correction, None, verdict)
        status, reason = self._stopped() or (outcome.status, outcome.reason)
        reports = self._pipeline.extensions.report(self._policy, self._text, text)
        return replace(outcome, status=status, reason=reason, text=text, ms=self._ms, reports=reports)

    def _stopped(self) -> tuple[Status, str] | None:
        """The status and reason of an answer of which not all was judged."""
        if self._closed is not None and self._closed[0] is Status.FAILED:
            return self._closed
        skip = eligibility.check(self._exchange(), self._policy)
        if skip is None and self._closed is None:
            return None
        reason = skip.value if skip is not None else self._closed and self._closed[1]
        return Status.CORRECTED if self.changed else Status.SKIPPED, str(reason)

    @property
    def failed(self) -> bool:
        """Whether the engine failed on it, or something of ours."""
        return Status.FAILED in (self._closed and self._closed[0], self._whole and self._whole.status)

    async def aclose(self) -> None:
        """Give up what is still worked on."""
        self._work.cancel()
        await asyncio.wait({self._work})
        await self._session.aclose()

    async def _begin(self) -> bool:
        """Let the engine read along; False where the answer may not be edited."""
        if not await self._attempt(self._session.begin()):
            self.check()
        return not self.done

    async def _attempt(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """The one place where what goes wrong with this answer becomes the reason why the rest goes out as it is."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - part of the pipeline's boundary
            outcome = failed(error, self._exchange(), self._policy)
            self.close(outcome.status, str(outcome.reason))
            return None

    async def _decide(self) -> None:
        """Until everything is decided, or it cannot be."""
        while not self.done:
            await self._more.wait()
            self._more.clear()
            while not self.done and self._due():
                await self._attempt(self._settle())

    def _due(self) -> bool:
        """Whether there is a segment to judge, or an end to reach."""
        return self._ended or len(self._segments) > len(self._verdicts)

    async def _settle(self) -> None:
        """Get verdicts and decide what they decide; what nobody reads is held, as long as nothing went out."""
        if not self._text.strip():
            return self._finish() if self._ended else None
        try:
            held = not await self._judge()
        except LOST:
            if self._replacements.end:
                raise
            held = True
        return await self._hold() if held else None

    async def _judge(self) -> bool:
        """Decide what can be decided now; False where only the whole can be judged."""
        known = len(self._verdicts)
        if known < len(self._segments):
            async with asyncio.timeout(self._policy.deadline_s):
                verdicts = await self._session.judged(known, again=self._replacements.end > 0)
            if verdicts is None or (not self._replacements.end and eligibility.may_be_structured(self._exchange())):
                return False
            self._take(verdicts, known)
        for number in range(self._next, len(self._verdicts)):
            if not self._verdicts[number].flagged:
                await self._release(number)
        if self._ended and len(self._verdicts) == len(self._segments):
            await self._release(len(self._segments))
            if self._lacks and not self._verdicts[-1].flagged and not self.done:
                await self._add()
            self._finish()
        return True

    @property
    def _lacks(self) -> bool:
        """Whether something is missing behind the last segment; in place of a flagged one comes that, too."""
        return self._behind is not None and self._behind.flagged

    def _take(self, verdicts: tuple[SegmentScore, ...], known: int) -> None:
        if len(verdicts) <= known or any(v.text != s.text for v, s in zip(verdicts, self._segments, strict=False)):
            raise EngineFault("the engine judged other segments than these")
        count = len(self._segments)
        self._verdicts = verdicts[:count]
        self._behind = next((verdict for verdict in verdicts[count:] if self._ended and not verdict.text), None)

    def _verdicts_up_to(self, end: int) -> tuple[SegmentScore, ...]:
        """The verdicts on what there is up to `end`."""
        pairs = zip(self._verdicts, self._segments, strict=False)
        verdicts = [verdict for verdict, segment in pairs if segment.end <= end]
        if self._behind is not None and end == self.length:
            verdicts.append(self._behind)
        return tuple(verdicts)

    async def _release(self, number: int) -> None:
        """Decide what is flagged before segment `number`, and that one, which stays; there may be none."""
        if self._next < number:
            await self._edit(number)
        if number < len(self._segments) and not self.done:
            last = self._lacks and number == len(self._segments) - 1
            # What is to be added needs a character in whose place it goes out.
            self._put(self._segments[number].end - last)
        self._next = number + 1

    def _put(self, end: int, text: str | None = None) -> None:
        """`text` goes out in place of what is undecided up to `end`; None: it goes out as it is."""
        if end > self._replacements.end:
            original = self._text[self._replacements.end : end]
            self._replacements.add(end, original if text is None else text)
            self._notify()

    async def _edit(self, stop: int) -> None:
        """Replace the flagged segments before `stop`, where the gate lets that pass."""
        run = self._segments[self._next : stop]
        skip = eligibility.check(self._exchange(), self._policy)
        if skip is SkipReason.REFUSAL:
            return self._put(run[-1].end)
        if skip is not None:
            return self.close(Status.SKIPPED, skip.value)
        last = stop == len(self._segments)
        end = self.length if last else self._segments[stop].end
        start = self._replacements.end
        correction = await self._rewritten(self._next, stop + (last and self._lacks), end, self.out(0, start))
        lead = self._text[start : run[0].start]
        upto, text = placed(run, lead, correction.text, begins=start == 0, last=last)
        if await self._passes(text, upto, end, correction):
            self.changed |= text != self._text[start:upto]
            return self._put(upto, text)
        return None if self.done else self._put(run[-1].end)

    async def _add(self) -> None:
        """Put what is missing behind the last segment, where the gate lets that pass; its last character waits."""
        if eligibility.check(self._exchange(), self._policy) is not None:
            return
        count = len(self._segments)
        end = self.length
        rest = self._text[self._replacements.end :]
        kept = rest.rstrip()
        correction = await self._rewritten(count, count + 1, end, self.out(0, self._replacements.end) + kept)
        text = kept + correction.text + rest[len(kept) :]
        if text != rest and await self._passes(text, end, end, correction):
            self.changed = True
            self._put(end, text)

    async def _rewritten(self, first: int, stop: int, end: int, before: str) -> Correction:
        """What the engine writes in place of these segments."""
        objective = self._behind.objective if self._behind else None
        seconds = self._policy.deadline_s
        span = Span(first=first, stop=stop, end=end, before=before, deadline_s=seconds, objective=objective)
        async with asyncio.timeout(seconds):
            correction = await self._session.replace(span, again=self._replacements.end > 0)
        self._tally.add(correction)
        return correction

    async def _passes(self, text: str, upto: int, end: int, correction: Correction) -> bool:
        """Whether the gate lets `text` go out in place of what is undecided up to `upto`, and nothing has ended all."""
        start = self._replacements.end
        if text == self._text[start:upto]:
            return True
        edited = self.out(0, start) + text + self._text[upto:end]
        refusal = await objection(self._text[:end], edited, correction, self._verdicts_up_to(end), self._policy)
        if self.done:
            return False
        self._tally.judge(refusal)
        if refusal and failures.blocks(Outcome(Status.UNCHANGED, f"gate_{refusal}", None, self._policy)):
            self.close(Status.FAILED, f"gate_{refusal}")
        return refusal is None

    async def _hold(self) -> None:
        """There are no verdicts before the end: wait for it and decide the whole at once."""
        while not self._ended:
            self._more.clear()
            await self._more.wait()
        whole = await self._pipeline.align(self._exchange(), self._policy, await self._session.hold())
        if self.done:  # it went out as it is meanwhile
            return
        self._whole = whole
        if whole.text is not None and whole.text != self._text:
            self.changed = True
            self._put(self.length, whole.text)
        self._finish()

    def _finish(self) -> None:
        """The last white space goes out as it is."""
        if not self.done:
            self._put(self.length)
            self._seal()

    def _seal(self) -> None:
        """Nothing is to be decided any more."""
        self.done = True
        if self._ended:
            self._ms = (time.perf_counter() - self._ended_at) * 1000
        self._notify()
