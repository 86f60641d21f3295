"""Rates: counts of answers by status, per tenant and route and over time, from the audit store."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aligner_proxy.types import Status
from aligner_proxy_review.console.answer_queries import CountedAnswer, route_name
from aligner_proxy_review.replay import quantile

PERIODS = {"1h": 3600.0, "1d": 86_400.0, "7d": 7 * 86_400.0}
"""Periods that can be chosen, in seconds."""
BARS = 24
COUNTED_STATUSES = (Status.CORRECTED, Status.UNCHANGED, Status.SHADOW, Status.NOT_JUDGED, Status.FAILED)
"""The statuses of answers in the audit store, which has no entries of skipped answers."""


@dataclass(slots=True)
class RateGroup:
    """The numbers and times of the answers of one tenant on one route."""

    tenant: str
    route: str
    statuses: Counter[str] = field(default_factory=Counter)
    would_correct: int = 0
    """Answers in shadow mode that would have been changed."""
    cache_hits: int = 0
    times: list[float] = field(default_factory=list)
    """Added latency of each answer, in milliseconds."""

    @property
    def answer_count(self) -> int:
        """Number of answers in the group."""
        return self.statuses.total()

    def count(self, status: Status) -> int:
        """Number of answers with this status."""
        return self.statuses[status.value]

    def added_ms(self, share: float) -> float:
        """The quantile `share` (from 0 to 1) of the added latency, in milliseconds."""
        return quantile(sorted(self.times), share)

    def count_answer(self, answer: CountedAnswer) -> None:
        """Add an answer to the counts."""
        self.statuses[answer.status] += 1
        # in shadow mode the reason says what would have been done
        self.would_correct += answer.status == Status.SHADOW and answer.reason == "would_correct"
        # `cache_hit` is 1 or 0, or None if no cache was asked
        self.cache_hits += answer.cache_hit == 1
        self.times.append(answer.ms)


@dataclass(frozen=True, slots=True)
class Rates:
    """The figures of a period, and the bars of its chart, oldest first."""

    groups: Sequence[RateGroup]
    bars: Sequence[Counter[str]]
    """For each bar, the number of answers by status."""
    is_cut: bool
    """Whether older answers of the period were left out."""
    since: float
    """Beginning of the period, in seconds since the epoch."""
    period: float
    """Length of the period in seconds."""

    def bar_start(self, index: int) -> float:
        """When the bar with this index begins, in seconds since the epoch; for `BARS`, the end of the period."""
        return self.since + index * self.period / BARS

    @property
    def total(self) -> RateGroup:
        """The sum of all groups."""
        total = RateGroup("all", "all")
        for group in self.groups:
            total.statuses += group.statuses
            total.would_correct += group.would_correct
            total.cache_hits += group.cache_hits
            total.times += group.times
        return total

    @property
    def tallest_bar(self) -> int:
        """The number of answers in the tallest bar."""
        return max((bar.total() for bar in self.bars), default=0)


def compute_rates(answers: Iterable[CountedAnswer], now: float, period: float, *, is_cut: bool) -> Rates:
    """Count the answers of the last `period` seconds by tenant, by route, and by bar of the chart over time.

    `now` is in seconds since the epoch. `is_cut`: whether the caller left out older answers, which the page then says.
    """
    groups: dict[tuple[str, str], RateGroup] = {}
    bars: defaultdict[int, Counter[str]] = defaultdict(Counter)
    since = now - period
    bar_seconds = period / BARS
    for answer in answers:
        tenant_and_route = (answer.tenant, route_name(answer))
        groups.setdefault(tenant_and_route, RateGroup(*tenant_and_route)).count_answer(answer)
        # an answer at the very end, or recorded after `now`, belongs to the last bar
        bar_index = min(BARS - 1, max(0, int((answer.at - since) / bar_seconds)))
        bars[bar_index][answer.status] += 1
    sorted_groups = [groups[tenant_and_route] for tenant_and_route in sorted(groups)]
    return Rates(sorted_groups, [bars[index] for index in range(BARS)], is_cut, since, period)
