"""Second reading: the engine judges an answer again in cases that the first reading is known to miss.

An insult that the question already contains scores as harmless, so segments that echo the conversation are also judged
without it. After one insult the next one scores lower, so copies of flagged segments are flagged, too, and the edited
answer is judged again. A sentence that is spread over cells, bullets or values is also judged as a plain sentence: such
stretches of text are called windows (text/reading_form.py).

Only policies that deliver nothing unjudged (`Policy.blocks_unjudged`) require this; under others, an answer that quotes
the client stays as it is. An answer without echoes, windows and flags is read once. From a whole answer, segments that
are flagged here are removed; if they cannot be located in the correction, the answer counts as unjudged. In a growing
answer, they are flagged before they go out, by the text known by then.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import EngineFault, NotLocated
from aligner_proxy.pipeline.edited_layout import EditedLayout
from aligner_proxy.pipeline.part_state import PartState
from aligner_proxy.pipeline.refused_edits import remove_refused_edits
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.plugins.inner import InnerWrapper
from aligner_proxy.text.echoes import Echoes, words
from aligner_proxy.text.reading_form import WINDOW_WORDS, Window, reading_windows, without_overlap
from aligner_proxy.text.sentence_ends import MARKS, PICTURES_BEHIND
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore, Turn, all_cached

_SENTENCE_END = re.compile(
    rf"[{MARKS}:;][\"'\u201c\u201d\u2018\u2019\u00ab\u00bb)\]*_]*{PICTURES_BEHIND}$|(?:```|~~~)\s*$"
)
"""Matches the end of a segment that is a whole sentence or code."""
_TEXT_SEPARATOR = "\n\n"
"""Stands between texts that are scored as one. A segment spans two of them only if the first has an open code fence."""
MAX_CONFIRMED = 4
"""Maximum number of flagged windows per answer that are confirmed in context; others count without confirmation."""
DOUBT_MARGIN = 1.0
"""Nats by which a window's score must exceed the threshold to count, because scores out of context are less certain."""


def copy_key(text: str) -> str:
    """The key that segments share if one is a copy of the other: their visible words. Empty without words."""
    return " ".join(words(text))


