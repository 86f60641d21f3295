"""What the bench of two tenants says of the times that it was told."""

from __future__ import annotations

from aligner_proxy.policy.schema import PolicyFile
from bench.gateway import RequestResult
from bench.neighbours import POLICIES, RATIO, TENANTS, format_table, summarise


def make_results(*milliseconds: float) -> list[RequestResult]:
    return [RequestResult(200, "corrected", None, ms) for ms in milliseconds]


def test_the_ratio_is_that_of_the_medians() -> None:
    found = summarise(make_results(100, 100, 900), make_results(140, 140, 10))
    assert (found["ratio_p50"], found["missed"]) == (1.4, [])
    assert "| alone | 3 | 3 | 0 | 100 | 820.0 |" in format_table(found)


def test_a_neighbour_that_costs_too_much_and_answers_that_fail_are_named() -> None:
    found = summarise(make_results(100), [*make_results(200), RequestResult(200, "failed", "timeout", 5.0)])
    assert found["ratio_p50"] == 2.0 > RATIO
    assert [said.split()[0] for said in found["missed"]] == ["beside:", "a"]


def test_without_any_answer_nothing_is_claimed() -> None:
    assert summarise(make_results(100), [RequestResult(0, whole=False)])["ratio_p50"] is None


def test_its_policies_are_valid_and_name_both_tenants() -> None:
    file = PolicyFile.model_validate({**POLICIES, "aligner": {"model": "embedded"}})
    assert [tenant.name for tenant in file.tenants] == [*TENANTS]
