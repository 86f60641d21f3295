"""Tenants and models in the metrics of outcomes: so many of them, by names that are no keys, and totals are right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from aligner_proxy.gateway.traffic_bounds import (
    MAX_PAIRS,
    MAX_TENANTS,
    MAX_UNLISTED,
    OTHER,
    RecentNames,
    TrafficBounds,
)
from aligner_proxy.policy.config import parse
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Traffic

LISTED = frozenset(f"model-{number}" for number in range(60))


@pytest.fixture
def bounds() -> TrafficBounds:
    return TrafficBounds(RecentNames(lambda: LISTED))


def test_what_is_configured_is_named_until_there_is_no_room(bounds: TrafficBounds) -> None:
    counts = Counter(
        bounds.bound_traffic(Traffic(f"team-{number}", model))
        for number in range(MAX_TENANTS + 50)
        for model in sorted(LISTED)
    )
    assert counts.total() == (MAX_TENANTS + 50) * len(LISTED)
    assert len(counts) <= MAX_PAIRS + MAX_TENANTS + 1
    assert len({tenant for tenant, _ in counts}) == MAX_TENANTS + 1
    assert sum(tenant == "team-0" for tenant, _ in counts) == len(LISTED)
    assert counts[Traffic(OTHER, OTHER)] == 50 * len(LISTED)


def test_names_that_a_client_chooses_use_up_its_own_places_alone(bounds: TrafficBounds) -> None:
    named = {bounds.bound_traffic(Traffic("acme", f"invented-{number}")) for number in range(500)}
    assert len(named) == MAX_UNLISTED + 1
    assert bounds.bound_traffic(Traffic("acme", "model-1")) == ("acme", "model-1")
    assert bounds.bound_traffic(Traffic("beta", "invented-499")) == ("beta", "invented-499")


def test_a_name_too_long_or_half_a_letter_harms_no_scrape(bounds: TrafficBounds) -> None:
    assert bounds.bound_traffic(Traffic("acme", "x" * 5000)) == ("acme", OTHER)
    assert bounds.bound_traffic(Traffic("acme", "half \ud83d")).model.encode() == "half \ufffd".encode()


def test_names_are_read_anew_when_they_are_old() -> None:
    times = iter((0.0, 5.0, 11.0))
    reads = iter((frozenset({"first"}), frozenset({"second"})))
    names = RecentNames(lambda: next(reads), lambda: next(times))
    assert [names.read() for _ in range(3)] == [{"first"}, {"first"}, {"second"}]


@pytest.mark.parametrize(
    ("facts", "traffic"),
    [
        (RequestFacts("gpt", team_id="7", team_alias="acme", key_hash="0" * 64), ("shop", "gpt")),
        (RequestFacts("gpt", team_id="8", team_alias="beta", key_hash="0" * 64), ("beta", "gpt")),
        (RequestFacts("gpt", team_id="8", key_hash="0" * 64), ("8", "gpt")),
        (RequestFacts("gpt", key_hash="0" * 64, key_alias="till", alias_by_operator=True), ("till", "gpt")),
        (RequestFacts("gpt", key_hash="0" * 64, key_alias="sk-of-somebody"), ("-", "gpt")),
        (RequestFacts("gpt", user_id="ada@example.org"), ("-", "gpt")),
        (RequestFacts("quick", groups=("gpt", "claude")), ("-", "gpt")),
        (RequestFacts(), ("-", "-")),
    ],
)
def test_a_policy_names_tenant_and_model_and_no_key_or_user(facts: RequestFacts, traffic: tuple[str, str]) -> None:
    text = "trust: {aliases: true}\ntenants: [{name: shop, match: {team: acme}, enforce: [harmless]}]\n"
    policy_file = parse(text, Path("policies.yaml"))
    assert PolicyResolver(policy_file).resolve(facts).traffic == traffic
