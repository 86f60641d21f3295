"""What would another policy, or another aligner, have done with the answers that were recorded?

Every answer goes through the same pipeline again, without the cache, as the request that it belonged to: same tenant,
same wishes, same conversation. Nothing is delivered and nothing recorded. What comes out holds no text; the texts stay
with the entries.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from aligner_proxy.audit import Content, Entry
from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Outcome, Status

_AT_ONCE = 4
_GATE = "gate_"
_Z = 1.96
"""Normal quantile of a 95 % interval."""


class Ending(StrEnum):
    """What became of one answer, whether it was delivered or, in shadow mode, not."""

    CHANGED = "changed"
    LEFT = "left as it was"
    REFUSED = "refused by the gate"
    FAILED = "failed"
    SKIPPED = "skipped"
    FORBIDDEN = "forbidden"


class Change(StrEnum):
    """How the two runs differ for one answer."""

    SAME = "the same"
    NEWLY = "newly changed"
    NO_LONGER = "no longer changed"
    OTHERWISE = "changed otherwise"
    OTHER = "another outcome"


@dataclass(frozen=True, slots=True)
class Side:
    """One answer in one of the two runs. `text` is what was, or would have been, delivered."""

    ending: Ending
    reason: str | None
    text: str | None
    engine_ms: float = 0.0
    forwards: int = 0
    aligner: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One answer in both runs."""

    entry: Entry
    before: Side
    after: Side

    @property
    def change(self) -> Change:
        """What is different."""
        was = self.before.ending is Ending.CHANGED
        is_ = self.after.ending is Ending.CHANGED
        if was and is_:
            return Change.SAME if self.before.text == self.after.text else Change.OTHERWISE
        if was != is_:
            return Change.NEWLY if is_ else Change.NO_LONGER
        return Change.SAME if self.before.ending is self.after.ending else Change.OTHER


async def replay(
    entries: Sequence[Entry],
    resolver: PolicyResolver,
    pipeline: Pipeline,
    done: Callable[[], None],
    deadline_s: float | None = None,
) -> list[Case]:
    """All entries that hold a text, in their order; `done` is called after each. `deadline_s`: not the policy's."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(entry: Entry, content: Content) -> Case:
        async with turn:
            case = Case(entry, recorded(entry, content), await _again(content, resolver, pipeline, deadline_s))
        done()
        return case

    return await asyncio.gather(*(one(entry, entry.content) for entry in entries if entry.content is not None))


def recorded(entry: Entry, content: Content) -> Side:
    """What the entry says of the first run."""
    answer = content.exchange.answer
    changed = content.edited is not None and content.edited != answer
    text = content.edited if changed else answer
    ending = _ending(Status(entry.status), entry.reason, changed)
    return Side(ending, entry.reason, text, entry.engine_ms, entry.forwards, entry.aligner)


async def _again(content: Content, resolver: PolicyResolver, pipeline: Pipeline, deadline_s: float | None) -> Side:
    exchange = content.exchange
    try:
        policy = pipeline.extensions.resolve(resolver.resolve(content.facts), content.facts)
    except (ForbiddenError, BadRequest):
        return Side(Ending.FORBIDDEN, "forbidden", exchange.answer)
    # It happens on the operator's account: what tenants may still spend is for their own answers.
    patient = replace(policy, deadline_s=deadline_s or policy.deadline_s, quota=None, tenant="replay")
    return _side(exchange.answer, await pipeline.align(exchange, patient))


def _side(answer: str | None, outcome: Outcome) -> Side:
    changed = outcome.edited is not None and outcome.edited != answer
    found = outcome.correction
    return Side(
        _ending(outcome.status, outcome.reason, changed),
        outcome.reason,
        outcome.edited if changed else answer,
        found.ms if found else 0.0,
        found.counts.forwards if found else 0,
        found.aligner if found else None,
    )


def _ending(status: Status, reason: str | None, changed: bool) -> Ending:
    if status in (Status.FAILED, Status.SKIPPED):
        return Ending.FAILED if status is Status.FAILED else Ending.SKIPPED
    if changed:
        return Ending.CHANGED
    return Ending.REFUSED if (reason or "").startswith(_GATE) else Ending.LEFT


@dataclass(frozen=True, slots=True)
class Figures:
    """One run in numbers; times are the aligner's own, in milliseconds, of the answers that it looked at."""

    answers: int
    endings: dict[Ending, int]
    refusals: dict[str, int]
    """By the gate's reason."""
    changed: tuple[float, float, float]
    """Share of answers that are changed, with the ends of its 95 % interval."""
    p50_ms: float
    p95_ms: float
    forwards: float
    """Passes through the aligner per answer."""


def figures(sides: Sequence[Side]) -> Figures:
    """The numbers of one run."""
    endings = Counter(side.ending for side in sides)
    times = sorted(side.engine_ms for side in sides if side.ending in (Ending.CHANGED, Ending.LEFT, Ending.REFUSED))
    return Figures(
        answers=len(sides),
        endings={ending: endings[ending] for ending in Ending},
        refusals=dict(Counter(side.reason or "" for side in sides if side.ending is Ending.REFUSED).most_common()),
        changed=share(endings[Ending.CHANGED], len(sides)),
        p50_ms=_quantile(times, 0.5),
        p95_ms=_quantile(times, 0.95),
        forwards=statistics.fmean(side.forwards for side in sides) if sides else 0.0,
    )


def changes(cases: Sequence[Case]) -> dict[Change, int]:
    """How many answers differ, and how."""
    found = Counter(case.change for case in cases)
    return {change: found[change] for change in Change}


def share(some: int, of: int) -> tuple[float, float, float]:
    """A share with Wilson's 95 % interval, which also holds for few answers and for none that changed."""
    if of == 0:
        return 0.0, 0.0, 1.0
    p = some / of
    z = _Z**2 / of
    middle = (p + z / 2) / (1 + z)
    half = _Z / (1 + z) * math.sqrt(p * (1 - p) / of + z / (4 * of))
    return p, max(0.0, middle - half), min(1.0, middle + half)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0
