"""Scheduler of forward passes: continuous batching under a token budget. No torch.

A step serves the jobs that clients wait for. First, each decoding job (which writes text) gets its few tokens. Then
follow chunks of prompts, beginning with the tenant that was given fewest tokens so far (shares.py), and within a tenant
with the shortest job.

Prompts may slow decoding jobs only up to a limit; if time were shared evenly, all jobs of a full engine would be late
together. If the step serves a tenant that was given fewer tokens than others (is "poorer"), prompts of the others may
slow its jobs hardly at all. A job that cannot be ready in time is not started; a request's time is estimated from
recent requests, above all slow ones. When blocks run out, the job admitted last frees its blocks and starts again
later; the text it has written is not lost.

An answer that is only read ahead, while its upstream writes it, gets tokens that cost other jobs next to nothing. In a
step with other work, these are as many as hardly lengthen the step; otherwise a chunk so short that a new job can wait
for it. It takes no slot and no block from work that a client waits for. A job is parked while it waits for new text.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from aligner_proxy.engine.api import Load, Totals
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import FLAT, CostCurve
from aligner_proxy.engine.scheduling.metrics import Phases, count_refusal
from aligner_proxy.engine.scheduling.sequence import Ask, Step, TokenSequence, Work
from aligner_proxy.engine.scheduling.shares import LongWork, Shares
from aligner_proxy.engine.weights.memory import STEP_TOKENS
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable
from aligner_proxy.types import DecodeCounts

_RISING = 0.5
_FALLING = 0.05
"""Weight of a request's time in `ServiceTime`: `_RISING` if it exceeds the estimate, else `_FALLING`."""
_MAX_DECODING_TOKENS = 32
"""A job whose feed has at most this many tokens counts as decoding."""
_MAX_SLOWDOWN_BY_PROMPTS = 6.0
"""How many times longer prompts may make a step in which another job decodes."""
_MAX_SLOWDOWN_BY_RICHER = 1.5
"""How many times longer prompts of other tenants may make the step of a tenant that was given fewer tokens."""
_ORDINARY_TOKENS = 4096
"""Longest request, in tokens, whose full time enters the estimate; the time of longer ones is scaled down."""
_MIN_PROMPT_TOKENS = 32
"""Fewest prompt tokens allowed in a step whatever they cost, so that every job advances."""
_MIN_RICHER_TOKENS = 4
"""Fewest prompt tokens that all other tenants may have in the step of a tenant that was given fewer tokens."""
_MAX_LONG_STEP = 4.0
"""Longest step of long work, in multiples of a one-token step, while a tenant with little work may come back."""
_MAX_WOKEN = 8
"""Most read-ahead answers that continue in one step, because the new text of each is tokenised before the step."""
_MAX_SLOWDOWN_BY_READING = 1.2
"""How many times longer read-ahead answers may make a step."""

_REMAINING = attrgetter("sequence.remaining")
"""Returns the number of a job's tokens that the model has not read yet; sorts jobs, the shortest first."""
Finish = Callable[[Any], None]
"""Called once with the result of the work, or with the `CorrectionError` that ended it."""


@dataclass(slots=True)
class ServiceTime:
    """Estimate of a request's time from its first fed token to its end, in seconds; slow requests weigh more.

    With an estimate of 2 s, a request of 4 s moves it to 3 s, and one of 1 s to 1.95 s.
    """

    stay_s: float = 0.0
    """The estimate, in seconds; 0 before any request has ended."""

    def note_end(self, seconds: float, *, failed: bool) -> None:
        """Update the estimate with a request's time; a failed request, unfinished as it is, only raises it."""
        difference_s = seconds - self.stay_s
        if difference_s > 0:
            self.stay_s += _RISING * difference_s
        elif not failed:
            self.stay_s += _FALLING * difference_s

    def misses(self, deadline: float, now: float) -> bool:
        """Whether a request that starts now will probably miss its deadline; times in monotonic seconds."""
        return now + self.stay_s > deadline


