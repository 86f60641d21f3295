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

from aligner_proxy import eligibility, failures
from aligner_proxy.engine.protocol import Span
from aligner_proxy.errors import EngineFault
from aligner_proxy.gate import aside
from aligner_proxy.pipeline import Pipeline, failed
from aligner_proxy.reader import LOST, Reader
from aligner_proxy.segments import Cutter, Segment
from aligner_proxy.stages import stage
from aligner_proxy.stretches import Stretches
from aligner_proxy.types import (
    Correction,
    DecodeCounts,
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
        self._at, self._stretches = 0, Stretches()
        self._refused: list[str] = []
        """The gate's rule for each stretch that it kept as it was."""
        self._edits = 0
        self._closed: tuple[Status, str] | None = None
        self._whole: Outcome | None = None
        self._counts, self._aligner = DecodeCounts(), ""
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
        return self.done or end <= self._decided

    def out(self, start: int, end: int) -> str:
        """What goes out in place of these characters, which have to be decided."""
        return self._stretches.out(start, end, self.text)

    def outcome(self) -> Outcome:
        """What became of the answer; asked when the stream has ended."""
        if self._whole is not None:
            return replace(self._whole, text=self.out(0, len(self.text)))  # more may have come behind the end
        exchange = self._exchange()
        status, reason = self._closed or (Status.UNCHANGED, f"gate_{self._refused[0]}" if self._refused else None)
        skip = None if status is Status.FAILED else eligibility.check(exchange, self._policy)
        if skip is not None:
            status, reason = Status.SKIPPED, skip.value
        if self.edited and status is not Status.FAILED:
            partly = status is Status.UNCHANGED and reason is not None
            status, reason = Status.CORRECTED, f"gate_partly:{self._refused[0]}" if partly else reason
        text = self.out(0, len(self.text))
        made = Correction(text, self._verdicts, self._counts, aligner=self._aligner)
        found = Outcome(status, reason, text, self._policy, exchange.index, None, made, self._ms)
        return replace(found, edited=text, edits=self._edits, dropped=tuple(self._refused))

    @property
    def failed(self) -> bool:
        """Whether the engine failed on it, or something of ours."""
        return Status.FAILED in (self._closed and self._closed[0], self._whole and self._whole.status)

    @property
    def _decided(self) -> int:
        return self._stretches.end

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
            if self._decided:
                raise
            held = True
        return await self._hold() if held else None

    async def _judge(self) -> bool:
        """Decide what can be decided now; False where only the whole can be judged."""
        known = len(self._verdicts)
        if known < len(self._segments):
            async with asyncio.timeout(self._policy.deadline_s):
                verdicts = await self._reader.judged(known, again=self._decided > 0)
            if verdicts is None or (not self._decided and self._machine_readable()):
                return False
            self._take(verdicts, known)
        for number in range(self._at, len(self._verdicts)):
            if not self._verdicts[number].flagged:
                await self._release(number)
        if self._ended and len(self._verdicts) == len(self._segments):
            await self._release(len(self._segments))
            self._finish()
        return True

    def _machine_readable(self) -> bool:
        """Whether this is JSON, or may become it: only the whole of it can be edited then."""
        return self.text.lstrip().startswith(("{", "[", "```")) or eligibility.is_structured(self._exchange())

    def _take(self, verdicts: tuple[SegmentScore, ...], known: int) -> None:
        if len(verdicts) <= known or any(v.text != s.text for v, s in zip(verdicts, self._segments, strict=False)):
            raise EngineFault("the engine judged other segments than these")
        self._verdicts = verdicts[: len(self._segments)]

    async def _release(self, number: int) -> None:
        """Decide what is flagged before segment `number`, and that one, which stays; there may be none."""
        if self._at < number:
            await self._edit(number)
        if number < len(self._segments) and not self.done:
            self._put(self._segments[number].end)
        self._at = number + 1

    def _put(self, end: int, text: str | None = None) -> None:
        """`text` goes out in place of what is undecided up to `end`; None: it goes out as it is."""
        if end > self._decided:
            original = self.text[self._decided : end]
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
        before = self.out(0, self._decided)
        span = Span(first=self._at, stop=stop, end=end, before=before, deadline_s=self._policy.deadline_s)
        async with asyncio.timeout(span.deadline_s):
            correction = await self._reader.replace(span, again=self._decided > 0)
        self._counts += correction.counts
        self._aligner = correction.aligner or self._aligner
        upto, text = self._instead(run, correction.text, last=stop == len(self._segments))
        edited = before + text + self.text[upto:end]
        refusal = await self._objection(edited, before + self.text[self._decided : end], end, correction)
        if self.done:
            return None
        self._edits += text != self.text[self._decided : upto]
        if refusal is not None:
            self._refused.append(refusal)
            if failures.blocks(Outcome(Status.UNCHANGED, f"gate_{refusal}", None, self._policy)):
                return self.close(Status.FAILED, f"gate_{refusal}")
            return self._put(run[-1].end)
        if text != self.text[self._decided : upto]:
            self.edited.update(range(self._at, stop))
        return self._put(upto, text)

    def _instead(self, run: list[Segment], text: str, *, last: bool) -> tuple[int, str]:
        """Up to where a replacement reaches, and what goes out there, white space before it included.

        A stretch that vanishes leaves one of the two breaks around it, the larger one (as `segments.join` does).
        """
        lead = self.text[self._decided : run[0].start]
        if text:
            return run[-1].end, lead + text
        gap = run[-1].gap
        kept = gap if last or gap.count("\n") > lead.count("\n") else lead
        return run[-1].end + len(gap), kept if self._decided else ""

    async def _objection(self, edited: str, unedited: str, end: int, made: Correction) -> str | None:
        """The rule that the answer so far breaks with this edit in it, beside all that went out before."""
        original = self.text[:end]
        if edited == unedited:
            return None
        verdicts = tuple(v for v, s in zip(self._verdicts, self._segments, strict=False) if s.end <= end)
        with stage("gate"):
            verdict = await aside.judge(original, replace(made, text=edited, segments=verdicts), self._policy)
        return None if verdict.text == edited else str(verdict.reason).removeprefix("gate_").removeprefix("partly:")

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