class SecondReading(InnerWrapper):
    """A wrapper around the correction of a text that reads it a second time if necessary. Satisfies `Inner`.

    `without_turns` is the same correction without the conversation; `turns` is the conversation that an answer may
    echo. The methods append every further reading to `readings`, for its cost.
    """

    def __init__(self, inner: Inner, without_turns: Inner, turns: Sequence[Turn]) -> None:
        super().__init__(inner)
        self._without_turns = without_turns
        self._turns = turns

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Correct a text by the flags of all readings; raises `NotLocated` if a flagged segment cannot be located."""
        first_reading = await self.inner.correct(text, policy)
        first_correction = first_reading.correction
        # without scores there is no detector that could read the text again
        if not text.strip() or all(verdict.score is None for verdict in first_correction.segments):
            return first_reading
        readings = [first_reading]
        flagged_windows = await self._read_windows(text, policy, readings)
        flagged_echoes = await self._read_echoes(text, first_correction, policy, readings)
        has_second_flags = bool(flagged_windows or flagged_echoes)
        if not (has_second_flags or any(verdict.flagged for verdict in first_correction.segments)):
            return first_reading if len(readings) == 1 else _add_costs(first_reading, readings)
        layout = await run_off_loop(len(text), partial(EditedLayout.from_correction, text, first_correction))
        if layout is None:
            if has_second_flags:
                raise NotLocated("a second reading flags what cannot be told apart in the correction")
            # the correction has edited what the first reading flagged
            return _add_costs(first_reading, readings)
        for number, verdict in flagged_echoes.items():
            layout.flag(number, verdict)
        for window, verdict in flagged_windows:
            layout.flag_between(window.start, window.end, verdict)
        await self._flag_copies(layout, policy, readings)
        if not policy.score_only:
            await self._read_edited(layout, policy, readings)
        return await self._apply_readings(text, layout, policy, readings)

    async def _read_echoes(
        self, text: str, correction: Correction, policy: Policy, readings: list[Corrected]
    ) -> dict[int, SegmentScore]:
        """The verdicts on segments that echo the conversation and are flagged without it, by segment number."""
        verdicts = correction.segments
        chars = len(text) + sum(len(turn.content) for turn in self._turns)
        echo_numbers = await run_off_loop(chars, partial(_find_echoes, self._turns, verdicts))
        if not echo_numbers:
            return {}
        second_verdicts = await self._read_again(self._without_turns, text, policy, readings)
        return select_flagged(echo_numbers, verdicts, second_verdicts)

    async def _read_windows(
        self, text: str, policy: Policy, readings: list[Corrected]
    ) -> list[tuple[Window, SegmentScore]]:
        """The flagged windows of a text, each with its verdict."""
        windows = await run_off_loop(len(text), partial(reading_windows, text))
        score_text = partial(self._read_again, self.inner, policy=policy, readings=readings)
        return await confirm_windows(windows, text, score_text, policy.caution)

    async def _flag_copies(self, layout: EditedLayout, policy: Policy, readings: list[Corrected]) -> None:
        """Flag the copies of flagged segments.

        A flagged segment may be flagged only for repeating copies before it. So the copies before it are flagged only
        if the copy is also flagged when it is read alone.
        """
        for key, verdict, copy_numbers in find_copies(layout.verdicts):
            flagged_numbers = (number for number, other in enumerate(layout.verdicts) if other.flagged)
            first_flagged = next(number for number in flagged_numbers if copy_key(layout.verdicts[number].text) == key)
            early_numbers = [number for number in copy_numbers if number < first_flagged]
            late_numbers = [number for number in copy_numbers if number > first_flagged]
            flags_early = False
            if early_numbers:
                copy = layout.verdicts[early_numbers[0]].text.strip()
                copy_verdicts = await self._read_again(self.inner, copy, policy, readings)
                flags_early = any(copy_verdict.flagged for copy_verdict in copy_verdicts)
            for number in [*early_numbers, *late_numbers] if flags_early else late_numbers:
                layout.flag(number, verdict)

    async def _read_edited(self, layout: EditedLayout, policy: Policy, readings: list[Corrected]) -> None:
        """Read the edited answer and flag its flagged texts in `layout`; raises `NotLocated` if one is not there."""
        edited_answer = layout.rebuild()
        if not edited_answer.strip():
            return
        verdicts = await self._read_again(self.inner, edited_answer, policy, readings)
        flagged_windows = await self._read_windows(edited_answer, policy, readings)
        flagged_ranges = list(find_flagged(edited_answer, verdicts))
        flagged_ranges += ((window.start, window.end, verdict) for window, verdict in flagged_windows)
        for start, end, verdict in flagged_ranges:
            if not layout.flag_edited(start, end, verdict):
                raise NotLocated("a second reading flags what stands nowhere in the correction")

    async def _read_again(
        self, inner: Inner, text: str, policy: Policy, readings: list[Corrected]
    ) -> tuple[SegmentScore, ...]:
        """Have a text scored by `inner` and return the verdicts on its segments; appends the reading to `readings`."""
        readings.append(await inner.correct(text, replace(policy, score_only=True)))
        return _verdicts_with_text(readings[-1].correction)

    async def _apply_readings(
        self, text: str, layout: EditedLayout, policy: Policy, readings: Sequence[Corrected]
    ) -> Corrected:
        """The first correction with the flags of `layout` applied, judged by the gate, and with all readings' cost."""
        first_with_costs = _add_costs(readings[0], readings)
        if not layout.changed:
            return first_with_costs
        correction = layout.correction().with_cost_of([first_with_costs.correction])
        if policy.score_only:
            return replace(first_with_costs, correction=replace(correction, text=text))
        verdict = await self.judge(text, correction, policy)
        if verdict.dropped:
            correction, verdict = await remove_refused_edits(text, correction, policy, verdict, self.judge)
        return replace(first_with_costs, correction=correction, verdict=verdict)