@dataclass(slots=True, eq=False)
class JobClient:
    """What the scheduler must know of a job's client. Its functions are asked again in every step."""

    deadline: float = float("inf")
    """In monotonic seconds."""
    tenant: str = ""
    is_abandoned: Callable[[], bool] = lambda: False
    """Whether the client has given the request up."""
    has_new_text: Callable[[], bool] = lambda: False
    """For a parked job: whether enough text has come to go on."""
    reads_ahead: Callable[[], bool] = lambda: False
    """Whether the job is only read ahead: no client waits for it yet."""
    ahead: bool = False
    """What `reads_ahead` returned at the beginning of this step: True if no client waits for the job yet."""


@dataclass(slots=True, eq=False)
class Job:
    """One admitted request: `work` is a generator that yields an `Ask` (tokens for the model) and gets a `Step`."""

    name: str
    work: Work
    finish: Finish
    client: JobClient = field(default_factory=JobClient)
    sequence: TokenSequence = field(default_factory=TokenSequence)
    ask: Ask | None = None
    """What the work waits for now; None before its first `advance`."""
    prompt_length: int = 0
    """Number of leading tokens that belong to the prompt, whose blocks other prompts may share."""
    tokens: list[int] = field(default_factory=list)
    """Tokens that the model chose for the current ask."""
    forwards: int = 0
    """Forward passes for the current ask."""
    phases: Phases = field(default_factory=Phases)
    fed_tokens: int = 0
    """Number of tokens that went through the model for this job."""
    woken: int = 0
    """How often the job continued because new text had come."""

    @property
    def parked(self) -> bool:
        """Whether the job waits for text that the upstream is still writing."""
        return self.ask is not None and not self.ask.ids

    @property
    def is_unwanted(self) -> bool:
        """Whether no client waits for the job now."""
        return self.parked or self.client.ahead

    @property
    def first_choice(self) -> int:
        """The first position in the sequence after which the model chooses a token: the one before the draft."""
        draft_length = len(self.ask.draft) if self.ask else 0
        return len(self.sequence.ids) - draft_length - 1

    def advance(self, step: Step | None = None) -> Any:
        """Run the work to its next ask and append the ask to the sequence; return the result if the work ends instead.

        `step` is the result of the last ask; None for the first call. Returns None unless the work ends.
        """
        try:
            self.ask = next(self.work) if step is None else self.work.send(step)
        except StopIteration as end:
            return end.value
        self.tokens = []
        self.forwards = 0
        if self.ask.prompt:
            self.prompt_length = len(self.sequence.ids) + len(self.ask.ids)
            self.sequence.shared = self.ask.shared
        self.sequence.ids += [*self.ask.ids, *self.ask.draft]
        return None


# not frozen, for the same reason as `Ask`
@dataclass(slots=True)
class Feed:
    """Tokens `start` to `stop` (excluded) of a job's sequence go through the model in this step.

    A prompt of 700 tokens may be fed as `Feed(job, 0, 512)` and `Feed(job, 512, 700)`.
    """

    job: Job
    start: int
    stop: int

    @property
    def choice_positions(self) -> range:
        """Positions in this feed after which the model chooses a token."""
        return range(max(self.start, self.job.first_choice), self.stop)


