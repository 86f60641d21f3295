"""The engine's loop (read this first): schedule, run one forward pass, postprocess, repeat.

One thread runs the loop and owns the model. A job runs a generator (a correction, for example) that yields an "ask":
tokens to be fed to the model. A step feeds tokens of the scheduled jobs in one forward pass. Once all tokens of a job's
ask are fed, the generator gets the result and yields its next ask. A job that fails does not affect other jobs.
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
    """Runs steps of one model for many jobs, each of at most `budget` tokens; None takes the machine's default.
    At most `most` jobs run at a time, not counting jobs that wait for text of an answer that is still being written.
    """

    def __init__(self, aligner: Aligner, *, budget: int | None = None, most: int = 32) -> None:
        self.aligner = aligner
        runner = aligner.runner
        self.scheduler = Scheduler(runner.pool, budget=budget or runner.step_tokens, most=most, costs=runner.costs)

    @property
    def busy(self) -> bool:
        return self.scheduler.busy or bool(self.scheduler.find_woken_jobs())

    def add(self, job: Job) -> None:
        """Add a job to the scheduler; a job that has its result without the model is finished at once."""
        try:
            result = job.advance()
        except Exception as error:  # noqa: BLE001 - tokenizers and templates may raise anything
            job.finish(make_own_error(job.name, error))
            return
        if result is None:
            self.scheduler.add(job)
        else:
            job.finish(result)

    def step(self) -> None:
        """Continue jobs that have new text, run one forward pass, and continue each job whose ask is complete."""
        for job in self.scheduler.find_woken_jobs():
            job.woken += 1
            self._advance(job, EMPTY_STEP)
        feeds = self.scheduler.schedule(time.monotonic())
        if feeds:
            for feed, chosen_tokens in self._run(feeds):
                self._postprocess(feed, chosen_tokens)

    def is_idle(self) -> bool:
        """Whether there is nothing to do. An idle loop also checks that no cache block is lost, and logs a mismatch."""
        if self.busy:
            return False
        try:
            self.scheduler.check()
        except AssertionError:
            self.scheduler.totals.unbalanced += 1
            logger.exception("KV-cache accounting mismatch: blocks leaked; restart the engine and report this")
        return True

    def close(self) -> None:
        """End all jobs with `EngineUnavailable`; another loop can use the model afterwards."""
        for job in [*self.scheduler.running, *self.scheduler.waiting]:
            self.scheduler.drop(job, EngineUnavailable("the engine is closing"))

    def _run(self, feeds: list[Feed]) -> Iterable[tuple[Feed, list[int]]]:
        """Run all feeds in one forward pass, and return pairs of a feed and the tokens that the model chose after it.

        If the pass fails, each feed runs alone, so that the error ends only the jobs whose own feed causes it.
        """
        self.scheduler.totals.forwards += 1
        start = time.perf_counter()
        try:
            results = list(zip(feeds, self.aligner.runner.run(feeds), strict=True))
        except Exception as error:  # noqa: BLE001 - torch may raise anything
            if len(feeds) == 1:
                job = feeds[0].job
                self.scheduler.drop(job, make_own_error(job.name, error))
                return []
        else:
            _charge_time(feeds, time.perf_counter() - start)
            return results
        return [result for feed in feeds for result in self._run([feed])]

    def _postprocess(self, feed: Feed, tokens: list[int]) -> None:
        """Record that a feed was run and which `tokens` were chosen; continue the job if its ask is complete."""
        job = feed.job
        if not self.scheduler.record_feed(feed, tokens) or job.ask is None:
            return
        runner = self.aligner.runner
        spans = job.ask.spans
        try:
            scores, evidence = runner.score_segments(feed, spans) if spans else ([], [])
            rows = runner.read_rows(feed, spans) if spans and job.ask.rows else []
        except Exception as error:  # noqa: BLE001 - torch may raise anything
            self.scheduler.drop(job, make_own_error(job.name, error))
        else:
            self._advance(job, Step(scores, job.tokens, job.forwards, rows, evidence))

    def _advance(self, job: Job, step: Step) -> None:
        """Continue a job with the result of its ask; remove the job from the scheduler if it ends or fails."""
        try:
            result = job.advance(step)
        except Exception as error:  # noqa: BLE001 - tokenizers and corrections may raise anything
            self.scheduler.drop(job, make_own_error(job.name, error))
        else:
            if result is not None:
                self.scheduler.drop(job, result)


def _charge_time(feeds: list[Feed], seconds: float) -> None:
    """Add to each job's used time its part of the step's `seconds`, in proportion to its tokens in the step."""
    token_count = sum(feed.stop - feed.start for feed in feeds)
    for feed in feeds:
        feed.job.sequence.spent_s += seconds * (feed.stop - feed.start) / token_count


def correct_alone(aligner: Aligner, request: AlignRequest) -> Correction:
    """Run a single correction in the caller's thread. Raises what `Engine.align` raises."""
    results: list[Correction | CorrectionError] = []
    named_aligner = aligner.find_aligner(request.aligner)
    sequence = TokenSequence(named_aligner.adapter, request.tenant)
    work = correct(named_aligner, request, sequence)
    deadline = time.monotonic() + request.deadline_s
    loop = Loop(aligner)
    loop.add(Job(request.request_id, work, results.append, JobClient(deadline), sequence=sequence))
    while not results:
        loop.step()
    (result,) = results
    if isinstance(result, CorrectionError):
        raise result
    return result


def make_own_error(name: str, error: Exception) -> CorrectionError:
    """Return an `EngineFault` for a library's exception and log its place; a `CorrectionError` is returned unchanged.

    `name` is the request's id. The log leaves the exception's message out, because it may quote the request.
    """
    if isinstance(error, CorrectionError):
        return error
    innermost_frame = traceback.extract_tb(error.__traceback__)[-1]
    error_name = type(error).__name__
    logger.error("request %s failed: %s at %s:%s", name, error_name, innermost_frame.filename, innermost_frame.lineno)
    fault = EngineFault(f"the aligner failed: {error_name}")
    fault.__cause__ = error
    return fault
