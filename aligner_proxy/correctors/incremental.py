"""Session of a corrector that edits an answer sentence by sentence while it is being streamed.

The corrector gets each segment as soon as the next one has begun, together with the delivered text before it. A segment
that it returns unchanged is released. Anything else is an edit, which the gate judges like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aligner_proxy.correctors.segmented_session import UnjudgedSession
from aligner_proxy.engine.api import AlignRequest, Engine, Span
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.text.structure import join, join_so_far
from aligner_proxy.types import Correction, DecodeCounts, SegmentScore

Revise = Callable[[AlignRequest, str, str], Awaitable[Correction]]
"""Returns the replacement of a segment, given the request, the delivered text before it, and the segment."""


class IncrementalSession(UnjudgedSession):
    """A session that revises sentence by sentence. There are no scores: a changed segment counts as flagged."""

    def __init__(self, revise: Revise, whole: Engine, request: AlignRequest) -> None:
        super().__init__()
        self._revise = revise
        self._whole = whole
        """Corrects whole answers, for a caller that does not release by sentences."""
        self._request = request
        self._revised: list[Correction] = []
        """The revisions so far, one for each segment, from the first segment on."""
        self._segments += self._splitter.feed(request.answer)

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...]:
        """Verdicts on more segments than `known_count`; waits for the next segment and has it revised."""
        await super().wait_for_verdicts(known_count)
        # no more than the caller needs: it may release this segment before the next one is revised
        while len(self._revised) <= known_count and len(self._revised) < len(self._segments):
            await self._revise_next()
        return self._verdicts()

    async def replace(self, span: Span) -> Correction:
        """The revisions of the segments in a span, joined to one correction."""
        revised = self._revised[span.first : span.stop]
        segments = self._segments[span.first : span.stop]
        text = join([(part.text, segment.gap) for part, segment in zip(revised, segments, strict=True)])
        counts = sum((part.counts for part in revised), DecodeCounts())
        # all segments of an answer go to the same corrector, so the last one's aligner stands for all
        return Correction(text, counts=counts, aligner=revised[-1].aligner)

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction of the whole answer; the revisions made so far are not used."""
        return await self._whole.align(request)

    async def _revise_next(self) -> None:
        """Have the next segment revised, with the delivered text before it; raises `InvalidOutput` for a wrong type."""
        segment = self._segments[len(self._revised)]
        before = join_so_far((part.text, piece.gap) for part, piece in zip(self._revised, self._segments, strict=False))
        revision = await self._revise(self._request, before, segment.text)
        if not isinstance(revision, Correction) or not isinstance(revision.text, str):
            raise InvalidOutput("a corrector returned something that is no correction")
        self._revised.append(revision)

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        """A verdict without score on each revised segment, flagged if the revision changes it."""
        pairs = zip(self._segments, self._revised, strict=False)
        return tuple(SegmentScore(segment.text, None, part.text != segment.text) for segment, part in pairs)
