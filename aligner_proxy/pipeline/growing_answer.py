"""Correction of an answer that goes out while it is being written, however long it is.

An answer no longer than a policy corrects at once is one part (answer_part.py). A longer one is cut into several parts
(part_splitter.py). The next part starts when this one is decided; until then `feed` blocks (backpressure). A text that
may be JSON or other data is not cut: it stays one part, up to `max_answer_chars`. `max_answer_chars` and
`on_skip.too_long` decide whether a longer text is corrected. If a part calls a tool, nothing after it is edited.
"""

from __future__ import annotations

import io
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
from aligner_proxy.types import Correction, Exchange, Outcome, Policy, SkipReason, Status, all_cached

_TURN_CHARS = 2_000
"""Characters processed before other tasks get a turn of the event loop."""
_LINE_CHARS = 1_000
"""Length to which an unfinished line is cut before the splitter reads it to find the end of its sentence."""


@dataclass(frozen=True, slots=True)
class DecidedPart:
    """A part of which it is known what goes out for all of its text."""

    start: int
    """Offset in the whole text at which the part begins."""
    original: str
    replacements: ReplacementMap
    outcome: Outcome

    @property
    def end(self) -> int:
        """Offset of the first character after the part."""
        return self.start + len(self.original)

    def render(self, start: int, end: int) -> str:
        """What goes out for the characters `start` to `end`, which are offsets in the part."""
        return self.replacements.render(start, end, self.original)


