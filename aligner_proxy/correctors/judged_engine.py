"""Engine with a judge: the judge's verdicts replace those of the detector head; the inner engine makes the edits.

Where the judge changes no verdict, the inner engine corrects as without a judge. Where it does, each flagged run is
replaced in a session of the inner engine: by the local aligner or, if the policy names one, by the editor. If the
inner engine reads nothing ahead, or writes nothing that passes, the run is removed. A replacement of what the judge
flagged is shown to the judge, too. In a growing answer, a doubtful segment waits for the judge; earlier ones do not.

A correction without all the verdicts that were asked for is delivered but not cached, like one whose editor failed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.correctors.early_opinions import EarlyOpinions
from aligner_proxy.correctors.judge import RequestJudges, compute_judge_use
from aligner_proxy.engine.api import (
    MIN_DEADLINE_S,
    AlignerInfo,
    AlignRequest,
    Engine,
    ForwardingEngine,
    ForwardingSession,
    Session,
    Span,
)
from aligner_proxy.engine.client.edited_engine import judged_segments, locate_segments, make_verdict_request
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import EngineFault
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, JudgeUse, SegmentScore, Verify


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """Scores of segments with the judge's verdicts in place of the head's where it gave one."""

    scores: tuple[SegmentScore, ...]
    use: JudgeUse | None
    """What the judge was asked; None if nothing was doubtful."""
    is_changed: bool
    """Whether a verdict differs from the head's."""
    by_judge: frozenset[int] = frozenset()
    """Numbers of the segments that the judge flagged and the head had not."""


