"""How does a corrector that edits sentence by sentence read an answer that is still being written?

It is asked about each segment as soon as the next one has begun, with what stands before it as it goes out. What comes
back unchanged is released, anything else is an edit, which the gate judges like any other (pipeline/streaming.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aligner_proxy.engine.api import AlignRequest, DeferredSession, Engine, Span
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.text.structure import Cutter, Segment, join, so_far
from aligner_proxy.types import Correction, DecodeCounts, SegmentScore

Revise = Callable[[AlignRequest, str, str], Awaitable[Correction]]
"""What stands in place of a segment: given the request, what went out before it, and the segment."""


class Along(DeferredSession):
    """A session of a corrector that edits sentence by sentence. There are no scores: what it revises is flagged."""

    def __init__(self, revise: Revise, whole: Engine, request: AlignRequest) -> None:
        super().__init__(whole)
        self._revise = revise
        self._request = request
        self._cutter = Cutter()
        self._segments = list[Segment]()
        self._ended = False
        self._revised: list[Correction] = []
        self._more = asyncio.Condition()
        self._segments += self._cutter.feed(request.answer)

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        async with self._more:
            self._segments += self._cutter.feed(text)
            self._more.notify_all()
        return self._verdicts()

    async def end(self) -> None:
        """There is no more."""
        async with self._more:
            self._segments += self._cutter.end()
            self._ended = True
            self._more.notify_all()

    async def judged(self, known: int) -> tuple[SegmentScore, ...]:
        """Verdicts on more segments than `known`, as soon as the next one was revised."""
        async with self._more:
            await self._more.wait_for(lambda: self._ended or len(self._segments) > known)
        while len(self._revised) <= known and len(self._revised) < len(self._segments):
            await self._next()
        return self._verdicts()

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a stretch that was revised."""
        there = range(span.first, span.stop)
        text = join([(self._revised[n].text, self._segments[n].gap) for n in there])
        made = [self._revised[n] for n in there]
        return Correction(text, counts=sum((one.counts for one in made), DecodeCounts()), aligner=made[-1].aligner)

    async def _next(self) -> None:
        segment = self._segments[len(self._revised)]
        before = so_far((one.text, piece.gap) for one, piece in zip(self._revised, self._segments, strict=False))
        made = await self._revise(self._request, before, segment.text)
        if not isinstance(made, Correction) or not isinstance(made.text, str):
            raise InvalidOutput("a corrector returned something that is no correction")
        self._revised.append(made)

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        pairs = zip(self._segments, self._revised, strict=False)
        return tuple(SegmentScore(segment.text, None, made.text != segment.text) for segment, made in pairs)
