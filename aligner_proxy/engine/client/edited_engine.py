"""Engine made of a scorer, which flags segments, and a writer, which replaces only the flagged segments.

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
        """Whether it can write replacements while the answer grows; if not, it is asked when the answer is complete."""

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """Describe scorer and writer as one aligner; raises `EngineFault` for a scorer without a head.

        The content hash covers both, because either changes the corrections.
        """

    async def write(self, request: AlignRequest, scored: Correction, scorer: Engine, until: float) -> Correction:
        """Correct the answer of `request`, whose verdicts are in `scored`, before `until`, in monotonic seconds.

        `scorer` can judge what the writer writes.
        """

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
        """Write a replacement for a flagged range of an answer that is still being written."""

    async def aclose(self) -> None:
        """Release connections."""


class EditedEngine(ForwardingEngine):
    """An engine whose scorer judges an answer and whose writer then corrects it; closing it closes both."""

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
        """Let the scorer judge the answer, then the writer correct it, within `request.deadline_s`."""
        return await self.finish(request, self.scorer.align(make_verdict_request(request)))

    async def finish(self, request: AlignRequest, scoring: Awaitable[Correction]) -> Correction:
        """Wait for the scorer's verdicts (`scoring`), then let the writer correct the answer before the deadline."""
        deadline_at = time.monotonic() + request.deadline_s
        async with enforce_deadline(request.deadline_s):
            scored = await scoring
            info = (await self.info()).find_aligner(request.aligner)
            scored = replace(scored, text=request.answer, aligner=info.content_hash)
            if request.score_only or not request.answer.strip():
                return scored
            if request.write is Write.NEVER:
                return remove_flagged(request.answer, scored)
            return await self.writer.write(request, scored, self.scorer, deadline_at)

    async def read(self, request: AlignRequest) -> Session:
        """Let the scorer read an answer that is still being written; the writer replaces flagged ranges."""
        scoring_request = request.model_copy(
            update={
                "verify": Verify.FLAGGED,
                # the scorer writes replacements itself if the writer fails at them, so it must be able to write
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
        self._verdicts: tuple[SegmentScore, ...] = ()  # the scorer's verdicts so far, on the first segments

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        self.text += text
        return await super().feed(text)

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Wait for the scorer's verdicts; None if the writer is only asked when the answer is complete."""
        if not self._engine.writer.replaces_spans:
            return None
        verdicts = await super().wait_for_verdicts(known_count)
        self._verdicts = verdicts or self._verdicts
        return verdicts

    def mark_flagged_segments(self, span: Span) -> tuple[list[Segment], list[SegmentScore]]:
        """The segments of the answer up to the span's end, and a verdict on each, by which a writer replaces only the
        span: a segment is flagged if it is within `span`. The verdicts have no scores."""
        segments = structure.split(self.text[: span.end])
        if span.stop > len(segments):  # the end of the answer is in the span
            segments = structure.append_end(segments)
        verdicts: list[SegmentScore] = []
        for index, segment in enumerate(segments):
            is_inside = span.first <= index < span.stop
            objective = None
            if is_inside and not segment.text:  # the end of the answer
                objective = span.objective
            elif is_inside and index < len(self._verdicts):
                objective = self._verdicts[index].objective
            verdicts.append(SegmentScore(segment.text, None, flagged=is_inside, objective=objective))
        return segments, verdicts

    async def replace(self, span: Span) -> Correction:
        """Let the writer replace a flagged range; the replacement is empty if the request forbids writing."""
        if self.request.write is Write.NEVER:
            return Correction("")
        return await self._engine.writer.replace(self, span, self._engine.scorer)

    async def replace_by_scorer(self, span: Span) -> Correction:
        """Let the scorer write the replacement, in place of a writer that failed."""
        return await super().replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the complete answer: the scorer judges its last segments, then the writer replaces flagged ones."""
        return await self._engine.finish(request, super().finish(make_verdict_request(request)))


def judged_segments(answer: str, scores: Sequence[SegmentScore]) -> list[Segment]:
    """The segments of a complete answer, one for each of `scores`; raises `EngineFault` if their texts differ."""
    judged_texts = [score.text for score in scores]
    segments = structure.match_segments(structure.split(answer), judged_texts)
    if judged_texts != [segment.text for segment in segments]:
        raise EngineFault("the engine judged other segments than these; is it of another version?")
    return segments


def locate_segments(answer: str, scores: Sequence[SegmentScore]) -> list[Segment]:
    """The first segments of a growing answer, one for each of `scores`; raises `EngineFault` if a text is not found."""
    starts: list[int] = []
    text_end = 0
    for score in scores:
        start = answer.find(score.text, text_end)
        if start < 0:
            raise EngineFault("the engine judged other segments than these; is it of another version?")
        starts.append(start)
        text_end = start + len(score.text)
    # the gap after a segment reaches to the next segment; the last gap may still grow, so it is left empty
    gap_ends = [*starts[1:], text_end]
    return [
        Segment(start, score.text, gap=answer[start + len(score.text) : gap_end])
        for start, gap_end, score in zip(starts, gap_ends, scores, strict=True)
    ]


def remove_flagged(answer: str, scored: Correction) -> Correction:
    """The correction that removes flagged segments and writes nothing; `scored` itself if none is flagged."""
    segments = judged_segments(answer, scored.segments)
    flags = [verdict.flagged for verdict in scored.segments]
    if not any(flags):
        return scored
    # (text, gap after it) of each kept segment; a removed run of segments leaves an empty text with a gap
    remaining: list[tuple[str, str]] = []
    for run in splice.group_runs(segments, flags):
        if run.flagged:
            _text, gap_before = remaining[-1] if remaining else ("", "")
            remaining.append(("", structure.gap_of_edit(run.segments, "", gap_before)))
        else:
            remaining += [(segment.text, segment.gap) for segment in run.segments]
    return replace(scored, text=structure.join(remaining))


def make_verdict_request(request: AlignRequest) -> AlignRequest:
    """A copy of the request that asks for verdicts only."""
    return request.model_copy(update={"score_only": True, "verify": Verify.FLAGGED})
