"""A fleet of engines on a simulated clock: the real scheduler and block pool, steps as long as they were measured.

A request is one that was measured (`measure.py`): its requests to the model are replayed, and the scheduler decides
when and in whose company. Gateways send to the engine with the fewest requests, which takes 64 and turns others away.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from aligner_proxy.engine.scheduling import metrics, scheduler
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Job, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Sequence, Step, Work
from aligner_proxy.types import Correction

SEATS = 64
CACHED_S = 0.001
"""The same of one from the cache (0.6 ms)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One machine's engine."""

    steps: CostCurve
    believed: CostCurve
    """What the engine itself takes a forward to cost; its schedule depends on it."""
    step_tokens: int
    blocks: tuple[int, int]
    traces: dict[bool, list[list[dict[str, int]]]]
    """Requests to the model of each correction, of answers without (False) and with a defect."""
    gateway_s: float = 0.0
    """What a correction adds beside its engine."""

    @classmethod
    def read(cls, file: Path) -> Measured:
        """As `measure.py` wrote it."""
        told = json.loads(file.read_text())
        traces = {bad: [one["asks"] for one in told["traces"] if one["bad"] == bad] for bad in (False, True)}
        steps, believed = (CostCurve(tuple((t, s) for t, s in told[name])) for name in ("curve", "believed"))
        return cls(steps, believed, told["step_tokens"], tuple(told["blocks"]), traces)


@dataclass(slots=True)
class Clock:
    """Stands in for the module `time` in the scheduler."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Simulated seconds."""
        return self.now


@dataclass(slots=True)
class Found:
    """What became of the requests: seconds that corrections added; how many passed uncorrected."""

    added: list[float] = field(default_factory=list)
    failed: int = 0
    last: float = 0.0


def replayed(asks: list[dict[str, int]], number: int, sequence: Sequence) -> Work:
    """The same requests to the model with other tokens: equal is only what all prompts begin with."""
    for ask in asks:
        sequence.crop(ask["behind"])
        shared = max(0, min(ask["fed"], ask["shared"] - ask["behind"]))
        ids = [1] * shared + [number + 2] * (ask["fed"] - shared)
        yield Ask(ids, [1] * ask["draft"], prompt=bool(ask["shared"]), shared=ask["shared"])
    return Correction("")


class Engine:
    """One engine: its scheduler, and until when its step runs."""

    def __init__(self, measured: Measured) -> None:
        self.scheduler = Scheduler(BlockPool(*measured.blocks), budget=measured.step_tokens, costs=measured.believed)
        self.measured = measured
        self.feeds: list[scheduler.Feed] = []
        self.ready = 0.0
        self.house = 0

    def begin(self, now: float) -> None:
        """Start the next step, if there is one."""
        self.feeds = self.scheduler.schedule(now)
        if self.feeds:
            self.ready = now + self.measured.steps.estimate_cost(sum(feed.stop - feed.start for feed in self.feeds))

    def end(self) -> None:
        """Its step has been run."""
        for feed in self.feeds:
            job = feed.job
            if self.scheduler.settle(feed, [1] * len(feed.predicted)) and (
                result := job.advance(Step([], job.tokens, job.forwards))
            ):
                self.scheduler.drop(job, result)
        self.feeds = []


def simulate(
    measured: Measured,
    due: Rows[float],
    *,
    engines: int = 1,
    bad: float = 0.25,
    hits: float = 0.0,
    deadline_s: float = 5.0,
    seed: int = 0,
) -> Found:
    """Requests that come at `due`; a share `hits` of them is in the cache, and a share `bad` has a defect."""
    draw = random.Random(seed)
    clock = Clock()
    found = Found()
    fleet = [Engine(measured) for _ in range(engines)]
    with mock.patch.object(scheduler, "time", clock), mock.patch.object(metrics, "time", clock):
        coming = list(reversed(due))
        number = 0
        while coming or any(engine.feeds for engine in fleet):
            busy = min((engine for engine in fleet if engine.feeds), key=lambda one: one.ready, default=None)
            if coming and (busy is None or coming[-1] <= busy.ready):
                at = clock.now = coming.pop()
                number += 1
                if draw.random() < hits:
                    found.added.append(CACHED_S)
                    continue
                engine = min(fleet, key=lambda one: one.house)
                asks = draw.choice(measured.traces[draw.random() < bad])
                _come(engine, asks, number, at, deadline_s, found, clock)
            elif busy is not None:
                engine = busy
                clock.now = engine.ready
                engine.end()
            if not engine.feeds:
                engine.begin(clock.now)
    found.last = clock.now
    return found


def _come(
    engine: Engine, asks: list[dict[str, int]], number: int, at: float, deadline_s: float, found: Found, clock: Clock
) -> None:
    if engine.house >= SEATS:
        found.failed += 1
        return
    engine.house += 1

    def ended(end: Any) -> None:
        engine.house -= 1
        if isinstance(end, Correction):
            found.added.append(clock.now - at + engine.measured.gateway_s)
        else:
            found.failed += 1

    sequence = Sequence()
    job = Job(str(number), replayed(asks, number, sequence), ended, at + deadline_s, sequence=sequence)
    job.advance()
    engine.scheduler.add(job)