class GrowingReading:
    """Second reading of a growing answer, before its segments go out; the parts of a long answer share it.

    Segments that may be pieces of a sentence (one word per bullet) wait until a sentence ends, or until enough words
    follow. `score_text` asks the engine for the verdicts on a text as the answer of an exchange. The methods return new
    verdicts by segment number. `known_count` verdicts were processed before, and the verdicts after them are new.
    """

    def __init__(self, policy: Policy, score_text: Callable[[Exchange, str, Policy], Awaitable[Correction]]) -> None:
        self.is_due = policy.blocks_unjudged
        """Whether this policy requires a second reading at all."""
        self._policy = policy
        self._score_text = score_text
        self._flagged_by_key: dict[str, SegmentScore] = {}
        """The verdicts on flagged segments, by their `copy_key`."""
        self._echoes: Echoes | None = None
        """Finds sentences that echo the conversation; None before the first search."""
        self._fine_windows: set[str] = set()
        """Texts of windows that were read and not flagged."""

    async def read(self, state: PartState, known_count: int) -> tuple[int, dict[int, SegmentScore]]:
        """(number of first segments that may go out now, flagged verdicts of the second reading by segment number)."""
        releasable_count = len(state.verdicts.all) if state.is_judged else _count_releasable(state)
        new_flags = self._flag_copies(state, known_count)
        new_flags |= await self._flag_echoes(state, _list_new_unflagged(state, known_count, new_flags))
        new_flags |= await self._flag_followers(state, _list_new_unflagged(state, known_count, new_flags), new_flags)
        # windows reach over several segments, so they are read only if a segment may go out
        if releasable_count > state.received.decided:
            new_flags |= await self._flag_windows(state, new_flags)
        for verdict in new_flags.values():
            self._flagged_by_key.setdefault(copy_key(verdict.text), verdict)
        return releasable_count, new_flags

    async def _read_again(self, state: PartState, text: str, *, has_turns: bool = True) -> tuple[SegmentScore, ...]:
        """Have a text scored and return the verdicts on its segments; adds the cost to the tally.

        `has_turns` says whether the engine reads the conversation before the text.
        """
        exchange = state.exchange()
        if not has_turns:
            exchange = replace(exchange, turns=())
        correction = await self._score_text(exchange, text, self._policy)
        state.tally.corrections.append(correction)
        return _verdicts_with_text(correction)

    def _flag_copies(self, state: PartState, known_count: int) -> dict[int, SegmentScore]:
        """New segments that are copies of flagged segments before them. Remembers new flagged segments."""
        new_flags: dict[int, SegmentScore] = {}
        for number in range(known_count, len(state.verdicts.all)):
            verdict = state.verdicts.all[number]
            key = copy_key(verdict.text)
            if verdict.flagged and key:
                self._flagged_by_key.setdefault(key, verdict)
            elif key in self._flagged_by_key:
                new_flags[number] = replace(self._flagged_by_key[key], text=verdict.text)
        return new_flags

    async def _flag_echoes(self, state: PartState, new_numbers: Sequence[int]) -> dict[int, SegmentScore]:
        """Those of the new segments that echo the conversation and are flagged without it."""
        if self._echoes is None:
            turns = state.facts().turns
            self._echoes = await run_off_loop(sum(len(turn.content) for turn in turns), partial(Echoes, turns))
        verdicts = state.verdicts.all
        echo_numbers = [number for number in new_numbers if self._echoes.contains_echo(verdicts[number].text)]
        if not echo_numbers:
            return {}
        last_number = echo_numbers[-1]
        text = state.received.text[: state.received.segments[last_number].end]
        second_verdicts = await self._read_again(state, text, has_turns=False)
        return select_flagged(echo_numbers, verdicts[: last_number + 1], second_verdicts)

    async def _flag_followers(
        self, state: PartState, new_numbers: Sequence[int], new_flags: Mapping[int, SegmentScore]
    ) -> dict[int, SegmentScore]:
        """Those of the new segments that are flagged when they are read after the edited text.

        In the first reading they were read after flagged segments, after which they score lower.
        """
        if not new_numbers or not (self._flagged_by_key or new_flags):
            return {}
        verdicts = state.verdicts.all
        segments = state.received.segments
        text = state.delivery.render(0, state.delivery.end, state.received.text)
        # where each unflagged segment begins in the edited text
        starts: dict[int, int] = {}
        for number in range(state.received.decided, len(verdicts)):
            if not (verdicts[number].flagged or number in new_flags):
                starts[number] = len(text)
                text += segments[number].text + segments[number].gap
        follower_flags: dict[int, SegmentScore] = {}
        for start, end, verdict in find_flagged(text, await self._read_again(state, text)):
            for number in new_numbers:
                length = len(segments[number].text)
                # any overlap counts, because the engine may cut the edited text elsewhere
                if number in starts and start < starts[number] + length and starts[number] < end:
                    follower_flags[number] = replace(verdict, text=verdicts[number].text)
        return follower_flags

    async def _flag_windows(self, state: PartState, new_flags: Mapping[int, SegmentScore]) -> dict[int, SegmentScore]:
        """Undecided segments in windows that are flagged, unless a segment of the window is flagged already."""
        verdicts = state.verdicts.all
        segments = state.received.segments
        undecided_numbers = range(state.received.decided, len(verdicts))
        undecided_start = segments[undecided_numbers.start].start
        text = state.received.text[: segments[undecided_numbers.stop - 1].end]
        windows = await run_off_loop(len(text) - undecided_start, partial(reading_windows, text[undecided_start:]))
        windows = [
            replace(window, start=undecided_start + window.start, end=undecided_start + window.end)
            for window in windows
            if window.text not in self._fine_windows
        ]
        score_text = partial(self._read_again, state)
        flagged_windows = await confirm_windows(windows, text, score_text, self._policy.caution)
        flagged_texts = {window.text for window, _ in flagged_windows}
        self._fine_windows.update({window.text for window in windows} - flagged_texts)
        window_flags: dict[int, SegmentScore] = {}
        for window, verdict in flagged_windows:
            covered_numbers = [
                number
                for number in undecided_numbers
                if segments[number].start < window.end and window.start < segments[number].end
            ]
            # a window with a flagged segment may be flagged only for that segment
            if not any(verdicts[number].flagged or number in new_flags for number in covered_numbers):
                window_flags |= {number: replace(verdict, text=verdicts[number].text) for number in covered_numbers}
        return window_flags


