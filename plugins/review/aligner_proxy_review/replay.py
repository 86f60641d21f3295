"""Replay of recorded answers under another policy or another aligner.

Every answer runs through the pipeline again, without the cache, with its original request: the same tenant, objectives
and conversation. Nothing is delivered or recorded. The figures contain no text.

The result is compared with the recorded result. For a change of the policies file it is compared with a replay under
the file as it is now, so that differences come from the change alone, and not from an aligner that was updated since.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.intervals import wilson_interval
from aligner_proxy.pipeline.outcomes import GATE
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.api import Content, Entry
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Outcome, Status

_MAX_CONCURRENT = 4


class ReplayResult(StrEnum):
    """What a run did to an answer, or would have done in shadow mode."""

    CHANGED = "changed"
    LEFT = "left as it was"
    REFUSED = "refused by the gate"
    FAILED = "failed"
    SKIPPED = "skipped"
    FORBIDDEN = "forbidden"
    """The policies of the replay would refuse the request."""


class ReplayDifference(StrEnum):
    """Difference between the two runs of one answer."""

    SAME = "the same"
    NEWLY_CHANGED = "newly changed"
    """The answer is changed now, and was not before."""
    NO_LONGER_CHANGED = "no longer changed"
    CHANGED_DIFFERENTLY = "changed otherwise"
    """Changed in both runs, into different texts."""
    OTHER_RESULT = "another outcome"
    """Changed in neither run, with different results, such as "left as it was" and "failed"."""


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One answer in one of the two runs."""

    result: ReplayResult
    reason: str | None
    """Why the result is not CHANGED, as the audit entry says it; None if there is no reason."""
    text: str | None
    """The text that was, or would have been, delivered."""
    engine_ms: float = 0.0
    """Time in the aligner."""
    forwards: int = 0
    """Forward passes of the aligner."""
    aligner: str | None = None
    """The aligner's content hash; None if none was asked."""


@dataclass(frozen=True, slots=True)
class ReplayCase:
    """One answer in both runs."""

    entry: Entry
    before: ReplayRun
    """As recorded or, for a change of the policies file, under the current file."""
    after: ReplayRun
    """Under the policies of the replay."""
    recorded: ReplayRun

    @property
    def is_as_recorded(self) -> bool:
        """Whether the run `before` gave the recorded result, so that reviews of the recorded answer apply to it."""
        return (self.before.result, self.before.text) == (self.recorded.result, self.recorded.text)

    @property
    def difference(self) -> ReplayDifference:
        """How the run `after` differs from the run `before`."""
        was_changed = self.before.result is ReplayResult.CHANGED
        is_changed = self.after.result is ReplayResult.CHANGED
        if is_changed and not was_changed:
            return ReplayDifference.NEWLY_CHANGED
        if was_changed and not is_changed:
            return ReplayDifference.NO_LONGER_CHANGED
        if was_changed and self.before.text != self.after.text:
            return ReplayDifference.CHANGED_DIFFERENTLY
        return ReplayDifference.SAME if self.before.result is self.after.result else ReplayDifference.OTHER_RESULT


@dataclass(frozen=True, slots=True)
class ReplayPolicies:
    """A policies file to replay under: its policies, and the pipeline with its plugins."""

    resolver: PolicyResolver
    pipeline: Pipeline


async def replay(
    entries: Sequence[Entry],
    policies: ReplayPolicies,
    advance: Callable[[], None],
    deadline_s: float | None = None,
    current: ReplayPolicies | None = None,
) -> list[ReplayCase]:
    """Replay the entries whose text was stored, and return the cases in their order.

    Each case compares a run under `policies` with a run under `current` or, without `current`, with the recorded run.
    `advance` is called after each answer, so that the caller can show the progress. `deadline_s` is the deadline of an
    answer in place of the policy's.
    """
    slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def replay_one(entry: Entry, content: Content) -> ReplayCase:
        recorded = read_recorded_run(entry, content)
        async with slots:
            after = await _replay_answer(content, policies, deadline_s)
            before = await _replay_answer(content, current, deadline_s) if current else recorded
        advance()
        return ReplayCase(entry, before, after, recorded)

    return await asyncio.gather(*(replay_one(entry, entry.content) for entry in entries if entry.content is not None))


