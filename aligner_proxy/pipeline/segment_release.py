"""Release of the judged segments of a growing answer, in order; released text is never taken back.

An unflagged segment goes out unchanged. A flagged run is replaced once the first unflagged segment after it is known.
If the gate refuses the replacement, the original goes out or the run is removed. A heading or announcement waits for
what follows, because it is removed if all of that is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence

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
from aligner_proxy.text.lists.open_lines import depends_on_next, is_underline, may_be_underlined
from aligner_proxy.types import Correction, Outcome, SkipReason, Status

_LINE_CHARS = 100
"""Characters of a line that suffice to know whether it may underline the line above it."""


class SegmentRelease:
    """Decides the output for the segments of one part."""

    def __init__(self, state: PartState, stages: StageList, session: ResumableSession) -> None:
        self._state = state
        self._stages = stages
        self._session = session
        self._looked_at = 0
        """Number of segments already examined.

        Avoids examining ten thousand headings in a row again each time one arrives.
        """
        self._first_flagged: int | None = None
        """Number of the first flagged segment that is not decided; None if there is none."""
        self._held_lines: list[int] = []
        """Numbers of the frames and headings behind the flagged run that wait for what they frame or head."""
        self._edits: dict[Edit, tuple[Part, ...]] = {}
        """The edits that have gone out and that the gate may read again, each with its effects."""
        self._closed_answer = ClosedAnswer()
        """State of the answer so far that spares the gate from reading it again."""
        self._begun_count = 0
        """Number of segments of which at least the beginning went out."""
        self._next_gap: str | None = None
        """The white space before the next text after an edit that was cut; None: that of the original."""

    def note_flagged(self, flagged: Iterable[int]) -> None:
        """Note that a second reading flags the segments of these numbers, none of which has gone out."""
        waiting = [number for number in (self._first_flagged, *flagged) if number is not None]
        # later segments are still to be examined by `release`, which will find them itself
        if waiting and min(waiting) < self._looked_at:
            self._first_flagged = min(waiting)

    async def release(self, releasable: int) -> None:
        """Release new unflagged segments, and the flagged runs before them, among the first `releasable` segments.

        Each segment is examined once.
        """
        state = self._state
        if state.received.has_ended and state.received.decided < len(state.received.segments):
            # The last segment may have waited for a next one, which does not come now.
            self._looked_at = min(self._looked_at, len(state.received.segments) - 1)
        for number in range(self._looked_at, releasable):
            self._looked_at = number + 1
            if self._ends_flagged_line(number):
                continue
            is_flagged = state.verdicts.all[number].flagged
            if not is_flagged:
                if self._first_flagged is not None and self._leaves_run_open(number):
                    self._held_lines.append(number)
                else:
                    await self._release_up_to(number)
                continue
            # behind held lines another run begins, so the present one and these lines are decided
            if self._held_lines:
                await self._release_up_to(self._held_lines[-1])
            if self._first_flagged is None:
                self._first_flagged = number

    async def release_rest(self) -> None:
        """Release the rest of an ended and judged answer, adding what is missing at its end."""
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
        """Decide the flagged run before segment `number`, and that segment, which is unflagged or the end."""
        state = self._state
        segments = state.received.segments
        is_end = number == len(segments)
        waits = not is_end and self._waits(number)
        if self._first_flagged is not None:
            # the held lines follow the run directly, so it stops before the first of them
            stop = min([number, *self._held_lines])
            end = state.received.length if is_end else segments[number].end
            await self._edit_rows(self._first_flagged, stop, end, waits=waits)
            self._first_flagged = None
            self._held_lines.clear()
            state.received.decided = stop
        if not is_end and not state.is_over and not waits:
            # Something is missing after the last segment. What is added needs a character to replace: its last one.
            holds_back = state.verdicts.is_end_missing and number == len(segments) - 1
            await self._send_text(segments[number].end - (1 if holds_back else 0))
            state.received.decided = number + 1

    def _leaves_run_open(self, number: int) -> bool:
        """Whether nobody knows yet what a flagged run leaves before an unflagged segment.

        A heading above the run stays if more of its section follows a frame. It goes if the segment is another heading,
        which shows only in the underline below it.
        """
        segments = self._state.received.segments
        is_open = is_frame(segments[number].text) or is_underline(segments, number)
        return is_open or may_be_underlined(segments, number, self._text_behind(number))

    def _text_behind(self, number: int) -> str:
        """The first characters after a segment and its gap, as far as they are known."""
        received = self._state.received
        segment = received.segments[number]
        start = segment.end + len(segment.gap)
        return received.text[start : start + _LINE_CHARS]

    def _ends_flagged_line(self, number: int) -> bool:
        """Whether a segment is the bar at the end of a row, or the underline of a heading, all of which is flagged.

        Such a line waits for what follows: the head of a table goes only if no row is left.
        """
        segments = self._state.received.segments
        ends_row = not segments[number].text.strip("| ")
        if self._first_flagged is None or not (ends_row or is_underline(segments, number)):
            return False
        start = find_line_start(segments, number if ends_row else number - 1)
        line = self._state.verdicts.all[start:number]
        return bool(line) and all(verdict.flagged for verdict in line)

    def _waits(self, number: int) -> bool:
        """Whether this segment depends on the next one, as a heading does, and so cannot go out yet."""
        cut = self._state.received
        is_last = cut.has_ended and number == len(cut.segments) - 1
        return not is_last and depends_on_next(cut.segments, number, self._text_behind(number))

    async def _send_text(self, end: int, text: str | None = None, removed_numbers: Collection[int] = ()) -> None:
        """Send `text` for the undecided characters up to `end`, after the stages' `release`; None: the original."""
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
        # the segment before has gone out completely, so this text does not begin inside one
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
        if not state.is_over:  # it may have been given up meanwhile
            state.send(end, outgoing.text, is_changed=outgoing.text != original)

    def _put_gap(self, original: str, number: int, start: int) -> str:
        """The text from `start` on, before segment `number`, after the white space that an edit before it has left."""
        segments = self._state.received.segments
        if self._next_gap is None or not 0 < number < self._begun_count or segments[number - 1].end != start:
            return original
        return self._next_gap + original[len(segments[number - 1].gap) :]

    async def _edit_rows(self, first: int, stop: int, end: int, *, waits: bool) -> None:
        """Edit the flagged run before segment `stop`; only bars at the ends of flagged rows are unflagged in it.

        The text is known up to `end`. `waits` says whether segment `stop` waits for its successor.
        """
        state = self._state
        segments = state.received.segments
        bars = [number for number in range(first, stop) if not state.verdicts.all[number].flagged]
        # a row that goes on with an unflagged cell stays, so it is edited by itself
        if bars and stop < len(segments) and "\n" not in segments[stop - 1].gap:
            await self._edit_run(first, bars[-1], end, waits=True)
            first = bars[-1] + 1
            state.received.decided = first
        elif bars and bars[-1] == stop - 1:
            stop -= 1
        if not state.is_over:
            await self._edit_run(first, stop, end, waits=waits)

    async def _edit_run(self, first: int, stop: int, end: int, *, waits: bool) -> None:
        """Replace or remove the flagged segments `first` up to `stop`, if the gate allows; else send the original.

        `end` and `waits` are as in `_edit_rows`.
        """
        state = self._state
        received = state.received.text
        segments = state.received.segments
        run = segments[first:stop]
        skip = eligibility.check(state.exchange(), state.policy)
        # a refusal is not corrected, but with more text the answer may turn out to be none
        if skip is SkipReason.REFUSAL:
            return await self._send_text(run[-1].end)
        if skip is not None:
            return state.close(Stop(Status.SKIPPED, skip.value))
        is_last = stop == len(segments)
        start = segments[first - 1].end if first else 0
        before = state.delivery.text + received[state.delivery.end : start]
        # what is missing after the last segment is written along with it
        writes_end = is_last and state.verdicts.is_end_missing
        correction = await self._rewrite(first, stop + 1 if writes_end else stop, end, before)
        bars = [number for number in range(first, stop) if not state.verdicts.all[number].flagged]
        if bars and correction.text.strip("|=- \n"):
            return await self._edit_each_row(first, stop, end, bars, waits=waits)
        lead = received[start : run[0].start]
        # of rows without words left, the bars go, too
        text = "" if bars else correction.text
        edit = self._build_edit(first, stop, place_replacement(run, lead, text, begins=not start, last=is_last))
        may_remove = bool(text) and removes_refused(state.policy)
        effects = await self._judge(edit, end, is_final=not may_remove)
        if effects is None and may_remove and not state.is_over:
            # The gate refused the replacement: try removal, because the passage is known to violate an objective.
            edit = self._build_edit(first, stop, place_replacement(run, lead, "", begins=not start, last=is_last))
            effects = await self._judge(edit, end)
        if effects is None:
            return None if state.is_over else await self._send_text(run[-1].end)
        await self._send_edits(effects, stop, waits=waits)
        return None

    async def _edit_each_row(self, first: int, stop: int, end: int, bars: Sequence[int], *, waits: bool) -> None:
        """Edit the rows between these bars one by one, because some of their text stays."""
        for bar in bars:
            await self._edit_run(first, bar, end, waits=True)
            first = bar + 1
            self._state.received.decided = first
            if self._state.is_over:
                return
        await self._edit_run(first, stop, end, waits=waits)

    async def _send_edits(self, effects: EditEffects, stop: int, *, waits: bool) -> None:
        """Send these edits in order, and the original between them.

        If segment `stop` `waits` for its successor, an edit that ends there is cut to what precedes that segment.
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
            # what was cut off goes out before the next text
            if edit != whole_edit and whole_edit.text.startswith(edit.text):
                self._next_gap = whole_edit.text[len(edit.text) :]

    def _build_edit(self, first: int, stop: int, replacement: tuple[int, str]) -> Edit:
        """The edit of these segments, with the white space up to the next one; `replacement` is (end, new text)."""
        replaced_end, new_text = replacement
        cut = self._state.received
        verdicts = self._state.verdicts
        start = cut.segments[first - 1].end if first else 0
        if stop < len(cut.segments):
            behind = cut.segments[stop].start
            return Edit(start, behind, new_text + cut.text[replaced_end:behind], first, stop)
        if verdicts.end_verdict is None or verdicts.is_end_missing:
            return Edit(start, cut.length, new_text + cut.text[replaced_end:], first, stop + verdicts.is_end_missing)
        # The white space at the end belongs to the position after the last segment, which stays.
        return Edit(start, cut.segments[-1].end, new_text.rstrip(), first, stop)

    async def _add_end(self) -> None:
        """Add what is missing after the last segment, if the gate allows it; replaces the held-back last character."""
        state = self._state
        if eligibility.check(state.exchange(), state.policy) is not None:
            return
        text = state.received.text
        count = len(state.received.segments)
        end = state.received.length
        # the held-back character, and the white space at the end of the answer, which stays there
        unsent = text[state.delivery.end :]
        body = unsent.rstrip()
        final_space = unsent[len(body) :]
        before = state.delivery.text + body
        correction = await self._rewrite(count, count + 1, end, before)
        edit = Edit(state.received.segments[-1].end, end, correction.text + final_space, count, count + 1)
        if correction.text and await self._judge(edit, end) is not None:
            await self._send_text(end, body + edit.text)

    async def _rewrite(self, first: int, stop: int, end: int, before: str) -> Correction:
        """Ask the engine to replace the segments `first` up to `stop`, and add the cost to the tally.

        The engine may read the text up to `end`; `before` is what goes out before the segments.
        """
        state = self._state
        # the objective by which something is missing at the end
        end_verdict = state.verdicts.end_verdict
        objective = end_verdict.objective if end_verdict else None
        seconds = state.policy.deadline_s
        span = Span(first=first, stop=stop, end=end, before=before, deadline_s=seconds, objective=objective)
        # once text has gone out, a lost session must read it again: the answer cannot be corrected as a whole any more
        has_sent = state.delivery.end > 0
        async with asyncio.timeout(seconds):
            correction = await self._session.replace(span, again=has_sent)
        correction = correction.deliverable
        state.tally.add(correction)
        return correction

    async def _judge(self, edit: Edit, end: int, *, is_final: bool = True) -> EditEffects | None:
        """The edit and those that must go with it, each with what it does to the segments that it covers.

        None if the gate refuses them, or the part is over meanwhile. The gate knows the first `end` characters. If not
        `is_final`, a refusal is not counted, because the caller tries another edit.
        """
        state = self._state
        # an edit that changes nothing needs no judgement, and nothing follows from it
        if edit.text == state.received.text[edit.start : edit.end]:
            return {}
        closed_chars = self._closed_answer.chars
        self._edits = {edit: parts for edit, parts in self._edits.items() if edit.end > closed_chars}
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
