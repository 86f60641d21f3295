"""A draw per request: fair, and the ends exact."""

from __future__ import annotations

from aligner_proxy.gateway.request_policy import is_sampled


def test_a_share_is_a_share() -> None:
    assert 0.23 < sum(is_sampled(0.25) for _ in range(20_000)) / 20_000 < 0.27  # six standard deviations


def test_none_and_all_are_exact() -> None:
    assert not any(is_sampled(0.0) for _ in range(1000))
    assert all(is_sampled(1.0) for _ in range(1000))
