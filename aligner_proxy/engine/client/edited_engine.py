"""Engine made of two: a scorer flags segments, and a writer replaces these segments only.

The scorer reads every answer, also while the upstream still writes it. Only answers with flagged segments reach the
writer. Unflagged segments are copied from the answer, byte for byte. New text is scored in its place in the answer, and
sentences that are flagged again are removed. Writers are a completions server (completions_aligner.py) and a chat model
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
    ForwardingEngine,
    ForwardingSession,
    Session,
    Span,
)
from aligner_proxy.engine.decoding import splice
from aligner_proxy.errors import EngineFault
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, SegmentScore, Verify, Write


class Writer(Protocol):
    """Replaces segments that a scorer flags. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    @property
    def replaces_spans(self) -> bool:
        """Whether it can write replacements while the answer is being written; if not, it is asked at the end."""
        ...

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """Describe scorer and writer as one aligner; raises `EngineFault` for a scorer without a head.

        The content hash covers both, because either changes the corrections.
        """
        ...

    async def write(self, request: AlignRequest, scored: Correction, scorer: Engine, until: float) -> Correction:
        """Correct an answer that the scorer has judged, before `until`, a time of `time.monotonic()` in seconds."""
        ...

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
        """Write a replacement for a flagged range of an answer that is still being written."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


class EditedEngine(ForwardingEngine):
    """A scorer followed by a writer. Satisfies `Engine`; closing it closes both."""

    def __init__(self, scorer: Engine, writer: Writer, scorer_write: Write = Write.FREE) -> None:
        super().__init__(scorer)
        self.writer = writer
        self.scorer_write = scorer_write
        """What the scorer may write where it edits in place of a writer that failed."""

    @property
    def scorer(self) -> Engine:
        """The engine that judges."""
        return self.inner

    async def info(self) -> AlignerInfo:
        return await self.writer.describe(await self.scorer.info())

    async def align(self, request: AlignRequest) -> Correction:
        """Score the answer, and ask the writer only if something is flagged, within `request.deadline_s`."""
        return await self.finish(request, self.scorer.align(make_verdict_request(request)))

    async def finish(self, request: AlignRequest, scoring: Awaitable[Correction]) -> Correction:
        """Wait for the verdicts of `scoring`, then let the writer correct the answer, within `request.deadline_s`."""
        deadline_at = time.monotonic() + request.deadline_s
        async with enforce_deadline(request.deadline_s):
            scored = await scoring
            about = (await self.info()).find_aligner(request.aligner)
            scored = replace(scored, text=request.answer, aligner=about.content_hash)
            if request.score_only or not request.answer.strip():
                return scored
            if request.write is Write.NEVER:
                return remove_flagged(request.answer, scored)
            return await self.writer.write(request, scored, self.scorer, deadline_at)

    async def read(self, request: AlignRequest) -> Session:
        """Let the scorer read an answer that is still being written; the writer writes what it flags."""
        scoring_request = request.model_copy(
            update={
                "verify": Verify.FLAGGED,
                # a writer that replaces spans may let the scorer write them, so the session is not for verdicts only
                "score_only": not self.writer.replaces_spans,
                "write": Write.NEVER if request.write is Write.NEVER else self.scorer_write,
            }
        )
        return EditedSession(self, await self.scorer.read(scoring_request), request)

    async def aclose(self) -> None:
        """Close the scorer, and the writer even if that fails."""
        try:
            await super().aclose()
        finally:
            await self.writer.aclose()


class EditedSession(ForwardingSession):
    """A session in which the scorer reads and judges the answer, and the writer writes replacements."""

    def __init__(self, engine: EditedEngine, session: Session, request: AlignRequest) -> None:
        super().__init__(session)
        self._engine = engine
        self.request = request
        self.text = request.answer  # the answer so far
        self._verdicts: tuple[SegmentScore, ...] = ()  # of the first segments of the answer, as far as they came

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        self.text += text
        return await super().feed(text)

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Wait for the scorer's verdicts; None if the writer writes only at the end."""
        if not self._engine.writer.replaces_spans:
            return None
        verdicts = await super().wait_for_verdicts(known_count)
        self._verdicts = verdicts or self._verdicts
        return verdicts

    def mark_flagged_segments(self, span: Span) -> tuple[list[Segment], list[SegmentScore]]:
        """The segments of the answer so far, and their scores, in which only segments within `span` are flagged."""
        segments = structure.split(self.text[: span.end])
        if span.stop > len(segments):  # the end of the answer is in the span
            segments = structure.append_end(segments)
        scores: list[SegmentScore] = []
        for number, segment in enumerate(segments):
            judged_objective = self._verdicts[number].objective if number < len(self._verdicts) else None
            # the end of the answer, which has no text, gets its objective from the span
            objective = judged_objective if segment.text else span.objective
            is_inside = span.first <= number < span.stop
            scores.append(SegmentScore(segment.text, None, is_inside, objective if is_inside else None))
        return segments, scores

    async def replace(self, span: Span) -> Correction:
        """Let the writer replace a flagged range; an empty replacement if the request forbids writing."""
        if self.request.write is Write.NEVER:
            return Correction("")
        return await self._engine.writer.replace(self, span, self._engine.scorer)

    async def replace_by_scorer(self, span: Span) -> Correction:
        """Let the scorer write the replacement, in place of a writer that failed."""
        return await super().replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the complete answer: the scorer finishes its verdicts, then the writer replaces flagged segments."""
        return await self._engine.finish(request, super().finish(make_verdict_request(request)))


def judged_segments(answer: str, scores: Sequence[SegmentScore]) -> list[Segment]:
    """The segments of the answer, one for each of `scores`; raises `EngineFault` if their texts differ."""
    texts = [score.text for score in scores]
    pieces = structure.match_segments(structure.split(answer), texts)
    if texts != [piece.text for piece in pieces]:
        raise EngineFault("the engine judged other segments than these; is it of another version?")
    return pieces


def locate_segments(answer: str, scores: Sequence[SegmentScore]) -> list[Segment]:
    """The first segments of an answer, one for each of these scores; raises `EngineFault` if the texts differ."""
    starts: list[int] = []
    end = 0
    for score in scores:
        start = answer.find(score.text, end)
        if start < 0:
            raise EngineFault("the engine judged other segments than these; is it of another version?")
        starts.append(start)
        end = start + len(score.text)
    # the gap of a segment reaches to the next one; that of the last is empty
    ends = [*starts[1:], end]
    return [
        Segment(start, score.text, answer[start + len(score.text) : stop])
        for start, stop, score in zip(starts, ends, scores, strict=True)
    ]


def remove_flagged(answer: str, scored: Correction) -> Correction:
    """The correction that removes flagged segments and writes nothing; `scored` itself if none is flagged."""
    pieces = judged_segments(answer, scored.segments)
    flags = [verdict.flagged for verdict in scored.segments]
    if not any(flags):
        return scored
    # (text, gap after it) of what stays; a removed run leaves an empty text
    remaining: list[tuple[str, str]] = []
    for run in splice.group_runs(pieces, flags):
        if run.flagged:
            gap_before = remaining[-1][1] if remaining else ""
            remaining.append(("", structure.gap_of_edit(run.segments, "", gap_before)))
        else:
            remaining += [(segment.text, segment.gap) for segment in run.segments]
    return replace(scored, text=structure.join(remaining))


def make_verdict_request(request: AlignRequest) -> AlignRequest:
    """A copy of the request that asks for verdicts only."""
    return request.model_copy(update={"score_only": True, "verify": Verify.FLAGGED})
