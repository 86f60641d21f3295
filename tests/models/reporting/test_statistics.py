"""Wilson intervals."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.reporting.statistics import Rate


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_stays_within_a_hundred(counts: tuple[int, int]) -> None:
    rate = Rate.from_counts(*counts)
    assert 0 <= rate.low <= rate.percent <= rate.high <= 100
    assert min(rate.whiskers) >= 0


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 50))
def test_more_cases_of_the_same_share_are_surer(hits: int, misses: int) -> None:
    few = Rate.from_counts(hits, hits + misses)
    many = Rate.from_counts(10 * hits, 10 * (hits + misses))
    assert many.high - many.low < few.high - few.low


def test_nothing_counted_is_said_plainly() -> None:
    assert str(Rate.from_counts(0, 0)) == "n = 0"
    assert str(Rate.from_counts(9, 10)) == "9/10 = 90.0 % [59.6, 98.2]"