class JudgedEngine(ForwardingEngine):
    """An engine whose verdicts judges may change. Satisfies `Engine`; the judges' groups belong to LiteLLM."""

    def __init__(self, engine: Engine, judge: RequestJudges) -> None:
        super().__init__(engine)
        self.judge = judge

    async def info(self) -> AlignerInfo:
        """Describe engine and judge together; raises `EngineFault` for an engine without a detector head."""
        about = await self.describe()
        others = {name: self._with_judge(other) for name, other in about.others.items()}
        return replace(self._with_judge(about), others=others)

    async def describe(self) -> AlignerInfo:
        """The description of the inner engine, from which is known which token classifiers it has."""
        about = await self.inner.info()
        self.judge.note_engine(about)
        return about

    def _with_judge(self, about: AlignerInfo) -> AlignerInfo:
        """The description with a hash of engine and judges; raises `EngineFault` without a detector head."""
        if not about.has_head:
            raise EngineFault(f"{about.model} has no detector head, so there is no doubt that a judge could resolve")
        return replace(about, content_hash=digest({"engine": about.content_hash, "judges": self.judge.settings()}))

    async def align(self, request: AlignRequest) -> Correction:
        """Score, ask the judge about what is doubtful, and edit what is then flagged, within `request.deadline_s`."""
        if not request.answer.strip():
            return await self.inner.align(request)
        deadline_at = time.monotonic() + request.deadline_s
        async with enforce_deadline(request.deadline_s):
            if not self.judge.knows_engine:
                await self.describe()
            scored = await self.inner.align(make_verdict_request(request))
            segments = judged_segments(request.answer, scored.segments)
            review = await self.judge_scores(request, segments, scored.segments, deadline_at, is_whole=True)
            done = await self._edit(request, scored, review, deadline_at)
            return await self.finish(request, done, review)

    async def _edit(
        self, request: AlignRequest, scored: Correction, review: JudgedScores, deadline_at: float
    ) -> Correction:
        """The correction of an answer by the verdicts in `review`; `scored` is the engine's, with its scores."""
        flagged = any(score.flagged for score in review.scores)
        if request.score_only or (not flagged and request.verify is Verify.FLAGGED):
            return replace(scored, text=request.answer)
        if not review.is_changed:
            correction = await self.inner.align(request.with_deadline(deadline_at - time.monotonic()))
            return correction.with_cost_of([scored, correction])
        session = await self.inner.read(
            request.model_copy(update={"answer": ""}).with_deadline(deadline_at - time.monotonic())
        )
        try:
            await session.feed(request.answer)
            await session.end()
            has_read = await drain_verdicts(session) is not None
            return await self.replace_runs(request, review, session if has_read else None, deadline_at, scored)
        finally:
            await session.aclose()

    async def finish(self, request: AlignRequest, correction: Correction, review: JudgedScores) -> Correction:
        """The correction with the judge's verdicts and use, and with the hash of engine and judges as its aligner."""
        description = (await self.describe()).find_aligner(request.aligner)
        correction = replace(correction, segments=review.scores).with_judge(review.use)
        # without the hash of both, it is not cached: a judge or an editor failed, and may do better next time
        failed = (correction.editor and correction.editor.failed) or (
            correction.judge and correction.judge.calls.failed
        )
        return replace(correction, aligner=(description if failed else self._with_judge(description)).content_hash)

    async def judge_scores(
        self,
        request: AlignRequest,
        segments: Sequence[Segment],
        scores: Sequence[SegmentScore],
        deadline_at: float,
        first: int = 0,
        *,
        is_whole: bool = False,
        early: EarlyOpinions | None = None,
    ) -> JudgedScores:
        """Ask the judge about the doubtful segments from the number `first` on, and put its verdicts into the scores.

        `is_whole` says that the segments are all of the answer. `early` has the verdicts for which the judge was asked
        before the answer's end. Without doubtful segments the scores stay as they are.
        """
        doubtful = self.judge.find_doubtful(request, scores, first, is_whole=is_whole)
        if not doubtful:
            return JudgedScores(tuple(scores), None, is_changed=False)
        opinion = await (early or self.judge).give_opinion(request, segments, doubtful, deadline_at)
        final_scores = tuple(
            _apply_verdict(score, opinion.violates[at], doubtful.get(at, score.objective))
            if at in opinion.violates
            else score
            for at, score in enumerate(scores)
        )
        by_judge = frozenset(at for at, violates in opinion.violates.items() if violates and not scores[at].flagged)
        use = compute_judge_use(opinion, scores, len(doubtful))
        return JudgedScores(final_scores, use, final_scores != tuple(scores), by_judge)

    async def replace_runs(
        self,
        request: AlignRequest,
        review: JudgedScores,
        session: Session | None,
        deadline_at: float,
        scored: Correction,
    ) -> Correction:
        """Replace every flagged run in a session that has read the whole answer; without one, remove them."""
        if not any(score.flagged for score in review.scores):
            return replace(scored, text=request.answer)  # with the white space at its end, which no segment has
        segments = judged_segments(request.answer, review.scores)
        pieces: list[tuple[str, str]] = []
        corrections = [replace(scored, text="")]
        for run in splice.group_runs(segments, [score.flagged for score in review.scores]):
            if not run.flagged:
                pieces += [(segment.text, segment.gap) for segment in run.segments]
                continue
            stop = run.first + len(run.segments)
            span = Span(
                first=run.first,
                stop=stop,
                end=len(request.answer),
                before=structure.join(pieces),
                deadline_s=max(MIN_DEADLINE_S, deadline_at - time.monotonic()),
                objective=review.scores[run.first].objective,
            )
            replacement = Correction("") if session is None else await session.replace(span)
            if any(run.first <= at < stop for at in review.by_judge):
                replacement = await self.check_replacement(request, run.segments, replacement, span)
            corrections.append(replacement)
            lead = pieces[-1][1] if pieces else ""
            pieces.append((replacement.text, structure.gap_of_edit(run.segments, replacement.text, lead)))
        return replace(scored, text=structure.join(pieces)).with_cost_of(corrections)

    async def check_replacement(
        self, request: AlignRequest, run: Sequence[Segment], replacement: Correction, span: Span
    ) -> Correction:
        """Let the judge check the text written for a run it flagged; return the replacement with the judge's use.

        Its text becomes "" if it repeats the run, is flagged by the judge, or the judge fails.
        """
        flagged_texts = [segment.text.strip() for segment in run]
        text = splice.find_replacement(replacement.text, (), flagged_texts, finished=True)
        if not text:
            return replace(replacement, text="")
        context = structure.split(span.before)
        start = len(span.before)
        segments = [*context, *(structure.shift_segment(segment, start) for segment in structure.split(text))]
        new_segments = dict.fromkeys(range(len(context), len(segments)), span.objective)
        opinion = await self.judge.give_opinion(request, segments, new_segments, time.monotonic() + span.deadline_s)
        is_clear = opinion.failure is None and not any(opinion.violates.values())
        use = JudgeUse(len(new_segments), calls=opinion.calls)
        return replace(replacement, text=text if is_clear else "").with_judge(use)

    async def read(self, request: AlignRequest) -> Session:
        """Open a session whose doubtful segments wait for the judge."""
        if not self.judge.knows_engine:
            await self.describe()
        return JudgedSession(self, await self.inner.read(request), request)


