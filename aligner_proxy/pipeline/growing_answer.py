"""Correction of an answer that goes out while it is being written, however long it is.

An answer no longer than a policy corrects at once is one part (answer_part.py). A longer one is cut into several parts
(part_splitter.py). The next part starts when this one is decided; until then `feed` blocks (backpressure). A text that
may be JSON or other data is not cut: it stays one part, up to `max_answer_chars`. `max_answer_chars` and
`on_skip.too_long` decide whether a longer text is corrected. Where a part calls a program, nothing behind it is edited.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from aligner_proxy.concurrency import TimeSlice, run_to_end
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.answer_part import AnswerPart
from aligner_proxy.pipeline.answer_texts import GrowingTexts
from aligner_proxy.pipeline.part_splitter import LONGEST_WORD, Edge, PartSplitter, is_blocked, longest_part
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.pipeline.second_reading import GrowingReading
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.types import (
    Correction,
    Exchange,
    Outcome,
    Policy,
    SkipReason,
    Status,
    all_cached,
)

_AT_ONCE = 2_000
"""Characters processed before other tasks get a turn of the event loop."""
_LINE_CHARS = 1_000
"""Characters of a line that suffice to know whether a sentence has ended in it."""


@dataclass(frozen=True, slots=True)
class DecidedPart:
    """A part that is completely decided."""

    start: int
    original: str
    replacements: ReplacementMap
    outcome: Outcome

    @property
    def end(self) -> int:
        """Offset of the first character after the part."""
        return self.start + len(self.original)

    def render(self, start: int, end: int) -> str:
        """The output for these characters of the part."""
        return self.replacements.render(start, end, self.original)


class UncorrectedRest:
    """The rest of a text after the correction was given up; it goes out unchanged.

    `start` is the offset in the whole text at which the rest begins.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        """Offset in the whole text after the last character received."""
        self._piece_starts: list[int] = []
        """Offset in the whole text of each piece, ascending."""
        self._pieces: list[str] = []

    def append(self, piece: str) -> None:
        """Add a piece that came after the others."""
        self._piece_starts.append(self.end)
        self._pieces.append(piece)
        self.end += len(piece)

    def render(self, start: int, end: int) -> str:
        """The characters from `start` to `end` of the text."""
        if not self._piece_starts:
            return ""
        # from the piece that holds the character at `start`
        first = max(0, bisect_right(self._piece_starts, start) - 1)
        # up to the piece that holds the last of these characters
        last = max(first + 1, bisect_right(self._piece_starts, max(start, end - 1)))
        origin = self._piece_starts[first]
        return "".join(self._pieces[first:last])[max(0, start - origin) : max(0, end - origin)]


