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
"""Returns the replacement of a segment, given the request, the delivered text before the segment, and its text."""


class IncrementalSession(UnjudgedSession):
    """A session that has each sentence revised. There are no scores: a segment that was changed counts as flagged.

    `revise_segment` asks the corrector about one segment, and `whole_engine` corrects whole answers (`finish`).
    """

    def __init__(self, revise_segment: Revise, whole_engine: Engine, request: AlignRequest) -> None:
        super().__init__()
        self._revise_segment = revise_segment
        self._whole_engine = whole_engine
        self._request = request
        self._revisions: list[Correction] = []
        """The revisions so far, one for each segment, from the first segment on."""
        self._segments += self._splitter.feed(request.answer)

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...]:
        """The verdicts on more than `known_count` segments, if the answer has more; waits until they are revised."""
        await super().wait_for_verdicts(known_count)
        # only as many as the caller waits for, so that it can release a segment before the next one is revised
        while len(self._revisions) <= known_count and len(self._revisions) < len(self._segments):
            await self._revise_next()
        return self._verdicts()

    async def replace(self, span: Span) -> Correction:
        """The revisions of the segments in a span, joined to one correction."""
        revisions = self._revisions[span.first : span.stop]
        segments = self._segments[span.first : span.stop]
        pairs = zip(revisions, segments, strict=True)
        text = join([(revision.text, segment.gap) for revision, segment in pairs])
        counts = sum((revision.counts for revision in revisions), DecodeCounts())
        # all segments of an answer go to the same corrector, so the aligner of the last revision stands for all
        return Correction(text, counts=counts, aligner=revisions[-1].aligner)

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction of the whole answer by `whole_engine`; the revisions made so far are not used."""
        return await self._whole_engine.align(request)

    async def _revise_next(self) -> None:
        """Have the next segment revised, after the revised text before it; raises `InvalidOutput` if that fails."""
        next_segment = self._segments[len(self._revisions)]
        # only the segments revised so far
        pairs = zip(self._revisions, self._segments, strict=False)
        text_before = join_so_far((revision.text, segment.gap) for revision, segment in pairs)
        revision = await self._revise_segment(self._request, text_before, next_segment.text)
        if not isinstance(revision, Correction) or not isinstance(revision.text, str):
            raise InvalidOutput("a corrector returned something that is no correction")
        self._revisions.append(revision)

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        """A verdict without score on each revised segment, flagged if the revision changes the segment."""
        pairs = zip(self._segments, self._revisions, strict=False)
        return tuple(SegmentScore(segment.text, None, revision.text != segment.text) for segment, revision in pairs)
