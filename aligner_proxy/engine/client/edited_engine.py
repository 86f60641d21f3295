"""Engine made of two: a scorer flags segments, and a writer writes in place of those and nowhere else.

The scorer reads every answer, also while the upstream still writes; one of which nothing is flagged never reaches the
writer. Segments that are not flagged are copied from the answer, byte for byte. What is written is scored where it
stands, and what is flagged again is removed. Writers are a completions server (completions_aligner.py) and a chat model
(correctors/editor.py).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Protocol

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    Engine,
    ForwardingSession,
    RowsRequest,
    RowsResponse,
    Session,
    Span,
    StatesRequest,
    text_states,
    with_heads,
)
from aligner_proxy.errors import EngineFault
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, SegmentScore, Verify


class Writer(Protocol):
    """Writes in place of what a scorer flags. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    @property
    def replaces_spans(self) -> bool:
        """Whether it writes while the answer is being written; otherwise it is asked at the end."""
        ...

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """What both are together: either changes what is answered. Raises `EngineFault` for a scorer without head."""
        ...

    async def write(self, request: AlignRequest, scored: Correction, scorer: Engine, until: float) -> Correction:
        """The correction of an answer with these verdicts, by a time in seconds of `time.monotonic()`."""
        ...

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
        """What stands in place of a flagged stretch of an answer that is still being written."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


class EditedEngine:
    """A scorer with a writer behind it. Satisfies `Engine`; closing closes both."""

    def __init__(self, scorer: Engine, writer: Writer) -> None:
        self.scorer = scorer
        self.writer = writer

    async def info(self) -> AlignerInfo:
        """Both together."""
        return await self.writer.describe(await self.scorer.info())

    async def align(self, request: AlignRequest) -> Correction:
        """Score, and ask the writer only where something is flagged, within `request.deadline_s`."""
        return await self.finish(request, self.scorer.align(make_verdict_request(request)))

    async def finish(self, request: AlignRequest, scoring: Awaitable[Correction]) -> Correction:
        """The correction, once the verdicts are there."""
        until = time.monotonic() + request.deadline_s
        async with enforce_deadline(request.deadline_s):
            scored = await scoring
            about = (await self.info()).find_aligner(request.aligner)
            scored = replace(scored, text=request.answer, aligner=about.content_hash)
            if request.score_only or not request.answer.strip():
                return scored
            return await self.writer.write(request, scored, self.scorer, until)

    async def read(self, request: AlignRequest) -> Session:
        """Let the scorer read along."""
        scoring_request = request.model_copy(
            update={"verify": Verify.FLAGGED, "score_only": not self.writer.replaces_spans}
        )
        return EditedSession(self, await self.scorer.read(scoring_request), request)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Hidden states of texts, from the scorer: the writer only writes."""
        return await text_states(self.scorer, request)

    async def put_head(self, data: bytes) -> str:
        """Give a taught head to the scorer, which judges."""
        return await with_heads(self.scorer).put_head(data)

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Rows of segments, from the scorer."""
        return await with_heads(self.scorer).rows(request)

    async def aclose(self) -> None:
        """Close both."""
        try:
            await self.scorer.aclose()
        finally:
            await self.writer.aclose()


class EditedSession(ForwardingSession):
    """The scorer's session, before the writer: the scorer gives verdicts, the writer writes."""

    def __init__(self, engine: EditedEngine, session: Session, request: AlignRequest) -> None:
        super().__init__(session)
        self._engine = engine
        self.request = request
        self.text = request.answer
        self._verdicts: tuple[SegmentScore, ...] = ()

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        self.text += text
        return await super().feed(text)

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """The scorer's verdicts; none before the end where the writer is asked at the end."""
        if not self._engine.writer.replaces_spans:
            return None
        verdicts = await super().wait_for_verdicts(known_count)
        self._verdicts = verdicts or self._verdicts
        return verdicts

    def mark_flagged_segments(self, span: Span) -> tuple[list[Segment], list[SegmentScore]]:
        """The segments of the answer so far, and of each whether it is in a stretch, and what it violates."""
        segments = structure.split(self.text[: span.end])
        if span.stop > len(segments):
            segments = structure.append_end(segments)
        scores: list[SegmentScore] = []
        for at, segment in enumerate(segments):
            judged_objective = self._verdicts[at].objective if at < len(self._verdicts) else None
            objective = judged_objective if segment.text else span.objective
            inside = span.first <= at < span.stop
            scores.append(SegmentScore(segment.text, None, inside, objective if inside else None))
        return segments, scores

    async def replace(self, span: Span) -> Correction:
        """What the writer writes in place of a stretch."""
        return await self._engine.writer.replace(self, span, self._engine.scorer)

    async def replace_by_scorer(self, span: Span) -> Correction:
        """What the scorer writes there."""
        return await super().replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended; what is flagged goes to the writer."""
        return await self._engine.finish(request, super().finish(make_verdict_request(request)))


def judged_segments(answer: str, scores: Sequence[SegmentScore]) -> list[Segment]:
    """The segments that were judged. Raises `EngineFault` where they are others than those of the answer."""
    texts = [score.text for score in scores]
    pieces = structure.match_segments(structure.split(answer), texts)
    if texts != [piece.text for piece in pieces]:
        raise EngineFault("the engine judged other segments than these; is it of another version?")
    return pieces


def make_verdict_request(request: AlignRequest) -> AlignRequest:
    """The request as it asks for verdicts alone."""
    return request.model_copy(update={"score_only": True, "verify": Verify.FLAGGED})
