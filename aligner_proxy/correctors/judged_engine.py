"""Engine with a judge: the judge's verdicts replace those of the detector head; the inner engine makes the edits.

Where the judge changes no verdict, the inner engine corrects as without a judge. Where it does, each flagged run is
replaced in a session of the inner engine: by the local aligner or, if the policy names one, by the editor. If the
inner engine reads nothing ahead, or writes nothing that passes, the run is removed. The replacement of a run that the
judge flagged is judged by the judge, too. In a growing answer, a doubtful segment waits for the judge; segments before
it do not. Segments are known by their index, from 0.

A correction without all the verdicts that were asked for is delivered but not cached, like one whose editor failed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.correctors.early_opinions import EarlyOpinions
from aligner_proxy.correctors.judge import RequestJudges
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
    """Scores of segments, with the judge's verdict in place of the head's where the judge gave one."""

    scores: tuple[SegmentScore, ...]
    use: JudgeUse | None
    """What the judge was asked, and what that cost; None if nothing was doubtful."""
    is_changed: bool
    """Whether a verdict differs from the head's."""
    flagged_by_judge: frozenset[int] = frozenset()
    """Indexes of the segments that the judge flagged and the head had not."""


class JudgedEngine(ForwardingEngine):
    """An engine whose verdicts judges may change. Satisfies `Engine`; the judges' groups belong to LiteLLM."""

    def __init__(self, engine: Engine, judge: RequestJudges) -> None:
        super().__init__(engine)
        self.judge = judge

    async def info(self) -> AlignerInfo:
        """Describe engine and judges together; raises `EngineFault` if an aligner has no detector head."""
        description = await self.describe_inner()
        others = {name: self._with_judge(other) for name, other in description.others.items()}
        return replace(self._with_judge(description), others=others)

    async def describe_inner(self) -> AlignerInfo:
        """Return the description of the inner engine; the judges learn from it which token classifiers there are."""
        description = await self.inner.info()
        self.judge.note_engine(description)
        return description

    def _with_judge(self, description: AlignerInfo) -> AlignerInfo:
        """The description with a hash of engine and judges; raises `EngineFault` without a detector head."""
        if not description.has_head:
            model = description.model
            raise EngineFault(f"{model} has no detector head, so there is no doubt that a judge could resolve")
        content_hash = digest({"engine": description.content_hash, "judges": self.judge.settings()})
        return replace(description, content_hash=content_hash)

    async def align(self, request: AlignRequest) -> Correction:
        """Score the answer, ask the judge about doubtful segments, and edit the segments that are then flagged."""
        if not request.answer.strip():
            return await self.inner.align(request)
        deadline_at = time.monotonic() + request.deadline_s
        async with enforce_deadline(request.deadline_s):
            if not self.judge.knows_engine:
                await self.describe_inner()
            scored = await self.inner.align(make_verdict_request(request))
            segments = judged_segments(request.answer, scored.segments)
            judged_scores = await self.judge_scores(request, segments, scored.segments, deadline_at, is_whole=True)
            correction = await self._edit(request, scored, judged_scores, deadline_at)
            return await self.add_verdicts(request, correction, judged_scores)

    async def _edit(
        self, request: AlignRequest, scored: Correction, judged_scores: JudgedScores, deadline_at: float
    ) -> Correction:
        """Return the correction of an answer by the verdicts in `judged_scores`.

        `scored` is the engine's correction with the scores, but without edits; its cost is part of the result.
        """
        has_flags = any(score.flagged for score in judged_scores.scores)
        if request.score_only or (not has_flags and request.verify is Verify.FLAGGED):
            return replace(scored, text=request.answer)
        if not judged_scores.is_changed:
            correction = await self.inner.align(request.with_deadline(deadline_at - time.monotonic()))
            return correction.with_cost_of([scored, correction])
        # `align` would edit by the head's verdicts; a session replaces the runs that it is asked to replace
        session_request = request.model_copy(update={"answer": ""})
        session = await self.inner.read(session_request.with_deadline(deadline_at - time.monotonic()))
        try:
            await session.feed(request.answer)
            await session.end()
            has_read = await drain_verdicts(session) is not None
            return await self.replace_runs(request, judged_scores, session if has_read else None, deadline_at, scored)
        finally:
            await session.aclose()

    async def add_verdicts(
        self, request: AlignRequest, correction: Correction, judged_scores: JudgedScores
    ) -> Correction:
        """Return the correction with the judge's verdicts and use, and the hash of engine and judges as its aligner.

        If a judge or an editor failed, the aligner is that of the engine alone. This is not in the cache key, so the
        correction is not stored, and the next request asks again.
        """
        description = (await self.describe_inner()).find_aligner(request.aligner)
        correction = replace(correction, segments=judged_scores.scores).with_judge(judged_scores.use)
        has_editor_failed = correction.editor is not None and correction.editor.failed > 0
        has_judge_failed = correction.judge is not None and correction.judge.calls.failed > 0
        if not (has_editor_failed or has_judge_failed):
            description = self._with_judge(description)
        return replace(correction, aligner=description.content_hash)

    async def judge_scores(
        self,
        request: AlignRequest,
        segments: Sequence[Segment],
        scores: Sequence[SegmentScore],
        deadline_at: float,
        first: int = 0,
        *,
        is_whole: bool = False,
        early_opinions: EarlyOpinions | None = None,
    ) -> JudgedScores:
        """Ask the judge about the doubtful segments from index `first` on; return the scores with its verdicts.

        `is_whole` says whether the segments are all of the answer. `early_opinions` has the verdicts for which the
        judge was asked before the answer's end, if it was.
        """
        doubtful_segments = self.judge.find_doubtful(request, scores, first, is_whole=is_whole)
        if not doubtful_segments:
            return JudgedScores(tuple(scores), None, is_changed=False)
        opinion_giver = early_opinions or self.judge
        opinion = await opinion_giver.give_opinion(request, segments, doubtful_segments, deadline_at)
        final_scores = list(scores)
        for index, violates in opinion.violates.items():
            score = scores[index]
            # a flagged segment violates the objective that the judge was asked about
            objective = doubtful_segments.get(index, score.objective) if violates else score.objective
            final_scores[index] = replace(score, flagged=violates, objective=objective)
        flagged_by_judge = frozenset(
            index for index, violates in opinion.violates.items() if violates and not scores[index].flagged
        )
        cleared_count = sum(not violates and scores[index].flagged for index, violates in opinion.violates.items())
        use = JudgeUse(len(doubtful_segments), len(flagged_by_judge), cleared_count, opinion.calls)
        is_changed = final_scores != list(scores)
        return JudgedScores(tuple(final_scores), use, is_changed, flagged_by_judge)

    async def replace_runs(
        self,
        request: AlignRequest,
        judged_scores: JudgedScores,
        session: Session | None,
        deadline_at: float,
        scored: Correction,
    ) -> Correction:
        """Replace every run of flagged segments by text that `session` writes; without a session, remove the runs.

        The session has read the whole answer. `scored` is a correction with the scores, whose cost is added.
        """
        if not any(score.flagged for score in judged_scores.scores):
            # not joined from segments, because the white space at the end of the answer belongs to none
            return replace(scored, text=request.answer)
        segments = judged_segments(request.answer, judged_scores.scores)
        # (text, white space after it) of each piece of the new answer
        pieces: list[tuple[str, str]] = []
        corrections = [replace(scored, text="")]
        for run in splice.group_runs(segments, [score.flagged for score in judged_scores.scores]):
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
                objective=judged_scores.scores[run.first].objective,
            )
            replacement = Correction("") if session is None else await session.replace(span)
            if any(run.first <= index < stop for index in judged_scores.flagged_by_judge):
                replacement = await self.check_replacement(request, run.segments, replacement, span)
            corrections.append(replacement)
            space_before = pieces[-1][1] if pieces else ""
            space_after = structure.gap_of_edit(run.segments, replacement.text, space_before)
            pieces.append((replacement.text, space_after))
        return replace(scored, text=structure.join(pieces)).with_cost_of(corrections)

    async def check_replacement(
        self, request: AlignRequest, run: Sequence[Segment], replacement: Correction, span: Span
    ) -> Correction:
        """Let the judge check the text written for a run that it flagged; return the replacement with the judge's use.

        The replacement's text becomes empty if it repeats the run, if the judge flags it, or if the judge fails.
        """
        flagged_texts = [segment.text.strip() for segment in run]
        text = splice.find_replacement(replacement.text, (), flagged_texts, finished=True)
        if not text:
            return replace(replacement, text="")
        segments_before = structure.split(span.before)
        start = len(span.before)
        new_segments = [structure.shift_segment(segment, start) for segment in structure.split(text)]
        segments = [*segments_before, *new_segments]
        # the judge is asked about all new segments, whatever their score
        asked_segments = dict.fromkeys(range(len(segments_before), len(segments)), span.objective)
        deadline_at = time.monotonic() + span.deadline_s
        opinion = await self.judge.give_opinion(request, segments, asked_segments, deadline_at)
        has_passed = opinion.failure is None and not any(opinion.violates.values())
        use = JudgeUse(len(asked_segments), calls=opinion.calls)
        return replace(replacement, text=text if has_passed else "").with_judge(use)

    async def read(self, request: AlignRequest) -> Session:
        """Open a session whose doubtful segments wait for the judge."""
        if not self.judge.knows_engine:
            await self.describe_inner()
        return JudgedSession(self, await self.inner.read(request), request)