class UncorrectedRest:
    """The rest of a text after the correction was given up; it goes out unchanged.

    `start` is the offset in the whole text at which the rest begins.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        """Offset in the whole text after the last character received."""
        self._text = io.StringIO()

    def append(self, piece: str) -> None:
        """Add a piece that came after the others."""
        self._text.seek(0, io.SEEK_END)
        self.end += self._text.write(piece)

    def render(self, start: int, end: int) -> str:
        """The characters from `start` to `end`, which are offsets in the whole text."""
        self._text.seek(start - self.start)
        return self._text.read(max(0, end - start))


class GrowingAnswer:
    """Corrects one text as it grows. Text is decided once it is known what goes out for it.

    The text is a row of parts: decided parts, the present part, which is still being corrected, and, if the correction
    was given up, the rest, which goes out unchanged.

    Satisfies `StreamText`. Positions are character offsets into the upstream's text. `get_facts` returns the exchange
    as known so far, whose text does not count. `notify` is called whenever more of the text is decided.
    `hold_until_end` says whether each part is corrected as a whole at its end, not segment by segment. `texts` decides
    about all texts of the answer together; None if this is the only text.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: Policy,
        get_facts: Callable[[], Exchange],
        notify: Callable[[], None],
        *,
        hold_until_end: bool = False,
        texts: GrowingTexts | None = None,
    ) -> None:
        self._policy = policy
        part_chars = longest_part(policy)
        # The splitter ends a part after `part_chars`, or after the word in which it reaches them. A word may have
        # `LONGEST_WORD` times as many characters, so the policy of a part must allow that many more.
        max_part_chars = policy.max_answer_chars + part_chars * (LONGEST_WORD + 1)
        self._open_part = partial(
            AnswerPart,
            pipeline,
            replace(policy, max_answer_chars=max_part_chars),
            get_facts,
            notify,
            hold_until_end=hold_until_end or not pipeline.can_release_segments(policy),
            numbering=Numbering(),
            reading=GrowingReading(policy, pipeline.score),
            texts=texts,
        )
        """Opens a part of the answer; `is_continuation` says whether other parts come before it."""
        self.length = 0
        """Number of characters received so far."""
        self._decided_parts: list[DecidedPart] = []
        """The parts before the present part, in order."""
        self._present = self._open_part(is_continuation=False)
        """The part that takes the text that comes now."""
        self._splitter = PartSplitter(part_chars)
        self._rest: UncorrectedRest | None = None
        """The text that came after the correction was given up; None if it was not given up."""
        self._stop_outcome: Outcome | None = None
        """The status and reason with which the correction was given up; None if it was not given up."""
        self._has_changed_part = False
        """Whether the output of a decided part differs from the original."""
        self.has_ended = False
        self._has_text_after_end = False
        """Whether text came after the end, which goes out unjudged unless the answer was replaced."""
        self._time = TimeSlice()
        """Gives other tasks a turn of the event loop while a long piece is processed."""

    @property
    def _start(self) -> int:
        """Offset at which the present part begins."""
        return self._decided_parts[-1].end if self._decided_parts else 0

    async def feed(self, piece: str) -> None:
        """Take more of the answer. If this ends a part, wait until the part is decided (backpressure)."""
        self.length += len(piece)
        self._has_text_after_end |= self.has_ended
        for start in range(0, len(piece), _TURN_CHARS):
            await self._feed(piece[start : start + _TURN_CHARS])
            await self._time.pause()

    async def _feed(self, piece: str) -> None:
        """Divide a piece among the parts, ending a part where the splitter yields an `Edge`."""
        for text_or_edge in self._splitter.cut(piece):
            if text_or_edge is Edge.NOWHERE:
                self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
            elif text_or_edge is Edge.HERE:
                await self._begin_next_part()
            elif self._rest is not None:
                self._rest.append(text_or_edge)
            else:
                await self._present.feed(text_or_edge)
                # JSON and other data are not cut, so their only part may be as long as a whole answer
                if self._splitter.is_at_edge and not self._decided_parts and self._present.may_be_structured:
                    self._splitter.widen(self._policy.max_answer_chars)

    def hasten_part(self) -> None:
        """Let the present part end with its unfinished sentence. Called when the buffer for held-back text is full.

        If the only part so far may be JSON or other data, its correction is given up, because half of it cannot be
        judged.
        """
        if self.done or self.has_ended or self.is_hastened or not self._present.length:
            return
        if not self._decided_parts and self._present.may_be_structured:
            self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
        else:
            # the splitter needs the unfinished line to recognise the end of its sentence
            recent_text = self._present.original[-_LINE_CHARS:]
            unfinished_line = recent_text[recent_text.rfind("\n") + 1 :]
            self._splitter.hasten(unfinished_line)

    @property
    def is_hastened(self) -> bool:
        """Whether the present part ends before the next sentence."""
        return self._splitter.is_hastened and self._splitter.is_open

    async def _begin_next_part(self) -> None:
        """End the present part, wait until it is decided, and begin the next one.

        The correction is given up instead if the only part so far may be data, or if the answer is too long.
        """
        may_be_data = not self._decided_parts and self._present.may_be_structured
        if may_be_data or is_blocked(self._policy, self.length):
            self.close(Status.SKIPPED, SkipReason.TOO_LONG.value)
            return
        present = self._present
        await present.end(is_last=False)
        await present.wait_until_over()
        # There is no await up to `close`, so that other tasks see either the old part or the new one, never a new part
        # after a failure of the old one.
        self._has_changed_part |= present.replacements.is_changed
        decided_part = DecidedPart(self._start, present.original, present.replacements, present.outcome())
        self._decided_parts.append(decided_part)
        self._present = self._open_part(is_continuation=True)
        stop_outcome = present.stopped
        # a tool call may go on in the next part, whose own text would not show that
        if stop_outcome is not None and (
            stop_outcome.status is Status.FAILED
            or stop_outcome.reason == SkipReason.TOOL_CALLS
            or outcomes.blocks(stop_outcome)
        ):
            self.close(stop_outcome.status, str(stop_outcome.reason))
        # Run to the end even if the client disconnects now, because nothing else has a reference to close this part.
        await run_to_end(present.aclose())
        await self._feed(self._splitter.restart())

    async def end(self) -> None:
        """End the answer: the present part takes the text that the splitter held back, and ends."""
        if not self.has_ended:
            held_text = self._splitter.take_back() if self._rest is None else ""
            if held_text:
                await self._present.feed(held_text)
            self._splitter.is_open = False
            self.has_ended = True
            await self._present.end()

    async def wait_until_over(self) -> None:
        """Wait until everything is decided, once the answer has ended."""
        if self._rest is None:
            await self._present.wait_until_over()

    def check(self) -> None:
        """Give up if the answer may no longer be edited; called when something other than text arrived."""
        self._present.check()

    def close(self, status: Status, reason: str) -> None:
        """Give up the correction: all undecided text goes out unchanged."""
        if self.done or self._rest is not None:
            return
        self._stop_outcome = Outcome(status, reason, None, self._policy)
        self._present.close(status, reason)
        self._rest = UncorrectedRest(self._start + self._present.length)
        self._rest.append(self._splitter.take_back())
        self._splitter.is_open = False

    @property
    def done(self) -> bool:
        """Whether everything is decided: all text that came, and any text that may still come."""
        return self._rest is not None or (self.has_ended and self._present.done)

    @property
    def has_output(self) -> bool:
        has_part_output = any(part.replacements.has_text for part in self._decided_parts) or self._present.has_output
        return has_part_output or (self._rest is not None and self._rest.end > self._rest.start)

    @property
    def changed(self) -> bool:
        return self._has_changed_part or self._present.replacements.is_changed

    def edits_after(self, count: int) -> list[tuple[str, str]]:
        """(original passage, the text that goes out in its place) of every edit except the first `count`."""
        parts = [(part.original, part.replacements) for part in self._decided_parts]
        parts.append((self._present.original, self._present.replacements))
        # this is called for every event of a stream, and most events bring no edit, so the edits are counted first
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
        """The outcome of an answer that was corrected as a whole, or given up, which has no text; otherwise None."""
        return self._stop_outcome or self._present.stopped

    def is_decided(self, end: int) -> bool:
        """Whether the output for the first `end` characters is decided."""
        if self.done:
            return True
        end_in_part = end - self._start
        # text that the splitter holds back belongs to no part yet
        return end_in_part <= self._present.length and self._present.is_decided(end_in_part)

    def render(self, start: int, end: int) -> str:
        """What goes out for the characters `start` to `end`, all of which must be decided."""
        return "".join(self._render_pieces(start, end))

    def _render_pieces(self, start: int, end: int) -> Iterator[str]:
        """Yield what goes out for the characters `start` to `end` of the text, part by part."""
        # begins with the decided part that has the character at `start`; a part counts offsets from its own beginning
        first = max(0, bisect_right(self._decided_parts, start, key=lambda part: part.start) - 1)
        for part in self._decided_parts[first:]:
            if part.start < end and start < part.end:
                yield part.render(max(start, part.start) - part.start, min(end, part.end) - part.start)
        present_start = self._start
        present_end = present_start + self._present.length
        if end > present_start:
            yield self._present.render(max(start, present_start) - present_start, min(end, present_end) - present_start)
        if self._rest is not None and end > present_end:
            # the rest takes offsets in the whole text
            yield self._rest.render(max(start, present_end), end)

    def outcome(self) -> Outcome:
        """The outcome of the answer, once the stream has ended."""
        outcome = self._outcome_of_parts()
        if not self._has_text_after_end or outcome.status is Status.FAILED or self._present.is_answer_replaced:
            return outcome
        status = Status.CORRECTED if outcome.status is Status.CORRECTED else Status.SKIPPED
        return replace(outcome, status=status, reason=SkipReason.INCONSISTENT.value)

    def _outcome_of_parts(self) -> Outcome:
        """The outcome of all parts together, whether or not text came after the end."""
        text = self.render(0, self.length)
        present_outcome = self._present.outcome()
        if not self._decided_parts:
            return replace(present_outcome, text=text)
        part_outcomes = [part.outcome for part in self._decided_parts]
        if self._present.length:
            part_outcomes.append(present_outcome)
        combined_outcome = _combine_outcomes(part_outcomes, self._stop_outcome, self._policy, text)
        # The client waited only for the last part: the others were decided while the upstream was still writing.
        return replace(combined_outcome, ms=present_outcome.ms)

    async def aclose(self) -> None:
        """Cancel the work in progress."""
        await self._present.aclose()


