"""What is told of pairs of requests, from a proxy that takes as long as it is told to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import pytest

from bench.latency import CASES, Proxy, _time_pairs


class Slow:
    """Ten milliseconds, and one more with the guardrail; every fifth request takes twice as long."""

    def __init__(self, status: str) -> None:
        self.status = status
        self._numbers = itertools.count()

    def ask(self, _model: str, _number: int, guardrails: Sequence[str] = ()) -> tuple[float, str]:
        much = 2 if next(self._numbers) % 5 == 0 else 1
        return (11.0 if guardrails else 10.0) * much, self.status if guardrails else "none"


def time_pairs(proxy: Any) -> dict[str, Any]:
    return _time_pairs(cast(Proxy, proxy), itertools.count(), 100, CASES[0])


def test_what_the_guardrail_adds_in_one_process() -> None:
    found = time_pairs(Slow(CASES[0].status))
    assert (found["litellm_ms"], found["gateway_ms"], found["ratio_p50"]) == (10.0, 11.0, 1.1)
    assert found["apart_low_ms"] <= found["apart_ms"] == 1.0 <= found["apart_high_ms"]


def test_requests_that_the_guardrail_did_not_see_are_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="none"):
        time_pairs(Slow("none"))
