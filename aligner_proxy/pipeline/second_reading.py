"""Second reading: an answer is read again in cases that the first reading is known to miss.

The detector scores an insult as harmless if the question already contains it, so sentences that echo the conversation
are also judged without it. After one insult the next one scores lower. So a segment equal to a flagged one is flagged,
too, and the edited answer is read again. A sentence that is spread over cells, bullets or values is also judged in its
reading form (text/reading_form.py).

This applies only under policies that deliver nothing unjudged (`Policy.blocks_unjudged`); under others, an answer that
quotes the client stays as it is. An answer without echo, layout or flag is read once. In a whole answer, what is
flagged here is removed from the correction; if it cannot be located there, the answer counts as unjudged. In a growing
answer, it is flagged before it goes out, based on the text known by then.
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
from aligner_proxy.text.sentence_ends import MARKS
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore, Turn, all_cached

_ENDS = re.compile(rf"[{MARKS}:;][\"'\u201d\u2019)\]*_]*\s*$|(?:```|~~~)\s*$")
"""Matches the end of a segment that is a whole sentence or code."""
_BREAK = "\n\n"
"""Separates windows that are scored as one text."""
MAX_CONFIRMED = 4
"""Maximum number of flagged windows per answer that are confirmed in context; others count without confirmation."""

DOUBT_MARGIN = 1.0
"""How far above the threshold a window's score has to be to count, because scores out of context are less certain."""


def copy_key(text: str) -> str:
    """Key that equal segments share: their visible words."""
    return " ".join(words(text))


def flagged_keys(verdicts: Iterable[SegmentScore]) -> dict[str, SegmentScore]:
    """The verdicts on flagged segments, by the key that equal segments share."""
    keys = {copy_key(verdict.text): verdict for verdict in verdicts if verdict.flagged and verdict.text.strip()}
    # segments without words, such as a row of dashes, are no copies of each other
    keys.pop("", None)
    return keys


