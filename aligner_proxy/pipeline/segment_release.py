"""Release of the judged segments of a growing answer, in order; released text is never taken back.

An unflagged segment goes out unchanged. A flagged run (consecutive flagged segments) is replaced once the first
unflagged segment after it is known. If the gate refuses the replacement, the run is removed or goes out unchanged. A
heading or announcement waits for the segments that it announces, because it is removed if they all are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from functools import partial

from aligner_proxy.engine.api import Span
from aligner_proxy.gate.completion import EditEffects, removed_segments, trim_edit
from aligner_proxy.gate.edits import ClosedAnswer, Edit, Part
from aligner_proxy.gate.judge import ReleasedAnswer, judge_next_in_thread
from aligner_proxy.observability.tracing import stage
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.part_state import PartState
from aligner_proxy.pipeline.pipeline import StageList
from aligner_proxy.pipeline.refused_edits import removes_refused
from aligner_proxy.pipeline.replacements import place_replacement
from aligner_proxy.pipeline.resumable_session import ResumableSession
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.plugins.stage import Outgoing, Stop
from aligner_proxy.text.lists.frames import is_frame
from aligner_proxy.text.lists.lines import find_line_start
from aligner_proxy.text.lists.open_lines import depends_on_next, is_table_rule, is_underline, may_be_underlined
from aligner_proxy.types import Correction, Outcome, SkipReason, Status

_LINE_CHARS = 100
"""Number of a line's characters that suffice to tell whether it may underline the heading above it."""


