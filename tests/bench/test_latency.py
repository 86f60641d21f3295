"""What is told of pairs of requests, from a proxy that takes as long as it is told to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import pytest

from bench.latency import CASES, Proxy, _time_pairs


class Slow:
    """Ten milliseconds, half of one more with an idle guardrail, one with ours; some requests take twice as long."""

    def __init__(self, status: str) -> None:
        self.status = status
        self._numbers = itertools.count()

    def ask(self, _model: str, _number: int, guardrails: Sequence[str] = ()) -> tuple[float, str]:
        factor = 2 if next(self._numbers) % 5 == 0 else 1
        ms = {(): 10.0, ("idle",): 10.5, ("aligner",): 11.0}[tuple(guardrails)]
        return ms * factor, self.status if "aligner" in guardrails else "none"


def time_pairs(proxy: Any) -> dict[str, Any]:
    return _time_pairs(cast(Proxy, proxy), itertools.count(), 100, CASES[0])


def test_what_the_guardrail_adds_in_one_process() -> None:
    found = time_pairs(Slow(CASES[0].status))
    assert (found["litellm_ms"], found["gateway_ms"], found["ratio_p50"]) == (10.0, 11.0, 1.1)
    assert found["apart_low_ms"] <= found["apart_ms"] == 1.0 <= found["apart_high_ms"]


def test_what_the_guardrail_adds_to_one_that_does_nothing() -> None:
    figures = time_pairs(Slow(CASES[0].status))
    assert (figures["idle_ms"], figures["beside_idle"]["apart_ms"], figures["idle_alone"]["apart_ms"]) == (
        10.5,
        0.5,
        0.5,
    )
    assert (figures["beside_idle"]["ratio_p50"], figures["idle_alone"]["ratio_p50"]) == (1.048, 1.05)


def test_requests_that_the_guardrail_did_not_see_are_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="none"):
        time_pairs(Slow("none"))
