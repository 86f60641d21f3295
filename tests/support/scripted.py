"""Scripted engine without a model: functions say what it answers. For tests and for trying out a gateway.

It satisfies `Engine` like the real ones, honours deadlines, and remembers which requests it saw (ids only). Behind
`server.app.create_app` it speaks HTTP, too. A scripted session scores a segment with one function and replaces it by
another.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from aligner_proxy import prompts
from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    ClassifierInfo,
    DeferredSession,
    LabelledSpan,
    Span,
    StatesRequest,
    TokenLabels,
    TokenLabelsRequest,
)
from aligner_proxy.engine.decoding.splice import Run, group_runs, make_hole
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineFault, StatesUnavailable, UnknownJudge
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import Segment, gap_of_edit, join, split
from aligner_proxy.types import Correction, SegmentEvidence, SegmentScore

Score = Callable[[str], float]
Write = Callable[[str], str | CorrectionError]
Script = Callable[[AlignRequest], str | Correction | Exception]
StatesScript = Callable[[StatesRequest], list[list[float]] | Exception]
LabelsScript = Callable[[TokenLabelsRequest], TokenLabels | CorrectionError]


SCRIPTED = AlignerInfo(
    model="scripted",
    content_hash=hashlib.sha256(b"scripted").hexdigest(),
    template="ultrafeedback",
    template_hash=prompts.TEMPLATES["ultrafeedback"].hash,
    window=4096,
    has_head=True,
    quantization="none",
    device="none",
)


class ScriptedSession(DeferredSession):
    """A session that plays the scripts of its engine."""

    def __init__(self, engine: SegmentEngine, request: AlignRequest, lag_s: float | None = None) -> None:
        super().__init__(engine)
        self._scripts = engine
        self._request = request
        self._text = request.answer
        self._lag_s = engine.lag_s if lag_s is None else lag_s
        self._splitter = Splitter()
        self._segments = self._splitter.feed(request.answer)
        """The segments that are finished."""
        self._judged = engine.judged(self._segments, request.caution)
        """The verdicts on them."""
        self._more = asyncio.Condition()
        self._ended = False
        self.spans: list[Span] = []
        self.closed = False

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        async with self._more:
            self._text += text
            more = self._splitter.feed(text)
            self._segments += more
            self._judged += self._scripts.judged(more, self._request.caution)
            self._more.notify_all()
        return self._verdicts()

    async def end(self) -> None:
        """There is no more."""
        async with self._more:
            self._ended = True
            self._more.notify_all()

    async def wait_for_verdicts(self, known: int) -> tuple[SegmentScore, ...]:
        """Wait for more verdicts."""
        async with self._more:
            await self._more.wait_for(lambda: self._ended or len(self._verdicts()) > known)
        await asyncio.sleep(self._lag_s)
        return self._verdicts()

    async def replace(self, span: Span) -> Correction:
        """What the script writes in place of this stretch."""
        self.spans.append(span)
        await asyncio.sleep(self._lag_s)
        # cutting the whole text for each edit would take quadratic time, but titles stay only before further text
        is_finished = span.stop <= len(self._segments) and not self._scripts.keeps_titles
        segments = self._segments if is_finished else split(self._text[: span.end])
        run = Run(True, span.first, tuple(segments[span.first : span.stop]))
        stretch = run.text
        if span.stop > len(segments) and self._scripts.missing:
            written = self._scripts.replacement(stretch) if span.first < len(segments) else ""
            return played(written + self._scripts.missing(self._text), self._scripts.about)
        return played(self._scripts.fill(segments, run), self._scripts.about)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        if not self._ended:
            return self._judged
        request = self._request.model_copy(update={"answer": self._text})
        return self._scripts.verdicts(request, ended=True)


def labelling(*words: str, category: str = "") -> LabelsScript:
    """The script of a token classifier that finds fault with these words."""

    def script(request: TokenLabelsRequest) -> TokenLabels:
        places = [match.span() for word in words for match in re.finditer(re.escape(word), request.answer)]
        spans = [LabelledSpan(start=at, end=end, label="bad", category=category) for at, end in sorted(places)]
        return TokenLabels(spans=tuple(spans), read=len(request.answer.split()))

    return script


def unchanged(request: AlignRequest) -> str:
    """The script that leaves every answer alone."""
    return request.answer


class ScriptedEngine:
    """Answers `script(request)` after `delay_s`; an exception that the script returns is raised."""

    def __init__(self, script: Script = unchanged, *, delay_s: float = 0.0, about: AlignerInfo = SCRIPTED) -> None:
        self.script = script
        self.delay_s = delay_s
        self.about = about
        self.seen: list[str] = []
        self.cancelled: list[str] = []
        self.closed = False
        self.rows: StatesScript | None = None
        self.judges: dict[str, LabelsScript] = {}
        """The token classifiers, by name."""
        self.labelled: list[TokenLabelsRequest] = []
        """What they were asked."""
        self.labels_s = 0.0
        """How long they take."""

    def add_judge(self, name: str, script: LabelsScript, categories: tuple[str, ...] | None = None) -> None:
        """Have one more token classifier, a guard if there are categories."""
        self.judges[name] = script
        self.about = replace(self.about, judges={**self.about.judges, name: ClassifierInfo("weights", categories)})

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """Play the script of a token classifier within the request's deadline."""
        if request.model not in self.judges:
            raise UnknownJudge(f"this engine has no judge {request.model!r}; it has: {', '.join(self.judges)}")
        self.labelled.append(request)
        async with enforce_deadline(request.deadline_s):
            await asyncio.sleep(self.labels_s)
        labels = self.judges[request.model](request)
        if isinstance(labels, CorrectionError):
            raise labels
        return labels

    async def start(self) -> AlignerInfo:
        """There is nothing to load."""
        return self.about

    async def info(self) -> AlignerInfo:
        """The scripted description."""
        return self.about

    async def align(self, request: AlignRequest) -> Correction:
        """Play the script within the request's deadline."""
        about = self.about.find_aligner(request.aligner)
        self.seen.append(request.request_id)
        try:
            async with enforce_deadline(request.deadline_s):
                await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.append(request.request_id)
            raise
        return played(self.script(request), about)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Play the script of hidden states, where there is one, within the request's deadline."""
        if self.rows is None:
            raise StatesUnavailable("this scripted engine has no script of hidden states")
        try:
            async with asyncio.timeout(request.deadline_s):
                await asyncio.sleep(self.delay_s)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {request.deadline_s:g} s passed") from None
        rows = self.rows(request)
        if isinstance(rows, Exception):
            raise rows
        return rows

    async def read(self, request: AlignRequest) -> DeferredSession:
        """A script reads nothing ahead."""
        return DeferredSession(self)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class SegmentEngine(ScriptedEngine):
    """Scores each segment by `score`; a flagged stretch becomes `write` of its text. Each takes `lag_s`."""

    def __init__(self, score: Score, write: Write = lambda _: "", *, lag_s: float = 0.0) -> None:
        super().__init__(self._whole)
        self.score = score
        self.write = write
        self.lag_s = lag_s
        self.missing: Callable[[str], str] | None = None
        """What is missing behind an answer, white space before it included; None: the engine does not judge that."""
        self.evidence: Callable[[str], tuple[float, int] | tuple[float, int, float]] | None = None
        """What a segment says of the answer as a whole, and about which objective; None: the engine does not say."""
        self.keeps_titles = False
        """Whether titles, speakers and other cells that are not flagged stay, as with the aligner's own engine."""
        self.sessions: list[ScriptedSession] = []

    async def read(self, request: AlignRequest) -> ScriptedSession:
        """Read along."""
        self.sessions.append(ScriptedSession(self, request))
        return self.sessions[-1]

    def verdicts(self, request: AlignRequest, *, ended: bool) -> tuple[SegmentScore, ...]:
        """On every segment that is finished."""
        segments = split(request.answer) if request.answer.strip() else []
        verdicts = list(self.judged(segments if ended else segments[:-1], request.caution))
        if ended and segments and self.missing and request.open_ended:
            lacks = bool(self.missing(request.answer))
            verdicts.append(SegmentScore("", 1.0 if lacks else -1.0, lacks, 0))
        return tuple(verdicts)

    def judged(self, segments: Sequence[Segment], caution: float) -> tuple[SegmentScore, ...]:
        """On these segments."""
        scored = [(segment.text, self.score(segment.text)) for segment in segments]
        evidence = [SegmentEvidence(*self.evidence(text)) if self.evidence else None for text, _ in scored]
        return tuple(
            SegmentScore(text, score, score > caution, 0, pair)
            for (text, score), pair in zip(scored, evidence, strict=True)
        )

    def replacement(self, text: str) -> str:
        """What the script writes in place of a text; raises what it returns instead."""
        written = self.write(text)
        if isinstance(written, CorrectionError):
            raise written
        return written

    def fill(self, segments: Sequence[Segment], run: Run) -> str:
        """What replaces a flagged run of these segments."""
        written = self.replacement(run.text)
        if written or not self.keeps_titles:
            return written
        flags = [self.score(segment.text) > 0 for segment in segments]
        keepable = make_hole(segments, flags, run, "", "").keepable_text
        return keepable if keepable and self.score(keepable) <= 0 else ""

    def _whole(self, request: AlignRequest) -> Correction:
        verdicts = self.verdicts(request, ended=True)
        if request.score_only:
            return Correction(request.answer, verdicts)
        segments = split(request.answer)
        pieces: list[tuple[str, str]] = []
        for run in group_runs(segments, [verdict.flagged for verdict in verdicts[: len(segments)]]):
            if run.flagged:
                text = self.fill(segments, run)
                pieces.append((text, gap_of_edit(run.segments, text, pieces[-1][1] if pieces else "")))
            else:
                pieces += [(segment.text, segment.gap) for segment in run.segments]
        flagged = any(verdict.flagged for verdict in verdicts)
        more = self.missing(request.answer) if self.missing and len(verdicts) > len(segments) else ""
        return Correction(join(pieces) + more if flagged else request.answer, verdicts)


def played(result: str | Correction | Exception, about: AlignerInfo) -> Correction:
    """What a script returned, as an engine would return or raise it."""
    if isinstance(result, CorrectionError):
        raise result
    if isinstance(result, Exception):
        raise EngineFault(f"scripted {type(result).__name__}") from result
    correction = result if isinstance(result, Correction) else Correction(result)
    return replace(correction, aligner=correction.aligner or about.content_hash)
