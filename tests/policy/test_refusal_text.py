"""What a policies file says about answers of which nothing remains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import IfNothingRemains, Policy


def resolved(path: Path, data: dict[str, Any], **facts: Any) -> Policy:
    path.write_text(yaml.safe_dump(data))
    return PolicyResolver(config.load(path)).resolve(RequestFacts("gpt", **facts))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def test_a_text_is_the_default_where_harm_is_judged_or_objectives_are_enforced(file: Path) -> None:
    routes = [{"match": {}, "objectives": ["helpful"]}]
    policy = resolved(file, {"routes": routes})
    assert (policy.if_nothing_remains, policy.declines_harm_alone) == (IfNothingRemains.ORIGINAL, False)
    tenants = [{"match": {"team": "a"}, "enforce": ["helpful"], "allow": ["harmless"]}]
    policy = resolved(file, {"routes": routes, "tenants": tenants}, team_id="a")
    assert (policy.if_nothing_remains, policy.declines_harm_alone) == (IfNothingRemains.DECLINE, False)
    assert dict(policy.origins)["if_nothing_remains"] == "built-in default, as objectives are enforced"
    about_harm = {
        "route": resolved(file, {"routes": [{"match": {}, "objectives": ["helpful", "harmless"]}]}),
        "shadow": resolved(file, {"routes": [{"match": {}, "objectives": ["harmless"], "mode": "shadow"}]}),
        "request": resolved(
            file,
            {"routes": routes, "tenants": [{"match": {}, "allow": ["harmless"]}]},
            asked=("harmless",),
        ),
    }
    for name, policy in about_harm.items():
        assert (policy.if_nothing_remains, policy.declines_harm_alone) == (IfNothingRemains.DECLINE, True), name
        assert policy.decline_within == 0.0, name  # no good text is lost beside the harm
        assert dict(policy.origins)["if_nothing_remains"] == "built-in default where harmless is violated", name


def test_what_the_file_says_counts_also_where_harm_is_judged(file: Path) -> None:
    for place in ("defaults", "routes"):
        for value in ("original", "decline", "block"):
            data = {"routes": [{"match": {}, "objectives": ["harmless"]}]} | {"defaults": {}}
            block = data["defaults"] if place == "defaults" else data["routes"][0]
            block["if_nothing_remains"] = value
            policy = resolved(file, data)
            assert (policy.if_nothing_remains, policy.declines_harm_alone) == (IfNothingRemains(value), False)


def test_metadata_that_is_not_trusted_neither_lifts_nor_narrows_the_default_against_harm(file: Path) -> None:
    data = {"routes": [{"match": {}, "objectives": ["harmless"]}], "trust": {"key_metadata": False}}
    expected = {"original": ("decline", True), "second_try": ("decline", True), "decline": ("decline", False)}
    for value, result in expected.items():
        policy = resolved(file, data, key_hash="k", key_settings={"if_nothing_remains": value})
        assert (policy.if_nothing_remains.value, policy.declines_harm_alone) == result, value


def test_every_level_says_its_own_and_the_later_wins(file: Path) -> None:
    data = {
        "defaults": {"if_nothing_remains": "block", "decline": "No ({objective})."},
        "routes": [{"match": {}, "if_nothing_remains": "decline"}],
        "tenants": [{"match": {"team": "a"}, "decline": {"default": "No.", "de": "Nein."}, "decline_within": 4}],
    }
    policy = resolved(file, data)
    assert (policy.if_nothing_remains, policy.decline) == (IfNothingRemains.DECLINE, (("", "No ({objective})."),))
    assert policy.decline_within == 2.5
    policy = resolved(file, data, team_id="a")
    assert policy.decline_within == 4.0
    assert dict(policy.decline) == {"": "No.", "de": "Nein."}
    assert dict(policy.origins)["decline"].startswith(f"{file.name}:")


def test_who_is_not_trusted_may_only_tighten(file: Path) -> None:
    data = {"routes": [{"match": {}, "if_nothing_remains": "decline"}], "trust": {"key_metadata": False}}
    strict = resolved(file, data, key_hash="k", key_settings={"if_nothing_remains": "block"})
    assert strict.if_nothing_remains is IfNothingRemains.BLOCK
    lax = resolved(file, data, key_hash="k", key_settings={"if_nothing_remains": "original"})
    assert lax.if_nothing_remains is IfNothingRemains.DECLINE


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"if_nothing_remains": "second_try"}, "p.yaml:2: if_nothing_remains: second_try needs an editor model"),
        ({"if_nothing_remains": "decilne"}, "if_nothing_remains"),
        ({"decline": " "}, "is empty"),
        ({"decline": "x" * 2001}, "2,001 characters"),
        ({"decline": "No, {objectives}."}, "{objectives}"),
        ({"decline": {"xx": "No."}}, "'xx'"),
        ({"decline": {"en": 3}}, "must be a text"),
        ({"decline": ["No."]}, "must be a text, or a block"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(file: Path, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(file, {"defaults": setting})
    assert message in str(error.value)
    assert str(error.value).startswith(f"{file.name}:")
