"""A small local detector with a big remote editor: the detector's head decides what is edited, the editor writes it.

Our engine scores every segment, also while the upstream still writes. An answer with nothing flagged never leaves the
machine. Otherwise the editor is asked once for every flagged run, with the edited answer before it as a prefix; kept
segments are copied from the answer and never taken from the editor's text.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import replace

from aligner_proxy import segments
from aligner_proxy.engine.foreign import CompletionsAligner
from aligner_proxy.engine.manifest import digest
from aligner_proxy.engine.protocol import (
    AlignerInfo,
    AlignRequest,
    Engine,
    ForwardingSession,
    Session,
    Span,
    StatesRequest,
    text_states,
)
from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction, SegmentScore, Verify
from aligner_proxy.waiting import within


class ScoredEditor:
    """Two engines as one. `scorer` needs a detector head; closing closes both."""

    def __init__(self, scorer: Engine, editor: CompletionsAligner) -> None:
        self._scorer = scorer
        self._editor = editor

    async def info(self) -> AlignerInfo:
        """Both together: either changes what is answered. The window is the smaller one."""
        judge = await self._scorer.info()
        writer = await self._editor.info()
        if not judge.has_head:
            raise EngineFault(f"the scorer {judge.model} has no detector head; choose an aligner that has one")
        return replace(
            writer,
            model=f"{writer.model} after {judge.model}",
            content_hash=digest({"scorer": judge.content_hash, "editor": writer.content_hash}),
            template_hash=digest({"scorer": judge.template_hash, "editor": writer.template_hash}),
            window=min(judge.window, writer.window),
            has_head=True,
        )

    async def align(self, request: AlignRequest) -> Correction:
        """Score, and ask the editor only where something is flagged, within `request.deadline_s`."""
        return await self.finish(request, self._scorer.align(judged(request)))

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Hidden states of texts, from the scorer: the editor only writes."""
        return await text_states(self._scorer, request)

    async def read(self, request: AlignRequest) -> Session:
        """Let the scorer read along."""
        return ScoredSession(self, await self._scorer.read(judged(request)))

    async def finish(self, request: AlignRequest, scoring: Awaitable[Correction]) -> Correction:
        """The correction, once the verdicts are there."""
        started = time.perf_counter()
        async with within(request.deadline_s):
            scored = await scoring
            about = (await self.info()).named(request.aligner)
            done = replace(scored, text=request.answer, aligner=about.content_hash)
            if request.answer.strip() and not request.score_only:
                done = await self._edited(request, done)
        return replace(done, ms=(time.perf_counter() - started) * 1000)

    async def _edited(self, request: AlignRequest, scored: Correction) -> Correction:
        window = (await self._editor.info()).window
        if request.verify is Verify.ALWAYS:
            written = await self._editor.whole(request, window)
        else:
            flags = [verdict.flagged for verdict in scored.segments]
            texts = [verdict.text for verdict in scored.segments]
            pieces = segments.judged(segments.split(request.answer), texts)
            if texts != [piece.text for piece in pieces]:
                raise EngineFault("the scorer judged other segments than these; is it of another version?")
            if not any(flags):
                return scored
            written = await self._editor.rewritten(request, pieces, flags, window)
        return replace(written, segments=scored.segments, aligner=scored.aligner)

    async def aclose(self) -> None:
        """Close both."""
        try:
            await self._scorer.aclose()
        finally:
            await self._editor.aclose()


class ScoredSession(ForwardingSession):
    """The scorer's session, before the editor: what is flagged goes to the editor when the answer has ended."""

    def __init__(self, engine: ScoredEditor, session: Session) -> None:
        super().__init__(session)
        self._engine = engine

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """No verdict goes out before the end of the answer, when the editor is asked."""
        return None

    async def replace(self, span: Span) -> Correction:
        """Without verdicts there is nothing to replace."""
        raise EngineFault("this engine cannot replace spans while streaming: its editor is asked at the end")

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended; what is flagged goes to the editor."""
        return await self._engine.finish(request, super().finish(judged(request)))


def judged(request: AlignRequest) -> AlignRequest:
    """The request as it asks for verdicts alone."""
    return request.model_copy(update={"score_only": True, "verify": Verify.FLAGGED})
