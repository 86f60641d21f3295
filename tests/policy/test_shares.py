"""Shares of several aligners: what a file may say, and which conversation gets which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config, shares
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver, setting_value
from aligner_proxy.types import Objective, Policy, Turn

ADAPTERS = {"adapters": {"acme-2": "./acme-2", "third": "./third"}}
SPLIT = {"default": 95, "acme-2": 5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def loaded(path: Path, data: dict[str, Any]) -> PolicyResolver:
    path.write_text(yaml.safe_dump({"aligner": ADAPTERS} | data, sort_keys=False))
    return PolicyResolver(config.load(path))


def first(text: str, *further: str) -> tuple[Turn, ...]:
    return (Turn("system", "Be brief."), Turn("user", text), *(Turn("assistant", more) for more in further))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"default": 95, "acme-2": 6}, "p.yaml:7: defaults.aligner: the shares sum to 101 per cent"),
        ({"default": 99.5, "acme-2": 0.5}, "the share of default must be a whole number"),
        ({"default": 100, "acme-2": 0}, "the share of acme-2 must be a whole number of per cent from 1"),
        ({"default": True, "acme-2": 99}, "the share of default must be a whole number"),
        ({"default": "95", "acme-2": 5}, "the share of default must be a whole number"),
        ({}, "shares in whole per cent"),
        (["default"], "shares in whole per cent"),
        ("no such/name", "a name has letters"),
    ],
)
def test_what_cannot_be_shares_is_refused_with_the_line(file: Path, setting: object, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(file, {"defaults": {"caution": 1.0, "aligner": setting}})
    assert problem in str(refused.value)
    assert "p.yaml:" in str(refused.value)


@pytest.mark.parametrize("key", ["aligner", "shadow_aligner"])
def test_an_unknown_aligner_is_refused_with_its_line(file: Path, key: str) -> None:
    setting = {"default": 50, "acme-3": 50} if key == "aligner" else "acme-3"
    with pytest.raises(ConfigError, match=r"p.yaml:\d+: unknown aligner 'acme-3'; did you mean 'acme-2'"):
        loaded(file, {"defaults": {key: setting}})


def test_one_name_with_the_whole_is_that_aligner(file: Path) -> None:
    policy = loaded(file, {"defaults": {"aligner": {"acme-2": 100}}}).resolve(RequestFacts("gpt"))
    assert (policy.aligner, policy.aligner_shares) == ("acme-2", ())


def test_every_level_may_share_and_the_later_wins(file: Path) -> None:
    route = {"match": {"model": "gpt"}, "aligner": SPLIT}
    tenant = {"match": {"team": "t"}, "aligner": {"third": 50, "default": 50}}
    resolver = loaded(file, {"defaults": {"aligner": "third"}, "routes": [route], "tenants": [tenant]})
    assert setting_value(resolver.resolve(RequestFacts("o3")), "aligner") == "third"
    assert setting_value(resolver.resolve(RequestFacts("gpt")), "aligner") == SPLIT
    assert setting_value(resolver.resolve(RequestFacts("gpt", team_id="t")), "aligner") == {"third": 50, "default": 50}
    key = RequestFacts("gpt", key_settings={"aligner": {"third": 100}})
    assert setting_value(resolver.resolve(key), "aligner") == SPLIT  # metadata is not trusted
    assert dict(resolver.resolve(RequestFacts("gpt")).origins)["aligner"].endswith("(route route-1)")


def test_trusted_metadata_may_share(file: Path) -> None:
    resolver = loaded(file, {"trust": {"key_metadata": True}})
    key = RequestFacts("gpt", key_settings={"aligner": SPLIT})
    assert setting_value(resolver.resolve(key), "aligner") == SPLIT


def test_a_conversation_keeps_its_place_and_others_lie_evenly() -> None:
    asked = first("How do I boil rice?")
    assert shares.traffic_percentile("team:a", asked) == shares.traffic_percentile(
        "team:a", (*asked, Turn("assistant", "So."), *asked)
    )
    places = [shares.traffic_percentile("team:a", first(f"Question {n}")) for n in range(20_000)]
    counts = Counter(places)
    assert set(counts) == set(range(100))
    assert 140 < min(counts.values()) <= max(counts.values()) < 270  # 200 each; four standard deviations are 56
    assert {shares.traffic_percentile(f"team:{n}", asked) for n in range(200)} != {
        shares.traffic_percentile("team:a", asked)
    }


def test_each_aligner_gets_its_share_and_a_larger_share_keeps_whom_it_had(file: Path) -> None:
    few = loaded(file, {"defaults": {"aligner": SPLIT}})
    more = loaded(file, {"defaults": {"aligner": {"default": 80, "acme-2": 20}}})

    def list_aligners(resolver: PolicyResolver) -> list[str]:
        return [resolver.resolve(RequestFacts("gpt", traffic_percentile=at)).aligner for at in range(100)]

    assert Counter(list_aligners(few)) == SPLIT
    assert Counter(list_aligners(more)) == {"default": 80, "acme-2": 20}
    assert all(
        late == "acme-2"
        for early, late in zip(list_aligners(few), list_aligners(more), strict=True)
        if early == "acme-2"
    )


def test_what_is_drawn_is_the_policy_of_that_aligner_with_its_own_heads(file: Path) -> None:
    text = {"aligner": ADAPTERS, "objectives": {"own": "Own: be so"}, "defaults": {"aligner": SPLIT}}
    text["routes"] = [{"match": {}, "objectives": ["own"]}]
    file.write_text(yaml.safe_dump(text, sort_keys=False))
    resolver = PolicyResolver(config.load(file), lambda tenant, objective, aligner: f"head of {aligner}")
    policy = resolver.resolve(RequestFacts("gpt", traffic_percentile=97))
    assert (policy.aligner, policy.aligner_shares) == ("acme-2", ())
    assert [objective.head for objective in policy.objectives] == ["head of acme-2"]
    assert [o.head for o in resolver.resolve(RequestFacts("gpt", traffic_percentile=3)).objectives] == [
        "head of default"
    ]


def test_without_a_position_the_largest_share_leads(file: Path) -> None:
    policy = loaded(file, {"defaults": {"aligner": {"acme-2": 40, "default": 60}}}).resolve(RequestFacts("gpt"))
    assert policy.aligner == "default"
    assert len(policy.aligner_shares) == 2


def test_an_aligner_beside_needs_a_store(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"p.yaml:\d+: shadow_aligner needs the audit store; set audit"):
        loaded(file, {"defaults": {"shadow_aligner": "acme-2"}})


def test_the_aligner_beside_has_its_own_heads_and_none_beside_it(file: Path) -> None:
    resolver = loaded(file, {"defaults": {"shadow_aligner": "acme-2"}, "audit": {"enabled": True}})
    policy = resolver.resolve(RequestFacts("gpt"))
    assert setting_value(policy, "shadow_aligner") == "acme-2"
    other = shares.shadow_policy(replace(policy, objectives=(Objective("o", "O: o", head="of default"),)))
    assert other is not None
    assert (other.aligner, other.shadow_aligner, other.objectives[0].head) == ("acme-2", None, "")
    assert shares.shadow_policy(replace(policy, aligner="acme-2")) is None
    assert shares.shadow_policy(Policy("p")) is None
