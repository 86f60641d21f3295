"""Best of several drafts: each is gated first; then the one stays that the detector objects to least, weighted.

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
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from aligner_proxy.errors import CorrectionError
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.api import Corrected, Extension, Inner, PolicyKey
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.types import METAALIGNER, Correction, Policy, SegmentScore, Verify, all_cached
from aligner_proxy_systems.meal.selector import weighed_of

BEST_OF = "best_of"
CAUTIONS = (0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0, -4.0)
"""Nats by which each draft of the aligner on the engine is more careful: it decodes greedily, so it must be asked
otherwise to say something else. Correctors of plugins get the draft's number."""
SHARE = 0.6
"""Of the time that is left, how much drafts may take; the rest is for reading them."""
_WAY_BACK_S = 0.05


class BestOf(Extension):
    """`best_of: N`: several drafts of a correction, and the best of them."""

    name = "best_of"
    order = 20  # inside the stages of preferences: each of their corrections is the best of several
    keys = (
        PolicyKey(
            BEST_OF,
            Annotated[int, Field(ge=1, le=8, strict=True)],
            1,
            "Corrections that are asked for; the gate judges each, and the one that the detector objects to least "
            "stays.",
            deprecated=("drafts",),
        ),
    )

    def wraps(self, policy: Policy) -> bool:
        """Where the policy asks for more than one draft."""
        return bool(policy.extension(BEST_OF, 1) > 1)

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        """The best draft; the only one where no detector could tell drafts apart."""
        if not await inner.has_detector(policy):
            return await inner.correct(text, policy)
        return await best(text, policy, policy.extension(BEST_OF, 1), inner)

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Whether drafts can differ."""
        if self.wraps(policy) and policy.corrector == "aligner":
            yield "best_of has no use with corrector aligner: it writes the same each time"


async def best(text: str, policy: Policy, count: int, inner: Inner) -> Corrected:
    """The draft to deliver, with the cost of all, and whether the cache had everything.

    Raises what the first draft raised where none came.
    """
    drafts = await _in_time([inner.correct(text, draft_policy(policy, n)) for n in range(count)], inner.deadline)
    readings: list[Corrected] = []
    chosen = drafts[0]
    if {draft.verdict.text for draft in drafts} != {text}:
        # Drafts that could not be read are not compared: then the first is delivered, as it would be without others.
        with contextlib.suppress(TimeoutError, CorrectionError):
            async with asyncio.timeout(max(0.0, inner.deadline - time.monotonic() - _WAY_BACK_S)):
                chosen = await _cheapest(text, policy, drafts, inner, readings)
    everything = [*drafts, *readings]
    correction = chosen.correction.with_cost_of(one.correction for one in everything)
    return replace(chosen, correction=correction, cache_hit=all_cached(one.cache_hit for one in everything))


def cost(segments: Sequence[SegmentScore], original: Sequence[SegmentScore], weights: Sequence[float]) -> float:
    """What is expected to be wrong with a text, in segments: what is left that an objective speaks against, weighted,
    and what is gone of the original that none did. `weights` are 1 for an objective like the others."""
    texts = {segment.text.strip() for segment in segments}
    left = sum(_probability(segment) * _weight(segment, weights) for segment in segments)
    return left + sum(1.0 - _probability(segment) for segment in original if segment.text.strip() not in texts)


def shares(policy: Policy) -> tuple[float, ...]:
    """What each objective weighs beside an equal share; 1 where nothing was weighed."""
    weighed = weighed_of(policy)
    weights = dict(weighed.weights) if weighed else {}
    count = max(1, len(weights))
    return tuple(weights.get(objective.name, 1 / count) * count for objective in policy.objectives)


def draft_policy(policy: Policy, number: int) -> Policy:
    """The policy of one draft."""
    more = CAUTIONS[number] if policy.corrector == METAALIGNER else 0.0
    return replace(policy, draft=number, caution=policy.caution + more)


def scoring_policy(policy: Policy) -> Policy:
    """The policy by which a text is scored by the aligner on the engine, and nothing written."""
    return replace(policy, draft=0, corrector=METAALIGNER, score_only=True, verify=Verify.FLAGGED)


async def _cheapest(
    text: str, policy: Policy, drafts: Sequence[Corrected], inner: Inner, readings: list[Corrected]
) -> Corrected:
    """The draft whose text costs least; the original where that is it."""
    texts = [one for one in dict.fromkeys((*(draft.verdict.text for draft in drafts), text)) if one.strip()]
    tasks = [asyncio.ensure_future(inner.correct(one, scoring_policy(policy))) for one in texts]
    try:
        readings += await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)
    segments = dict(zip(texts, (reading.correction.segments for reading in readings), strict=True))
    weights = shares(policy)
    cheapest = min(segments, key=lambda one: cost(segments[one], segments[text], weights))
    draft = next((draft for draft in drafts if draft.verdict.text == cheapest), None)
    original = Correction(text, segments[text], aligner=drafts[0].correction.aligner)
    return draft or Corrected(original, None, Verdict(text))


async def _in_time(work: Sequence[Coroutine[Any, Any, Corrected]], deadline: float) -> list[Corrected]:
    """The drafts that came within their share of the time; where none did, the first that comes at all."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, pending = await asyncio.wait(tasks, timeout=max(0.0, (deadline - time.monotonic()) * SHARE))
        while pending and not any(_succeeded(task) for task in done):
            more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= more
    finally:
        await _cancel(tasks)
    succeeded = [task.result() for task in tasks if _succeeded(task)]
    return succeeded or [tasks[0].result()]  # which raises


def _succeeded(task: asyncio.Future[Corrected]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _cancel(tasks: Sequence[asyncio.Future[Corrected]]) -> None:
    """Stop what nobody waits for any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _probability(segment: SegmentScore) -> float:
    """How likely it is that the segment has to change; even odds where no head says it."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, segment.score or 0.0))))


def _weight(segment: SegmentScore, weights: Sequence[float]) -> float:
    index = segment.objective
    return weights[index] if index is not None and 0 <= index < len(weights) else 1.0
