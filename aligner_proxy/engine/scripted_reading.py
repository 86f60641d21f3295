"""A scripted engine that reads along: one function scores a segment, another says what stands in its place.

For tests and for trying out a gateway that releases answers segment by segment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aligner_proxy.engine.protocol import AlignRequest, Span
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.engine.splice import runs
from aligner_proxy.errors import CorrectionError
from aligner_proxy.segments import join, split
from aligner_proxy.types import Correction, SegmentScore

Score = Callable[[str], float]
Write = Callable[[str], str | CorrectionError]


class SegmentEngine(ScriptedEngine):
    """Scores each segment by `score`; a flagged stretch becomes `write` of its text. Each takes `lag_s`."""

    def __init__(self, score: Score, write: Write = lambda _: "", *, lag_s: float = 0.0) -> None:
        super().__init__(self._whole)
        self.score, self.write, self.lag_s = score, write, lag_s
        self.missing: Callable[[str], str] | None = None
        """What is missing behind an answer, white space before it included; None: the engine does not judge that."""
        self.readings: list[ScriptedReading] = []

    async def read(self, request: AlignRequest) -> ScriptedReading:  # type: ignore[override]
        """Read along."""
        self.readings.append(ScriptedReading(self, request))
        return self.readings[-1]

    def verdicts(self, request: AlignRequest, *, ended: bool) -> tuple[SegmentScore, ...]:
        """On every segment that is finished."""
        found = split(request.answer) if request.answer.strip() else []
        scored = [(piece.text, self.score(piece.text)) for piece in (found if ended else found[:-1])]
        told = [SegmentScore(text, score, score > request.caution, 0) for text, score in scored]
        if ended and found and self.missing and request.open_ended:
            lacks = bool(self.missing(request.answer))
            told.append(SegmentScore("", 1.0 if lacks else -1.0, lacks, 0))
        return tuple(told)

    def replacement(self, text: str) -> str:
        """What the script says, or raises."""
        said = self.write(text)
        if isinstance(said, CorrectionError):
            raise said
        return said

    def _whole(self, request: AlignRequest) -> Correction:
        verdicts, pieces = self.verdicts(request, ended=True), list[tuple[str, str]]()
        found = split(request.answer)
        for run in runs(found, [verdict.flagged for verdict in verdicts[: len(found)]]):
            if run.flagged:
                pieces.append((self.replacement(run.text), run.segments[-1].gap))
            else:
                pieces += [(segment.text, segment.gap) for segment in run.segments]
        flagged = any(verdict.flagged for verdict in verdicts)
        more = self.missing(request.answer) if self.missing and len(verdicts) > len(found) else ""
        return Correction(join(pieces) + more if flagged else request.answer, verdicts)


class ScriptedReading:
    """Satisfies `Reading`."""

    def __init__(self, engine: SegmentEngine, request: AlignRequest, lag_s: float | None = None) -> None:
        self._engine, self._request, self._text = engine, request, request.answer
        self._lag_s = engine.lag_s if lag_s is None else lag_s
        self._more, self._ended = asyncio.Condition(), False
        self.spans: list[Span] = []
        self.closed = False

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        async with self._more:
            self._text += text
            self._more.notify_all()
        return self._verdicts()

    async def end(self) -> None:
        """There is no more."""
        async with self._more:
            self._ended = True
            self._more.notify_all()

    async def judged(self, known: int) -> tuple[SegmentScore, ...]:
        """Wait for more verdicts."""
        async with self._more:
            await self._more.wait_for(lambda: self._ended or len(self._verdicts()) > known)
        await asyncio.sleep(self._lag_s)
        return self._verdicts()

    async def replace(self, span: Span) -> Correction:
        """What the script says of this stretch."""
        self.spans.append(span)
        await asyncio.sleep(self._lag_s)
        found = split(self._text[: span.end])
        pieces = found[span.first : span.stop]
        if span.stop > len(found) and self._engine.missing:
            said = self._engine.replacement(join([(piece.text, piece.gap) for piece in pieces])) if pieces else ""
            return Correction(said + self._engine.missing(self._text))
        return Correction(self._engine.replacement(join([(piece.text, piece.gap) for piece in pieces])))

    async def finish(self, request: AlignRequest) -> Correction:
        """The whole correction."""
        return await self._engine.align(request)

    async def aclose(self) -> None:
        """Remember that nobody wants it any more."""
        self.closed = True

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        request = self._request.model_copy(update={"answer": self._text})
        return self._engine.verdicts(request, ended=self._ended)
