"""Verdicts on the segments of a growing answer: the engine's, and those of a second reading."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from aligner_proxy.pipeline.part_state import PartState
from aligner_proxy.pipeline.resumable_session import ResumableSession
from aligner_proxy.pipeline.streamed_reading import Progress, StreamedReading


@dataclass(frozen=True, slots=True)
class Readings:
    """How many segments may go out now, and which of them readings besides the engine's flag."""

    releasable: int
    flagged: Collection[int] = ()


class PartJudge:
    """Judges the segments of one part."""

    def __init__(self, state: PartState, session: ResumableSession, reading: StreamedReading) -> None:
        self._state = state
        self._session = session
        self._reading = reading

    async def judge(self) -> Readings | None:
        """Get verdicts on segments that have none; None where only the whole can be judged."""
        state = self._state
        known = len(state.verdicts.all)
        if known < len(state.cut.segments):
            async with asyncio.timeout(state.policy.deadline_s):
                verdicts = await self._session.judged(known, again=state.sent.end > 0)
            if verdicts is None:
                return None
            is_end = state.cut.has_ended and not state.is_part
            state.verdicts.accept(verdicts, state.cut.segments, state.decided, is_end=is_end)
        return await self._read_again(known) if self._reading.is_due else Readings(len(state.verdicts.all))

    async def _read_again(self, known: int) -> Readings:
        """Flag what another reading of the new segments flags."""
        state = self._state
        cut = state.cut
        progress = Progress(
            cut.text,
            cut.segments,
            state.verdicts.all,
            known,
            state.decided,
            lambda: state.sent.out(0, state.sent.end, cut.text),
        )
        releasable = len(state.verdicts.all) if state.is_judged else self._reading.releasable(progress)
        flagged = await self._reading.further(state.exchange(), progress, releasable, state.tally.charge)
        state.verdicts.flag(flagged)
        return Readings(releasable, flagged)
