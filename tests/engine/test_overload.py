"""More arrives than can be done: what is done then? A simulated machine and clock; nothing here is timed."""

from __future__ import annotations

import heapq
import random
from itertools import count
from typing import Any

import pytest

from aligner_proxy.engine.scheduling import metrics, scheduler
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Feed, Job, JobClient, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Step, TokenSequence, Work
from aligner_proxy.errors import DeadlineExceeded, EngineOverloaded
from aligner_proxy.types import Correction

CURVE = CostCurve(((1, 0.019), (16, 0.029), (75, 0.057), (250, 0.135), (993, 0.47)))
"""Seconds of a forward by its tokens: the embedded aligner on two CPU cores."""
PROMPT = 450
DEADLINE_S = 5.0


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        """Simulated seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (scheduler, metrics):
        monkeypatch.setattr(module, "time", made)
    return made


def correction(rng: random.Random, sequence: TokenSequence) -> Work:
    """Reads a prompt; six in ten are then written to, with drafts of which half is accepted."""
    yield Ask([rng.randrange(9999) for _ in range(PROMPT)], prompt=True)
    for _ in range(rng.randrange(7, 20) if rng.random() < 0.6 else 0):
        yield Ask([1], [2] * 6)
        sequence.crop(len(sequence.ids) - 3)
    return Correction("done")


class Machine:
    """A scheduler on a machine that takes as long as `CURVE` says; clients come back as soon as they are answered."""

    def __init__(self, clock: Clock, clients: int) -> None:
        self.clock = clock
        self.rng = random.Random(clients)
        self.scheduler = Scheduler(BlockPool(1024, 16), costs=CURVE)
        self.coming = [number * 0.01 for number in range(clients)]
        self.names = count()
        self.ends: list[Any] = []

    def play(self, seconds: float) -> None:
        """Until the clock says so."""
        while self.clock.now < seconds:
            while self.coming and self.coming[0] <= self.clock.now:
                self.come(heapq.heappop(self.coming))
            if feeds := self.scheduler.schedule(self.clock.now):
                self.run(feeds)
            elif self.coming:
                self.clock.now = max(self.clock.now, self.coming[0])

    def come(self, at: float) -> None:
        """One request."""
        sequence = TokenSequence()
        work = correction(self.rng, sequence)
        job = Job(str(next(self.names)), work, self.ended, JobClient(at + DEADLINE_S), sequence=sequence)
        assert job.advance() is None
        self.scheduler.add(job)

    def ended(self, end: Any) -> None:
        """Its client asks again; one that was turned away waits as it was told."""
        self.ends.append(end)
        again = end.retry_after_s if isinstance(end, EngineOverloaded) else 0.02
        heapq.heappush(self.coming, self.clock.now + again)

    def run(self, feeds: list[Feed]) -> None:
        """One forward."""
        self.clock.now += CURVE.estimate_cost(sum(feed.stop - feed.start for feed in feeds))
        for feed in feeds:
            if self.scheduler.record_feed(feed, [1] * len(feed.choice_positions)):
                result = feed.job.advance(Step([], [1], 1))
                if result is not None:
                    self.scheduler.drop(feed.job, result)

    def done(self) -> int:
        """Corrections that came in time."""
        return sum(isinstance(end, Correction) for end in self.ends)


def test_a_full_house_gets_most_of_what_a_half_full_one_does(clock: Clock) -> None:
    done = {}
    for clients in (8, 16, 64):
        clock.now = 0.0
        machine = Machine(clock, clients)
        machine.play(120.0)
        done[clients] = machine.done()
    assert done[16] > 0.7 * done[8], done
    assert done[64] > 0.6 * done[8], done


def test_time_is_not_spent_on_what_comes_too_late(clock: Clock) -> None:
    machine = Machine(clock, 32)
    machine.play(120.0)
    late = sum(isinstance(end, DeadlineExceeded) for end in machine.ends)
    turned_away = sum(isinstance(end, EngineOverloaded) for end in machine.ends)
    assert turned_away > 2 * late > 0
    assert all(end.retry_after_s > 0 for end in machine.ends if isinstance(end, EngineOverloaded))


def test_one_that_is_alone_begins_whatever_others_took(clock: Clock) -> None:
    machine = Machine(clock, 1)
    machine.scheduler.service_time.stay_s = 100.0
    machine.play(20.0)
    assert machine.done() == len(machine.ends) > 3
    assert machine.scheduler.service_time.stay_s < 100.0


def test_a_reading_that_is_let_go_of_says_nothing_about_how_long_others_take(clock: Clock) -> None:
    machine = Machine(clock, 0)
    sequence = TokenSequence()
    ends = []
    job = Job("read along", correction(machine.rng, sequence), ends.append, sequence=sequence)
    job.phases.unwanted, job.client.is_abandoned = True, lambda: clock.now > 60
    job.advance()
    machine.scheduler.add(job)
    (feed,) = machine.scheduler.schedule(clock.now)
    machine.scheduler.record_feed(feed, [1] * len(feed.choice_positions))
    clock.now = 61.0
    machine.scheduler.schedule(clock.now)
    assert len(ends) == 1
    assert machine.scheduler.service_time.stay_s == 0.0
    assert (machine.scheduler.totals.failed, machine.scheduler.totals.finished) == (0, 0)