def _count_releasable(state: PartState) -> int:
    """The number of first segments that may go out: later ones may be pieces of a sentence that has not ended."""
    segments = state.received.segments
    count = len(state.verdicts.all)
    words_behind = 0
    while count > state.received.decided and words_behind < WINDOW_WORDS:
        last_text = segments[count - 1].text
        if _SENTENCE_END.search(last_text):
            break
        count -= 1
        words_behind += len(last_text.split())
    return count


def _list_new_unflagged(state: PartState, known_count: int, new_flags: Mapping[int, SegmentScore]) -> list[int]:
    """The numbers of the segments after the first `known_count` that no reading has flagged."""
    verdicts = state.verdicts.all
    return [
        number
        for number in range(known_count, len(verdicts))
        if not verdicts[number].flagged and number not in new_flags
    ]


def _verdicts_with_text(correction: Correction) -> tuple[SegmentScore, ...]:
    """The verdicts of a correction without the verdict on the position after the text."""
    return tuple(verdict for verdict in correction.segments if verdict.text.strip())


def select_flagged(
    numbers: Sequence[int], verdicts: Sequence[SegmentScore], second_verdicts: Sequence[SegmentScore]
) -> dict[int, SegmentScore]:
    """Those of the second verdicts that flag a segment with one of these numbers, by number.

    Raises `EngineFault` if the second verdicts are on other segments than the first `verdicts`.
    """
    if len(second_verdicts) < len(verdicts) or any(
        second_verdicts[number].text != verdicts[number].text for number in numbers
    ):
        raise EngineFault("the engine judged other segments than these")
    return {number: second_verdicts[number] for number in numbers if second_verdicts[number].flagged}


def _add_costs(first_reading: Corrected, readings: Sequence[Corrected]) -> Corrected:
    """The first reading with the cost of all readings; it is a cache hit only if each reading was one."""
    correction = first_reading.correction.with_cost_of([reading.correction for reading in readings])
    cache_hit = all_cached(reading.cache_hit for reading in readings)
    return replace(first_reading, correction=correction, cache_hit=cache_hit)


def _find_echoes(turns: Sequence[Turn], verdicts: Sequence[SegmentScore]) -> list[int]:
    """The numbers of unflagged segments that echo one of the turns."""
    echoes = Echoes(turns)
    return [
        number
        for number, verdict in enumerate(verdicts)
        if verdict.text and not verdict.flagged and echoes.contains_echo(verdict.text)
    ]


