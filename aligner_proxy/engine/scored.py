"""How do a small local head and a big remote editor work together? The head decides what, the editor writes it.

Our engine scores every segment, also while the upstream still writes. An answer with nothing flagged never leaves the
machine. Otherwise the editor is asked once for every flagged run, with the edited answer before it as a prefix; kept
segments are copied from the answer and never taken from the editor's text.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import replace

from aligner_proxy import segments
from aligner_proxy.engine.foreign import ForeignAligner, together
from aligner_proxy.engine.manifest import digest
from aligner_proxy.engine.patience import within
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, Engine, Reading, Span, WeighRequest, weigh
from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction, SegmentScore, Verify

_NOTHING_IS_WORTH_IT = 1e6
"""A caution (nats) that no score exceeds: the scorer then reads and judges, and writes nothing."""


class ScoredEditor:
    """Satisfies `Engine`. `scorer` needs a detector head; closing closes both."""

    def __init__(self, scorer: Engine, editor: ForeignAligner) -> None:
        self._scorer, self._editor = scorer, editor

    async def info(self) -> AlignerInfo:
        """Both together: either changes what is answered. The window is the smaller one."""
        judge, writer = await self._scorer.info(), await self._editor.info()
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

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """As the scorer's net says: the editor only writes."""
        return await weigh(self._scorer, request)

    async def read(self, request: AlignRequest) -> Reading:
        """Let the scorer read along."""
        return ScoredReading(self, request, await self._scorer.read(judged(request)))

    async def finish(self, request: AlignRequest, scoring: Awaitable[Correction]) -> Correction:
        """The correction, once the verdicts are there."""
        started = time.perf_counter()
        async with within(request.deadline_s):
            scored = await scoring
            about = (await self.info()).named(request.aligner)
            verdicts = flagged(scored.segments, request.caution)
            done = replace(scored, text=request.answer, segments=verdicts, aligner=about.content_hash)
            if request.answer.strip():
                done = await self._edited(request, done)
        return replace(done, ms=(time.perf_counter() - started) * 1000)

    async def _edited(self, request: AlignRequest, scored: Correction) -> Correction:
        window = (await self._editor.info()).window
        if request.verify is Verify.ALWAYS:
            text, cost = await self._editor.whole(request, window)
        else:
            flags = [verdict.flagged for verdict in scored.segments]
            texts = [verdict.text for verdict in scored.segments]
            pieces = segments.judged(segments.split(request.answer), texts)
            if texts != [piece.text for piece in pieces]:
                raise EngineFault("the scorer judged other segments than these; is it of another version?")
            if not any(flags):
                return scored
            text, costs = await self._editor.rewritten(request, pieces, flags, window)
            cost = together(costs)
        return replace(scored, text=text, counts=cost.counts, prompt_tokens=cost.prompt_tokens)

    async def aclose(self) -> None:
        """Close both."""
        try:
            await self._scorer.aclose()
        finally:
            await self._editor.aclose()


class ScoredReading:
    """Satisfies `Reading`: the scorer's, with the request's own caution."""

    def __init__(self, engine: ScoredEditor, request: AlignRequest, reading: Reading) -> None:
        self._engine, self._request, self._reading = engine, request, reading

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; the verdicts that are there."""
        return flagged(await self._reading.feed(text), self._request.caution)

    async def end(self) -> None:
        """There is no more."""
        await self._reading.end()

    async def judged(self, known: int) -> None:
        """What is flagged goes to the editor at the end, so nothing is said before."""

    async def replace(self, span: Span) -> Correction:
        """Nobody asks for it who was told no verdicts."""
        raise EngineFault("an editor behind a scorer replaces nothing before the end of an answer")

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended; what is flagged goes to the editor."""
        return await self._engine.finish(request, self._reading.finish(judged(request)))

    async def aclose(self) -> None:
        """Nobody wants it any more."""
        await self._reading.aclose()


def judged(request: AlignRequest) -> AlignRequest:
    """The request as it asks for verdicts alone."""
    return request.model_copy(update={"caution": _NOTHING_IS_WORTH_IT, "verify": Verify.FLAGGED})


def flagged(verdicts: tuple[SegmentScore, ...], caution: float) -> tuple[SegmentScore, ...]:
    """The verdicts as this caution has them."""
    return tuple(replace(v, flagged=v.score is not None and v.score > caution) for v in verdicts)
