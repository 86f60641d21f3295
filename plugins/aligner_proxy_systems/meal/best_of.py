"""Best of several drafts of a correction: the gate checks each draft, and the draft with the lowest cost is delivered.
The cost is the expected number of its faulty segments, where each objective counts with its weight.

This is rejection sampling at serving time, as in Meal (arXiv 2604.24178). The corrector runs several times, and the
aligner on the engine scores every draft. Removing text that violates no objective also costs. The original is always a
candidate. Drafts that come too late are ignored; if only one
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

from aligner_proxy.concurrency import end_tasks
from aligner_proxy.errors import CorrectionError
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.api import Corrected, Extension, Inner, PolicyKey
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import METAALIGNER, Correction, Policy, SegmentScore, Verify, all_cached
from aligner_proxy_systems.meal.selector import find_weights

BEST_OF = "best_of"
CAUTIONS = (0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0, -4.0)
"""Nats added to the caution of each draft, by the draft's number. The aligner on the engine decodes greedily, so
without this all its drafts would be equal. Correctors of plugins get the draft's number instead."""
SHARE = 0.6
"""Share of the remaining time that drafts may take; the rest is for scoring them."""
_DELIVERY_S = 0.05
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
        """Yield a note for `aligner-proxy check` if the drafts cannot differ."""
        if self.wraps(policy) and policy.corrector == "aligner":
            yield "best_of has no use with corrector aligner: it writes the same each time"


async def make_best_draft(text: str, policy: Policy, count: int, inner: Inner) -> Corrected:
    """Make `count` drafts of a correction and return the best, with what all of them took.

    The result says that it came from the cache only if all drafts and their scores did. If no draft succeeds, raises
    the error of the first.
    """
    corrections = [inner.correct(text, draft_policy(policy, number)) for number in range(count)]
    drafts = await _await_drafts(corrections, inner.deadline)
    scorings: list[Corrected] = []
    best_draft = drafts[0]
    # if no draft changes anything, there is nothing to choose from
    if {draft.verdict.text for draft in drafts} != {text}:
        # if scoring fails or takes too long, the first draft is delivered, as if it were the only one
        with contextlib.suppress(TimeoutError, CorrectionError):
            async with asyncio.timeout(max(0.0, inner.deadline - time.monotonic() - _DELIVERY_S)):
                best_draft = await _choose_cheapest(text, policy, drafts, inner, scorings)
    all_results = [*drafts, *scorings]
    correction = best_draft.correction.with_cost_of(result.correction for result in all_results)
    cache_hit = all_cached(result.cache_hit for result in all_results)
    return replace(best_draft, correction=correction, cache_hit=cache_hit)


def compute_cost(segments: Sequence[SegmentScore], original: Sequence[SegmentScore], weights: Sequence[float]) -> float:
    """Return the expected number of faulty segments of a draft; the lower, the better.

    Faulty are the draft's `segments` that violate an objective, where each counts with the objective's weight
    (`weights` are those of `shares`), and the segments of the `original` that the draft removed although they violate
    nothing.
    """
    texts = {segment.text.strip() for segment in segments}
    violation_cost = sum(_compute_probability(segment) * _find_weight(segment, weights) for segment in segments)
    removed_segments = [segment for segment in original if segment.text.strip() not in texts]
    removal_cost = sum(1.0 - _compute_probability(segment) for segment in removed_segments)
    return violation_cost + removal_cost


def shares(policy: Policy) -> tuple[float, ...]:
    """Return each objective's weight as a multiple of the average, in the policy's order; 1 if not weighed."""
    objective_weights = find_weights(policy)
    weights_by_name = dict(objective_weights.weights) if objective_weights else {}
    count = max(1, len(weights_by_name))
    return tuple(weights_by_name.get(objective.name, 1 / count) * count for objective in policy.objectives)


def draft_policy(policy: Policy, number: int) -> Policy:
    """Return the policy of one draft, with the draft's number and caution."""
    added_caution = CAUTIONS[number] if policy.corrector == METAALIGNER else 0.0
    return replace(policy, draft=number, caution=policy.caution + added_caution)


def scoring_policy(policy: Policy) -> Policy:
    """Return the policy by which the aligner on the engine scores a text and writes nothing."""
    return replace(policy, draft=0, corrector=METAALIGNER, score_only=True, verify=Verify.FLAGGED)


async def _choose_cheapest(
    text: str, policy: Policy, drafts: Sequence[Corrected], inner: Inner, scorings: list[Corrected]
) -> Corrected:
    """Return the draft with the lowest cost, or the original `text` if it costs less than all drafts.

    The results of scoring the texts are appended to `scorings`.
    """
    unique_texts = dict.fromkeys((*(draft.verdict.text for draft in drafts), text))
    candidates = [candidate for candidate in unique_texts if candidate.strip()]
    tasks = [asyncio.ensure_future(inner.correct(candidate, scoring_policy(policy))) for candidate in candidates]
    try:
        scorings += await asyncio.gather(*tasks)
    finally:
        await end_tasks(*tasks)
    segments_by_text = {
        candidate: scoring.correction.segments for candidate, scoring in zip(candidates, scorings, strict=True)
    }
    weights = shares(policy)
    original_segments = segments_by_text[text]
    costs = {
        candidate: compute_cost(segments, original_segments, weights)
        for candidate, segments in segments_by_text.items()
    }
    cheapest_text = min(costs, key=costs.__getitem__)
    for draft in drafts:
        if draft.verdict.text == cheapest_text:
            return draft
    original = Correction(text, original_segments, aligner=drafts[0].correction.aligner)
    return Corrected(original, None, Verdict(text))


async def _await_drafts(corrections: Sequence[Coroutine[Any, Any, Corrected]], deadline: float) -> list[Corrected]:
    """Return the drafts that finish within their share of the time; if none does, wait until one has finished.

    If all fail, raises the error of the first. `deadline` is in seconds of the monotonic clock.
    """
    tasks = [asyncio.ensure_future(correction) for correction in corrections]
    try:
        done, pending = await asyncio.wait(tasks, timeout=max(0.0, (deadline - time.monotonic()) * SHARE))
        while pending and not any(_has_succeeded(task) for task in done):
            newly_done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= newly_done
    finally:
        await end_tasks(*tasks)
    drafts = [task.result() for task in tasks if _has_succeeded(task)]
    return drafts or [tasks[0].result()]  # `result` raises the error of this draft


def _has_succeeded(task: asyncio.Future[Corrected]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _compute_probability(segment: SegmentScore) -> float:
    """Return the probability that the segment has to change; 0.5 without a score."""
    # beyond 30 nats the result hardly changes, but exp() could overflow
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, segment.score or 0.0))))


def _find_weight(segment: SegmentScore, weights: Sequence[float]) -> float:
    """Return the weight of the objective for which a segment was scored; 1 if the objective is not known."""
    index = segment.objective
    return weights[index] if index is not None and 0 <= index < len(weights) else 1.0