def find_copies(verdicts: Sequence[SegmentScore]) -> list[tuple[str, SegmentScore, list[int]]]:
    """The unflagged copies of flagged segments, as (their `copy_key`, the flagged verdict, the copies' numbers)."""
    by_key = {copy_key(verdict.text): verdict for verdict in verdicts if verdict.flagged and verdict.text.strip()}
    # segments without words, such as a row of dashes, are no copies of each other
    by_key.pop("", None)
    if not by_key:
        return []
    copy_numbers: dict[str, list[int]] = {}
    for number, verdict in enumerate(verdicts):
        if verdict.flagged or not verdict.text:
            continue
        key = copy_key(verdict.text)
        if key in by_key:
            copy_numbers.setdefault(key, []).append(number)
    return [(key, by_key[key], numbers) for key, numbers in copy_numbers.items()]


def put_in_place(text: str, window: Window) -> tuple[str, int]:
    """Put a window in its context: (the text before the segment in which it begins, then the window; its offset)."""
    start = max((piece.start for piece in split(text) if piece.start <= window.start), default=0)
    return text[:start] + window.text, start


async def confirm_windows(
    windows: Sequence[Window],
    text: str,
    score_text: Callable[[str], Awaitable[Sequence[SegmentScore]]],
    caution: float,
) -> list[tuple[Window, SegmentScore]]:
    """The flagged windows of a text, each with its verdict; `score_text` returns the engine's verdicts on a text.

    Windows are joined to as few texts as possible, but overlapping windows are scored in separate texts, because
    repetition hides violations. Out of context a harmless sentence may look bad, so the first `MAX_CONFIRMED` flagged
    windows count only if they are flagged in context, too. `caution` is the threshold in nats.
    """
    candidates: list[tuple[Window, SegmentScore]] = []
    for separate_windows in without_overlap(windows):
        texts = [window.text for window in separate_windows]
        verdicts = await score_text(join_texts(texts))
        verdict_by_number = {
            number: verdict
            for number, verdict in find_flagged_texts(texts, verdicts)
            if verdict.score is None or verdict.score >= caution + DOUBT_MARGIN
        }
        candidates += [(separate_windows[number], verdict) for number, verdict in verdict_by_number.items()]
    candidates.sort(key=lambda candidate: candidate[0].start)
    flagged_windows = candidates[MAX_CONFIRMED:]
    for window, verdict in candidates[:MAX_CONFIRMED]:
        text_in_context, window_start = await run_off_loop(len(text), partial(put_in_place, text, window))
        flagged_ranges = find_flagged(text_in_context, await score_text(text_in_context))
        # a flagged segment that ends before the window is not of the window
        if any(end > window_start for _, end, _ in flagged_ranges):
            flagged_windows.append((window, verdict))
    return flagged_windows


def join_texts(texts: Iterable[str]) -> str:
    """Join texts to one, so that one request scores them all."""
    return _TEXT_SEPARATOR.join(texts)


def find_flagged_texts(texts: Sequence[str], verdicts: Iterable[SegmentScore]) -> Iterator[tuple[int, SegmentScore]]:
    """Yield (number of a text, verdict) for each flagged segment of texts that were scored as one (`join_texts`)."""
    # where each text begins in the joined text
    starts = [0, *accumulate(len(text) + len(_TEXT_SEPARATOR) for text in texts)]
    for start, end, verdict in find_flagged(join_texts(texts), verdicts):
        if end > start:
            # the segment may span several texts
            first = bisect_right(starts, start) - 1
            stop = min(len(texts), bisect_left(starts, end))
            yield from ((number, verdict) for number in range(first, stop))


def find_flagged(text: str, verdicts: Iterable[SegmentScore]) -> Iterator[tuple[int, int, SegmentScore]]:
    """Yield (start, end, verdict) of each flagged segment of a text; raises `EngineFault` if the text lacks one."""
    end = 0
    for verdict in verdicts:
        start = text.find(verdict.text, end)
        if start < 0:
            raise EngineFault("the engine judged another text than this one")
        end = start + len(verdict.text)
        if verdict.flagged:
            yield start, end, verdict
