"""Second reading of an answer that is released while it is written: before a segment goes out.

The same as second_reading.py for a whole answer, with what is known by then: copies of what was flagged before, echoes
read without the conversation, what follows a flagged segment read behind what went out, and reading forms. Segments
that may be pieces of a sentence (a word a bullet) wait until one ends, or until enough words stand behind them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.pipeline import Pipeline, align_request
from aligner_proxy.pipeline.second_reading import MOST_CONFIRMED, copy_key, in_place, places, score_windows
from aligner_proxy.text.echoes import Echoes
from aligner_proxy.text.reading_form import WINDOW_WORDS, Window, reading_windows
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore

_ENDS = re.compile(r"[.!?\u2026\u3002\uff01\uff1f:;][\"'\u201d\u2019)\]*_]*\s*$|(?:```|~~~)\s*$")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an answer, or a part of it, has come: its segments with the verdicts on the first of them."""

    text: str
    segments: Sequence[Segment]
    verdicts: Sequence[SegmentScore]
    known: int
    """So many verdicts were looked at before."""
    undecided: int
    """The first segment of which nothing went out."""
    out: Callable[[], str]
    """What went out in place of those before it."""


class _Reader:
    """Reads texts of one answer for their verdicts; `charge` is told what each reading cost."""

    def __init__(
        self, pipeline: Pipeline, policy: Policy, exchange: Exchange, charge: Callable[[Correction], None]
    ) -> None:
        self._pipeline = pipeline
        self._policy = replace(policy, score_only=True)
        self._exchange = exchange
        self._charge = charge

    async def scores(self, text: str, *, bare: bool = False) -> tuple[SegmentScore, ...]:
        """The verdicts on a text, `bare` without the conversation."""
        asked = replace(self._exchange, turns=()) if bare else self._exchange
        seconds = self._policy.deadline_s
        request = align_request(asked, text, self._policy, time.monotonic() + seconds)
        async with asyncio.timeout(seconds):
            correction = await self._pipeline.engine_of(self._policy).align(request)
        self._charge(correction)
        return tuple(verdict for verdict in correction.segments if verdict.text.strip())