class JudgedSession(ForwardingSession):
    """A session whose verdicts are final: a doubtful segment gets its verdict when the judge has spoken."""

    def __init__(self, engine: JudgedEngine, session: Session, request: AlignRequest) -> None:
        super().__init__(session)
        self._engine = engine
        self._request = request
        self._text = request.answer
        """The answer so far."""
        self._final_scores: tuple[SegmentScore, ...] = ()
        """The final verdicts on the first segments; a doubtful segment ends them until the judge was asked."""
        self._by_judge: set[int] = set()
        """Numbers of the segments that the judge flagged and the head had not."""
        self._early: EarlyOpinions | None = None
        """What the judge says before the end of an answer that is held; None for other answers."""
        self.use: JudgeUse | None = None
        """Use of the judge so far; None if it was not asked."""

    def ask_early(self) -> None:
        """Ask the judge while the answer grows, because all of it is held until `finish`."""
        self._early = EarlyOpinions(self._engine.judge)

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Take more of the answer; return the verdicts that are final already."""
        self._text += text
        scores = await super().feed(text)
        if self._early is not None:
            self._early.note_scores(self._request, self._text, scores)
        return self._final_scores

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """All final verdicts, once there are more than `known_count`; None if the engine gives none before the end.

        Verdicts before the first doubtful segment do not wait for the judge.
        """
        scores = await super().wait_for_verdicts(known_count)
        if scores is None:
            return None
        final_count = len(self._final_scores)
        is_doubtful = partial(self._engine.judge.doubts, self._request)
        first_doubtful = next((at for at in range(final_count, len(scores)) if is_doubtful(scores[at])), len(scores))
        self._final_scores += scores[final_count:first_doubtful]
        # nothing new yet: ask the judge about the doubtful segment and those after it
        if len(self._final_scores) <= known_count and first_doubtful < len(scores):
            deadline_at = time.monotonic() + self._request.deadline_s
            review = await self._judge(scores, first_doubtful, deadline_at)
            self._final_scores += review.scores[first_doubtful:]
        return self._final_scores

    async def replace(self, span: Span) -> Correction:
        """Replace a flagged run; what the judge flagged is replaced only by what passes the judge."""
        replacement = await super().replace(span)
        if not any(span.first <= at < span.stop for at in self._by_judge):
            return replacement
        run = locate_segments(self._text, self._final_scores[: span.stop])[span.first :]
        span = span.model_copy(update={"objective": self._final_scores[span.first].objective})
        replacement = await self._engine.check_replacement(self._request, run, replacement, span)
        self._add_use(replacement.judge)
        # the session reports its use itself
        return replace(replacement, judge=None)

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction of the whole answer, by the verdicts given so far and new ones on the rest.

        If the session has read another text, or reads nothing ahead, the answer is corrected without it.
        """
        try:
            return await self._finish(request)
        finally:
            await self._close_early()

    async def _finish(self, request: AlignRequest) -> Correction:
        """Do what `finish` says; the early questions may still run at the end."""
        engine = self._engine
        deadline_at = time.monotonic() + request.deadline_s
        scores = None
        if request.answer.startswith(self._text) and not request.score_only:
            await self.feed(request.answer[len(self._text) :])
            await super().end()
            scores = await drain_verdicts(self.inner())
        if not scores:
            await self.aclose()
            return await engine.align(request)
        segments = judged_segments(request.answer, scores)
        review = await self._judge_rest(request, segments, scores, deadline_at)
        if not review.is_changed:
            done = await super().finish(request.with_deadline(deadline_at - time.monotonic()))
        else:
            about = (await engine.inner.info()).find_aligner(request.aligner)
            read = Correction(request.answer, scores, aligner=about.content_hash)
            try:
                done = await engine.replace_runs(request, review, self.inner(), deadline_at, read)
            finally:
                await super().aclose()
        return await engine.finish(request, done, review)

    async def aclose(self) -> None:
        """Give up the session and the question to the judge that runs, if one does."""
        await self._close_early()
        await super().aclose()

    async def _close_early(self) -> None:
        """Give up the early question to the judge that runs, if one does."""
        if self._early is not None:
            await self._early.aclose()

    async def _judge_rest(
        self, request: AlignRequest, segments: Sequence[Segment], scores: Sequence[SegmentScore], deadline_at: float
    ) -> JudgedScores:
        """The final verdicts on all segments: those given while the answer grew, and new ones on the others."""
        count = len(self._final_scores)
        merged = (*self._final_scores, *scores[count:])
        review = await self._engine.judge_scores(
            request, segments, merged, deadline_at, first=count, is_whole=True, early=self._early
        )
        self._add_use(review.use)
        return replace(
            review,
            use=self.use,
            is_changed=review.scores != tuple(scores),
            by_judge=review.by_judge | self._by_judge,
        )

    async def _judge(self, scores: Sequence[SegmentScore], first: int, deadline_at: float) -> JudgedScores:
        """Ask the judge about the doubtful segments from `first` on; note what it flags, and its use."""
        request = self._request.model_copy(update={"answer": self._text})
        segments = locate_segments(self._text, scores)
        review = await self._engine.judge_scores(request, segments, scores, deadline_at, first)
        self._by_judge |= review.by_judge
        self._add_use(review.use)
        return review

    def _add_use(self, use: JudgeUse | None) -> None:
        """Count what the judge was asked once more; None: nothing."""
        if use is not None:
            self.use = self.use + use if self.use else use


def _apply_verdict(score: SegmentScore, violates: bool, objective: int | None) -> SegmentScore:
    """The score with a judge's verdict; what it flags violates the `objective` that it was asked about."""
    return replace(score, flagged=violates, objective=objective if violates else score.objective)


async def drain_verdicts(session: Session) -> tuple[SegmentScore, ...] | None:
    """All verdicts of a session whose text is complete; None if its engine gives verdicts only with `finish`."""
    verdicts: tuple[SegmentScore, ...] = ()
    while True:
        new_verdicts = await session.wait_for_verdicts(len(verdicts))
        if new_verdicts is None:
            return None
        # the engine waits until there are more, so these are all
        if len(new_verdicts) <= len(verdicts):
            return verdicts
        verdicts = new_verdicts
