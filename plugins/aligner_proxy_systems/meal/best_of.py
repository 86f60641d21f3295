"""Best of several drafts: the gate checks each, and the one with the least weighted objections is delivered.

This is rejection sampling at serving time, as in Meal (arXiv 2604.24178). The corrector runs several times, and the
aligner on the engine scores every draft. Each objective's score counts with the objective's weight. Removing text that
nothing objected to also costs. The original is always a candidate. Drafts that come too late are ignored; if only one
is left, it is delivered.
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
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import METAALIGNER, Correction, Policy, SegmentScore, Verify, all_cached
from aligner_proxy_systems.meal.selector import find_weights

BEST_OF = "best_of"
CAUTIONS = (0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0, -4.0)
"""Nats added to the caution of each draft. The aligner on the engine decodes greedily, so without this all its drafts
would be equal. Correctors of plugins get the draft's number instead."""
SHARE = 0.6
"""Share of the remaining time that drafts may take; the rest is for scoring them."""
_WAY_BACK_S = 0.05
"""Seconds before the deadline at which scoring ends, so that a draft can still be delivered."""


class BestOf(Extension):
    """`best_of: N`: makes several drafts of a correction and delivers the best."""

    name = "best_of"
    order = 20  # inside the stages of preferences, so that each of their corrections is the best of several
    keys = (
        PolicyKey(
            BEST_OF,
            Annotated[int, Field(ge=1, le=8, strict=True)],
            1,
            "How many corrections to draft. The gate checks each, and the one that the detector scores best is "
            "delivered.",
            deprecated=("drafts",),
        ),
    )

    def wraps(self, policy: Policy) -> bool:
        """Whether the policy asks for more than one draft."""
        return bool(policy.extension(BEST_OF, 1) > 1)

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        """Return the best draft; make only one if no detector can compare drafts."""
        if not await inner.has_detector(policy):
            return await inner.correct(text, policy)
        return await make_best_draft(text, policy, policy.extension(BEST_OF, 1), inner)

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Note for `check` if drafts cannot differ."""
        if self.wraps(policy) and policy.corrector == "aligner":
            yield "best_of has no use with corrector aligner: it writes the same each time"


async def make_best_draft(text: str, policy: Policy, count: int, inner: Inner) -> Corrected:
    """Return the draft to deliver, with the cost of all drafts and whether all came from the cache.

    If no draft succeeds, raises the error of the first.
    """
    drafts = await _await_drafts([inner.correct(text, draft_policy(policy, n)) for n in range(count)], inner.deadline)
    readings: list[Corrected] = []
    best_draft = drafts[0]
    # If no draft changes anything, there is nothing to choose from.
    if {draft.verdict.text for draft in drafts} != {text}:
        # If scoring fails or takes too long, deliver the first draft, as if it were the only one.
        with contextlib.suppress(TimeoutError, CorrectionError):
            async with asyncio.timeout(max(0.0, inner.deadline - time.monotonic() - _WAY_BACK_S)):
                best_draft = await _choose_cheapest(text, policy, drafts, inner, readings)
    everything = [*drafts, *readings]
    correction = best_draft.correction.with_cost_of(corrected.correction for corrected in everything)
    return replace(
        best_draft, correction=correction, cache_hit=all_cached(corrected.cache_hit for corrected in everything)
    )


def compute_cost(segments: Sequence[SegmentScore], original: Sequence[SegmentScore], weights: Sequence[float]) -> float:
    """Expected number of faulty segments of a draft; the lower, the better.

    Counts the draft's `segments` that probably violate an objective, each with the objective's weight (see `shares`),
    and the segments of the `original` that the draft probably removed without need.
    """
    texts = {segment.text.strip() for segment in segments}
    violations = sum(_probability(segment) * _weight(segment, weights) for segment in segments)
    removed_segments = [segment for segment in original if segment.text.strip() not in texts]
    return violations + sum(1.0 - _probability(segment) for segment in removed_segments)


def shares(policy: Policy) -> tuple[float, ...]:
    """Weight of each objective, in the policy's order; 1 means as much as on average, or that nobody weighed them."""
    weighed = find_weights(policy)
    weights = dict(weighed.weights) if weighed else {}
    count = max(1, len(weights))
    return tuple(weights.get(objective.name, 1 / count) * count for objective in policy.objectives)


def draft_policy(policy: Policy, number: int) -> Policy:
    """The policy of one draft, with the draft's number and caution."""
    more = CAUTIONS[number] if policy.corrector == METAALIGNER else 0.0
    return replace(policy, draft=number, caution=policy.caution + more)


def scoring_policy(policy: Policy) -> Policy:
    """The policy that makes the aligner on the engine score a text without writing one."""
    return replace(policy, draft=0, corrector=METAALIGNER, score_only=True, verify=Verify.FLAGGED)


async def _choose_cheapest(
    text: str, policy: Policy, drafts: Sequence[Corrected], inner: Inner, readings: list[Corrected]
) -> Corrected:
    """Return the draft with the least cost, or the original if it costs least; appends the readings to `readings`."""
    texts = [
        candidate for candidate in dict.fromkeys((*(draft.verdict.text for draft in drafts), text)) if candidate.strip()
    ]
    tasks = [asyncio.ensure_future(inner.correct(candidate, scoring_policy(policy))) for candidate in texts]
    try:
        readings += await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)
    segments = dict(zip(texts, (reading.correction.segments for reading in readings), strict=True))
    weights = shares(policy)
    cheapest = min(segments, key=lambda candidate: compute_cost(segments[candidate], segments[text], weights))
    # If no draft has this text, the original costs least.
    draft = next((draft for draft in drafts if draft.verdict.text == cheapest), None)
    original = Correction(text, segments[text], aligner=drafts[0].correction.aligner)
    return draft or Corrected(original, None, Verdict(text))


async def _await_drafts(work: Sequence[Coroutine[Any, Any, Corrected]], deadline: float) -> list[Corrected]:
    """Return the drafts that finish within their share of the time; if none does, wait for the first one."""
    tasks = [asyncio.ensure_future(draft) for draft in work]
    try:
        done, pending = await asyncio.wait(tasks, timeout=max(0.0, (deadline - time.monotonic()) * SHARE))
        while pending and not any(_has_succeeded(task) for task in done):
            more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= more
    finally:
        await _cancel(tasks)
    succeeded = [task.result() for task in tasks if _has_succeeded(task)]
    return succeeded or [tasks[0].result()]  # raises that draft's error


def _has_succeeded(task: asyncio.Future[Corrected]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _cancel(tasks: Sequence[asyncio.Future[Corrected]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _probability(segment: SegmentScore) -> float:
    """Probability that the segment has to change; 0.5 without a score."""
    # Beyond 30 nats the result hardly changes, but exp() could overflow.
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, segment.score or 0.0))))


def _weight(segment: SegmentScore, weights: Sequence[float]) -> float:
    """The weight of the objective for which a segment was scored; 1 if that is not known."""
    index = segment.objective
    return weights[index] if index is not None and 0 <= index < len(weights) else 1.0
