"""Session without an engine, which cuts a growing answer into segments and flags none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aligner_proxy.engine.api import AlignRequest, Session, Span
from aligner_proxy.errors import EngineFault
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, SegmentScore


class UnjudgedSession(Session):
    """The session of an answer without objectives: every segment stays, and no engine is asked.

    With this session, an answer that only has to meet requirements of plugins takes the same path as other answers.
    """

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._segments: list[Segment] = []
        """The segments that are complete, because the next one has begun or the text has ended."""
        self._scores: list[SegmentScore] = []
        """An unflagged verdict on each complete segment."""
        self._has_ended = False
        self._segments_added = asyncio.Condition()
        """Notified when segments are added."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Take more of the answer; return the verdicts on all complete segments."""
        await self._add_segments(self._splitter.feed(text))
        return self._verdicts()

    async def end(self) -> None:
        """End the text, which completes its last segment."""
        await self._add_segments(self._splitter.end(), has_ended=True)

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...]:
        async with self._segments_added:
            await self._segments_added.wait_for(lambda: self._has_ended or len(self._segments) > known_count)
        return self._verdicts()

    async def _add_segments(self, segments: Sequence[Segment], *, has_ended: bool = False) -> None:
        """Add complete segments, and wake the calls that wait for them; `has_ended` says whether the text has ended."""
        async with self._segments_added:
            self._segments += segments
            self._scores += (SegmentScore(segment.text, None, False) for segment in segments)
            self._has_ended = has_ended
            self._segments_added.notify_all()

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        return tuple(self._scores)

    async def replace(self, span: Span) -> Correction:
        raise EngineFault("nothing is to be replaced in an answer without objectives")

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer unchanged."""
        return Correction(request.answer)

    async def aclose(self) -> None:
        """Nothing to close."""
