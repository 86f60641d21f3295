"""What a change of the policies file takes from tenants."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.losses import find_losses, refuse_losses
from aligner_proxy.policy.schema import PolicyFile

BEFORE = """
defaults: {mode: enforce, stream: hold}
routes:
  - {match: {model: gpt*}, objectives: [concise]}
  - {match: {model: claude*}, objectives: [humour]}
tenants:
  - {match: {key: vip}, name: vip, allow_bypass: true}
  - {match: {team: acme-*}, name: acme, enforce: [harmless, honest]}
  - {match: {team: lax}, name: lax, enforce: [harmless], mode: shadow}
  - {match: {key: robot, team: tools}, name: robot, enforce: [harmless], allow_bypass: true}
"""
ACME = "  - {match: {team: acme-*}, name: acme, enforce: [harmless, honest]}\n"


def parsed(text: str) -> PolicyFile:
    return config.parse(text, Path("policies.yaml"))


def lost(after: str, before: str = BEFORE) -> list[str]:
    return [str(loss) for loss in find_losses(parsed(before), parsed(after))]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (ACME, "", "no entry enforces it"),
        ("enforce: [harmless, honest]", "enforce: []", "no entry enforces it"),
        ("enforce: [harmless, honest]", "enforce: [humour]", "no entry enforces it"),
        ("team: acme-*", "team: acme", "no entry enforces it"),
        ("name: acme,", "name: acme, mode: shadow,", "mode: shadow"),
        ("name: acme,", "name: acme, mode: off,", "mode: off"),
        ("name: acme,", "name: acme, sample: 0.0,", "sample: 0"),
        ("name: acme,", "name: acme, stream: passthrough,", "stream: passthrough"),
        ("name: acme,", "name: acme, allow_bypass: true,", "allow_bypass: true"),
        (ACME, "  - {match: {team: acme-dev}, name: dev}\n" + ACME, "no entry enforces it"),
        (ACME, "  - {match: {key: '*-test'}, name: test}\n" + ACME, "no entry enforces it"),
        ("mode: enforce, stream: hold", "mode: shadow, stream: hold", "mode: shadow"),
        ("objectives: [concise]", "objectives: [concise], mode: 'off'", "mode: off"),
        ("routes:\n", "routes:\n  - {match: {model: gpt-9, tag: trial}, mode: shadow}\n", "mode: shadow"),
    ],
)
def test_a_tenant_loses(old: str, new: str, why: str) -> None:
    assert old in BEFORE
    first, *_ = lost(BEFORE.replace(old, new))
    assert first == f"tenant acme would lose harmless, honest ({why})"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("enforce: [harmless, honest]", "enforce: [honest]"),
        ("enforce: [harmless, honest]", "enforce: [honest], on_error: block"),
        ("team: acme-*", "team: acme*"),
        ("name: acme,", "name: other,"),
        (ACME, "  - {match: {team: acme-a*}, name: a, enforce: [harmless]}\n" + ACME),
        ("mode: shadow", "mode: 'off'"),
        ("  - {match: {key: vip}, name: vip, allow_bypass: true}\n", ""),
        ("objectives: [concise]", "objectives: []"),
        ("stream: hold", "stream: sentence"),
        ("tools}, name: robot", "tools}, name: machine"),
    ],
)
def test_nobody_loses(old: str, new: str) -> None:
    assert old in BEFORE
    assert lost(BEFORE.replace(old, new)) == []


def test_a_file_in_which_nobody_has_an_objective_any_more_loses_everything() -> None:
    routes = "defaults: {mode: enforce}\nroutes:\n  - {match: {}, objectives: [harmless]}\n"
    assert lost("defaults: {mode: enforce}\n", routes) == ["nobody would have any objective"]
    assert lost(routes.replace("enforce", "shadow"), routes) == []
    with pytest.raises(ConfigError, match=r'policies\.yaml: nobody .* add allow_less: \["\*"\] to the file'):
        refuse_losses(parsed(routes), parsed("defaults: {mode: enforce}\n"))


def test_by_alias_where_aliases_count() -> None:
    aliases = BEFORE + "trust: {aliases: true}\n"
    assert lost(BEFORE, aliases) == [
        "tenant acme would lose harmless, honest (no entry enforces it)",
        "tenant robot would lose harmless (no entry enforces it)",
    ]
    assert lost(aliases) == []


def test_the_word_names_who_may_lose() -> None:
    gone = BEFORE.replace(ACME, "")
    with pytest.raises(ConfigError, match=r"tenant acme would lose .*; .* add allow_less: \[acme\] to the file"):
        refuse_losses(parsed(BEFORE), parsed(gone))
    with pytest.raises(ConfigError, match="tenant acme"):
        refuse_losses(parsed(BEFORE), parsed(gone + "allow_less: [robot]\n"))
    for word in ("[acme, robot]", "['*']"):
        refuse_losses(parsed(BEFORE), parsed(gone + f"allow_less: {word}\n"))


def test_the_word_is_a_warning_as_long_as_it_stands() -> None:
    assert any("allow_less" in warning for warning in parsed("routes: []\nallow_less: [acme]\n").warnings)
    assert parsed(BEFORE).warnings == ()


def test_many_who_lose_are_not_all_told() -> None:
    tenants = "".join(f"  - {{match: {{team: t{n}}}, enforce: [harmless]}}\n" for n in range(30))
    with pytest.raises(ConfigError, match=r'tenant-10 would lose .*; and 20 more; .* allow_less: \["\*"\]'):
        refuse_losses(parsed(f"tenants:\n{tenants}"), parsed("routes:\n  - {match: {}, objectives: [concise]}\n"))
