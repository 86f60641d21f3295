"""A scripted engine with incremental sessions: one function scores a segment, another writes what replaces it.

For tests and for trying out a gateway that releases answers segment by segment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aligner_proxy.engine.protocol import AlignRequest, DeferredSession, Span
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
        self.score = score
        self.write = write
        self.lag_s = lag_s
        self.missing: Callable[[str], str] | None = None
        """What is missing behind an answer, white space before it included; None: the engine does not judge that."""
        self.sessions: list[ScriptedSession] = []

    async def read(self, request: AlignRequest) -> ScriptedSession:
        """Read along."""
        self.sessions.append(ScriptedSession(self, request))
        return self.sessions[-1]

    def verdicts(self, request: AlignRequest, *, ended: bool) -> tuple[SegmentScore, ...]:
        """On every segment that is finished."""
        segments = split(request.answer) if request.answer.strip() else []
        scored = [(segment.text, self.score(segment.text)) for segment in (segments if ended else segments[:-1])]
        verdicts = [SegmentScore(text, score, score > request.caution, 0) for text, score in scored]
        if ended and segments and self.missing and request.open_ended:
            lacks = bool(self.missing(request.answer))
            verdicts.append(SegmentScore("", 1.0 if lacks else -1.0, lacks, 0))
        return tuple(verdicts)

    def replacement(self, text: str) -> str:
        """What the script writes in place of a text; raises what it returns instead."""
        written = self.write(text)
        if isinstance(written, CorrectionError):
            raise written
        return written

    def _whole(self, request: AlignRequest) -> Correction:
        verdicts = self.verdicts(request, ended=True)
        if request.score_only:
            return Correction(request.answer, verdicts)
        segments = split(request.answer)
        pieces: list[tuple[str, str]] = []
        for run in runs(segments, [verdict.flagged for verdict in verdicts[: len(segments)]]):
            if run.flagged:
                pieces.append((self.replacement(run.text), run.segments[-1].gap))
            else:
                pieces += [(segment.text, segment.gap) for segment in run.segments]
        flagged = any(verdict.flagged for verdict in verdicts)
        more = self.missing(request.answer) if self.missing and len(verdicts) > len(segments) else ""
        return Correction(join(pieces) + more if flagged else request.answer, verdicts)


class ScriptedSession(DeferredSession):
    """A session that plays the scripts of its engine."""

    def __init__(self, engine: SegmentEngine, request: AlignRequest, lag_s: float | None = None) -> None:
        super().__init__(engine)
        self._scripts = engine
        self._request = request
        self._text = request.answer
        self._lag_s = engine.lag_s if lag_s is None else lag_s
        self._more = asyncio.Condition()
        self._ended = False
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
        """What the script writes in place of this stretch."""
        self.spans.append(span)
        await asyncio.sleep(self._lag_s)
        segments = split(self._text[: span.end])
        stretch = join([(segment.text, segment.gap) for segment in segments[span.first : span.stop]])
        if span.stop > len(segments) and self._scripts.missing:
            written = self._scripts.replacement(stretch) if span.first < len(segments) else ""
            return Correction(written + self._scripts.missing(self._text))
        return Correction(self._scripts.replacement(stretch))

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        request = self._request.model_copy(update={"answer": self._text})
        return self._scripts.verdicts(request, ended=self._ended)
