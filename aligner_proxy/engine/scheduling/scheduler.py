"""Scheduler of forward passes: continuous batching under a token budget. No torch.

Every step takes what the running jobs need (a few tokens where one decodes, a chunk where one reads its prompt) and
lets waiting ones in while budget and blocks last. Prompts slow those who write only so far: were the time shared
evenly, a full house would be late all at once. For the same reason nobody begins who cannot be ready in time: how long
a request takes is estimated from others lately, following the slow ones. When blocks run out, the job that was let in
last gives its own back and begins again later; what it had written stays.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.engine.api import Load, Totals
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import FLAT, CostCurve
from aligner_proxy.engine.scheduling.metrics import Phases, refused
from aligner_proxy.engine.scheduling.sequence import Ask, Sequence, Step, Work
from aligner_proxy.engine.weights.memory import STEP_TOKENS
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable
from aligner_proxy.types import DecodeCounts

_RISING = 0.5
_FALLING = 0.05
"""Smoothing, by whether a request took longer than expected."""
_SHORT = 32
"""Tokens of a feed up to which its job counts as writing."""
_SLOWER = 6.0
"""How many times longer a step may take because of prompts when another job writes."""
_LEAST = 32
"""Tokens of prompts in a step, whatever they cost: every job gets on."""

Finish = Callable[[Any], None]
"""Takes the result of the work, or the `CorrectionError` that ended it."""


@dataclass(slots=True)
class ServiceTime:
    """Seconds from the first token fed to the end, of the requests that take long; 0 before any has ended."""

    stay_s: float = 0.0

    def ended(self, seconds: float, *, failed: bool) -> None:
        """A request has ended; one that failed shows only that it would have taken longer than this."""
        longer = seconds - self.stay_s
        if longer > 0:
            self.stay_s += _RISING * longer
        elif not failed:
            self.stay_s += _FALLING * longer

    def misses(self, deadline: float, now: float) -> bool:
        """Whether one that begins now is likely to end past its deadline; monotonic seconds."""
        return now + self.stay_s > deadline


@dataclass(slots=True, eq=False)
class Job:
    """One admitted request. `finish` is called once, with the result or what went wrong; times are monotonic."""

    name: str
    work: Work
    finish: Finish
    deadline: float = float("inf")
    tenant: str = ""
    abandoned: Callable[[], bool] = lambda: False
    awake: Callable[[], bool] = lambda: False
    """For work that waits for text: whether some has come."""
    sequence: Sequence = field(default_factory=Sequence)
    ask: Ask | None = None
    prompt: int = 0
    """Leading tokens that other prompts may share."""
    chosen: list[int] = field(default_factory=list)
    forwards: int = 0
    phases: Phases = field(default_factory=Phases)

    @property
    def parked(self) -> bool:
        """Whether it waits for text that the upstream is still writing."""
        return self.ask is not None and not self.ask.ids

    @property
    def tail(self) -> int:
        """The first position behind which the model chooses a token."""
        return len(self.sequence.ids) - len(self.ask.draft if self.ask else ()) - 1

    def advance(self, step: Step | None = None) -> Any:
        """Let the work go on to its next ask (None); its result when it has none left."""
        try:
            self.ask = next(self.work) if step is None else self.work.send(step)
        except StopIteration as end:
            return end.value
        self.chosen = []
        self.forwards = 0
        if self.ask.prompt:
            self.prompt = len(self.sequence.ids) + len(self.ask.ids)
        self.sequence.ids += [*self.ask.ids, *self.ask.draft]
        return None


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens `start` to `stop` of a job's sequence go through the model in this step."""

    job: Job
    start: int
    stop: int

    @property
    def predicted(self) -> range:
        """Positions in this feed behind which the model chooses a token."""
        return range(max(self.start, self.job.tail), self.stop)


