"""Correction of an answer that is released while it is still being written.

One `StreamingCorrection` per choice or text part. Segments are decided in order and never taken back: one that is not
flagged goes out as it is, a flagged stretch is replaced as soon as the first segment behind it that stays is known, and
what the gate refuses goes out as it is, too. When anything fails, or the answer turns out to be none that may be
edited, all that is undecided goes out as the upstream wrote it. Wire formats are not known here.

What the engine has forgotten, or never took in because it was full or away, is read again from the beginning, within
the deadline (resumable_session.py): verdicts are causal, so they are the same. As long as nothing went out there is a
better way: to hold the answer and send it whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from aligner_proxy.engine.api import Span
from aligner_proxy.errors import EngineFault
from aligner_proxy.gate.completion import Followed, removed_segments, trim_edit
from aligner_proxy.gate.edits import Edit, Part
from aligner_proxy.gate.judge import Settled, Verdict, judge_next_in_thread
from aligner_proxy.observability.tracing import stage
from aligner_proxy.pipeline import declining, eligibility, outcomes, spoken
from aligner_proxy.pipeline.edit_tally import EditTally
from aligner_proxy.pipeline.grounded import GroundedStream, whole_sentences
from aligner_proxy.pipeline.outcomes import gate_reason, judged
from aligner_proxy.pipeline.pipeline import Pipeline, failed
from aligner_proxy.pipeline.removal import removes_refused
from aligner_proxy.pipeline.replacements import ReplacementMap, placed
from aligner_proxy.pipeline.resumable_session import LOST, ResumableSession
from aligner_proxy.pipeline.streamed_reading import Progress, StreamedReading
from aligner_proxy.text.cutter import Cutter
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.lists.outline import depends_on_next
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import (
    Correction,
    Exchange,
    IfNothingRemains,
    JsonStrings,
    Outcome,
    Policy,
    SegmentScore,
    SkipReason,
    Status,
)

Result = TypeVar("Result")
_BEGUN = "Begun."
"""Stands for an answer of which only the beginning is there: its words and its length do not say anything yet."""


def _charged(correction: Correction | None, ending: Correction | None) -> Correction | None:
    """The correction with what a second try at its end cost."""
    return replace(correction, editor=ending.editor) if correction and ending else correction


class StreamingCorrection:
    """Corrects one text piece by piece.

    `facts` is what is known of the answer beside its text; `notify` is called whenever more of it is decided. Places
    are characters of the original. `whole`: nothing is decided before the end. `inner`: it begins in mid-answer.
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
        reading: StreamedReading | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._facts = facts
        self._notify = notify
        self._at_once = whole
        self._inner = inner
        """More of the answer follows, or it is not known yet that none does."""
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
        self._looked_at = 0
        """So many segments have been released or wait; of ten thousand headings in a row each waits for the next."""
        self._first_flagged: int | None = None
        """The first flagged segment that is not decided."""
        self._replacements = ReplacementMap()
        self._settled: dict[Edit, tuple[Part, ...]] = {}
        """The edits that have gone out, and what each did."""
        self._numbering = numbering or Numbering()
        self._numbered = 0
        """So many segments have been numbered."""
        self._grounded = GroundedStream(policy)
        self._renumbered_before = self._numbering.changed
        self._tally = EditTally()
        self._closed: tuple[Status, str] | None = None
        self._ending: Outcome | None = None
        """The outcome of an answer of which only fragments had gone out."""
        self._whole: Outcome | None = None
        """The outcome of an answer that was held and corrected as a whole."""
        self._ended_at = 0.0
        self._ms = 0.0
        self._reading = reading or StreamedReading(pipeline, policy)
        self._further: dict[int, SegmentScore] = {}
        """The verdicts on segments that another reading flags."""
        self._languages = spoken.GrowingLanguage(policy)
        self._session = ResumableSession(pipeline, policy, self._exchange)
        self._more = asyncio.Event()
        self._over = asyncio.Event()
        self._work: asyncio.Task[None] | None = asyncio.create_task(self._decide())

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
        if not first or await self._begin():
            self._segments += self._cutter.feed(text)
            await self._attempt(self._session.feed(text))
            self._more.set()

    def _exchange(self) -> Exchange:
        """The answer as far as it has come."""
        facts = self._facts()
        return replace(facts, answer=self._text or None, inner=facts.inner or self._inner)

    async def end(self, *, last: bool = True) -> None:
        """The answer has ended; not `last`: what follows is corrected as a text of its own."""
        self._inner |= not last
        if not (self._ended or self.done):
            self._ended = True
            self._ended_at = time.perf_counter()
            self._segments += self._cutter.end()
            await self._attempt(self._session.end())
            self._more.set()

    def check(self) -> None:
        """Look again whether the answer may be edited: something came that is not its text."""
        reason = None if self.done else eligibility.check(replace(self._facts(), answer=_BEGUN), self._policy)
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
        renumbered = self._numbering.changed - self._renumbered_before
        if self._whole is not None:
            renumbered += self._whole.renumbered
            return replace(self._whole, text=text, renumbered=renumbered)  # more may have come behind the end
        outcome = replace(self._judged(text), renumbered=renumbered)
        status, reason = self._stopped() or (outcome.status, outcome.reason)
        if self._ending is not None:
            status, reason = self._ending.status, self._ending.reason
            outcome = replace(outcome, correction=_charged(outcome.correction, self._ending.correction))
        reports = self._pipeline.extensions.report(self._policy, self._text, text)
        outcome = replace(outcome, status=status, reason=reason, text=text, ms=self._ms, reports=reports)
        return outcome if self._closed else spoken.marked(outcome, self._text, self._languages.known)

    def _judged(self, text: str) -> Outcome:
        """The outcome of an answer in place of which this text goes out."""
        tally = self._tally
        scores = self._verdicts_up_to(self.length)
        correction = Correction(text, scores, aligner=tally.aligner).with_cost_of(tally.corrections)
        reason = gate_reason(tally.refused, changed=self.changed)
        verdict = Verdict(text, reason, tally.edits, tuple(tally.refused), grounding=self._grounded.grounding)
        return judged(self._exchange(), self._text, self._policy, correction, None, verdict)

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
    def stopped(self) -> Outcome | None:
        """What became of an answer that was given up before all was judged, or held; without its text."""
        if self._closed is None:
            return self._whole
        status, reason = self._closed
        return Outcome(status, reason, None, self._policy)

    async def over(self) -> None:
        """Wait until nothing is to be decided any more."""
        await self._over.wait()

    @property
    def original(self) -> str:
        """The text as it came."""
        return self._text

    @property
    def replacements(self) -> ReplacementMap:
        """What is decided of it."""
        return self._replacements

    async def aclose(self) -> None:
        """Give up what is still worked on."""
        work = self._work
        self._work = None  # what ended it knows this text: together they would wait for the garbage collector
        if work is not None:
            work.cancel()
            await asyncio.wait({work})
        await self._session.aclose()

    async def _begin(self) -> bool:
        """Let the engine read along; False where the answer may not be edited."""
        if not await self._attempt(self._session.begin()):
            self.check()
        elif not self.done and (about := await self._pipeline.about(self._policy)):
            self._languages.known = about.languages
            self._tally.aligner = about.content_hash
        await self._attempt(self._read_references())
        return not self.done

    async def _read_references(self) -> None:
        async with asyncio.timeout(self._policy.deadline_s):
            await self._grounded.begin(self._facts().turns)

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
        if self._languages.must_not_go_out(self._text, self._segments, ended=self._ended):
            return self.close(Status.SKIPPED, spoken.LANGUAGE)
        try:
            held = self._at_once or not await self._judge()
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
            self._accept(verdicts, known)
        releasable = await self._read_again(known) if self._reading.is_due else len(self._verdicts)
        if await self._declined():
            return True
        await self._release_new(releasable)
        if self._ended and len(self._verdicts) == len(self._segments):
            await self._release(len(self._segments))
            if self._lacks and not self._verdicts[-1].flagged and not self.done:
                await self._add()
            self._finish()
        return True

    async def _read_again(self, known: int) -> int:
        """Flag what another reading of the new segments flags; how many segments may go out then."""
        progress = Progress(
            self._text, self._segments, self._verdicts, known, self._next, lambda: self.out(0, self._replacements.end)
        )
        is_last = self._ended and len(self._verdicts) == len(self._segments)
        releasable = len(self._verdicts) if is_last else self._reading.releasable(progress)
        more = await self._reading.further(self._exchange(), progress, releasable, self._tally.charge)
        if more:
            self._further |= more
            self._verdicts = self._with_further(self._verdicts)
            waiting = [number for number in (self._first_flagged, *more) if number is not None]
            if min(waiting) < self._looked_at:
                self._first_flagged = min(waiting)
        return releasable

    def _with_further(self, verdicts: tuple[SegmentScore, ...]) -> tuple[SegmentScore, ...]:
        """The verdicts with those of other readings."""
        if not self._further:
            return verdicts
        return tuple(self._further.get(number, verdict) for number, verdict in enumerate(verdicts))

    async def _release_new(self, releasable: int) -> None:
        """Release what is not flagged, and what is flagged before it. What waits for the next is looked at once."""
        if self._ended and self._next < len(self._segments):
            self._looked_at = min(self._looked_at, len(self._segments) - 1)  # the last one waits no longer
        for number in range(self._looked_at, releasable):
            self._looked_at = number + 1
            if not self._verdicts[number].flagged:
                await self._release(number)
            elif self._first_flagged is None:
                self._first_flagged = number

    async def _declined(self) -> bool:
        """Whether all is known and nothing remains; the whole is decided then, or what has not gone out of it."""
        ended = self._ended and len(self._verdicts) == len(self._segments) and not self._inner
        if not ended or self._policy.if_nothing_remains is IfNothingRemains.ORIGINAL:
            return False
        start = self._replacements.end
        nothing = declining.nothing_remains(self._verdicts, self.out(0, start))
        # What has gone out cannot be taken back, so a text behind it would help nobody.
        if not nothing and (
            start or not declining.more_of_the_same(self._verdicts, self._policy, self._policy.caution)
        ):
            return False
        if not start:
            await self._hold()
            return True
        deadline = time.monotonic() + self._policy.deadline_s
        self._ending = await self._pipeline.settled(self._judged(self.out(0, start)), self._exchange(), deadline)
        if outcomes.blocks(self._ending):
            self.close(Status.FAILED, str(self._ending.reason))
        else:
            self.changed = True
            self._replacements.add(self.length, f"\n\n{self._ending.text}")
            self._finish()
        return True

    @property
    def _lacks(self) -> bool:
        """Whether something is missing behind the last segment; in place of a flagged one comes that, too."""
        return self._behind is not None and self._behind.flagged

    def _accept(self, verdicts: tuple[SegmentScore, ...], known: int) -> None:
        """Keep new verdicts, which have to be on these segments and more than the `known` ones.

        After the end of the answer the engine adds a verdict without text: flagged, something is missing there.
        """
        count = len(self._segments)
        # What went out was compared before: a part of many short segments would be compared as often as it has some.
        undecided = range(min(known, self._next), min(len(verdicts), count))
        if len(verdicts) <= known or any(verdicts[n].text != self._segments[n].text for n in undecided):
            raise EngineFault("the engine judged other segments than these")
        self._verdicts = self._with_further(verdicts[:count])
        ended = self._ended and not self._inner
        self._behind = next((verdict for verdict in verdicts[count:] if ended and not verdict.text), None)

    def _verdicts_up_to(self, end: int) -> tuple[SegmentScore, ...]:
        """The verdicts on what there is up to `end`."""
        pairs = zip(self._verdicts, self._segments, strict=False)
        verdicts = [verdict for verdict, segment in pairs if segment.end <= end]
        if self._behind is not None and end == self.length:
            verdicts.append(self._behind)
        return tuple(verdicts)

    async def _release(self, number: int) -> None:
        """Decide what is flagged before segment `number`, and that one, which stays; there may be none.

        What heads or announces something waits for it: it goes with the last of it.
        """
        waits = number < len(self._segments) and self._waits(number)
        if self._first_flagged is not None:
            await self._edit(self._first_flagged, number, waits=waits)
            self._first_flagged = None
            self._next = number
        if number < len(self._segments) and not self.done and not waits:
            last = self._lacks and number == len(self._segments) - 1
            # What is to be added needs a character in whose place it goes out.
            end = self._segments[number].end - last
            if await self._looked_up(end):
                self._put(end)
                self._next = number + 1

    async def _looked_up(self, end: int) -> bool:
        """Let an editor look at what goes out next where references leave it in doubt; False if nothing may go out."""
        if not self._policy.references:
            return True
        deadline = time.monotonic() + self._policy.deadline_s
        editor = self._pipeline.fact_editor(self._exchange(), self._policy, deadline)
        use = await self._grounded.look(self._text, self._replacements.end, end, editor)
        if use is not None:
            self._tally.add(Correction("", editor=use))
        return not self.done

    def _waits(self, number: int) -> bool:
        """Whether the segment behind this one may take it along."""
        is_last = self._ended and number == len(self._segments) - 1
        return not is_last and depends_on_next(self._segments, number)

    def _put(self, end: int, text: str | None = None, gone: Collection[int] = ()) -> None:
        """`text` goes out in place of what is undecided up to `end`; None: it goes out as it is.

        The numbers of lists are brought up to date, of what has begun before `end` and was not there before.
        """
        start = self._replacements.end
        if end <= start:
            return
        first = self._numbered
        while self._numbered < len(self._segments) and self._segments[self._numbered].start < end:
            self._numbered += 1
        out = self._text[start:end] if text is None else text
        relative = {number - first for number in gone}
        out = self._numbering.renumber(self._segments[first : self._numbered], relative, out, ends=False)
        if whole_sentences(self._segments, first, self._numbered, start, end):
            held = self._grounded.passed(out, start)
            self.changed |= held != out
            out = held
        self._replacements.add(end, out)
        self._notify()

    async def _edit(self, first: int, stop: int, *, waits: bool) -> None:
        """Replace the flagged segments from `first` to `stop`, where the gate lets that pass."""
        run = self._segments[first:stop]
        skip = eligibility.check(self._exchange(), self._policy)
        if skip is SkipReason.REFUSAL:
            return self._put(run[-1].end)
        if skip is not None:
            return self.close(Status.SKIPPED, skip.value)
        last = stop == len(self._segments)
        end = self.length if last else self._segments[stop].end
        start = self._segments[first - 1].end if first else 0
        decided = self._replacements.end
        before = self.out(0, decided) + self._text[decided:start]
        correction = await self._rewritten(first, stop + (last and self._lacks), end, before)
        lead = self._text[start : run[0].start]
        edit = self._as_edit(first, stop, placed(run, lead, correction.text, begins=not start, last=last))
        removable = bool(correction.text) and removes_refused(self._policy)
        followed = await self._passed(edit, end, final=not removable)
        if followed is None and removable and not self.done:
            # What the gate refuses is removed; the passage is known to violate an objective.
            edit = self._as_edit(first, stop, placed(run, lead, "", begins=not start, last=last))
            followed = await self._passed(edit, end)
        if followed is None:
            return None if self.done else self._put(run[-1].end)
        gone = removed_segments(followed) - {
            part.index for parts in followed.values() for part in parts if part.remains
        }
        for edit, parts in sorted(followed.items(), key=lambda pair: pair[0]):
            edit = trim_edit(edit, self._segments) if waits and edit.last == stop else edit
            self._settled[edit] = parts
            self._put(edit.start)
            self.changed |= edit.text != self._text[edit.start : edit.end]
            self._put(edit.end, edit.text, gone)
        return None

    def _as_edit(self, first: int, stop: int, replaced: tuple[int, str]) -> Edit:
        """What was written in place of these segments, with the white space up to what follows, as an edit."""
        upto, text = replaced
        start = self._segments[first - 1].end if first else 0
        if stop < len(self._segments):
            behind = self._segments[stop].start
            return Edit(start, behind, text + self._text[upto:behind], first, stop)
        if self._behind is None or self._lacks:
            return Edit(start, self.length, text + self._text[upto:], first, stop + self._lacks)
        # The white space at the end belongs to the place behind the last segment, which stays.
        return Edit(start, self._segments[-1].end, text.rstrip(), first, stop)

    async def _add(self) -> None:
        """Put what is missing behind the last segment, where the gate lets that pass; its last character waits."""
        if eligibility.check(self._exchange(), self._policy) is not None:
            return
        count = len(self._segments)
        end = self.length
        rest = self._text[self._replacements.end :]
        kept = rest.rstrip()
        correction = await self._rewritten(count, count + 1, end, self.out(0, self._replacements.end) + kept)
        edit = Edit(self._segments[-1].end, end, correction.text + rest[len(kept) :], count, count + 1)
        if correction.text and await self._passed(edit, end) is not None:
            self.changed = True
            self._put(end, kept + edit.text)

    async def _rewritten(self, first: int, stop: int, end: int, before: str) -> Correction:
        """What the engine writes in place of these segments."""
        objective = self._behind.objective if self._behind else None
        seconds = self._policy.deadline_s
        span = Span(first=first, stop=stop, end=end, before=before, deadline_s=seconds, objective=objective)
        async with asyncio.timeout(seconds):
            correction = await self._session.replace(span, again=self._replacements.end > 0)
        correction = correction.deliverable
        self._tally.add(correction)
        return correction

    async def _passed(self, edit: Edit, end: int, *, final: bool = True) -> Followed | None:
        """The edit as the gate lets it go out in an answer of which `end` characters are known; None: it does not.

        Not `final`: where the gate refuses it, another one will be tried in its place.
        """
        if edit.text == self._text[edit.start : edit.end]:
            return {}
        settled = Settled(self._next, dict(self._settled))
        with stage("gate"):
            refusal, followed = await judge_next_in_thread(
                self._text[:end], edit, self._verdicts_up_to(end), settled, self._policy
            )
        if self.done or (refusal and not final):
            return None
        self._tally.judge(refusal)
        if refusal and outcomes.blocks(Outcome(Status.UNCHANGED, f"gate_{refusal}", None, self._policy)):
            self.close(Status.FAILED, f"gate_{refusal}")
        return None if refusal else followed

    async def _hold(self) -> None:
        """There are no verdicts before the end: wait for it and decide the whole at once."""
        while not self._ended:
            self._more.clear()
            await self._more.wait()
        policy = self._policy
        if self._inner:  # nothing can be said of a part by itself
            policy = replace(policy, if_nothing_remains=IfNothingRemains.ORIGINAL)
        whole = await self._pipeline.align(self._exchange(), policy, await self._session.hold())
        if self.done:  # it went out as it is meanwhile
            return
        self._whole = whole
        if whole.text is not None:
            # Lists may go on from the part before or into the next one.
            text = self._numbering.continue_lists(self._text, whole.text) if self._inner else whole.text
            self.changed = text != self._text
            self._replacements.add(self.length, text)
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
        self._over.set()
        self._notify()