def _combine_outcomes(part_outcomes: list[Outcome], stop_outcome: Outcome | None, policy: Policy, text: str) -> Outcome:
    """One outcome for all parts of an answer for which `text` goes out, with their costs and counts summed up.

    `stop_outcome` has the status and reason with which the correction was given up; None if it was not.
    """
    corrections = [part.correction for part in part_outcomes if part.correction is not None]
    combined_correction = Correction(
        text,
        tuple(segment for correction in corrections for segment in correction.segments),
        aligner=next((correction.aligner for correction in corrections if correction.aligner), ""),
    )
    status, reason = _combine_status(part_outcomes if stop_outcome is None else [*part_outcomes, stop_outcome])
    return Outcome(
        status=status,
        reason=reason,
        text=text,
        policy=policy,
        cache_hit=all_cached(part.cache_hit for part in part_outcomes),
        correction=combined_correction.with_cost_of(corrections) if corrections else None,
        edited=text,
        edits=sum(part.edits for part in part_outcomes),
        dropped=tuple(rule for part in part_outcomes for rule in part.dropped),
        renumbered=sum(part.renumbered for part in part_outcomes),
        findings=tuple(finding for part in part_outcomes for finding in part.findings),
        attempts=max(part.attempts for part in part_outcomes),
    )


def _combine_status(part_outcomes: list[Outcome]) -> tuple[Status, str | None]:
    """(status, reason) of all parts together.

    The status is the first of failed, corrected, not judged and unchanged that a part has; otherwise skipped. The
    reason is the first reason of any part, but that of a failed part if there is one: then not all was judged.
    """
    failed_part = next((part for part in part_outcomes if part.status is Status.FAILED), None)
    if failed_part is not None:
        return Status.FAILED, failed_part.reason
    # a part of white space alone (`EMPTY`) says nothing about the answer
    reasons = (part.reason for part in part_outcomes if part.reason not in (None, SkipReason.EMPTY.value))
    for status in (Status.CORRECTED, Status.NOT_JUDGED, Status.UNCHANGED):
        if any(part.status is status for part in part_outcomes):
            return status, next(reasons, None)
    return Status.SKIPPED, next(reasons, SkipReason.EMPTY.value)
