"""10,000 random schedules of arrivals, departures, deadlines and preemptions, over a runner without a model.

No block is leaked, no request is lost or told twice, and nobody gets what belongs to another, adapters included.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Feed, Job, JobClient, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Step, TokenSequence, Work
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable
from aligner_proxy.types import Correction, DecodeCounts

SIZE = 4
TOKENS = 7
ADAPTERS = 3
PER_TEST = 250


class Slots:
    """What stands in the KV cache: under which adapter which token was written."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.held: dict[int, tuple[int, int]] = {}

    def run(self, feed: Feed) -> list[int]:
        """The next token is the sum of the adapter and of all tokens before, as read from the slots."""
        sequence = feed.job.sequence
        size = self.pool.size
        own = sequence.adapter
        for at in range(feed.start, feed.stop):
            self.held[sequence.blocks[at // size] * size + at % size] = (own, sequence.ids[at])
        total = own
        sums = []
        for at in range(feed.stop):
            adapter, token = self.held[sequence.blocks[at // size] * size + at % size]
            assert (adapter, token) == (own, sequence.ids[at]), "a sequence reads what is not its own"
            total += token
            sums.append(total % TOKENS)
        return sums[feed.choice_positions.start : feed.stop]


def work(owner: int, prompt: list[int], turns: int, rng: random.Random, sequence: TokenSequence) -> Work:
    """Reads a prompt and writes with drafts, some of them wrong; checks every token and signs with the owner's name."""
    step = yield Ask(prompt, prompt=True)
    for _ in range(turns):
        held = [*sequence.ids, step.tokens[0]]
        draft = [rng.randrange(TOKENS) for _ in range(rng.randrange(5))]
        step = yield Ask([step.tokens[0]], draft)
        wanted = [(sequence.adapter + sum(held) + sum(draft[:i])) % TOKENS for i in range(len(draft) + 1)]
        assert step.tokens == wanted
        sequence.crop(len(held) if rng.random() < 0.8 else rng.randrange(1, len(held)))
        if len(sequence.ids) < len(held):  # back into what was written or into the prompt, and on from there
            step = yield Ask([rng.randrange(TOKENS)])
        else:
            step = Step([], step.tokens[:1], 1)
    return Correction(str(owner), counts=DecodeCounts(drafted=turns))


class World:
    """One schedule: a scheduler, those who come and go, and a clock that is the number of the step."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.pool = BlockPool(rng.randrange(12, 40), SIZE)
        costs = CostCurve(((1, 1.0), (40, rng.uniform(1, 40))))
        self.scheduler = Scheduler(self.pool, budget=rng.randrange(1, 40), most=rng.randrange(1, 8), costs=costs)
        self.slots = Slots(self.pool)
        self.beginning = [rng.randrange(TOKENS) for _ in range(12)]
        self.ends: list[list[Any]] = []
        self.gone: set[int] = set()
        self.to_come = rng.randrange(2, 9)

    def come(self, now: int) -> None:
        rng = self.rng
        owner = len(self.ends)
        prompt = [*self.beginning[: rng.randrange(13)], *(rng.randrange(TOKENS) for _ in range(rng.randrange(1, 9)))]
        sequence = TokenSequence(rng.randrange(ADAPTERS))
        turns = rng.randrange(5)
        its_own = random.Random(rng.random())
        deadline = now + rng.randrange(40) if rng.random() < 0.3 else float("inf")
        self.ends.append([])
        finish: Callable[[Any], None] = self.ends[owner].append
        made = work(owner, prompt, turns, its_own, sequence)
        job = Job(
            str(owner), made, finish, JobClient(deadline, str(owner % 3), lambda: owner in self.gone), sequence=sequence
        )
        assert job.advance() is None
        self.scheduler.add(job)

    def disturb(self) -> None:
        rng = self.rng
        if rng.random() < 0.05:
            self.gone.add(rng.randrange(len(self.ends)))
        if self.scheduler.running and rng.random() < 0.1:
            self.scheduler._push_out(rng.choice(self.scheduler.running))

    def step(self, now: int) -> None:
        for feed in self.scheduler.schedule(float(now)):
            if self.scheduler.record_feed(feed, self.slots.run(feed)):
                result = feed.job.advance(Step([], feed.job.tokens, feed.job.forwards))
                if result is not None:
                    self.scheduler.drop(feed.job, result)

    def play(self) -> None:
        for now in range(5000):
            if len(self.ends) < self.to_come and (not self.ends or self.rng.random() < 0.3):
                self.come(now)
            self.disturb()
            self.step(now)
            self.scheduler.check()
            if len(self.ends) == self.to_come and not self.scheduler.running and not self.scheduler.waiting:
                return
        raise AssertionError("it does not come to an end")


@pytest.mark.some(10)
@pytest.mark.parametrize("block", range(10_000 // PER_TEST))
def test_no_schedule_leaks_loses_or_mixes_up_anything(block: int) -> None:
    ended: set[type] = set()
    for seed in range(block * PER_TEST, (block + 1) * PER_TEST):
        world = World(seed)
        world.play()
        for owner, ends in enumerate(world.ends):
            assert len(ends) == 1, f"seed {seed}: request {owner} was told {len(ends)} times"
            assert isinstance(
                ends[0], Correction | DeadlineExceeded | EngineOverloaded | EngineUnavailable | EngineFault
            )
            assert not isinstance(ends[0], Correction) or ends[0].text == str(owner), f"seed {seed}: wrong owner"
            ended.add(type(ends[0]))
        totals = world.scheduler.totals
        assert totals.finished + totals.failed == len(world.ends)
        assert world.pool.count_uses().used == 0
    assert {Correction, DeadlineExceeded, EngineUnavailable} <= ended