class SegmentRelease:
    """Decides what goes out for the segments of one part. Segments are known by their number, from 0."""

    def __init__(self, state: PartState, stages: StageList, session: ResumableSession) -> None:
        self._state = state
        self._stages = stages
        self._session = session
        self._examined_count = 0
        """Number of segments that were examined, so that each is examined once and not again with every new segment."""
        self._first_flagged: int | None = None
        """Number of the first flagged segment that is not decided; None if there is none."""
        self._held_lines: list[int] = []
        """Numbers of the unflagged headings and announcements behind the flagged run that wait for more text."""
        self._edits: dict[Edit, tuple[Part, ...]] = {}
        """The edits that have gone out and that the gate may read again, each with its effects."""
        self._closed_answer = ClosedAnswer()
        """What the gate has found out about the beginning of the answer, so that it need not read it again."""
        self._begun_count = 0
        """Number of segments of which at least the beginning went out."""
        self._next_gap: str | None = None
        """The white space that an edit has left before the next text; None if the original's stays."""

    def note_flagged(self, flagged_numbers: Iterable[int]) -> None:
        """Note that a second reading flags these segments, none of which has gone out."""
        waiting_numbers = [number for number in (self._first_flagged, *flagged_numbers) if number is not None]
        # segments that were not examined yet are found by `release`
        if waiting_numbers and min(waiting_numbers) < self._examined_count:
            self._first_flagged = min(waiting_numbers)

    async def release(self, releasable_count: int) -> None:
        """Release new unflagged segments, and the flagged runs before them, among the first `releasable_count`."""
        state = self._state
        if state.received.has_ended and state.received.decided < len(state.received.segments):
            # The last segment may have waited for the next one. None comes now, so it is examined again.
            self._examined_count = min(self._examined_count, len(state.received.segments) - 1)
        for number in range(self._examined_count, releasable_count):
            self._examined_count = number + 1
            if self._ends_flagged_line(number):
                continue
            is_flagged = state.verdicts.all[number].flagged
            if not is_flagged:
                if self._first_flagged is not None and self._needs_more_text(number):
                    self._held_lines.append(number)
                else:
                    await self._release_up_to(number)
                continue
            # another run begins behind the held lines, so the run before them and the lines are decided now
            if self._held_lines:
                await self._release_up_to(self._held_lines[-1])
            if self._first_flagged is None:
                self._first_flagged = number

    async def release_rest(self) -> None:
        """Release the rest of an ended and judged part, and add a missing text after its last segment."""
        state = self._state
        await self._release_up_to(len(state.received.segments))
        if state.verdicts.is_end_missing and not state.verdicts.all[-1].flagged and not state.is_over:
            await self._add_end()
        await self.finish()

    async def finish(self) -> None:
        """Send the final white space unchanged and mark the part as over."""
        state = self._state
        if not state.is_over:
            await self._send_text(state.received.length)
        if not state.is_over:
            state.seal()

    async def _release_up_to(self, number: int) -> None:
        """Decide the flagged run before segment `number`, and this unflagged segment, unless it waits for the next.

        If `number` is the number of all segments, it stands for the end of the part.
        """
        state = self._state
        segments = state.received.segments
        is_end = number == len(segments)
        waits = not is_end and self._waits_for_next(number)
        if self._first_flagged is not None:
            # the held lines follow the run directly, so the run stops before the first of them
            stop = min([number, *self._held_lines])
            end = state.received.length if is_end else segments[number].end
            await self._edit_rows(self._first_flagged, stop, end, waits=waits)
            self._first_flagged = None
            self._held_lines.clear()
            state.received.decided = stop
        if not is_end and not state.is_over and not waits:
            # A text that is missing after the last segment is added as a replacement, which needs a character to
            # replace: the last one of the segment is held back for it.
            holds_back = state.verdicts.is_end_missing and number == len(segments) - 1
            await self._send_text(segments[number].end - (1 if holds_back else 0))
            state.received.decided = number + 1

    def _needs_more_text(self, number: int) -> bool:
        """Whether only the text after this unflagged segment will show if a heading above the flagged run stays.

        The heading stays if more of its section follows an announcement. It goes if the segment is another heading,
        which may show only in the underline below it.
        """
        segments = self._state.received.segments
        is_open = is_frame(segments[number].text) or is_underline(segments, number)
        return is_open or may_be_underlined(segments, number, self._text_behind(number))

    def _text_behind(self, number: int) -> str:
        """Up to `_LINE_CHARS` characters after a segment and the white space behind it, as far as they have come."""
        received = self._state.received
        segment = received.segments[number]
        start = segment.end + len(segment.gap)
        return received.text[start : start + _LINE_CHARS]

    def _ends_flagged_line(self, number: int) -> bool:
        """Whether a segment ends a line that is all flagged: the bar of a table row, the underline of a heading, or the
        rule below the first row of a table.

        Such a segment is not decided before more text comes: the head of a table goes only if no row is left.
        """
        segments = self._state.received.segments
        ends_row = not segments[number].text.strip("| ")
        ends_line_above = is_underline(segments, number) or is_table_rule(segments, number)
        if self._first_flagged is None or not (ends_row or ends_line_above):
            return False
        line_start = find_line_start(segments, number if ends_row else number - 1)
        with_words = [i for i in range(line_start, number) if segments[i].text.strip("| ")]
        return bool(with_words) and all(self._state.verdicts.all[i].flagged for i in with_words)

    def _waits_for_next(self, number: int) -> bool:
        """Whether this segment depends on the next one, as a heading does, and so cannot go out yet."""
        received = self._state.received
        is_last = received.has_ended and number == len(received.segments) - 1
        return not is_last and depends_on_next(received.segments, number, self._text_behind(number))

    async def _send_text(self, end: int, text: str | None = None, removed_numbers: Collection[int] = ()) -> None:
        """Send `text` for the undecided characters up to `end`, as the stages change it; None for the original.

        Of the segments with `removed_numbers`, nothing is left in `text`.
        """
        state = self._state
        start = state.delivery.end
        if end <= start:
            return
        segments = state.received.segments
        first = self._begun_count
        while self._begun_count < len(segments) and segments[self._begun_count].start < end:
            self._begun_count += 1
        original = state.received.text[start:end]
        new_text = self._put_gap(original, first, start) if text is None else text
        self._next_gap = None
        # whether the text begins, and ends, between two segments, not inside one
        begins_between = not first or segments[first - 1].end <= start
        ends_between = not self._begun_count or segments[self._begun_count - 1].end <= end
        outgoing = Outgoing(
            new_text,
            start,
            is_whole=False,
            is_original=new_text == original,
            has_whole_segments=begins_between and ends_between,
            segments=segments[first : self._begun_count],
            removed_segments={number - first for number in removed_numbers},
        )
        outgoing = await self._stages.release(outgoing, state.answer())
        state.tally.add_outgoing(outgoing)
        if not state.is_over:  # the part may have been given up meanwhile
            state.send(end, outgoing.text, is_changed=outgoing.text != original)

    def _put_gap(self, original: str, number: int, start: int) -> str:
        """The `original` text from `start` on, with the white space that the edit before it has left at its beginning.

        Unchanged if no edit has left white space, or if the text does not begin with that before segment `number`.
        """
        segments = self._state.received.segments
        if self._next_gap is None or not 0 < number < self._begun_count or segments[number - 1].end != start:
            return original
        return self._next_gap + original[len(segments[number - 1].gap) :]

    async def _edit_rows(self, first: int, stop: int, end: int, *, waits: bool) -> None:
        """Edit the flagged segments `first` up to `stop`, with the bars between the rows if they are rows of a table.

        Only these bars, each at the end of a row or the rule below the first row, are unflagged. What ends the last row
        stays. `end` is the number of characters that the gate may read. `waits` says whether segment `stop` waits for
        the next one.
        """
        state = self._state
        segments = state.received.segments
        verdicts = state.verdicts.all
        bars = [number for number in range(first, stop) if not verdicts[number].flagged]
        # a last row that goes on with an unflagged cell stays, so it is edited by itself
        goes_on = bool(bars) and bars[-1] < stop - 1 and stop < len(segments) and "\n" not in segments[stop - 1].gap
        row_start = bars[-1] + 1 if goes_on else stop
        rows_stop = row_start
        while rows_stop > first and not verdicts[rows_stop - 1].flagged:
            rows_stop -= 1
        await self._edit_run(first, rows_stop, end, waits=waits or goes_on)
        if goes_on:
            state.received.decided = row_start
            if not state.is_over:
                await self._edit_run(row_start, stop, end, waits=waits)

    async def _edit_run(self, first: int, stop: int, end: int, *, waits: bool) -> None:
        """Replace or remove the flagged segments `first` up to `stop`, if the gate allows it; else send the original.

        `end` is the number of characters that the engine and the gate may read. `waits` says whether segment `stop`
        waits for the next one.
        """
        state = self._state
        received_text = state.received.text
        segments = state.received.segments
        run = segments[first:stop]
        skip = eligibility.check(state.exchange(), state.policy)
        # so far the answer reads as a refusal, which is not corrected; with more text it may turn out to be none
        if skip is SkipReason.REFUSAL:
            return await self._send_text(run[-1].end)
        if skip is not None:
            return state.close(Stop(Status.SKIPPED, skip.value))
        is_last = stop == len(segments)
        start = segments[first - 1].end if first else 0
        text_before = state.delivery.text + received_text[state.delivery.end : start]
        # a text that is missing after the last segment is written together with its replacement
        writes_end = is_last and state.verdicts.is_end_missing
        correction = await self._rewrite(first, stop + 1 if writes_end else stop, end, text_before)
        bars = [number for number in range(first, stop) if not state.verdicts.all[number].flagged]
        if bars and correction.text.strip("|=-: \n"):
            return await self._edit_each_row(first, stop, end, bars, waits=waits)
        place = partial(
            place_replacement, run, received_text[start : run[0].start], is_first=not start, is_last=is_last
        )
        # if no words are left in the rows, their bars go, too
        text = "" if bars else correction.text
        edit = self._build_edit(first, stop, place(text))
        may_remove = bool(text) and removes_refused(state.policy)
        has_table_head = any(is_table_rule(segments, bar) for bar in bars)
        effects = await self._judge(edit, end, is_final=not (may_remove or has_table_head))
        if effects is None and has_table_head and not state.is_over:
            # A row of the table is left, so its head stays, without the words.
            return await self._edit_each_row(first, stop, end, bars, waits=waits)
        if effects is None and may_remove and not state.is_over:
            # The gate refused the replacement: try removal, because the passage is known to violate an objective.
            edit = self._build_edit(first, stop, place(""))
            effects = await self._judge(edit, end)
        if effects is None:
            return None if state.is_over else await self._send_text(run[-1].end)
        await self._send_edits(effects, stop, waits=waits)
        return None

    async def _edit_each_row(self, first: int, stop: int, end: int, bars: Sequence[int], *, waits: bool) -> None:
        """Edit the rows between these bars one by one, as some of their text stays; parameters as in `_edit_rows`."""
        for bar in bars:
            if first < bar:  # the rule follows the bar at the end of the first row
                await self._edit_run(first, bar, end, waits=True)
            first = bar + 1
            self._state.received.decided = first
            if self._state.is_over:
                return
        if first < stop:
            await self._edit_run(first, stop, end, waits=waits)

    async def _send_edits(self, effects: EditEffects, stop: int, *, waits: bool) -> None:
        """Send the edits of `effects` in order, and the original text between them.

        If segment `stop` waits for the next one (`waits`), an edit that includes it is cut before it.
        """
        removed_numbers = removed_segments(effects) - {
            part.index for parts in effects.values() for part in parts if part.kept_text
        }
        for whole_edit, parts in sorted(effects.items(), key=lambda pair: pair[0]):
            edit = whole_edit
            if waits and edit.last >= stop:
                edit = trim_edit(edit, self._state.received.segments)
            self._edits[edit] = parts
            await self._send_text(edit.start)
            await self._send_text(edit.end, edit.text, removed_numbers)
            # the white space that was cut off goes out before the next text
            if edit != whole_edit and whole_edit.text.startswith(edit.text):
                self._next_gap = whole_edit.text[len(edit.text) :]

    def _build_edit(self, first: int, stop: int, replacement: tuple[int, str]) -> Edit:
        """The edit of the segments `first` up to `stop`; `replacement` is as `place_replacement` returns it."""
        replaced_end, new_text = replacement
        received = self._state.received
        verdicts = self._state.verdicts
        start = received.segments[first - 1].end if first else 0
        if stop < len(received.segments):
            next_start = received.segments[stop].start
            return Edit(start, next_start, new_text + received.text[replaced_end:next_start], first, stop)
        if verdicts.end_verdict is None or verdicts.is_end_missing:
            # the position after the last segment, if flagged, is counted as one more segment
            edited_stop = stop + verdicts.is_end_missing
            return Edit(start, received.length, new_text + received.text[replaced_end:], first, edited_stop)
        # The white space at the end belongs to the position after the last segment, which stays.
        return Edit(start, received.segments[-1].end, new_text.rstrip(), first, stop)

    async def _add_end(self) -> None:
        """Add the text that the objectives demand and the answer lacks after its last segment, if the gate allows it.

        It goes out in place of the answer's last character, which was held back, together with this character.
        """
        state = self._state
        skip = eligibility.check(state.exchange(), state.policy)
        if skip is not None:
            return
        # the position after the last segment has the number of all segments
        count = len(state.received.segments)
        end = state.received.length
        # unsent are the held-back character and the white space at the end of the answer, which stays there
        unsent_text = state.received.text[state.delivery.end :]
        held_text = unsent_text.rstrip()
        final_space = unsent_text[len(held_text) :]
        text_before = state.delivery.text + held_text
        correction = await self._rewrite(count, count + 1, end, text_before)
        edit = Edit(state.received.segments[-1].end, end, correction.text + final_space, count, count + 1)
        if correction.text and await self._judge(edit, end) is not None:
            await self._send_text(end, held_text + edit.text)

    async def _rewrite(self, first: int, stop: int, end: int, text_before: str) -> Correction:
        """Ask the engine to replace the segments `first` up to `stop`, and add the cost to the tally.

        The engine may read the first `end` characters of the answer; `text_before` goes out before the segments.
        """
        state = self._state
        # the objective for which a text is missing at the end, if one is
        end_verdict = state.verdicts.end_verdict
        objective = end_verdict.objective if end_verdict else None
        seconds = state.policy.deadline_s
        span = Span(first=first, stop=stop, end=end, before=text_before, deadline_s=seconds, objective=objective)
        # Once text has gone out, the answer cannot be corrected as a whole any more, so a lost session is opened again.
        has_sent_text = state.delivery.end > 0
        async with asyncio.timeout(seconds):
            correction = await self._session.replace(span, may_reopen=has_sent_text)
        correction = correction.deliverable
        state.tally.add(correction)
        return correction

    async def _judge(self, edit: Edit, end: int, *, is_final: bool = True) -> EditEffects | None:
        """The gate's verdict: the edit and further edits that must go with it, each with its effects on the segments.

        Empty if the edit changes nothing; None if the gate refuses the edits, or the part is over meanwhile. The gate
        reads the first `end` characters. If not `is_final`, a refusal is not counted, because the caller tries another
        edit.
        """
        state = self._state
        if edit.text == state.received.text[edit.start : edit.end]:
            return {}
        closed_chars = self._closed_answer.chars
        # edits of text that the gate does not read again are forgotten
        self._edits = {sent_edit: parts for sent_edit, parts in self._edits.items() if sent_edit.end > closed_chars}
        released = ReleasedAnswer(state.received.decided, dict(self._edits), self._closed_answer)
        with stage("gate"):
            broken_rule, effects = await judge_next_in_thread(
                state.received.text[:end], edit, state.verdicts_up_to(end), released, state.policy
            )
        if state.is_over or (broken_rule and not is_final):
            return None
        state.tally.count_edit(broken_rule)
        if broken_rule and outcomes.blocks(Outcome(Status.UNCHANGED, f"gate_{broken_rule}", None, state.policy)):
            state.close(Stop(Status.FAILED, f"gate_{broken_rule}"))
        return None if broken_rule else effects
