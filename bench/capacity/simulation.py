"""Simulates a fleet of engines: the real scheduler and block pool on a simulated clock, with measured step times.

Each request replays the model requests of a measured correction (`measure.py`); the scheduler decides when they run and
in which batch. Gateways send to the engine with the fewest requests; an engine accepts 64 and rejects more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from aligner_proxy.engine.scheduling import metrics, scheduler
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Job, JobClient, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Step, TokenSequence, Work
from aligner_proxy.types import Correction

SEATS = 64
DEADLINE_S = 5.0
CACHED_S = 0.001
"""Seconds that a cached correction adds (measured: 0.6 ms)."""


@dataclass(frozen=True, slots=True)
class EngineMeasurements:
    """The measurements of one machine's engine."""

    steps: CostCurve
    assumed_costs: CostCurve
    """The forward costs that the engine assumes; its schedule depends on them."""
    step_tokens: int
    blocks: tuple[int, int]
    traces: dict[bool, list[list[dict[str, int]]]]
    """The model requests of each correction, for answers without (False) and with a defect (True)."""
    gateway_s: float = 0.0
    """Seconds that a correction takes outside its engine."""

    @classmethod
    def read(cls, file: Path) -> EngineMeasurements:
        """Read the file that `measure.py` wrote."""
        document = json.loads(file.read_text())
        traces = {bad: [one["asks"] for one in document["traces"] if one["bad"] == bad] for bad in (False, True)}
        steps, assumed_costs = (CostCurve(tuple((t, s) for t, s in document[name])) for name in ("curve", "believed"))
        return cls(steps, assumed_costs, document["step_tokens"], tuple(document["blocks"]), traces)


@dataclass(slots=True)
class SimulatedClock:
    """A simulated clock that replaces the module `time` in the scheduler."""

    now: float = 0.0

    def monotonic(self) -> float:
        """The simulated time in seconds."""
        return self.now


@dataclass(slots=True)
class SimulationResult:
    """Results of the requests: seconds added by each correction, and how many answers passed uncorrected."""

    added: list[float] = field(default_factory=list)
    failed: int = 0
    last: float = 0.0


def replay_requests(asks: list[dict[str, int]], number: int, sequence: TokenSequence) -> Work:
    """Replay the same model requests with tokens of its own; only the shared prefix is equal in all prompts."""
    for ask in asks:
        sequence.crop(ask["behind"])
        shared = max(0, min(ask["fed"], ask["shared"] - ask["behind"]))
        ids = [1] * shared + [number + 2] * (ask["fed"] - shared)
        yield Ask(ids, [1] * ask["draft"], prompt=bool(ask["shared"]), shared=ask["shared"])
    return Correction("")


class SimulatedEngine:
    """One engine: its scheduler, and when its current step ends."""

    def __init__(self, measured: EngineMeasurements) -> None:
        self.scheduler = Scheduler(
            BlockPool(*measured.blocks), budget=measured.step_tokens, costs=measured.assumed_costs
        )
        self.measured = measured
        self.feeds: list[scheduler.Feed] = []
        self.ready = 0.0
        self.house = 0

    def begin(self, now: float) -> None:
        """Start the next step if there is work."""
        self.feeds = self.scheduler.schedule(now)
        if self.feeds:
            self.ready = now + self.measured.steps.estimate_cost(sum(feed.stop - feed.start for feed in self.feeds))

    def end(self) -> None:
        """Finish the current step and advance its jobs."""
        for feed in self.feeds:
            job = feed.job
            if self.scheduler.record_feed(feed, [1] * len(feed.choice_positions)) and (
                result := job.advance(Step([], job.tokens, job.forwards))
            ):
                self.scheduler.drop(job, result)
        self.feeds = []


def simulate(
    measured: EngineMeasurements,
    due: Sequence[float],
    *,
    engines: int = 1,
    bad: float = 0.25,
    hits: float = 0.0,
    seed: int = 0,
) -> SimulationResult:
    """Simulate requests that arrive at `due`; a share `hits` is cached, and a share `bad` has a defect."""
    draw = random.Random(seed)
    clock = SimulatedClock()
    result = SimulationResult()
    fleet = [SimulatedEngine(measured) for _ in range(engines)]
    with mock.patch.object(scheduler, "time", clock), mock.patch.object(metrics, "time", clock):
        coming = list(reversed(due))
        number = 0
        while coming or any(engine.feeds for engine in fleet):
            busy = min((engine for engine in fleet if engine.feeds), key=lambda one: one.ready, default=None)
            if coming and (busy is None or coming[-1] <= busy.ready):
                at = clock.now = coming.pop()
                number += 1
                if draw.random() < hits:
                    result.added.append(CACHED_S)
                    continue
                engine = min(fleet, key=lambda one: one.house)
                asks = draw.choice(measured.traces[draw.random() < bad])
                _admit_request(engine, asks, number, at, result, clock)
            elif busy is not None:
                engine = busy
                clock.now = engine.ready
                engine.end()
            if not engine.feeds:
                engine.begin(clock.now)
    result.last = clock.now
    return result


def _admit_request(
    engine: SimulatedEngine,
    asks: list[dict[str, int]],
    number: int,
    at: float,
    result: SimulationResult,
    clock: SimulatedClock,
) -> None:
    """Add a request to an engine, or count it as failed if the engine is full."""
    if engine.house >= SEATS:
        result.failed += 1
        return
    engine.house += 1

    def end_request(end: Any) -> None:
        engine.house -= 1
        if isinstance(end, Correction):
            result.added.append(clock.now - at + engine.measured.gateway_s)
        else:
            result.failed += 1

    sequence = TokenSequence()
    work = replay_requests(asks, number, sequence)
    job = Job(str(number), work, end_request, JobClient(at + DEADLINE_S), sequence=sequence)
    job.advance()
    engine.scheduler.add(job)