class GrowingAnswer:
    """Corrects one text as it grows. Satisfies `StreamText`; positions are character offsets into the original.

    `facts` returns everything known about the answer besides its text. `notify` is called whenever more of the text is
    decided. With `whole`, each part is decided at its end, not segment by segment. `texts` are all texts of the answer
    if there may be others.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: Policy,
        facts: Callable[[], Exchange],
        notify: Callable[[], None],
        *,
        whole: bool = False,
        texts: GrowingTexts | None = None,
    ) -> None:
        self._policy = policy
        limit = longest_part(policy)
        self._new_part = partial(
            AnswerPart,
            pipeline,
            # The splitter enforces the length of a part. The limit here is larger, because the last word may exceed
            # that length.
            replace(policy, max_answer_chars=policy.max_answer_chars + limit * (LONGEST_WORD + 1)),
            facts,
            notify,
            whole=whole or not pipeline.can_release_segments(policy),
            numbering=Numbering(),
            reading=GrowingReading(policy, pipeline.score),
            texts=texts,
        )
        """Opens a part of the answer; `inner` says whether it begins in the middle."""
        self.length = 0
        """Number of characters of the original received so far."""
        self._decided: list[DecidedPart] = []
        """The parts before the present one, in order."""
        self._present = self._new_part(inner=False)
        """The part that takes the text that comes now."""
        self._splitter = PartSplitter(limit)
        self._rest: UncorrectedRest | None = None
        """The text that comes after the correction was given up; None while it goes on."""
        self._closed: Outcome | None = None
        """The status and reason with which the correction was given up; None while it goes on."""
        self._changed = False
        """Whether the output of a decided part differs from the original."""
        self.has_ended = False
        self._goes_on = False
        """Whether text came after the end, which goes out unjudged unless the answer was replaced."""
        self._time = TimeSlice()
        """Gives other tasks a turn of the event loop while a long piece is processed."""

    @property
    def _start(self) -> int:
        """Offset at which the present part begins."""
        return self._decided[-1].end if self._decided else 0

    async def feed(self, piece: str) -> None:
        """Take more of the answer; blocks until the part before the present one is decided."""
        self.length += len(piece)
        self._goes_on |= self.has_ended
        for start in range(0, len(piece), _AT_ONCE):
            await self._feed(piece[start : start + _AT_ONCE])
            await self._time.pause()

    async def _feed(self, piece: str) -> None:
        """Divide a piece among the parts, ending a part where the splitter says so."""
        for text in self._splitter.cut(piece):
            if text is Edge.NOWHERE:
                self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
            elif text is Edge.HERE:
                await self._begin_next_part()
            elif self._rest is not None:
                self._rest.append(text)
            else:
                await self._present.feed(text)
                # data are not cut, so their only part may be as long as a whole answer
                if self._splitter.is_at_edge and not self._decided and self._present.may_be_structured:
                    self._splitter.widen(self._policy.max_answer_chars)

    def hasten_part(self) -> None:
        """Let the present part end with the sentence that it is in, since there is no room to wait longer.

        A text that may be JSON or other data is given up, as half of it cannot be judged.
        """
        if self.done or self.has_ended or self.is_hastened or not self._present.length:
            return
        if not self._decided and self._present.may_be_structured:
            self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
        else:
            recent = self._present.original[-_LINE_CHARS:]
            self._splitter.hasten(recent[recent.rfind("\n") + 1 :])

    @property
    def is_hastened(self) -> bool:
        """Whether the present part ends as soon as more of the text brings the end of a sentence."""
        return self._splitter.is_hastened and self._splitter.is_open

    async def _begin_next_part(self) -> None:
        """End the present part, wait until it is decided, and begin the next one.

        The answer is given up instead if its text may be data, or is too long to be corrected.
        """
        is_data = not self._decided and self._present.may_be_structured
        if is_data or is_blocked(self._policy, self.length):
            self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
            return
        present = self._present
        await present.end(last=False)
        await present.wait_until_over()
        # No await from here on, so that other tasks see either the old part or the new one, and any failure of the old
        # one.
        self._changed |= present.replacements.is_changed
        self._decided.append(DecidedPart(self._start, present.original, present.replacements, present.outcome()))
        self._present = self._new_part(inner=True)
        stopped = present.stopped
        # a tool call may go on in the next part, whose own text does not look like one
        is_final = stopped is not None and (stopped.status is Status.FAILED or stopped.reason == SkipReason.TOOL_CALLS)
        if stopped is not None and (is_final or outcomes.blocks(stopped)):
            self.close(stopped.status, str(stopped.reason))
        # Run to the end even if the client disconnects now: nothing else holds a reference that could close this part.
        await run_to_end(present.aclose())
        await self._feed(self._splitter.restart())

    async def end(self) -> None:
        """End the answer: the present part takes what the splitter held back, and ends."""
        if not self.has_ended:
            if self._rest is None and (held_text := self._splitter.take_back()):
                await self._present.feed(held_text)
            self._splitter.is_open = False
            self.has_ended = True
            await self._present.end()

    async def wait_until_over(self) -> None:
        """Wait until everything is decided, once the answer has ended."""
        if self._rest is None:
            await self._present.wait_until_over()

    def check(self) -> None:
        """Check again whether the answer may be edited, because something other than text arrived."""
        self._present.check()

    def close(self, status: Status, reason: str) -> None:
        """Give up the correction: all undecided text goes out unchanged."""
        if self.done or self._rest is not None:
            return
        self._closed = Outcome(status, reason, None, self._policy)
        self._present.close(status, reason)
        self._rest = UncorrectedRest(self._start + self._present.length)
        self._rest.append(self._splitter.take_back())
        self._splitter.is_open = False

    @property
    def done(self) -> bool:
        """Whether everything is decided: what came, and whatever may still come."""
        return self._rest is not None or (self.has_ended and self._present.done)

    @property
    def has_output(self) -> bool:
        decided = any(part.replacements.has_text for part in self._decided) or self._present.has_output
        return decided or (self._rest is not None and self._rest.end > self._rest.start)

    @property
    def changed(self) -> bool:
        return self._changed or self._present.replacements.is_changed

    def edits_after(self, count: int) -> list[tuple[str, str]]:
        """(original passage, what goes out in its place) of every edit except the first `count`."""
        parts = [(part.original, part.replacements) for part in self._decided]
        parts.append((self._present.original, self._present.replacements))
        # ends early, because this is called for every event, and hardly any brings a new edit
        if sum(len(replacements.changed_ranges) for _, replacements in parts) == count:
            return []
        edits = [
            (original[start:end], replacements.render(start, end, original))
            for original, replacements in parts
            for start, end in replacements.changed_ranges
        ]
        return edits[count:]

    @property
    def stopped(self) -> Outcome | None:
        """The outcome, without its text, if the answer was held, or given up before all was judged; otherwise None."""
        return self._closed or self._present.stopped

    def is_decided(self, end: int) -> bool:
        """Whether the output for the first `end` characters is decided."""
        if self.done:
            return True
        end_in_part = end - self._start
        # what the splitter holds back belongs to no part yet
        return end_in_part <= self._present.length and self._present.is_decided(end_in_part)

    def render(self, start: int, end: int) -> str:
        """The output for these characters of the original, all of which must be decided."""
        return "".join(self._render_pieces(start, end))

    def _render_pieces(self, start: int, end: int) -> Iterator[str]:
        """Yield the output of the decided parts, of the present part, and of the rest, within this range."""
        # from the decided part that holds the character at `start`; offsets become relative to each part
        first = max(0, bisect_right(self._decided, start, key=lambda part: part.start) - 1)
        for part in self._decided[first:]:
            if part.start < end and start < part.end:
                yield part.render(max(start, part.start) - part.start, min(end, part.end) - part.start)
        last = self._start + self._present.length
        if end > self._start:
            yield self._present.render(max(start, self._start) - self._start, min(end, last) - self._start)
        if self._rest is not None and end > last:
            yield self._rest.render(max(start, last), end)

    def outcome(self) -> Outcome:
        """The outcome of the answer, once the stream has ended."""
        outcome = self._outcome_of_parts()
        if not self._goes_on or outcome.status is Status.FAILED or self._present.is_answer_replaced:
            return outcome
        status = Status.CORRECTED if outcome.status is Status.CORRECTED else Status.SKIPPED
        return replace(outcome, status=status, reason=SkipReason.INCONSISTENT.value)

    def _outcome_of_parts(self) -> Outcome:
        """The outcome of all that came before the end."""
        text = self.render(0, self.length)
        present = self._present.outcome()
        if not self._decided:
            return replace(present, text=text)
        parts = [part.outcome for part in self._decided]
        if self._present.length:
            parts.append(present)
        # The client waited only for the last part: the others were decided while the upstream was still writing.
        return replace(_combine_outcomes(parts, self._closed, self._policy, text), ms=present.ms)

    async def aclose(self) -> None:
        """Cancel the work in progress."""
        await self._present.aclose()


def _combine_outcomes(parts: list[Outcome], closed: Outcome | None, policy: Policy, text: str) -> Outcome:
    """One outcome for all parts of an answer: costs and counts summed up; `closed` says why it was given up."""
    corrections = [part.correction for part in parts if part.correction is not None]
    combined = Correction(
        text,
        tuple(segment for correction in corrections for segment in correction.segments),
        aligner=next((correction.aligner for correction in corrections if correction.aligner), ""),
    )
    status, reason = _combine_status(parts if closed is None else [*parts, closed])
    return Outcome(
        status=status,
        reason=reason,
        text=text,
        policy=policy,
        cache_hit=all_cached(part.cache_hit for part in parts),
        correction=combined.with_cost_of(corrections) if corrections else None,
        edited=text,
        edits=sum(part.edits for part in parts),
        dropped=tuple(rule for part in parts for rule in part.dropped),
        renumbered=sum(part.renumbered for part in parts),
        findings=tuple(finding for part in parts for finding in part.findings),
        attempts=max(part.attempts for part in parts),
    )


def _combine_status(parts: list[Outcome]) -> tuple[Status, str | None]:
    """The status and reason of all parts together: those of the first failed part, else of a corrected one, and so on.

    A failure counts most, because then not all of the answer was judged.
    """
    failed_part = next((part for part in parts if part.status is Status.FAILED), None)
    if failed_part is not None:
        return Status.FAILED, failed_part.reason
    # a part of white space alone says nothing about the answer
    reasons = (part.reason for part in parts if part.reason not in (None, SkipReason.EMPTY.value))
    for status in (Status.CORRECTED, Status.NOT_JUDGED, Status.UNCHANGED):
        if any(part.status is status for part in parts):
            return status, next(reasons, None)
    if any(part.status is Status.SKIPPED for part in parts):
        return Status.SKIPPED, next(reasons, SkipReason.EMPTY.value)
    return Status.SKIPPED, SkipReason.EMPTY.value