class SecondReading(InnerWrapper):
    """A wrapper around the correction of a text that reads it a second time if necessary. Satisfies `Inner`.

    `bare` is the same correction without the conversation; `turns` is the conversation that an answer may echo.
    """

    def __init__(self, inner: Inner, bare: Inner, turns: Sequence[Turn]) -> None:
        super().__init__(inner)
        self._bare = bare
        self._turns = turns

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Correct a text, combining the flags of all readings; raises `NotLocated` if a flag cannot be located."""
        first = await self.inner.correct(text, policy)
        # without scores there is no detector that could read it again
        if not text.strip() or all(verdict.score is None for verdict in first.correction.segments):
            return first
        readings = [first]
        laid_out = await self._read_windows(text, policy, readings)
        echoes = await self._echoes(text, first.correction, policy, readings)
        if not (laid_out or echoes or any(verdict.flagged for verdict in first.correction.segments)):
            return first if len(readings) == 1 else _add_costs(first, readings)
        layout = await run_off_loop(len(text), partial(EditedLayout.from_correction, text, first.correction))
        if layout is None:
            # the flags of the first reading alone have been dealt with in the correction
            if laid_out or echoes:
                raise NotLocated("a second reading flags what cannot be told apart in the correction")
            return _add_costs(first, readings)
        for number, verdict in echoes.items():
            layout.flag(number, verdict)
        for window, verdict in laid_out:
            layout.flag_between(window.start, window.end, verdict)
        await self._flag_copies(layout, policy, readings)
        if not policy.score_only:
            await self._read_again(layout, policy, readings)
        return await self._apply_readings(text, layout, policy, readings)

    async def _echoes(
        self, text: str, correction: Correction, policy: Policy, readings: list[Corrected]
    ) -> dict[int, SegmentScore]:
        """The verdicts on segments that echo the conversation and are flagged without it, by segment number."""
        verdicts = correction.segments
        size = len(text) + sum(len(turn.content) for turn in self._turns)
        numbers = await run_off_loop(size, partial(_find_echoes, self._turns, verdicts))
        if not numbers:
            return {}
        return select_flagged(numbers, verdicts, await self._read_scores(self._bare, text, policy, readings))

    async def _read_windows(
        self, text: str, policy: Policy, readings: list[Corrected]
    ) -> list[tuple[Window, SegmentScore]]:
        """The flagged windows of a text, each with its verdict."""
        windows = await run_off_loop(len(text), partial(reading_windows, text))
        score = partial(self._read_scores, self.inner, policy=policy, readings=readings)
        return await confirm_windows(windows, text, score, policy.caution)

    async def _flag_copies(self, layout: EditedLayout, policy: Policy, readings: list[Corrected]) -> None:
        """Flag the copies of flagged segments.

        A copy before the first flagged one is first read alone, because the later one may be flagged only for
        repetition.
        """
        for key, verdict, numbers in find_copies(layout.verdicts):
            flagged_numbers = (number for number, other in enumerate(layout.verdicts) if other.flagged)
            first = next(number for number in flagged_numbers if copy_key(layout.verdicts[number].text) == key)
            early_numbers = [number for number in numbers if number < first]
            late_numbers = [number for number in numbers if number > first]
            flags_early = False
            if early_numbers:
                copy = layout.verdicts[early_numbers[0]].text.strip()
                scores = await self._read_scores(self.inner, copy, policy, readings)
                flags_early = any(score.flagged for score in scores)
            for number in [*early_numbers, *late_numbers] if flags_early else late_numbers:
                layout.flag(number, verdict)

    async def _read_again(self, layout: EditedLayout, policy: Policy, readings: list[Corrected]) -> None:
        """Read the edited answer and flag in `layout` what is flagged there; raises `NotLocated` for text not in it."""
        layout.rebuild()
        edited = layout.edited
        if not edited.strip():
            return
        scores = await self._read_scores(self.inner, edited, policy, readings)
        windows = await self._read_windows(edited, policy, readings)
        flagged_places = list(find_flagged(edited, scores))
        flagged_places += ((window.start, window.end, verdict) for window, verdict in windows)
        for start, end, verdict in flagged_places:
            if not layout.flag_edited(start, end, verdict):
                raise NotLocated("a second reading flags what stands nowhere in the correction")

    async def _read_scores(
        self, inner: Inner, text: str, policy: Policy, readings: list[Corrected]
    ) -> tuple[SegmentScore, ...]:
        """Read a text once more, and return its verdicts; appends the reading to `readings`."""
        readings.append(await inner.correct(text, replace(policy, score_only=True)))
        return _verdicts_with_text(readings[-1].correction)

    async def _apply_readings(
        self, text: str, layout: EditedLayout, policy: Policy, readings: Sequence[Corrected]
    ) -> Corrected:
        """The first correction with the additional flags applied and the cost of all readings added."""
        charged = _add_costs(readings[0], readings)
        if not layout.changed:
            return charged
        correction = layout.correction().with_cost_of([charged.correction])
        if policy.score_only:
            return replace(charged, correction=replace(correction, text=text))
        verdict = await self.judge(text, correction, policy)
        if verdict.dropped:
            correction, verdict = await remove_refused_edits(text, correction, policy, verdict, self.judge)
        return replace(charged, correction=correction, verdict=verdict)


class GrowingReading:
    """Second reading of a growing answer, before its segments go out; the parts of a long answer share it.

    Segments that may be pieces of a sentence (one word per bullet) wait until a sentence ends, or until enough words
    follow. `score` asks the engine for the verdicts on a text.
    """

    def __init__(self, policy: Policy, score: Callable[[Exchange, str, Policy], Awaitable[Correction]]) -> None:
        self.is_due = policy.blocks_unjudged
        """Whether this policy requires a second reading at all."""
        self._policy = policy
        self._score = score
        self._flagged: dict[str, SegmentScore] = {}
        """The verdicts on flagged segments, by the key that equal segments share."""
        self._echoes: Echoes | None = None
        """Finds sentences that echo the conversation; None before the first search."""
        self._fine_windows: set[str] = set()
        """Texts of windows that were read and not flagged."""

    async def read(self, state: PartState, known_count: int) -> tuple[int, dict[int, SegmentScore]]:
        """(number of segments that may go out now, verdicts of a second reading on further flagged ones, by number).

        The first `known_count` verdicts were processed before.
        """
        limit = len(state.verdicts.all) if state.is_judged else _count_releasable(state)
        new_flags = self._find_copies(state, known_count)
        new_flags |= await self._flag_echoes(state, _list_new_unflagged(state, known_count, new_flags))
        new_flags |= await self._flag_followers(state, _list_new_unflagged(state, known_count, new_flags), new_flags)
        # windows reach over several segments, so they are read only if something may go out
        if limit > state.received.decided:
            new_flags |= await self._flag_windows(state, new_flags)
        for verdict in new_flags.values():
            self._flagged.setdefault(copy_key(verdict.text), verdict)
        return limit, new_flags

    async def _read_scores(self, state: PartState, text: str, *, bare: bool = False) -> tuple[SegmentScore, ...]:
        """The verdicts on a text, read without the conversation before it if `bare`; charges the cost to the tally."""
        exchange = state.exchange()
        if bare:
            exchange = replace(exchange, turns=())
        correction = await self._score(exchange, text, self._policy)
        state.tally.charge(correction)
        return _verdicts_with_text(correction)

    def _find_copies(self, state: PartState, known_count: int) -> dict[int, SegmentScore]:
        """New segments that equal flagged ones before them; remembers the new flagged ones."""
        copied: dict[int, SegmentScore] = {}
        for number in range(known_count, len(state.verdicts.all)):
            verdict = state.verdicts.all[number]
            key = copy_key(verdict.text)
            if verdict.flagged and key:
                self._flagged.setdefault(key, verdict)
            elif key in self._flagged:
                copied[number] = replace(self._flagged[key], text=verdict.text)
        return copied

    async def _flag_echoes(self, state: PartState, fresh: Sequence[int]) -> dict[int, SegmentScore]:
        """New segments that echo the conversation and are flagged without it."""
        if self._echoes is None:
            turns = state.facts().turns
            self._echoes = await run_off_loop(sum(len(turn.content) for turn in turns), partial(Echoes, turns))
        verdicts = state.verdicts.all
        numbers = [number for number in fresh if self._echoes.contains_echo(verdicts[number].text)]
        if not numbers:
            return {}
        text = state.received.text[: state.received.segments[numbers[-1]].end]
        return select_flagged(numbers, verdicts[: numbers[-1] + 1], await self._read_scores(state, text, bare=True))

    async def _flag_followers(
        self, state: PartState, fresh: Sequence[int], more: Mapping[int, SegmentScore]
    ) -> dict[int, SegmentScore]:
        """New segments that are flagged when read after the replaced text instead of the flagged original."""
        if not fresh or not (self._flagged or more):
            return {}
        verdicts = state.verdicts.all
        segments = state.received.segments
        text = state.delivery.render(0, state.delivery.end, state.received.text)
        starts: dict[int, int] = {}
        for number in range(state.received.decided, len(verdicts)):
            if not (verdicts[number].flagged or number in more):
                starts[number] = len(text)
                text += segments[number].text + segments[number].gap
        flagged: dict[int, SegmentScore] = {}
        for start, end, verdict in find_flagged(text, await self._read_scores(state, text)):
            for number in fresh:
                size = len(segments[number].text)
                # any overlap counts, because the engine may cut the edited text elsewhere
                if number in starts and start < starts[number] + size and starts[number] < end:
                    flagged[number] = replace(verdict, text=verdicts[number].text)
        return flagged

    async def _flag_windows(self, state: PartState, more: Mapping[int, SegmentScore]) -> dict[int, SegmentScore]:
        """Undecided segments that are flagged in their reading form."""
        verdicts = state.verdicts.all
        segments = state.received.segments
        undecided = range(state.received.decided, len(verdicts))
        begin = segments[undecided.start].start
        text = state.received.text[: segments[undecided.stop - 1].end]
        windows = await run_off_loop(len(text) - begin, partial(reading_windows, text[begin:]))
        windows = [
            replace(window, start=begin + window.start, end=begin + window.end)
            for window in windows
            if window.text not in self._fine_windows
        ]
        flagged = await confirm_windows(windows, text, partial(self._read_scores, state), self._policy.caution)
        self._fine_windows.update({window.text for window in windows} - {window.text for window, _ in flagged})
        by_number: dict[int, SegmentScore] = {}
        for window, verdict in flagged:
            covered = [
                number
                for number in undecided
                if segments[number].start < window.end and window.start < segments[number].end
            ]
            # such a window may be flagged only for the segment that is flagged already
            if not any(verdicts[number].flagged or number in more for number in covered):
                by_number |= {number: replace(verdict, text=verdicts[number].text) for number in covered}
        return by_number


def _count_releasable(state: PartState) -> int:
    """The number of segments that need not wait for later ones to complete a sentence."""
    segments = state.received.segments
    limit = len(state.verdicts.all)
    words_behind = 0
    while limit > state.received.decided and words_behind < WINDOW_WORDS and not _ENDS.search(segments[limit - 1].text):
        limit -= 1
        words_behind += len(segments[limit].text.split())
    return limit


def _list_new_unflagged(state: PartState, known_count: int, more: Mapping[int, SegmentScore]) -> list[int]:
    """The numbers of segments behind the first `known_count` that are flagged neither there nor in `more`."""
    verdicts = state.verdicts.all
    return [
        number for number in range(known_count, len(verdicts)) if not verdicts[number].flagged and number not in more
    ]


def _verdicts_with_text(correction: Correction) -> tuple[SegmentScore, ...]:
    """The verdicts of a correction without the one on the position after the text."""
    return tuple(verdict for verdict in correction.segments if verdict.text.strip())


def select_flagged(
    numbers: Sequence[int], verdicts: Sequence[SegmentScore], scores: Sequence[SegmentScore]
) -> dict[int, SegmentScore]:
    """The flagged verdicts of a second reading on these segments; raises `EngineFault` if its segments differ."""
    if len(scores) < len(verdicts) or any(scores[number].text != verdicts[number].text for number in numbers):
        raise EngineFault("the engine judged other segments than these")
    return {number: scores[number] for number in numbers if scores[number].flagged}


def _add_costs(first: Corrected, readings: Sequence[Corrected]) -> Corrected:
    """`first` with the cost of all readings; a cache hit only if each reading was one."""
    correction = first.correction.with_cost_of([reading.correction for reading in readings])
    return replace(first, correction=correction, cache_hit=all_cached(reading.cache_hit for reading in readings))


def _find_echoes(turns: Sequence[Turn], verdicts: Sequence[SegmentScore]) -> list[int]:
    """The numbers of unflagged segments that echo one of the turns."""
    echoes = Echoes(turns)
    return [
        number
        for number, verdict in enumerate(verdicts)
        if verdict.text and not verdict.flagged and echoes.contains_echo(verdict.text)
    ]


def find_copies(verdicts: Sequence[SegmentScore]) -> list[tuple[str, SegmentScore, list[int]]]:
    """The unflagged copies of flagged segments, as (shared key, flagged verdict, segment numbers)."""
    keys = flagged_keys(verdicts)
    if not keys:
        return []
    equal: dict[str, list[int]] = {}
    for number, verdict in enumerate(verdicts):
        if not verdict.flagged and verdict.text and (key := copy_key(verdict.text)) in keys:
            equal.setdefault(key, []).append(number)
    return [(key, keys[key], numbers) for key, numbers in equal.items()]


def join_windows(windows: Sequence[Window]) -> str:
    """Join windows to one text, so that one request reads them all."""
    return _BREAK.join(window.text for window in windows)


def put_in_place(text: str, window: Window) -> tuple[str, int]:
    """(text up to the segment in which the window begins, followed by the window; offset of the window in it)."""
    start = max((piece.start for piece in split(text) if piece.start <= window.start), default=0)
    return text[:start] + window.text, start


async def confirm_windows(
    windows: Sequence[Window], text: str, score: Callable[[str], Awaitable[Sequence[SegmentScore]]], caution: float
) -> list[tuple[Window, SegmentScore]]:
    """The flagged windows of a text, each with its verdict; `score` returns the engine's verdicts on a text.

    Overlapping windows are scored in separate texts, because repetition hides violations. Otherwise as few texts as
    possible are used. Out of context a harmless sentence may look bad, so the first flagged windows are confirmed in
    context.
    """
    flagged: list[tuple[Window, SegmentScore]] = []
    for layer in without_overlap(windows):
        flagged += flagged_windows(layer, await score(join_windows(layer)), caution)
    flagged.sort(key=lambda pair: pair[0].start)
    confirmed = flagged[MAX_CONFIRMED:]
    for window, verdict in flagged[:MAX_CONFIRMED]:
        standing, start = await run_off_loop(len(text), partial(put_in_place, text, window))
        # a flag that ends before the window concerns the text before it
        if any(end > start for _, end, _ in find_flagged(standing, await score(standing))):
            confirmed.append((window, verdict))
    return confirmed


def flagged_windows(
    windows: Sequence[Window], verdicts: Iterable[SegmentScore], caution: float
) -> list[tuple[Window, SegmentScore]]:
    """The flagged windows among those read as one text, each with its verdict."""
    ends = list(accumulate(len(window.text) + len(_BREAK) for window in windows))
    flagged: dict[int, SegmentScore] = {}
    for start, end, verdict in find_flagged(join_windows(windows), verdicts):
        if verdict.score is not None and verdict.score < caution + DOUBT_MARGIN:
            continue
        # all windows that the segment touches, since it may span several
        for number in range(bisect_right(ends, start), min(len(windows), bisect_left(ends, end) + 1)):
            flagged[number] = verdict
    return [(windows[number], verdict) for number, verdict in flagged.items()]


def find_flagged(text: str, verdicts: Iterable[SegmentScore]) -> Iterator[tuple[int, int, SegmentScore]]:
    """Yield (start, end, verdict) for each flagged segment of a text; raises `EngineFault` if it is not there."""
    end = 0
    for verdict in verdicts:
        start = text.find(verdict.text, end)
        if start < 0:
            raise EngineFault("the engine judged another text than this one")
        end = start + len(verdict.text)
        if verdict.flagged:
            yield start, end, verdict
