"""What goes out in place of an answer that is released while it is still being written?

One `Passage` per choice or text part. Segment after segment is decided in order and never taken back: one that is not
flagged goes out as it is, a flagged stretch is replaced as soon as the first segment behind it that stays is known, and
what the gate refuses goes out as it is, too. When anything fails, or the answer turns out to be none that may be
edited, all that is undecided goes out as the upstream wrote it. Wire formats are not known here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from aligner_proxy import eligibility, failures, instead
from aligner_proxy.engine.protocol import Span
from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline import Pipeline, failed
from aligner_proxy.reader import LOST, Reader
from aligner_proxy.segments import Cutter, Segment
from aligner_proxy.stretches import Stretches
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

_T = TypeVar("_T")
_BEGUN = "Begun."  # an answer of which only the beginning is there: its words and its length say nothing yet


class Passage:
    """`exchange` tells the answer so far; `changed` is called whenever more of it is decided."""

    def __init__(
        self, pipeline: Pipeline, policy: Policy, exchange: Callable[[], Exchange], changed: Callable[[], None]
    ) -> None:
        self._pipeline, self._policy, self._exchange, self._changed = pipeline, policy, exchange, changed
        self.text = ""
        self.done = False
        """All that came or may still come is decided."""
        self.edited: set[int] = set()
        """Segments in whose place something else went out."""
        self._cutter, self._segments, self._ended = Cutter(), list[Segment](), False
        self._verdicts: tuple[SegmentScore, ...] = ()
        self._behind: SegmentScore | None = None
        """The word on the place behind the last segment; flagged, something is missing there."""
        self._at, self._stretches = 0, Stretches()
        self._made = instead.Made()
        self._closed: tuple[Status, str] | None = None
        self._whole: Outcome | None = None
        self._ended_at, self._ms = 0.0, 0.0
        self._reader = Reader(pipeline, policy, exchange)
        self._more, self._work = asyncio.Event(), asyncio.create_task(self._decide())

    async def hear(self, text: str) -> None:
        """More of the answer. What comes after its end goes out as it is."""
        first, self.text = not self.text, self.text + text
        if self._ended or self.done:
            return
        if len(self.text) > self._policy.max_answer_chars:
            self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
        elif not first or await self._begin():
            self._segments += self._cutter.feed(text)
            await self._tell(self._reader.feed(text))

    async def end(self) -> None:
        """The answer has ended."""
        if not (self._ended or self.done):
            self._ended, self._ended_at = True, time.perf_counter()
            self._segments += self._cutter.end()
            await self._tell(self._reader.end())

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
        return self.done or end <= self._stretches.end

    def out(self, start: int, end: int) -> str:
        """What goes out in place of these characters, which have to be decided."""
        return self._stretches.out(start, end, self.text)

    def outcome(self) -> Outcome:
        """What became of the answer; asked when the stream has ended."""
        if self._whole is not None:
            return replace(self._whole, text=self.out(0, len(self.text)))  # more may have come behind the end
        exchange = self._exchange()
        skip = eligibility.check(exchange, self._policy)
        status, reason = instead.status(self._closed, skip, bool(self.edited), self._made.refused)
        text, books = self.out(0, len(self.text)), self._made
        made = Correction(text, self._told(len(self.text)), books.counts, aligner=books.aligner)
        found = Outcome(status, reason, text, self._policy, exchange.index, None, made, self._ms)
        return replace(found, edited=text, edits=books.edits, dropped=tuple(books.refused))

    @property
    def failed(self) -> bool:
        """Whether the engine failed on it, or something of ours."""
        return Status.FAILED in (self._closed and self._closed[0], self._whole and self._whole.status)

    async def aclose(self) -> None:
        """Give up what is still worked on."""
        self._work.cancel()
        await asyncio.wait({self._work})
        await self._reader.aclose()

    async def _begin(self) -> bool:
        """Let the engine read along; False where the answer may not be edited."""
        if not await self._tried(self._reader.begin()):
            self.check()
        return not self.done

    async def _tell(self, telling: Coroutine[Any, Any, object]) -> None:
        await self._tried(telling)
        self._more.set()

    async def _tried(self, work: Coroutine[Any, Any, _T]) -> _T | None:
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
                await self._tried(self._settle())

    def _due(self) -> bool:
        """Whether there is a segment to judge, or an end to reach."""
        return self._ended or len(self._segments) > len(self._verdicts)

    async def _settle(self) -> None:
        """Get verdicts and decide what they decide; what nobody reads is held, as long as nothing went out."""
        if not self.text.strip():
            return self._finish() if self._ended else None
        try:
            held = not await self._judge()
        except LOST:
            if self._stretches.end:
                raise
            held = True
        return await self._hold() if held else None

    async def _judge(self) -> bool:
        """Decide what can be decided now; False where only the whole can be judged."""
        known = len(self._verdicts)
        if known < len(self._segments):
            async with asyncio.timeout(self._policy.deadline_s):
                verdicts = await self._reader.judged(known, again=self._stretches.end > 0)
            if verdicts is None or (not self._stretches.end and eligibility.may_be_structured(self._exchange())):
                return False
            self._take(verdicts, known)
        for number in range(self._at, len(self._verdicts)):
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

    def _told(self, end: int) -> tuple[SegmentScore, ...]:
        """The verdicts on what there is up to `end`."""
        told = [v for v, s in zip(self._verdicts, self._segments, strict=False) if s.end <= end]
        behind = self._behind if end == len(self.text) else None
        return (*told, behind) if behind else tuple(told)

    async def _release(self, number: int) -> None:
        """Decide what is flagged before segment `number`, and that one, which stays; there may be none."""
        if self._at < number:
            await self._edit(number)
        if number < len(self._segments) and not self.done:
            last = self._lacks and number == len(self._segments) - 1
            # What is to be added needs a character in whose place it goes out.
            self._put(self._segments[number].end - last)
        self._at = number + 1

    def _put(self, end: int, text: str | None = None) -> None:
        """`text` goes out in place of what is undecided up to `end`; None: it goes out as it is."""
        if end > self._stretches.end:
            original = self.text[self._stretches.end : end]
            self._stretches.add(end, original if text is None else text)
            self._changed()

    async def _edit(self, stop: int) -> None:
        """Replace the flagged segments before `stop`, where the gate lets that pass."""
        run = self._segments[self._at : stop]
        skip = eligibility.check(self._exchange(), self._policy)
        if skip is SkipReason.REFUSAL:
            return self._put(run[-1].end)
        if skip is not None:
            return self.close(Status.SKIPPED, skip.value)
        end = self._segments[stop].end if stop < len(self._segments) else len(self.text)
        before = self.out(0, self._stretches.end)
        last = stop == len(self._segments)
        correction = await self._written(self._at, stop + (last and self._lacks), end, before)
        lead, begins = self.text[self._stretches.end : run[0].start], self._stretches.end == 0
        upto, text = instead.placed(run, lead, correction.text, begins=begins, last=last)
        if await self._passes(text, upto, end, correction):
            if text != self.text[self._stretches.end : upto]:
                self.edited.update(range(self._at, stop))
            return self._put(upto, text)
        return None if self.done else self._put(run[-1].end)

    async def _add(self) -> None:
        """Put what is missing behind the last segment, where the gate lets that pass; its last character waits."""
        if eligibility.check(self._exchange(), self._policy) is not None:
            return
        count, end, rest = len(self._segments), len(self.text), self.text[self._stretches.end :]
        kept = rest.rstrip()
        correction = await self._written(count, count + 1, end, self.out(0, self._stretches.end) + kept)
        text = kept + correction.text + rest[len(kept) :]
        if text != rest and await self._passes(text, end, end, correction):
            self.edited.add(count)
            self._put(end, text)

    async def _written(self, first: int, stop: int, end: int, before: str) -> Correction:
        """What the engine writes in place of these segments."""
        by, left = self._behind.objective if self._behind else None, self._policy.deadline_s
        span = Span(first=first, stop=stop, end=end, before=before, deadline_s=left, objective=by)
        async with asyncio.timeout(left):
            return self._made.wrote(await self._reader.replace(span, again=self._stretches.end > 0))

    async def _passes(self, text: str, upto: int, end: int, made: Correction) -> bool:
        """Whether the gate lets `text` go out in place of what is undecided up to `upto`, and nothing has ended all."""
        before, now = self.out(0, self._stretches.end), self.text[self._stretches.end : upto]
        if text == now:
            return True
        original, edited = self.text[:end], before + text + self.text[upto:end]
        refusal = await instead.objection(original, edited, made, self._told(end), self._policy)
        if self.done:
            return False
        self._made.judged(refusal)
        if refusal and failures.blocks(Outcome(Status.UNCHANGED, f"gate_{refusal}", None, self._policy)):
            self.close(Status.FAILED, f"gate_{refusal}")
        return refusal is None

    async def _hold(self) -> None:
        """There are no verdicts before the end: wait for it and decide the whole at once."""
        while not self._ended:
            self._more.clear()
            await self._more.wait()
        whole = await self._pipeline.align(self._exchange(), self._policy, await self._reader.hold())
        if self.done:  # it went out as it is meanwhile
            return
        self._whole, text = whole, whole.text
        if text is not None and text != self.text:
            self.edited.add(0)
            self._put(len(self.text), text)
        self._finish()

    def _finish(self) -> None:
        """The last white space goes out as it is."""
        if not self.done:
            self._put(len(self.text))
            self._seal()

    def _seal(self) -> None:
        """Nothing is to be decided any more."""
        self.done = True
        if self._ended:
            self._ms = (time.perf_counter() - self._ended_at) * 1000
        self._changed()
