"""The engine's loop (read this first): schedule, run one forward, postprocess; again and again.

The loop belongs to one thread, which owns the model. Corrections are generators: a step feeds what the scheduled ones
asked for, and those that have got all of it go on to their next request. One that fails does so alone.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterable

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.correct import Aligner, correct
from aligner_proxy.engine.scheduling.scheduler import Feed, Job, Scheduler
from aligner_proxy.engine.scheduling.sequence import NOTHING, Ask, Sequence, Step
from aligner_proxy.errors import CorrectionError, EngineFault, EngineUnavailable
from aligner_proxy.types import Correction

logger = logging.getLogger(__name__)


class Loop:
    """Steps of one model over many jobs, of `budget` tokens at most; None: as many as suit the machine."""

    def __init__(self, aligner: Aligner, *, budget: int | None = None, most: int = 32) -> None:
        self.aligner = aligner
        runner = aligner.runner
        self.scheduler = Scheduler(runner.pool, budget=budget or runner.step_tokens, most=most, costs=runner.costs)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return self.scheduler.busy or bool(self.scheduler.find_woken_jobs())

    def add(self, job: Job) -> None:
        """Take a job in; one that needs no model is finished at once."""
        try:
            result = job.advance()
        except Exception as error:  # noqa: BLE001 - the boundary to tokenizers and templates
            job.finish(_ours(job.name, error))
            return
        if result is None:
            self.scheduler.add(job)
        else:
            job.finish(result)

    def step(self) -> None:
        """One forward of the model for the jobs that are scheduled, and what follows from it."""
        for job in self.scheduler.find_woken_jobs():
            job.woken += 1
            self._advance(job, NOTHING)
        feeds = self.scheduler.schedule(time.monotonic())
        if feeds:
            for feed, tokens in self._run(feeds):
                self._postprocess(feed, tokens)

    def idle(self) -> bool:
        """Whether there is nothing to do. If so it checks that no block is lost; a mismatch is logged and counted."""
        if self.busy:
            return False
        try:
            self.scheduler.check()
        except AssertionError:
            self.scheduler.totals.unbalanced += 1
            logger.exception("KV-cache accounting mismatch: blocks leaked; restart the engine and report this")
        return True

    def close(self) -> None:
        """Give up everything; the model can be used by another loop then."""
        for job in [*self.scheduler.running, *self.scheduler.waiting]:
            self.scheduler.drop(job, EngineUnavailable("the engine is closing"))

    def _run(self, feeds: list[Feed]) -> Iterable[tuple[Feed, list[int]]]:
        """Each feed with its chosen tokens, from one forward; if that fails, one by one, to drop only the faulty."""
        self.scheduler.totals.forwards += 1
        began = time.perf_counter()
        try:
            done = list(zip(feeds, self.aligner.runner.run(feeds), strict=True))
        except Exception as error:  # noqa: BLE001 - the boundary to torch
            if len(feeds) == 1:
                self.scheduler.drop(feeds[0].job, _ours(feeds[0].job.name, error))
                return []
        else:
            _share(feeds, time.perf_counter() - began)
            return done
        return [result for feed in feeds for result in self._run([feed])]

    def _postprocess(self, feed: Feed, tokens: list[int]) -> None:
        job = feed.job
        if not self.scheduler.settle(feed, tokens) or job.ask is None:
            return
        try:
            step = self._step(feed, job.ask)
        except Exception as error:  # noqa: BLE001 - the boundary to torch
            self.scheduler.drop(job, _ours(job.name, error))
        else:
            self._advance(job, step)

    def _step(self, feed: Feed, ask: Ask) -> Step:
        """What a job gets for its ask, all of which has been fed."""
        runner = self.aligner.runner
        scores = runner.scores(feed, ask.spans) if ask.spans else []
        rows = runner.rows(feed, ask.spans) if ask.spans and ask.rows else []
        return Step(scores, feed.job.tokens, feed.job.forwards, rows)

    def _advance(self, job: Job, step: Step) -> None:
        try:
            result = job.advance(step)
        except Exception as error:  # noqa: BLE001 - the boundary to tokenizers and to what a correction does
            self.scheduler.drop(job, _ours(job.name, error))
        else:
            if result is not None:
                self.scheduler.drop(job, result)


def _share(feeds: list[Feed], seconds: float) -> None:
    """Charge engine time by tokens: no job pays for the tokens of others, nor for waiting."""
    tokens = sum(feed.stop - feed.start for feed in feeds)
    for feed in feeds:
        feed.job.sequence.spent_s += seconds * (feed.stop - feed.start) / tokens


def correct_alone(aligner: Aligner, request: AlignRequest) -> Correction:
    """One correction without any other, in the caller's thread. Raises what `Engine.align` raises."""
    ends: list[Correction | CorrectionError] = []
    named_aligner = aligner.find_aligner(request.aligner)
    sequence = Sequence(named_aligner.adapter, request.tenant)
    work = correct(named_aligner, request, sequence)
    deadline = time.monotonic() + request.deadline_s
    loop = Loop(aligner)
    loop.add(Job(request.request_id, work, ends.append, deadline, sequence=sequence))
    while not ends:
        loop.step()
    end = ends[0]
    if isinstance(end, CorrectionError):
        raise end
    return end


def _ours(name: str, error: Exception) -> CorrectionError:
    """An exception of a library as one of ours. The log has only its place: its message may quote the request."""
    if isinstance(error, CorrectionError):
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    logger.error("request %s failed: %s at %s:%s", name, kind, place.filename, place.lineno)
    fault = EngineFault(f"the aligner failed: {kind}")
    fault.__cause__ = error
    return fault
