"""Scheduler of forward passes: continuous batching under a token budget. No torch.

Every step takes what the jobs need that clients wait for: first a few tokens for each that decodes, then chunks of
prompts, the tenant first that has had least (shares.py), and of one tenant the shortest. Prompts slow those who write
only so far: were the time shared evenly, a full house would be late all at once. Prompts of a tenant that has had more
than another one in the step slow that one hardly at all, and a tenant with long answers leaves most of the time to
one with little to do (shares.py). For the same reason nobody begins who
cannot be ready in time: how long a request takes is estimated from others lately, following the slow ones. When blocks
run out, the job that was let in last gives its own back and begins again later; what it had written stays.

An answer that is only read ahead, while its upstream writes it, gets what costs others next to nothing: in a step with
other work as many tokens as hardly lengthen it, else a chunk that is short enough to be waited for. It takes no place
and no block from work that a client waits for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.engine.api import Load, Totals
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import FLAT, CostCurve
from aligner_proxy.engine.scheduling.metrics import Phases, count_refusal
from aligner_proxy.engine.scheduling.sequence import Ask, Sequence, Step, Work
from aligner_proxy.engine.scheduling.shares import GuaranteedShare, Shares, by_size
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
_SLOWER_FOR_OTHERS = 1.5
"""The same because of prompts of a tenant that has had more than one that is in the step."""
_ORDINARY = 4096
"""Tokens of a request whose time says what others of its kind may take; longer ones count by their share."""
_LEAST = 32
"""Tokens of prompts in a step, whatever they cost: every job gets on."""
_FEWEST = 4
"""The same of tenants that have had more than another one in the step."""
_SLOWER_THAN_ONE = 4.0
"""How many times longer than one of a single token a step of long answers may take where others may soon come back."""
_BACK_S = 5.0
"""How soon."""
_WOKEN = 8
"""Answers that go on being read ahead in one step: each has its new text tokenised before the step begins."""
_BESIDE = 1.2
"""How many times longer a step may take because of answers that are only read ahead."""

Finish = Callable[[Any], None]
"""Takes the result of the work, or the `CorrectionError` that ended it."""


@dataclass(slots=True)
class ServiceTime:
    """Seconds from the first token fed to the end, of the requests that take long; 0 before any has ended."""

    stay_s: float = 0.0

    def note_end(self, seconds: float, *, failed: bool) -> None:
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
    reads_ahead: Callable[[], bool] = lambda: False
    """Whether no client waits for it yet; another thread may end that at any time."""
    ahead: bool = False
    """The same, as it was when this step began."""
    sequence: Sequence = field(default_factory=Sequence)
    ask: Ask | None = None
    prompt: int = 0
    """Leading tokens that other prompts may share."""
    tokens: list[int] = field(default_factory=list)
    forwards: int = 0
    phases: Phases = field(default_factory=Phases)
    fed_tokens: int = 0
    """Tokens that went through the model for it."""
    woken: int = 0
    """How often it went on because text had come."""

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
        self.tokens = []
        self.forwards = 0
        if self.ask.prompt:
            self.prompt = len(self.sequence.ids) + len(self.ask.ids)
            self.sequence.shared = self.ask.shared
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
        self.shares = {False: Shares(), True: Shares()}
        """Of those that clients wait for, and of those that are only read ahead."""
        self.guaranteed = GuaranteedShare(costs, budget)
        self._long: frozenset[str] = frozenset()
        """Tenants that yield in this step."""
        self._shared_until = float("-inf")
        """Until then a tenant with little to do may come back beside one with long answers; monotonic seconds."""
        self._idle = False
        """Nothing could be fed in the last step."""

    def add(self, job: Job) -> None:
        """Take a job in; its work has been advanced to its first ask."""
        self.waiting.append(job)
        self._idle = False

    def schedule(self, now: float) -> list[Feed]:
        """What goes through the model now; jobs that were given up, or whose time is up, are dropped first."""
        for job in (*self.running, *self.waiting):
            job.ahead = job.reads_ahead()
        self._sweep(now)
        self._free_place()
        feeds: list[Feed] = []
        self._long = long = self._with_long_work(now)
        for job in sorted(self.running, key=lambda job: job.sequence.remaining):
            if not job.ahead and job.tenant not in long and job.sequence.remaining <= _SHORT:
                self._feed(job, feeds, self._budget(feeds))
        rows = self._rows(feeds, ahead=False)
        self.shares[False].see(rows)
        long_rows = {tenant: rows.pop(tenant) for tenant in long if tenant in rows}
        self._feed_fairly(rows, feeds, self.shares[False])
        if long_rows:
            self._feed_long(long_rows, feeds)
        rows = self._rows(feeds, ahead=True)
        self.shares[True].see(rows)
        self._feed_fairly(rows, feeds, self.shares[True], self._spare(feeds))
        self._idle = not feeds
        # Those of one adapter lie side by side, so that each adapter is applied once.
        return sorted(feeds, key=lambda feed: feed.job.sequence.adapter)

    def _with_long_work(self, now: float) -> frozenset[str]:
        """Tenants whose work yields to that of another with little to do, which is there or was a moment ago."""
        sizes: Counter[str] = Counter()
        for job in (*self.running, *self.waiting):
            if not job.ahead and not job.parked:
                sizes[job.tenant] += len(job.sequence.ids)
        little, long = by_size(sizes)
        if little and long:
            self._shared_until = now + _BACK_S
        if now >= self._shared_until or self.guaranteed.overdue():
            return frozenset()
        return long

    def _feed_long(self, rows: dict[str, deque[Job]], feeds: list[Feed]) -> None:
        """What those with long work get: their part of the time beside others, else a step that ends soon."""
        fed_tokens = sum(feed.stop - feed.start for feed in feeds)
        soon = max(_LEAST, self.costs.count_further_tokens(1, _SLOWER_THAN_ONE, self.budget))
        room = self.guaranteed.room(fed_tokens) if fed_tokens else soon
        given_tokens = self._feed_fairly(rows, feeds, self.shares[False], room)
        self.guaranteed.took(fed_tokens, given_tokens)

    def _feed_fairly(
        self, rows: dict[str, deque[Job]], feeds: list[Feed], shares: Shares, most: int | None = None
    ) -> int:
        """Chunks for those that read, and places for those that wait, by tenant; the tokens that they get.

        At most `most` of them; None: as many as the others in the step bear.
        """
        given_tokens = 0
        full = False
        while rows:
            tenant = min(rows, key=shares.count_given_tokens)
            room = self._beside_others(tenant, feeds) if most is None else most - given_tokens
            if not room:
                break
            job = rows[tenant].popleft()
            if not rows[tenant]:
                del rows[tenant]
            if job in self.waiting:
                full = full or not self._let_in(job, feeds)  # who needs much room is not overtaken for ever
            fed_tokens = self._feed(job, feeds, room)
            shares.give(tenant, fed_tokens)
            given_tokens += fed_tokens
        return given_tokens

    def _rows(self, feeds: list[Feed], *, ahead: bool) -> dict[str, deque[Job]]:
        """Those that have something to feed, by tenant: those that run, the shortest first, before those that wait."""
        busy = {id(feed.job) for feed in feeds}
        reading = sorted(self.running, key=lambda job: job.sequence.remaining)
        rows: dict[str, deque[Job]] = {}
        for job in (*reading, *self.waiting):
            if job.ahead == ahead and not job.parked and id(job) not in busy:
                rows.setdefault(job.tenant, deque()).append(job)
        return rows

    def _let_in(self, job: Job, feeds: list[Feed]) -> bool:
        """Admit a job that waits, if there is a place for it."""
        return self._active(ahead=job.ahead) < self.most and self._admit(job, feeds)

    def _free_place(self) -> None:
        """Where all places are taken and a tenant that waits has far fewer than another, that one gives one up."""
        active = [job for job in self.running if not _is_unwanted(job)]
        waiting = [job for job in self.waiting if not _is_unwanted(job)]
        if len(active) < self.most or not waiting:
            return
        places = Counter(job.tenant for job in active)
        most, count = places.most_common(1)[0]
        if count >= min(places[job.tenant] for job in waiting) + 2:
            self._push_out(next(job for job in reversed(active) if job.tenant == most))

    def find_woken_jobs(self) -> list[Job]:
        """Jobs that wait for text of which some has come: those that clients wait for, and a few of the others."""
        woken = [job for job in (*self.running, *self.waiting) if job.parked and job.awake()]
        awaited = [job for job in woken if not job.reads_ahead()]
        ahead = [job for job in woken if job not in awaited]
        return [*awaited, *sorted(ahead, key=lambda job: job.woken)[:_WOKEN]]

    @property
    def busy(self) -> bool:
        """Whether anybody needs the model, and may have it: what is only read ahead may have to wait for blocks."""
        active = [job for job in (*self.running, *self.waiting) if not job.parked]
        return any(not job.reads_ahead() for job in active) or (bool(active) and not self._idle)

    def settle(self, feed: Feed, tokens: list[int]) -> bool:
        """Note that a feed has been run; True when its job has got all it asked for."""
        job = feed.job
        sequence = feed.job.sequence
        sequence.computed = feed.stop
        self.totals.fed_tokens += feed.stop - feed.start
        job.tokens += tokens
        job.forwards += 1
        job.fed_tokens += feed.stop - feed.start
        if job.prompt:
            self.pool.publish(sequence.blocks, sequence.ids, min(sequence.computed, job.prompt), sequence.owner)
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
        self._idle = False
        failed = isinstance(end, CorrectionError)
        # One that is let go of while its upstream still writes took as long as that did, and is no failure.
        if job.phases.started is not None and not job.phases.unwanted:
            seconds = time.monotonic() - job.phases.started
            self.pace.note_end(seconds * min(1.0, _ORDINARY / max(1, job.fed_tokens)), failed=failed)
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
                count_refusal(EngineOverloaded.reason)
                self.drop(job, EngineOverloaded(f"request {job.name} cannot be ready in time", self.pace.stay_s))

    def _too_late(self, job: Job, now: float) -> bool:
        """Whether to begin it would only cost others their time; alone it may try."""
        return job.phases.started is None and bool(self._active()) and self.pace.misses(job.deadline, now)

    def _active(self, *, ahead: bool = False) -> int:
        """Jobs that run and have something to feed; those that only read ahead count for others of their kind."""
        return sum(not job.parked and (ahead or not job.ahead) for job in self.running)

    def _admit(self, job: Job, feeds: list[Feed]) -> bool:
        """Start a job if there is room for what it has to read; alone it must fit or fail.

        Others make room first that no client waits for: what they have read they can read again.
        """
        self.waiting.remove(job)
        sequence = job.sequence
        sequence.blocks = self.pool.match(sequence.ids, min(job.tail, job.prompt), sequence.owner)
        sequence.computed = len(sequence.blocks) * self.pool.size
        self.running.append(job)
        while (missing := self._missing_blocks(sequence, len(sequence.ids))) > self.pool.available():
            spared = self._choose_donor(job, missing, feeds)
            if spared is None:
                break
            self._push_out(spared)
        else:
            return True
        if len(self.running) == 1:
            self.drop(job, EngineFault(self._too_large(job)))
            return False
        self._push_out(job)
        return False

    def _feed(self, job: Job, feeds: list[Feed], room: int) -> int:
        """Add what this job needs to the step, as far as room and blocks go; the tokens that it gets."""
        sequence = job.sequence
        if job not in self.running or job.parked or not room:
            return 0
        self._own(sequence)
        stop = sequence.computed + min(sequence.remaining, room)
        while (missing := self._missing_blocks(sequence, stop)) > self.pool.available():
            last = self._choose_donor(job, missing, feeds) or self._latest(feeds, job)
            if last is not None:
                self._push_out(last)
            elif len(self.running) > 1:
                self._push_out(job)
                return 0
            else:
                self.drop(job, EngineFault(self._too_large(job)))
                return 0
        sequence.blocks += [self.pool.take() for _ in range(missing)]
        job.phases.note_forward()
        feeds.append(Feed(job, sequence.computed, stop))
        return stop - sequence.computed

    def _budget(self, feeds: list[Feed]) -> int:
        """Tokens that this step still has room for."""
        sizes = [feed.stop - feed.start for feed in feeds]
        decoding_tokens = sum(size for size in sizes if size <= _SHORT)
        room = (
            max(_LEAST, self.costs.count_further_tokens(decoding_tokens, _SLOWER, self.budget))
            if decoding_tokens
            else self.budget
        )
        return max(0, min(self.budget, decoding_tokens + room) - sum(sizes))

    def _beside_others(self, tenant: str, feeds: list[Feed]) -> int:
        """Tokens of this tenant's prompts that the step has room for: few beside a tenant that has had less."""
        had = self.shares[False].count_given_tokens
        room = self._budget(feeds)
        less = sum(feed.stop - feed.start for feed in feeds if had(feed.job.tenant) < had(tenant))
        if not less:
            return room
        more = sum(feed.stop - feed.start for feed in feeds) - less
        beside = max(_FEWEST, self.costs.count_further_tokens(less, _SLOWER_FOR_OTHERS, self.budget))
        return max(0, min(room, beside - more))

    def _spare(self, feeds: list[Feed]) -> int:
        """Tokens that this step has room for of answers that are only read ahead."""
        fed_tokens = sum(feed.stop - feed.start for feed in feeds)
        if fed_tokens:
            return self.costs.count_further_tokens(fed_tokens, _BESIDE, max(0, self.budget - fed_tokens))
        return min(self.budget, max(_LEAST, self.costs.count_further_tokens(1, _SLOWER, self.budget)))

    def _own(self, sequence: Sequence) -> None:
        """Give back what a crop left over, and read again what stands in a block that others may share."""
        last = -(-sequence.computed // self.pool.size)
        surplus = sequence.blocks[last:]
        sequence.blocks = sequence.blocks[:last]
        self.pool.give_back(surplus)
        if sequence.computed % self.pool.size and self.pool.is_published(sequence.blocks[-1]):
            self.pool.give_back([sequence.blocks.pop()])
            sequence.computed = len(sequence.blocks) * self.pool.size

    def _missing_blocks(self, sequence: Sequence, stop: int) -> int:
        return max(0, -(-stop // self.pool.size) - len(sequence.blocks))

    def _latest(self, feeds: list[Feed], job: Job) -> Job | None:
        """The last that came after `job` and is not in this step already; what reads ahead takes from nobody."""
        if job.ahead:
            return None
        busy = {id(feed.job) for feed in feeds}
        later = self.running[self.running.index(job) + 1 :]
        return next((other for other in reversed(later) if id(other) not in busy), None)

    def _choose_donor(self, job: Job, missing: int, feeds: list[Feed]) -> Job | None:
        """Who gives its blocks to `job`: the last one of the tenant with most, of those that no client waits for.

        Where there are none, of those that yield to it. What is only read ahead itself gets nothing from a tenant that
        would then have less.
        """
        busy = {id(job), *(id(feed.job) for feed in feeds)}
        others = [other for other in self.running if other.sequence.blocks and id(other) not in busy]
        spare = [other for other in others if _is_unwanted(other)]
        if not spare and not job.ahead and job.tenant not in self._long:
            spare = [other for other in others if other.tenant in self._long]
        if not spare:
            return None
        blocks_by_tenant: Counter[str] = Counter()
        for other in spare:
            blocks_by_tenant[other.tenant] += len(other.sequence.blocks)
        most = max(blocks_by_tenant, key=lambda tenant: blocks_by_tenant[tenant])
        if job.ahead and (most == job.tenant or blocks_by_tenant[most] <= blocks_by_tenant[job.tenant] + missing):
            return None
        return next(other for other in reversed(spare) if other.tenant == most)

    def _push_out(self, job: Job) -> None:
        self.running.remove(job)
        self._release(job)
        self.totals.preempted += 1
        job.tokens = []
        self.waiting.insert(0, job)

    def _release(self, job: Job) -> None:
        self.pool.give_back(job.sequence.blocks)
        job.sequence.blocks = []
        job.sequence.computed = 0

    def _too_large(self, job: Job) -> str:
        room = self.pool.count * self.pool.size
        return f"{len(job.sequence.ids)} tokens do not fit the {room} of the KV cache; see aligner.cache_tokens"


def _is_unwanted(job: Job) -> bool:
    """Whether no client waits for it."""
    return job.parked or job.ahead