class JudgedSession(ForwardingSession):
    """A session whose verdicts are final: a doubtful segment gets its verdict after the judge was asked about it."""

    def __init__(self, engine: JudgedEngine, session: Session, request: AlignRequest) -> None:
        super().__init__(session)
        self._engine = engine
        self._request = request
        self._text = request.answer
        """The answer so far."""
        self._final_scores: tuple[SegmentScore, ...] = ()
        """The final verdicts on the first segments, up to the first doubtful one that the judge was not asked about."""
        self._flagged_by_judge: set[int] = set()
        """Indexes of the segments that the judge flagged and the head had not."""
        self._early_opinions: EarlyOpinions | None = None
        """The judge's opinions on an answer that is held, given before its end; None for other answers."""
        self.use: JudgeUse | None = None
        """Use of the judge so far; None if it was not asked."""

    def ask_early(self) -> None:
        """Ask the judge while the answer grows. Called for an answer that is held until `finish`."""
        self._early_opinions = EarlyOpinions(self._engine.judge)

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Take more of the answer; return the verdicts that are final already."""
        self._text += text
        scores = await super().feed(text)
        if self._early_opinions is not None:
            self._early_opinions.note_scores(self._request, self._text, scores)
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
        doubtful_indexes = (index for index in range(final_count, len(scores)) if is_doubtful(scores[index]))
        first_doubtful = next(doubtful_indexes, len(scores))
        self._final_scores += scores[final_count:first_doubtful]
        # if there is no new verdict yet, ask the judge about the doubtful segment and those after it
        if len(self._final_scores) <= known_count and first_doubtful < len(scores):
            deadline_at = time.monotonic() + self._request.deadline_s
            judged_scores = await self._judge(scores, first_doubtful, deadline_at)
            self._final_scores += judged_scores.scores[first_doubtful:]
        return self._final_scores

    async def replace(self, span: Span) -> Correction:
        """Replace a flagged run. If the judge flagged any of its segments, the new text must pass the judge, too."""
        replacement = await super().replace(span)
        if not any(span.first <= index < span.stop for index in self._flagged_by_judge):
            return replacement
        segments = locate_segments(self._text, self._final_scores[: span.stop])
        flagged_run = segments[span.first :]
        # the judge is asked about the objective that the run violates; the span's own is that of a missing end
        span = span.model_copy(update={"objective": self._final_scores[span.first].objective})
        replacement = await self._engine.check_replacement(self._request, flagged_run, replacement, span)
        self._add_use(replacement.judge)
        # the session reports its use of the judge as a whole, not with each replacement
        return replace(replacement, judge=None)

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction of the whole answer, by the verdicts given so far and new ones on the rest.

        If the session has read another text, or reads nothing ahead, the answer is corrected without the session.
        """
        try:
            return await self._finish(request)
        finally:
            await self._close_early_opinions()

    async def _finish(self, request: AlignRequest) -> Correction:
        """Do what `finish` does, except for closing the early opinions."""
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
        judged_scores = await self._judge_rest(request, segments, scores, deadline_at)
        if not judged_scores.is_changed:
            correction = await super().finish(request.with_deadline(deadline_at - time.monotonic()))
        else:
            aligner = (await engine.inner.info()).find_aligner(request.aligner)
            scored = Correction(request.answer, scores, aligner=aligner.content_hash)
            try:
                correction = await engine.replace_runs(request, judged_scores, self.inner(), deadline_at, scored)
            finally:
                await super().aclose()
        return await engine.add_verdicts(request, correction, judged_scores)

    async def aclose(self) -> None:
        """Close the inner session, and cancel an early question to the judge that still runs."""
        await self._close_early_opinions()
        await super().aclose()

    async def _close_early_opinions(self) -> None:
        """Cancel an early question to the judge that still runs."""
        if self._early_opinions is not None:
            await self._early_opinions.aclose()

    async def _judge_rest(
        self, request: AlignRequest, segments: Sequence[Segment], scores: Sequence[SegmentScore], deadline_at: float
    ) -> JudgedScores:
        """The final verdicts on all segments: those given while the answer grew, and new ones on the others.

        `scores` are the head's. The result also has what the judge flagged, and what it was asked, before.
        """
        final_count = len(self._final_scores)
        merged_scores = (*self._final_scores, *scores[final_count:])
        judged_scores = await self._engine.judge_scores(
            request,
            segments,
            merged_scores,
            deadline_at,
            first=final_count,
            is_whole=True,
            early_opinions=self._early_opinions,
        )
        self._add_use(judged_scores.use)
        return replace(
            judged_scores,
            use=self.use,
            is_changed=judged_scores.scores != tuple(scores),
            flagged_by_judge=judged_scores.flagged_by_judge | self._flagged_by_judge,
        )

    async def _judge(self, scores: Sequence[SegmentScore], first: int, deadline_at: float) -> JudgedScores:
        """Ask the judge about the doubtful segments from index `first` on; note which it flags, and its use."""
        request = self._request.model_copy(update={"answer": self._text})
        segments = locate_segments(self._text, scores)
        judged_scores = await self._engine.judge_scores(request, segments, scores, deadline_at, first)
        self._flagged_by_judge |= judged_scores.flagged_by_judge
        self._add_use(judged_scores.use)
        return judged_scores

    def _add_use(self, use: JudgeUse | None) -> None:
        """Add a use of the judge to the session's; None if the judge was not asked."""
        if use is not None:
            self.use = self.use + use if self.use else use


async def drain_verdicts(session: Session) -> tuple[SegmentScore, ...] | None:
    """All verdicts of a session whose text is complete; None if its engine gives verdicts only with `finish`."""
    verdicts: tuple[SegmentScore, ...] = ()
    while True:
        new_verdicts = await session.wait_for_verdicts(len(verdicts))
        if new_verdicts is None:
            return None
        # the engine waits for further verdicts as long as some may come, so these are all
        if len(new_verdicts) <= len(verdicts):
            return verdicts
        verdicts = new_verdicts