class StreamedReading:
    """What is known of one growing answer to read it again; all parts of a long one share it."""

    def __init__(self, pipeline: Pipeline, policy: Policy) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self.is_due = outcomes.reads_twice(policy)
        self._flagged: dict[str, SegmentScore] = {}
        self._echoes: Echoes | None = None
        self._windows: set[str] = set()
        """Those that were read and are fine."""

    def releasable(self, progress: Progress) -> int:
        """The number of segments that need not wait for those behind them to be read as one sentence."""
        if not self.is_due:
            return len(progress.verdicts)
        limit = len(progress.verdicts)
        words = 0
        while (
            limit > progress.undecided and words < WINDOW_WORDS and not _ENDS.search(progress.segments[limit - 1].text)
        ):
            limit -= 1
            words += len(progress.segments[limit].text.split())
        return limit

    async def further(
        self, exchange: Exchange, progress: Progress, limit: int, charge: Callable[[Correction], None]
    ) -> dict[int, SegmentScore]:
        """The verdicts on segments that another reading flags; those before `limit` go out next."""
        more: dict[int, SegmentScore] = {}
        for number in range(progress.known, len(progress.verdicts)):
            verdict = progress.verdicts[number]
            key = copy_key(verdict.text)
            if verdict.flagged and key:
                self._flagged.setdefault(key, verdict)
            elif key in self._flagged:
                more[number] = replace(self._flagged[key], text=verdict.text)
        reader = _Reader(self._pipeline, self._policy, exchange, charge)
        more |= await self._echoing(exchange, progress, more, reader)
        more |= await self._behind_flagged(progress, more, reader)
        if limit > progress.undecided:
            more |= await self._in_windows(progress, more, reader)
        for verdict in more.values():
            self._flagged.setdefault(copy_key(verdict.text), verdict)
        return more

    async def _echoing(
        self, exchange: Exchange, progress: Progress, more: dict[int, SegmentScore], reader: _Reader
    ) -> dict[int, SegmentScore]:
        """New segments that echo the conversation and are flagged without it."""
        if self._echoes is None:
            size = sum(len(turn.content) for turn in exchange.turns)
            self._echoes = await run_off_loop(size, partial(Echoes, exchange.turns))
        numbers = [n for n in _fresh(progress, more) if self._echoes.has(progress.verdicts[n].text)]
        if not numbers:
            return {}
        bare = await reader.scores(progress.text[: progress.segments[numbers[-1]].end], bare=True)
        if len(bare) <= numbers[-1] or any(bare[n].text != progress.verdicts[n].text for n in numbers):
            raise EngineFault("the engine judged other segments than these")
        return {number: bare[number] for number in numbers if bare[number].flagged}

    async def _behind_flagged(
        self, progress: Progress, more: dict[int, SegmentScore], reader: _Reader
    ) -> dict[int, SegmentScore]:
        """New segments that are flagged behind what goes out in place of flagged ones."""
        numbers = _fresh(progress, more)
        if not numbers or not (self._flagged or more):
            return {}
        text = progress.out()
        starts: dict[int, int] = {}
        for number in range(progress.undecided, len(progress.verdicts)):
            if not (progress.verdicts[number].flagged or number in more):
                starts[number] = len(text)
                text += progress.segments[number].text + progress.segments[number].gap
        found: dict[int, SegmentScore] = {}
        for start, end, verdict in places(text, await reader.scores(text)):
            for number in numbers:
                size = len(progress.segments[number].text)
                if number in starts and start < starts[number] + size and starts[number] < end:
                    found[number] = replace(verdict, text=progress.verdicts[number].text)
        return found

    async def _in_windows(
        self, progress: Progress, more: dict[int, SegmentScore], reader: _Reader
    ) -> dict[int, SegmentScore]:
        """Undecided segments that are flagged in their reading form."""
        begin = progress.segments[progress.undecided].start
        end = progress.segments[len(progress.verdicts) - 1].end
        windows = await run_off_loop(end - begin, partial(reading_windows, progress.text[begin:end]))
        windows = [window for window in windows if window.text not in self._windows]
        if not windows:
            return {}
        flagged = await _confirmed(windows, progress.text[:end], begin, reader, self._policy.caution)
        self._windows.update({window.text for window in windows} - {window.text for window, _ in flagged})
        found: dict[int, SegmentScore] = {}
        for window, verdict in flagged:
            covered = [
                number
                for number in range(progress.undecided, len(progress.verdicts))
                if progress.segments[number].start < begin + window.end
                and begin + window.start < progress.segments[number].end
            ]
            if not any(progress.verdicts[number].flagged or number in more for number in covered):
                found |= {number: replace(verdict, text=progress.verdicts[number].text) for number in covered}
        return found


async def _confirmed(
    windows: Sequence[Window], text: str, begin: int, reader: _Reader, caution: float
) -> list[tuple[Window, SegmentScore]]:
    """The windows of a text from `begin` on that are flagged among each other and where they stand."""
    flagged = await score_windows(windows, reader.scores, caution)
    confirmed = flagged[MOST_CONFIRMED:]
    for window, verdict in flagged[:MOST_CONFIRMED]:
        placed = replace(window, start=begin + window.start, end=begin + window.end)
        standing, start = await run_off_loop(len(text), partial(in_place, text, placed))
        if any(end > start for _, end, _ in places(standing, await reader.scores(standing))):
            confirmed.append((window, verdict))
    return confirmed


def _fresh(progress: Progress, more: dict[int, SegmentScore]) -> list[int]:
    """New segments that are not flagged."""
    new = range(progress.known, len(progress.verdicts))
    return [number for number in new if not progress.verdicts[number].flagged and number not in more]