class Scheduler:
    """Decides which jobs have which tokens fed to the model in each step, and assigns KV-cache blocks to jobs.

    A running job has blocks, and a slot if it is not parked; a waiting job has neither. A parked job waits for text
    that the upstream still writes. While no client waits for a job yet (`ahead`), others may take its slot and blocks.
    """

    def __init__(self, pool: BlockPool, *, budget: int = STEP_TOKENS, most: int = 32, costs: CostCurve = FLAT) -> None:
        self.pool = pool
        self.budget = budget  # most tokens in a step
        self.most = most  # number of slots: most running jobs that are not parked
        self.costs = costs
        self.waiting: list[Job] = []  # in order; they hold no blocks
        self.running: list[Job] = []  # in the order of admission
        self.totals = Totals()
        self.service_time = ServiceTime()
        self.shares = Shares()
        """The tenants' shares of the work that clients wait for."""
        self.shares_of_ahead = Shares()
        """The tenants' shares of the work that is only read ahead."""
        self.long_work = LongWork(costs, budget)
        self._idle = False
        """Whether no job could be fed in the last step, and no job has come or gone since."""

    def add(self, job: Job) -> None:
        """Add a job whose work has been advanced to its first ask."""
        self.waiting.append(job)
        self._idle = False

    def schedule(self, now: float) -> list[Feed]:
        """Return the feeds of the next step, after dropping abandoned and expired jobs; none if no job can go on.

        Feeds decoding jobs first, then prompts, then long work that yields, and at last jobs that are only read ahead.
        May start waiting jobs, and take the blocks of running jobs. `now` is the monotonic time.
        """
        for job in (*self.running, *self.waiting):
            job.client.ahead = job.client.reads_ahead()
        self._drop_lost_jobs(now)
        self._free_slot()
        feeds: list[Feed] = []
        self._note_long_work(now)
        yielding = self.long_work.yielding
        fed_tokens = 0
        decoding_tokens = 0
        for job in sorted(self.running, key=_REMAINING):
            is_decoding = job.sequence.remaining <= _MAX_DECODING_TOKENS
            # jobs of tenants that yield are fed later, in `_feed_long`
            if is_decoding and not job.client.ahead and job.client.tenant not in yielding:
                own_tokens = self._feed(job, feeds, self._count_room(fed_tokens, decoding_tokens))
                fed_tokens += own_tokens
                # the job may have got more tokens, if it has to read a part of its prompt again (`_make_writable`)
                if own_tokens <= _MAX_DECODING_TOKENS:
                    decoding_tokens += own_tokens
        queues = self._queue_jobs(feeds, ahead=False)
        # all tenants with work, so this comes before those that yield are taken out
        self.shares.note_tenants(queues)
        long_queues = {tenant: queues.pop(tenant) for tenant in yielding if tenant in queues}
        self._feed_fairly(queues, feeds, self.shares)
        if long_queues:
            self._feed_long(long_queues, feeds)
        queues = self._queue_jobs(feeds, ahead=True)
        self.shares_of_ahead.note_tenants(queues)
        self._feed_fairly(queues, feeds, self.shares_of_ahead, self._count_spare_tokens(feeds))
        self._idle = not feeds
        # the feeds of each adapter are adjacent, so that the model applies each adapter only once
        return sorted(feeds, key=lambda feed: feed.job.sequence.adapter)

    def _note_long_work(self, now: float) -> None:
        """Tell `long_work` how many tokens each tenant's jobs have, so that it decides whose work yields now."""
        tokens_by_tenant: Counter[str] = Counter()
        for job in (*self.running, *self.waiting):
            # only work that a client waits for and that can go on now
            if not job.client.ahead and not job.parked:
                tokens_by_tenant[job.client.tenant] += len(job.sequence.ids)
        self.long_work.choose_yielding(tokens_by_tenant, now)

    def _feed_long(self, queues: dict[str, deque[Job]], feeds: list[Feed]) -> None:
        """Feed the jobs of tenants whose long work yields to short requests; `queues` has these jobs by tenant.

        If other work is in the step, these jobs get only the tokens that they are owed. Otherwise they get a short
        step, because a short request may come at any moment.
        """
        fed_tokens = sum(feed.stop - feed.start for feed in feeds)
        if fed_tokens:
            limit = self.long_work.claim_tokens(fed_tokens)
        else:
            cheap_tokens = self.costs.count_further_tokens(1, _MAX_LONG_STEP, self.budget)
            limit = max(_MIN_PROMPT_TOKENS, cheap_tokens)
        given_tokens = self._feed_fairly(queues, feeds, self.shares, limit)
        self.long_work.pay(fed_tokens, given_tokens)

    def _feed_fairly(
        self, queues: dict[str, deque[Job]], feeds: list[Feed], shares: Shares, limit: int | None = None
    ) -> int:
        """Add feeds of the jobs in `queues` to `feeds`, first of the tenant that was given fewest tokens by `shares`.

        `queues` has the jobs by tenant; they are taken out of it. Waiting jobs are started if possible. Returns the
        number of tokens fed, which is at most `limit`, or if that is None at most `_count_room_for_tenant`.
        """
        given_tokens = 0
        is_closed = False  # whether a waiting job could not be started; then no later one is started in this step
        while queues:
            tenant = min(queues, key=shares.count_given_tokens)
            room = self._count_room_for_tenant(tenant, feeds) if limit is None else limit - given_tokens
            if not room:
                break  # the other tenants were given more tokens, so they get no more room than this one
            job = queues[tenant].popleft()
            if not queues[tenant]:
                del queues[tenant]
            if job in self.waiting:
                # after a job that needs too many blocks no other job is started, so that it is not overtaken for ever
                has_slot = self._count_active(ahead=job.client.ahead) < self.most
                is_closed = is_closed or not (has_slot and self._admit(job, feeds))
            fed_tokens = self._feed(job, feeds, room)  # 0 if the job was not started
            shares.give(tenant, fed_tokens)
            given_tokens += fed_tokens
        return given_tokens

    def _queue_jobs(self, feeds: list[Feed], *, ahead: bool) -> dict[str, deque[Job]]:
        """Jobs with tokens to feed, by tenant: running jobs first, the shortest before others, then waiting jobs.

        `ahead` says whether to return the jobs that are only read ahead, or the jobs that clients wait for.
        """
        fed_ids = {id(feed.job) for feed in feeds}
        queues: dict[str, deque[Job]] = {}
        # in most steps all running jobs are fed already, so there is nothing to sort
        unfed_jobs = sorted((job for job in self.running if id(job) not in fed_ids), key=_REMAINING)
        for job in (*unfed_jobs, *self.waiting):
            if job.client.ahead == ahead and not job.parked:
                queues.setdefault(job.client.tenant, deque()).append(job)
        return queues

    def _free_slot(self) -> None:
        """If all slots are taken and a waiting tenant has at least two fewer than the tenant with most slots, put the
        last running job of that tenant back into the queue.
        """
        if not self.waiting:
            return
        active_jobs = [job for job in self.running if not job.is_unwanted]
        awaited_jobs = [job for job in self.waiting if not job.is_unwanted]
        if len(active_jobs) < self.most or not awaited_jobs:
            return
        slot_counts = Counter(job.client.tenant for job in active_jobs)
        richest_tenant, most_slots = slot_counts.most_common(1)[0]
        fewest_slots = min(slot_counts[job.client.tenant] for job in awaited_jobs)
        # with a difference of one, the two tenants would only swap a slot, again and again
        if most_slots >= fewest_slots + 2:
            self._push_out(next(job for job in reversed(active_jobs) if job.client.tenant == richest_tenant))

    def find_woken_jobs(self) -> list[Job]:
        """Parked jobs that can go on with new text: all that clients wait for, and up to `_MAX_WOKEN` other jobs."""
        woken_jobs = [job for job in (*self.running, *self.waiting) if job.parked and job.client.has_new_text()]
        awaited_jobs = [job for job in woken_jobs if not job.client.reads_ahead()]
        other_jobs = [job for job in woken_jobs if job not in awaited_jobs]
        # jobs that continued least often come first, so that each gets its turn
        return [*awaited_jobs, *sorted(other_jobs, key=lambda job: job.woken)[:_MAX_WOKEN]]

    @property
    def busy(self) -> bool:
        """Whether a further step is worth while; if not, the engine waits until a job comes or new text comes."""
        active_jobs = (job for job in (*self.running, *self.waiting) if not job.parked)
        # any active job, except a read-ahead job that got no blocks in the last step
        return any(not self._idle or not job.client.reads_ahead() for job in active_jobs)

    def record_feed(self, feed: Feed, tokens: list[int]) -> bool:
        """Record that the model read a feed and chose `tokens` after it, one for each of its choice positions. Publish
        full blocks of the prompt, so that other jobs can share them.

        Returns whether the model has now read all tokens of the job's current `Ask`.
        """
        job = feed.job
        sequence = job.sequence
        fed_tokens = feed.stop - feed.start
        sequence.computed = feed.stop
        self.totals.fed_tokens += fed_tokens
        job.tokens += tokens
        job.forwards += 1
        job.fed_tokens += fed_tokens
        # only blocks of the prompt, because tokens after the prompt (rejected drafts) may be removed again
        read_length = min(feed.stop, job.prompt_length)
        full_blocks = read_length // self.pool.size
        # in nearly all steps these blocks are published already
        if full_blocks and not self.pool.is_published(sequence.blocks[full_blocks - 1]):
            self.pool.publish(sequence.blocks, sequence.ids, read_length, sequence.owner)
        if sequence.remaining:
            return False
        job.phases.note_read()
        return True

    def drop(self, job: Job, result: Any) -> None:
        """Remove a job that ended or is given up: free its blocks, count it, and call its `finish` with `result`.

        `result` is the result of the job's work, or the `CorrectionError` that ended it.
        """
        if job in self.running:
            self.running.remove(job)
        else:
            self.waiting.remove(job)
        self._release(job)
        self._idle = False  # read-ahead jobs may have waited for these blocks
        failed = isinstance(result, CorrectionError)
        # a job that is given up while its upstream still writes says nothing about the engine's speed and is no failure
        if job.phases.started is not None and not job.phases.unwanted:
            seconds = time.monotonic() - job.phases.started
            scale = min(1.0, _ORDINARY_TOKENS / max(1, job.fed_tokens))  # below 1 for very long requests
            self.service_time.note_end(seconds * scale, failed=failed)
        self.totals.failed += failed and not job.phases.unwanted
        self.totals.finished += not failed
        counts = getattr(result, "counts", None)
        if isinstance(counts, DecodeCounts):
            self.totals.counts += counts
        job.work.close()
        job.finish(result)

    def load(self) -> Load:
        """A snapshot for metrics; may be called from another thread."""
        jobs = [*self.running, *self.waiting]
        parked = sum(job.parked for job in jobs)
        running = sum(not job.parked for job in self.running)
        waiting = len(jobs) - running - parked
        return Load(running, waiting, parked, self.pool.count_uses(), self.totals)

    def check(self) -> None:
        """Raise AssertionError if blocks are miscounted; for tests and idle moments."""
        assert not any(job.sequence.blocks for job in self.waiting), "a waiting job holds blocks"
        self.pool.check(block for job in self.running for block in job.sequence.blocks)

    def _drop_lost_jobs(self, now: float) -> None:
        """Drop jobs that were abandoned, whose deadline has passed, or that would probably miss it."""
        for job in [*self.running, *self.waiting]:
            if job.client.is_abandoned():
                self.drop(job, EngineUnavailable(f"request {job.name} was cancelled"))
            elif now > job.client.deadline:
                self.drop(job, DeadlineExceeded(f"the deadline of request {job.name} passed"))
            elif self._comes_too_late(job, now):
                count_refusal(EngineOverloaded.reason)
                error = EngineOverloaded(f"request {job.name} cannot be ready in time", self.service_time.stay_s)
                self.drop(job, error)

    def _comes_too_late(self, job: Job, now: float) -> bool:
        """Whether a job that has not begun would probably miss its deadline. An idle engine tries every job."""
        has_begun = job.phases.started is not None
        is_engine_idle = not self._count_active()
        return not has_begun and not is_engine_idle and self.service_time.misses(job.client.deadline, now)

    def _count_active(self, *, ahead: bool = False) -> int:
        """Number of running jobs that are not parked; `ahead` says whether read-ahead jobs count, too."""
        return sum(not job.parked and (ahead or not job.client.ahead) for job in self.running)

    def _admit(self, job: Job, feeds: list[Feed]) -> bool:
        """Start a waiting job if there are blocks for all its tokens, and return whether it runs.

        `_choose_donor` says which other jobs have to free their blocks for it. A job that does not fit into the cache
        even if no other job runs is dropped with an error.
        """
        self.waiting.remove(job)
        sequence = job.sequence
        # the token at the first choice position must be read now, so cached blocks may only hold tokens before it
        match_limit = min(job.first_choice, job.prompt_length)
        sequence.blocks = self.pool.match(sequence.ids, match_limit, sequence.owner)
        sequence.computed = len(sequence.blocks) * self.pool.size
        self.running.append(job)
        while (missing := self._count_missing_blocks(sequence, len(sequence.ids))) > self.pool.count_free():
            donor = self._choose_donor(job, missing, feeds)
            if donor is None:
                self._give_up(job)
                return False
            self._push_out(donor)
        return True

    def _feed(self, job: Job, feeds: list[Feed], room: int) -> int:
        """Add a feed of at most `room` tokens of this job to the step, and return its number of tokens.

        If blocks are missing, other jobs are put back into the queue to free theirs, or else the job itself; the result
        is then 0. A job that does not fit into the cache even if no other job runs is dropped with an error.
        """
        sequence = job.sequence
        if job not in self.running or job.parked or not room:
            return 0
        self._make_writable(sequence)
        stop = sequence.computed + min(sequence.remaining, room)
        while (missing := self._count_missing_blocks(sequence, stop)) > self.pool.count_free():
            donor = self._choose_donor(job, missing, feeds) or self._find_latest_unfed(feeds, job)
            if donor is None:
                self._give_up(job)
                return 0
            self._push_out(donor)
        for _ in range(missing):
            sequence.blocks.append(self.pool.take())
        job.phases.note_forward()
        feeds.append(Feed(job, sequence.computed, stop))
        return stop - sequence.computed

    def _count_room(self, fed_tokens: int, decoding_tokens: int) -> int:
        """Number of tokens that the step can still take; it has `fed_tokens` already.

        `decoding_tokens` of these belong to decoding jobs, which the other tokens may slow down only up to a limit.
        """
        step_tokens = self.budget
        if decoding_tokens:
            prompt_tokens = self.costs.count_further_tokens(decoding_tokens, _MAX_SLOWDOWN_BY_PROMPTS, self.budget)
            step_tokens = min(self.budget, decoding_tokens + max(_MIN_PROMPT_TOKENS, prompt_tokens))
        return max(0, step_tokens - fed_tokens)

    def _count_room_for_tenant(self, tenant: str, feeds: list[Feed]) -> int:
        """Number of tokens of this tenant's prompts that the step, which has `feeds` already, can still take.

        If the step also has feeds of poorer tenants (which were given fewer tokens so far), all other feeds together
        may slow the step by `_MAX_SLOWDOWN_BY_RICHER`, or may have `_MIN_RICHER_TOKENS` tokens if that is more.
        """
        feed_sizes = [feed.stop - feed.start for feed in feeds]
        decoding_tokens = sum(size for size in feed_sizes if size <= _MAX_DECODING_TOKENS)
        room = self._count_room(sum(feed_sizes), decoding_tokens)
        own_count = self.shares.count_given_tokens(tenant)
        poorer_feeds = [feed for feed in feeds if self.shares.count_given_tokens(feed.job.client.tenant) < own_count]
        poorer_tokens = sum(feed.stop - feed.start for feed in poorer_feeds)
        if not poorer_tokens:
            return room
        richer_tokens = sum(feed_sizes) - poorer_tokens
        cheap_tokens = self.costs.count_further_tokens(poorer_tokens, _MAX_SLOWDOWN_BY_RICHER, self.budget)
        richer_limit = max(_MIN_RICHER_TOKENS, cheap_tokens)
        return max(0, min(room, richer_limit - richer_tokens))

    def _count_spare_tokens(self, feeds: list[Feed]) -> int:
        """Number of tokens of read-ahead jobs that the step can take beside `feeds` without delaying clients."""
        fed_tokens = sum(feed.stop - feed.start for feed in feeds)
        if fed_tokens:
            return self.costs.count_further_tokens(
                fed_tokens, _MAX_SLOWDOWN_BY_READING, max(0, self.budget - fed_tokens)
            )
        # without other work, the step is so short that a job that comes now can wait for its end
        cheap_tokens = self.costs.count_further_tokens(1, _MAX_SLOWDOWN_BY_PROMPTS, self.budget)
        return min(self.budget, max(_MIN_PROMPT_TOKENS, cheap_tokens))

    def _make_writable(self, sequence: TokenSequence) -> None:
        """Prepare a sequence's blocks for further tokens: free the blocks after its computed tokens.

        Other sequences may use a published block, so it must not be written to. So a last block that is published and
        only partly filled is freed, too, and its tokens are computed again.
        """
        block_count = math.ceil(sequence.computed / self.pool.size)
        if len(sequence.blocks) > block_count:
            self.pool.give_back(sequence.blocks[block_count:])
            del sequence.blocks[block_count:]
        if sequence.computed % self.pool.size and self.pool.is_published(sequence.blocks[-1]):
            self.pool.give_back([sequence.blocks.pop()])
            sequence.computed = len(sequence.blocks) * self.pool.size

    def _count_missing_blocks(self, sequence: TokenSequence, stop: int) -> int:
        """Number of blocks that a sequence lacks for its tokens before `stop`."""
        needed_count = math.ceil(stop / self.pool.size)
        return max(0, needed_count - len(sequence.blocks))

    def _find_latest_unfed(self, feeds: list[Feed], job: Job) -> Job | None:
        """The latest job that began to run after `job` and is not fed in this step; it frees its blocks for `job`.

        None if there is no such job, or if `job` is only read ahead, so that it must not take blocks from such jobs.
        """
        if job.client.ahead:
            return None
        fed_ids = {id(feed.job) for feed in feeds}
        later_jobs = self.running[self.running.index(job) + 1 :]
        return next((other for other in reversed(later_jobs) if id(other) not in fed_ids), None)

    def _choose_donor(self, job: Job, missing: int, feeds: list[Feed]) -> Job | None:
        """The running job that has to free its blocks for `job`, which lacks `missing` blocks; None if there is none.

        Candidates are jobs that no client waits for; if there are none, jobs of tenants whose long work yields in this
        step. Of the candidates, the last job of the tenant whose candidates have most blocks is chosen. If `job` itself
        is only read ahead, it gets no blocks from its own tenant, nor from a tenant that would then have fewer blocks.
        """
        # jobs that are fed in this step keep their blocks
        kept_ids = {id(job), *(id(feed.job) for feed in feeds)}
        others = [other for other in self.running if other.sequence.blocks and id(other) not in kept_ids]
        candidates = [other for other in others if other.is_unwanted]
        if not candidates and not job.client.ahead and job.client.tenant not in self.long_work.yielding:
            candidates = [other for other in others if other.client.tenant in self.long_work.yielding]
        if not candidates:
            return None
        blocks_by_tenant: Counter[str] = Counter()
        for other in candidates:
            blocks_by_tenant[other.client.tenant] += len(other.sequence.blocks)
        richest_tenant = max(blocks_by_tenant, key=lambda tenant: blocks_by_tenant[tenant])
        if job.client.ahead:
            blocks_afterwards = blocks_by_tenant[job.client.tenant] + missing
            if richest_tenant == job.client.tenant or blocks_by_tenant[richest_tenant] <= blocks_afterwards:
                return None
        return next(other for other in reversed(candidates) if other.client.tenant == richest_tenant)

    def _push_out(self, job: Job) -> None:
        """Free a running job's blocks and put it first of the waiting jobs; its tokens are read again later."""
        self.running.remove(job)
        self._release(job)
        self.totals.preempted += 1
        job.tokens = []  # the model chooses them again when the sequence is fed again
        self.waiting.insert(0, job)

    def _release(self, job: Job) -> None:
        """Give back a job's blocks; its tokens have to be computed again."""
        self.pool.give_back(job.sequence.blocks)
        job.sequence.blocks = []
        job.sequence.computed = 0

    def _give_up(self, job: Job) -> None:
        """Put a running job back into the queue to free its own blocks, because no other job can free any now.

        If it is the only running job, it has more tokens than the whole cache, and is dropped with an error.
        """
        if len(self.running) > 1:
            self._push_out(job)
            return
        cache_tokens = self.pool.count * self.pool.size
        problem = f"{len(job.sequence.ids)} tokens do not fit the {cache_tokens} of the KV cache"
        self.drop(job, EngineFault(f"{problem}; see aligner.cache_tokens"))
