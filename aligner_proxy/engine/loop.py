"""The engine's loop (read this first): schedule, run one forward pass, postprocess, repeat.

One thread runs the loop and owns the model. Corrections are generators that yield requests for tokens to be fed. A step
feeds the tokens of the scheduled corrections. A correction whose request is complete continues to its next one. A
correction that fails does not affect the others.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterable

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.scheduling.scheduler import Feed, Job, JobClient, Scheduler
from aligner_proxy.engine.scheduling.sequence import EMPTY_STEP, Step, TokenSequence
from aligner_proxy.errors import CorrectionError, EngineFault, EngineUnavailable
from aligner_proxy.types import Correction

logger = logging.getLogger(__name__)


class Loop:
    """Runs steps of one model for many jobs, at most `budget` tokens a step; None takes the machine's default.

    At most `most` jobs run at a time, not counting those that wait for text.
    """

    def __init__(self, aligner: Aligner, *, budget: int | None = None, most: int = 32) -> None:
        self.aligner = aligner
        runner = aligner.runner
        self.scheduler = Scheduler(runner.pool, budget=budget or runner.step_tokens, most=most, costs=runner.costs)

    @property
    def busy(self) -> bool:
        return self.scheduler.busy or bool(self.scheduler.find_woken_jobs())

    def add(self, job: Job) -> None:
        """Add a job to the scheduler; a job that needs no model is finished at once."""
        try:
            result = job.advance()
        except Exception as error:  # noqa: BLE001 - the boundary to tokenizers and templates
            job.finish(make_own_error(job.name, error))
            return
        if result is None:
            self.scheduler.add(job)
        else:
            job.finish(result)

    def step(self) -> None:
        """Run one forward pass for the scheduled jobs and advance those whose request is complete.

        Jobs that waited for text that has now come are advanced first.
        """
        for job in self.scheduler.find_woken_jobs():
            job.woken += 1
            self._advance(job, EMPTY_STEP)
        feeds = self.scheduler.schedule(time.monotonic())
        if feeds:
            for feed, tokens in self._run(feeds):
                self._postprocess(feed, tokens)

    def is_idle(self) -> bool:
        """Whether there is nothing to do. If so, check that no cache block is lost; log and count a mismatch."""
        if self.busy:
            return False
        try:
            self.scheduler.check()
        except AssertionError:
            self.scheduler.totals.unbalanced += 1
            logger.exception("KV-cache accounting mismatch: blocks leaked; restart the engine and report this")
        return True

    def close(self) -> None:
        """Drop all jobs with an error; another loop can use the model afterwards."""
        for job in [*self.scheduler.running, *self.scheduler.waiting]:
            self.scheduler.drop(job, EngineUnavailable("the engine is closing"))

    def _run(self, feeds: list[Feed]) -> Iterable[tuple[Feed, list[int]]]:
        """Run all feeds in one forward pass and return each with its chosen tokens.

        If the pass fails, run each feed alone and drop only the jobs whose feed fails.
        """
        self.scheduler.totals.forwards += 1
        start = time.perf_counter()
        try:
            results = list(zip(feeds, self.aligner.runner.run(feeds), strict=True))
        except Exception as error:  # noqa: BLE001 - the boundary to torch
            if len(feeds) == 1:
                self.scheduler.drop(feeds[0].job, make_own_error(feeds[0].job.name, error))
                return []
        else:
            _charge_time(feeds, time.perf_counter() - start)
            return results
        return [result for feed in feeds for result in self._run([feed])]

    def _postprocess(self, feed: Feed, tokens: list[int]) -> None:
        """Record that a feed was run; once all tokens of the job's ask are fed, continue the job."""
        job = feed.job
        if not self.scheduler.record_feed(feed, tokens) or job.ask is None:
            return
        runner = self.aligner.runner
        spans = job.ask.spans
        try:
            scores, evidence = runner.score_segments(feed, spans) if spans else ([], [])
            rows = runner.read_rows(feed, spans) if spans and job.ask.rows else []
        except Exception as error:  # noqa: BLE001 - the boundary to torch
            self.scheduler.drop(job, make_own_error(job.name, error))
        else:
            self._advance(job, Step(scores, job.tokens, job.forwards, rows, evidence))

    def _advance(self, job: Job, step: Step) -> None:
        """Continue a job with a result; remove it from the scheduler if that ends it or fails."""
        try:
            result = job.advance(step)
        except Exception as error:  # noqa: BLE001 - the boundary to tokenizers and to what a correction does
            self.scheduler.drop(job, make_own_error(job.name, error))
        else:
            if result is not None:
                self.scheduler.drop(job, result)


def _charge_time(feeds: list[Feed], seconds: float) -> None:
    """Charge each job its part of a step's time, in proportion to its tokens; waiting costs nothing."""
    token_count = sum(feed.stop - feed.start for feed in feeds)
    for feed in feeds:
        feed.job.sequence.spent_s += seconds * (feed.stop - feed.start) / token_count


def correct_alone(aligner: Aligner, request: AlignRequest) -> Correction:
    """Run a single correction in the caller's thread. Raises what `Engine.align` raises."""
    ends: list[Correction | CorrectionError] = []
    named_aligner = aligner.find_aligner(request.aligner)
    sequence = TokenSequence(named_aligner.adapter, request.tenant)
    work = correct(named_aligner, request, sequence)
    deadline = time.monotonic() + request.deadline_s
    loop = Loop(aligner)
    loop.add(Job(request.request_id, work, ends.append, JobClient(deadline), sequence=sequence))
    while not ends:
        loop.step()
    end = ends[0]
    if isinstance(end, CorrectionError):
        raise end
    return end


def make_own_error(name: str, error: Exception) -> CorrectionError:
    """Convert a library's exception to one of ours, and log where it was raised.

    The log leaves the message out, because it may quote the request.
    """
    if isinstance(error, CorrectionError):
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]  # the innermost frame
    error_name = type(error).__name__
    logger.error("request %s failed: %s at %s:%s", name, error_name, place.filename, place.lineno)
    fault = EngineFault(f"the aligner failed: {error_name}")
    fault.__cause__ = error
    return fault
