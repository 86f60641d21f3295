"""The session of an answer without objectives: every segment stays, and no engine is asked.

It lets an answer that only has to meet standards of plugins take the same path as all others.
"""

from __future__ import annotations

import asyncio

from aligner_proxy.engine.api import AlignRequest, Span
from aligner_proxy.errors import EngineFault
from aligner_proxy.text.cutter import Cutter
from aligner_proxy.types import Correction, SegmentScore


class UnjudgedSession:
    """Gives every segment an unflagged verdict, so that it stays. Satisfies `Session`."""

    def __init__(self) -> None:
        self._cutter = Cutter()
        self._verdicts: list[SegmentScore] = []
        self._text_ended = False
        self._more = asyncio.Condition()

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Take more of the answer; return the verdicts so far."""
        async with self._more:
            self._verdicts += (SegmentScore(segment.text, None, False) for segment in self._cutter.feed(text))
            self._more.notify_all()
        return tuple(self._verdicts)

    async def end(self) -> None:
        """End the answer."""
        async with self._more:
            self._verdicts += (SegmentScore(segment.text, None, False) for segment in self._cutter.end())
            self._text_ended = True
            self._more.notify_all()

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...]:
        """Verdicts on more segments than `known_count`; waits for them."""
        async with self._more:
            await self._more.wait_for(lambda: self._text_ended or len(self._verdicts) > known_count)
        return tuple(self._verdicts)

    async def replace(self, span: Span) -> Correction:
        """Always raises, because nothing is flagged."""
        raise EngineFault("nothing is to be replaced in an answer without objectives")

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer unchanged."""
        return Correction(request.answer)

    async def aclose(self) -> None:
        """Nothing to close."""