class Scheduler:
    """Jobs that wait, jobs that run, and the blocks they run in."""

    def __init__(self, pool: BlockPool, *, budget: int = STEP_TOKENS, most: int = 32, costs: CostCurve = FLAT) -> None:
        self.pool = pool
        self.budget = budget
        self.most = most
        self.costs = costs
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.totals = Totals()
        self.pace = ServiceTime()

    def add(self, job: Job) -> None:
        """Take a job in; its work has been advanced to its first ask."""
        self.waiting.append(job)

    def schedule(self, now: float) -> list[Feed]:
        """What goes through the model now; jobs that were given up, or whose time is up, are dropped first."""
        self._sweep(now)
        feeds: list[Feed] = []
        for job in sorted(self.running, key=lambda job: job.sequence.remaining):
            self._feed(job, feeds)  # decoding goes first: a long prompt takes what is left of the budget
        while self._budget(feeds) and self._active() < self.most:
            first = self._next()
            if first is None or not self._admit(first):
                break
            self._feed(first, feeds)
        # Those of one adapter lie side by side, so that each adapter is applied once.
        return sorted(feeds, key=lambda feed: feed.job.sequence.adapter)

    def woken(self) -> list[Job]:
        """Jobs that wait for text of which some has come."""
        return [job for job in (*self.running, *self.waiting) if job.parked and job.awake()]

    @property
    def busy(self) -> bool:
        """Whether anybody needs the model."""
        return any(not job.parked for job in (*self.running, *self.waiting))

    def settle(self, feed: Feed, chosen: list[int]) -> bool:
        """Note that a feed has been run; True when its job has got all it asked for."""
        job = feed.job
        sequence = feed.job.sequence
        sequence.computed = feed.stop
        self.totals.fed_tokens += feed.stop - feed.start
        job.chosen += chosen
        job.forwards += 1
        if job.prompt:
            self.pool.publish(sequence.blocks, sequence.ids, min(sequence.computed, job.prompt), sequence.adapter)
        if sequence.remaining:
            return False
        job.phases.read()
        return True

    def drop(self, job: Job, end: Any) -> None:
        """A job has ended, one way or another: `end` is its result or a `CorrectionError`."""
        if job in self.running:
            self.running.remove(job)
        else:
            self.waiting.remove(job)
        self._release(job)
        failed = isinstance(end, CorrectionError)
        # One that is let go of while its upstream still writes took as long as that did, and is no failure.
        if job.phases.begun is not None and not job.phases.unwanted:
            self.pace.ended(time.monotonic() - job.phases.begun, failed=failed)
        self.totals.failed += failed and not job.phases.unwanted
        self.totals.finished += not failed
        if isinstance(counts := getattr(end, "counts", None), DecodeCounts):
            self.totals.add(counts)
        job.work.close()
        job.finish(end)

    def load(self) -> Load:
        """One look, for metrics; may be called from another thread."""
        jobs = [*self.running, *self.waiting]
        parked = sum(job.parked for job in jobs)
        running = sum(not job.parked for job in self.running)
        return Load(running, len(jobs) - running - parked, parked, self.pool.use(), self.totals)

    def check(self) -> None:
        """Raise AssertionError where blocks are miscounted; for tests and idle moments."""
        assert not any(job.sequence.blocks for job in self.waiting), "a waiting job holds blocks"
        self.pool.check(block for job in self.running for block in job.sequence.blocks)

    def _sweep(self, now: float) -> None:
        for job in [*self.running, *self.waiting]:
            if job.abandoned():
                self.drop(job, EngineUnavailable(f"request {job.name} was given up"))
            elif now > job.deadline:
                self.drop(job, DeadlineExceeded(f"the deadline of request {job.name} passed"))
            elif self._too_late(job, now):
                refused(EngineOverloaded.reason)
                self.drop(job, EngineOverloaded(f"request {job.name} cannot be ready in time", self.pace.stay_s))

    def _too_late(self, job: Job, now: float) -> bool:
        """Whether to begin it would only cost others their time; alone it may try."""
        return job.phases.begun is None and bool(self._active()) and self.pace.misses(job.deadline, now)

    def _active(self) -> int:
        return sum(not job.parked for job in self.running)

    def _next(self) -> Job | None:
        """The first in line of the tenant that has least running."""
        load = Counter(job.tenant for job in self.running if not job.parked)
        return min((job for job in self.waiting if not job.parked), key=lambda job: load[job.tenant], default=None)

    def _admit(self, job: Job) -> bool:
        """Start a job if there is room for what it has to read; alone it must fit or fail.

        Jobs that only wait for text make room first: what they have read they can read again.
        """
        self.waiting.remove(job)
        sequence = job.sequence
        sequence.blocks = self.pool.match(sequence.ids, min(job.tail, job.prompt), sequence.adapter)
        sequence.computed = len(sequence.blocks) * self.pool.size
        self.running.append(job)
        while self._missing(sequence, len(sequence.ids)) > self.pool.available() and (idle := self._idle()):
            self._push_out(idle)
        if self._missing(sequence, len(sequence.ids)) <= self.pool.available():
            return True
        if len(self.running) == 1:
            self.drop(job, EngineFault(self._too_large(job)))
            return False
        self._push_out(job)
        return False

    def _feed(self, job: Job, feeds: list[Feed]) -> None:
        """Add what this job needs to the step, as far as budget and blocks go."""
        sequence = job.sequence
        budget = self._budget(feeds)
        if job not in self.running or job.parked or not budget:
            return
        self._own(sequence)
        stop = sequence.computed + min(sequence.remaining, budget)
        while self._missing(sequence, stop) > self.pool.available():
            last = self._latest(feeds, job)
            if last is not None:
                self._push_out(last)
            elif len(self.running) > 1:
                return self._push_out(job)
            else:
                return self.drop(job, EngineFault(self._too_large(job)))
        sequence.blocks += [self.pool.take() for _ in range(self._missing(sequence, stop))]
        job.phases.fed()
        feeds.append(Feed(job, sequence.computed, stop))
        return None

    def _budget(self, feeds: list[Feed]) -> int:
        """Tokens that this step still has room for."""
        sizes = [feed.stop - feed.start for feed in feeds]
        written = sum(size for size in sizes if size <= _SHORT)
        room = max(_LEAST, self.costs.beside(written, _SLOWER, self.budget)) if written else self.budget
        return max(0, min(self.budget, written + room) - sum(sizes))

    def _own(self, sequence: Sequence) -> None:
        """Give back what a crop left over, and read again what stands in a block that others may share."""
        last = -(-sequence.computed // self.pool.size)
        surplus = sequence.blocks[last:]
        sequence.blocks = sequence.blocks[:last]
        self.pool.give_back(surplus)
        if sequence.computed % self.pool.size and self.pool.published(sequence.blocks[-1]):
            self.pool.give_back([sequence.blocks.pop()])
            sequence.computed = len(sequence.blocks) * self.pool.size

    def _missing(self, sequence: Sequence, stop: int) -> int:
        return max(0, -(-stop // self.pool.size) - len(sequence.blocks))

    def _latest(self, feeds: list[Feed], job: Job) -> Job | None:
        """A job that only waits for text; else the last that came after `job` and is not in this step already."""
        if idle := self._idle():
            return idle
        busy = {id(feed.job) for feed in feeds}
        later = self.running[self.running.index(job) + 1 :]
        return next((other for other in reversed(later) if id(other) not in busy), None)

    def _idle(self) -> Job | None:
        return next((job for job in reversed(self.running) if job.parked and job.sequence.blocks), None)

    def _push_out(self, job: Job) -> None:
        self.running.remove(job)
        self._release(job)
        self.totals.preempted += 1
        job.chosen = []
        self.waiting.insert(0, job)

    def _release(self, job: Job) -> None:
        self.pool.give_back(job.sequence.blocks)
        job.sequence.blocks = []
        job.sequence.computed = 0

    def _too_large(self, job: Job) -> str:
        room = self.pool.count * self.pool.size
        return f"{len(job.sequence.ids)} tokens do not fit the {room} of the KV cache; see aligner.cache_tokens"
