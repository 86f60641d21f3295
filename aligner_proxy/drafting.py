"""Which of several drafts is delivered? Each is gated first; then the one that the detector objects to least, weighted.

Rejection sampling while serving, as in Meal (arXiv 2604.24178): the corrector is asked more than once, the aligner on
the engine reads every draft, and what its head says of each objective counts as much as that objective weighs. What is
gone from the original counts, too, where nothing spoke against it. The original is always among the candidates. What
does not come in time is left out: with one draft there is nothing to choose.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy.errors import CorrectionError
from aligner_proxy.gate import Verdict
from aligner_proxy.types import METAALIGNER, Correction, DecodeCounts, Policy, SegmentScore, Verify

Ask = Callable[[str, Policy], Awaitable[tuple[Correction, bool | None]]]
"""The correction of a text under a policy, and whether the cache had it."""
Judge = Callable[[str, Correction, Policy], Awaitable[Verdict]]
CAUTIONS = (0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0, -4.0)
"""Nats by which each draft of the aligner on the engine is more careful: it writes greedily, so it must be asked
otherwise to say something else. Correctors of plugins are told the draft's number."""
UNMOVED = 1e9
"""A caution (nats) that no score exceeds: the engine reads and writes nothing."""
SHARE = 0.6
"""Of the time that is left, how much drafts may take; the rest is for reading them."""
_WAY_BACK_S = 0.05


@dataclass(frozen=True, slots=True)
class _Draft:
    correction: Correction
    cache_hit: bool | None
    verdict: Verdict


async def best(text: str, policy: Policy, until: float, ask: Ask, judge: Judge) -> tuple[Correction, bool | None]:
    """The draft to deliver, with the cost of all, and whether the cache had everything; `until` is monotonic seconds.

    Raises what the first draft raised where none came.
    """

    async def draft(number: int) -> _Draft:
        asked = _asked(policy, number)
        correction, hit = await ask(text, asked)
        return _Draft(correction, hit, await judge(text, correction, asked))

    drafts = await _in_time([draft(number) for number in range(policy.drafts)], until)
    readings: list[tuple[Correction, bool | None]] = []
    chosen = drafts[0].correction
    if {one.verdict.text for one in drafts} != {text}:
        # Drafts that could not be read are not compared: then the first is delivered, as it would be without others.
        with contextlib.suppress(TimeoutError, CorrectionError):
            async with asyncio.timeout(max(0.0, until - time.monotonic() - _WAY_BACK_S)):
                chosen = await _least(text, policy, drafts, ask, readings)
    every = [*((one.correction, one.cache_hit) for one in drafts), *readings]
    hits = {hit for _, hit in every} - {None}
    return _costing(chosen, [made for made, _ in every]), False not in hits if hits else None


def cost(told: Sequence[SegmentScore], original: Sequence[SegmentScore], weights: Sequence[float]) -> float:
    """What is expected to be wrong with a text, in segments: what is left that an objective speaks against, weighted,
    and what is gone of the original that none did. `weights` are 1 for an objective like the others."""
    there = {segment.text.strip() for segment in told}
    left = sum(_chance(segment) * _weight(segment, weights) for segment in told)
    return left + sum(1.0 - _chance(segment) for segment in original if segment.text.strip() not in there)


def shares(policy: Policy) -> tuple[float, ...]:
    """What each objective weighs beside an equal share; 1 where nothing was weighed."""
    told = dict(policy.auto.weights) if policy.auto else {}
    return tuple(told.get(objective.name, 1 / max(1, len(told))) * max(1, len(told)) for objective in policy.objectives)


def reading(policy: Policy) -> Policy:
    """As what a text is asked about that is to be read only."""
    return replace(policy, drafts=1, draft=0, corrector=METAALIGNER, caution=UNMOVED, verify=Verify.FLAGGED)


async def _least(
    text: str, policy: Policy, drafts: Sequence[_Draft], ask: Ask, readings: list[tuple[Correction, bool | None]]
) -> Correction:
    """The correction whose text costs least; the original where that is it."""
    texts = list(dict.fromkeys((*(one.verdict.text for one in drafts), text)))
    tasks = [asyncio.ensure_future(ask(one, reading(policy))) for one in texts if one.strip()]
    try:
        readings += await asyncio.gather(*tasks)
    finally:
        await _let_go(tasks)
    told = dict(zip((one for one in texts if one.strip()), (made.segments for made, _ in readings), strict=True))
    weights = shares(policy)
    cheapest = min(told, key=lambda one: cost(told[one], told[text], weights))
    found = next((one.correction for one in drafts if one.verdict.text == cheapest), None)
    return found or Correction(text, told[text], aligner=drafts[0].correction.aligner)


async def _in_time(work: Sequence[Awaitable[_Draft]], until: float) -> list[_Draft]:
    """The drafts that came within their share of the time; where none did, the first that comes at all."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, pending = await asyncio.wait(tasks, timeout=max(0.0, (until - time.monotonic()) * SHARE))
        while pending and not any(_came(task) for task in done):
            more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= more
    finally:
        await _let_go(tasks)
    found = [task.result() for task in tasks if task.done() and _came(task)]
    return found or [tasks[0].result()]  # which raises


def _came(task: asyncio.Future[_Draft]) -> bool:
    return not task.cancelled() and task.exception() is None


async def _let_go(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Nobody waits for these any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _asked(policy: Policy, number: int) -> Policy:
    more = CAUTIONS[number] if policy.corrector == METAALIGNER else 0.0
    return replace(policy, drafts=1, draft=number, caution=policy.caution + more)


def _chance(segment: SegmentScore) -> float:
    """How likely it is that the segment has to change; even odds where no head says it."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, segment.score or 0.0))))


def _weight(segment: SegmentScore, weights: Sequence[float]) -> float:
    index = segment.objective
    return weights[index] if index is not None and 0 <= index < len(weights) else 1.0


def _costing(chosen: Correction, every: Sequence[Correction]) -> Correction:
    """With what all of them took of the engine."""
    return replace(
        chosen,
        counts=sum((one.counts for one in every), DecodeCounts()),
        prompt_tokens=sum(one.prompt_tokens for one in every),
        ms=sum(one.ms for one in every),
    )