def read_recorded_run(entry: Entry, content: Content) -> ReplayRun:
    """Return the run that an audit entry recorded."""
    answer = content.exchange.answer
    is_changed = content.edited is not None and content.edited != answer
    text = content.edited if is_changed else answer
    result = _classify_result(Status(entry.status), entry.reason, is_changed=is_changed)
    return ReplayRun(result, entry.reason, text, entry.engine_ms, entry.forwards, entry.aligner)


async def _replay_answer(content: Content, policies: ReplayPolicies, deadline_s: float | None) -> ReplayRun:
    """Correct one recorded answer under the policies of the replay, without tenants' quotas.

    `deadline_s` is the deadline of the correction; None for the policy's.
    """
    exchange = content.exchange
    pipeline = policies.pipeline
    try:
        policy = pipeline.extensions.resolve(policies.resolver.resolve(content.facts), content.facts)
    except (ForbiddenError, BadRequest):
        # the policies of the replay would refuse this request
        return ReplayRun(ReplayResult.FORBIDDEN, "forbidden", exchange.answer)
    replay_policy = replace(policy, deadline_s=deadline_s or policy.deadline_s, quota=None, tenant="replay")
    return _make_run(exchange.answer, await pipeline.align(exchange, replay_policy))


def _make_run(answer: str | None, outcome: Outcome) -> ReplayRun:
    """Make the run of an answer that ended with this outcome."""
    is_changed = outcome.edited is not None and outcome.edited != answer
    correction = outcome.correction
    return ReplayRun(
        _classify_result(outcome.status, outcome.reason, is_changed=is_changed),
        outcome.reason,
        outcome.edited if is_changed else answer,
        engine_ms=correction.ms if correction else 0.0,
        forwards=correction.counts.forwards if correction else 0,
        aligner=correction.aligner if correction else None,
    )


def _classify_result(status: Status, reason: str | None, *, is_changed: bool) -> ReplayResult:
    """The result of a run with this status and reason; an answer that was not judged counts as skipped."""
    if status is Status.FAILED:
        return ReplayResult.FAILED
    if status in (Status.SKIPPED, Status.NOT_JUDGED):
        return ReplayResult.SKIPPED
    if is_changed:
        return ReplayResult.CHANGED
    if reason is not None and reason.startswith(GATE):
        return ReplayResult.REFUSED
    return ReplayResult.LEFT


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Figures of one run; times are the aligner's, in milliseconds, over the answers that it scored."""

    answers: int
    results: dict[ReplayResult, int]
    """Number of answers by result, 0 for results that do not occur."""
    refusals: dict[str, int]
    """Number of refused answers by the gate's reason."""
    changed: tuple[float, float, float]
    """(share of changed answers, lower end of its 95 % interval, upper end), from 0 to 1."""
    p50_ms: float
    p95_ms: float
    forwards: float
    """Forward passes of the aligner per answer."""


def compute_figures(runs: Sequence[ReplayRun]) -> RunFigures:
    """Compute the numbers of results and refusals and the times of these runs."""
    result_counts = Counter(run.result for run in runs)
    refusal_counts = Counter(run.reason or "" for run in runs if run.result is ReplayResult.REFUSED)
    # answers with another result were not scored completely
    scored_results = (ReplayResult.CHANGED, ReplayResult.LEFT, ReplayResult.REFUSED)
    times = sorted(run.engine_ms for run in runs if run.result in scored_results)
    return RunFigures(
        answers=len(runs),
        results={result: result_counts[result] for result in ReplayResult},
        refusals=dict(refusal_counts.most_common()),
        changed=wilson_interval(result_counts[ReplayResult.CHANGED], len(runs)),
        p50_ms=quantile(times, 0.5),
        p95_ms=quantile(times, 0.95),
        forwards=statistics.fmean(run.forwards for run in runs) if runs else 0.0,
    )


def count_differences(cases: Sequence[ReplayCase]) -> dict[ReplayDifference, int]:
    """Count the answers with each difference between their runs, 0 for differences that do not occur."""
    counts = Counter(case.difference for case in cases)
    return {difference: counts[difference] for difference in ReplayDifference}


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile `share` (from 0 to 1) of ascending values by nearest rank; 0 without values.

    For example, the quantile 0.5 of [1, 2, 3, 4] is 2.
    """
    if not ordered:
        return 0.0
    rank = math.ceil(len(ordered) * share)
    return ordered[max(0, rank - 1)]
