from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.intervals import wilson_interval


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_share(some: int, more: int) -> None:
    p, low, high = wilson_interval(some, some + more)
    assert 0.0 <= low <= p + 1e-9
    assert p - 1e-9 <= high <= 1.0
