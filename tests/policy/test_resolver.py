"""Precedence of settings, order of objectives, and what a request may and may not ask for."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.policy import metadata_layers
from aligner_proxy.policy.config import load
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import SETTINGS, PolicyResolver, setting_value
from aligner_proxy.policy.schema import (
    Grants,
    OnErrorByClass,
    OnSkipByReason,
    PolicyFile,
    PolicySettings,
    Route,
    Tenant,
)
from aligner_proxy.types import (
    GOVERNED_SKIPS,
    FailureClass,
    FailurePolicy,
    GateRule,
    Mode,
    OnError,
    OnSkip,
    Policy,
    StreamMode,
)

FILE = """\
defaults: {deadline_s: 1, caution: 1}
routes:
  - name: support
    match: {model: "claude-*", tag: support}
    objectives: [concise, helpful]
    deadline_s: 2
    mode: shadow
  - match: {model: "claude-*"}
    objectives: [honest]
tenants:
  - name: acme
    match: {team: acme}
    enforce: [harmless]
    allow: [humour, concise]
    deadline_s: 3
  - match: {key: "ci-*"}
    allow: ["*"]
    deny: [humour]
    allow_bypass: true
trust: {team_metadata: true, key_metadata: true, aliases: true}
"""


@pytest.fixture
def resolver(tmp_path: Path) -> PolicyResolver:
    path = tmp_path / "p.yaml"
    path.write_text(FILE)
    metadata_layers._warn.cache_clear()
    return PolicyResolver(load(path))


def _names(policy: Policy) -> list[str]:
    return [objective.name for objective in policy.objectives]


def test_nothing_said_is_the_built_in_policy() -> None:
    policy = PolicyResolver(PolicyFile()).resolve(RequestFacts("gpt"))
    assert policy == Policy("default", origins=tuple((name, "built-in default") for name in SETTINGS))


def test_each_layer_wins_over_the_one_before(resolver: PolicyResolver) -> None:
    acme = RequestFacts("claude-x", ("billing", "support"), "acme", team_settings={"deadline_s": 4})
    seen = [
        resolver.resolve(RequestFacts("gpt")),
        resolver.resolve(RequestFacts("claude-x", ("support",))),
        resolver.resolve(replace(acme, team_settings=None)),
        resolver.resolve(acme),
        resolver.resolve(replace(acme, key_settings={"deadline_s": 5})),
    ]
    assert [policy.deadline_s for policy in seen] == [1, 2, 3, 4, 5]
    assert [dict(policy.origins)["deadline_s"] for policy in seen] == [
        "p.yaml:1 (defaults)",
        "p.yaml:6 (route support)",
        "p.yaml:15 (tenant acme)",
        "team metadata",
        "key metadata",
    ]
    assert {policy.caution for policy in seen} == {1}
    assert seen[4].mode is Mode.SHADOW


def test_rules_of_the_gate_are_switched_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "defaults: {gate: {lost_name: off, lost_quote: off}}\n"
        "routes:\n"
        "  - match: {model: few}\n"
        "    gate: [empty, lost_name]\n"
        "  - match: {}\n"
        "    gate:\n"
        "      lost_name: on\n"
        "      too_long: off\n"
        "trust: {key_metadata: true}\n"
    )
    resolver = PolicyResolver(load(path))
    policy = resolver.resolve(RequestFacts("gpt", key_settings={"gate": {"lost_code": False}}))
    assert set(GateRule) - set(policy.gate) == {GateRule.LOST_QUOTE, GateRule.TOO_LONG, GateRule.LOST_CODE}
    origins = dict(policy.origins)
    assert (origins["gate"], origins["gate.lost_code"]) == ("key metadata", "key metadata")
    assert (origins["gate.lost_quote"], origins["gate.too_long"]) == ("p.yaml:1 (defaults)", "p.yaml:8 (route route-2)")
    assert resolver.resolve(RequestFacts("few")).gate == (GateRule.EMPTY, GateRule.LOST_NAME)


def test_a_wrong_rule_in_metadata_costs_no_request(resolver: PolicyResolver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        policy = resolver.resolve(RequestFacts("gpt", key_settings={"gate": {"lost_nme": "off"}, "deadline_s": 9}))
    assert (policy.gate, policy.deadline_s) == (tuple(GateRule), 9)
    assert "key metadata: ignoring setting gate" in caplog.text


def test_a_policy_is_named_after_route_and_tenant(resolver: PolicyResolver) -> None:
    assert resolver.resolve(RequestFacts("gpt")).name == "default"
    assert resolver.resolve(RequestFacts("claude-x")).name == "route-2"
    assert resolver.resolve(RequestFacts("claude-x", ("support",), "acme")).name == "support+acme"
    assert resolver.resolve(RequestFacts("gpt", key_alias="ci-1")).name == "tenant-2"


def test_globs_are_case_sensitive_and_need_their_tag(resolver: PolicyResolver) -> None:
    assert _names(resolver.resolve(RequestFacts("Claude-x"))) == []
    assert _names(resolver.resolve(RequestFacts("claude-x", ("Support",)))) == ["honest"]


def test_enforced_come_first_then_the_route_then_the_request(resolver: PolicyResolver) -> None:
    facts = RequestFacts(
        "claude-x",
        ("support",),
        team_alias="acme",
        team_settings={"enforce": ["fair", "harmless"]},
        key_settings={"enforce": ["helpful"]},
        asked=("humour", "concise", "humour"),
    )
    policy = resolver.resolve(facts)
    assert _names(policy) == ["harmless", "fair", "helpful", "concise", "humour"]
    assert [origin for name, origin in policy.origins if name.startswith("objective:")] == [
        "p.yaml:13 (tenant acme)",
        "team metadata",
        "key metadata",
        "p.yaml:5 (route support)",
        "request",
    ]


def test_what_is_there_anyway_may_be_asked_for(resolver: PolicyResolver) -> None:
    assert _names(resolver.resolve(RequestFacts("claude-x", asked=("honest",)))) == ["honest"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            RequestFacts(asked=("humour",)),
            "number 1 of the requested objectives is not allowed for this key; it may not add any objective",
        ),
        (
            RequestFacts(team_id="acme", asked=("concise", "nonsense")),
            "number 2 of the requested objectives is not allowed for this key; it may ask for: concise, humour",
        ),
        (RequestFacts(bypass=True), "this key may not bypass alignment; its tenant needs allow_bypass: true"),
        (
            RequestFacts(team_id="acme", asked=("*",)),
            "number 1 of the requested objectives is not allowed for this key; it may ask for: concise, humour",
        ),
    ],
)
def test_what_a_request_may_not_have_is_forbidden(resolver: PolicyResolver, facts: RequestFacts, message: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        resolver.resolve(facts)
    assert str(caught.value) == message


def test_the_operator_may_add_any_objective_that_is_not_denied(resolver: PolicyResolver) -> None:
    own = ("Rhyme: the response should rhyme",)
    policy = resolver.resolve(RequestFacts("claude-x", asked=("humour",), own=own, is_operator=True))
    assert [objective.name for objective in policy.objectives] == ["honest", "humour", "own:1"]
    with pytest.raises(ForbiddenError, match="denied"):
        resolver.resolve(RequestFacts(key_alias="ci-1", asked=("humour",), is_operator=True))
    with pytest.raises(ForbiddenError):
        resolver.resolve(RequestFacts("claude-x", own=own))


def test_deny_wins_over_allow(resolver: PolicyResolver) -> None:
    assert _names(resolver.resolve(RequestFacts(key_alias="ci-1", asked=("readable",)))) == ["readable"]
    with pytest.raises(ForbiddenError, match="number 1 of the requested objectives is denied"):
        resolver.resolve(RequestFacts(key_alias="ci-1", asked=("humour",)))


def test_a_denied_objective_is_refused_even_where_it_is_there_anyway(resolver: PolicyResolver) -> None:
    ours = {"enforce": ["fair"], "deny": ["fair", "honest"]}
    facts = RequestFacts("claude-x", team_id="acme", team_settings=ours, key_settings={"deny": ["concise"]})
    assert _names(resolver.resolve(facts)) == ["harmless", "fair", "honest"]
    for name in ("fair", "honest", "concise"):
        with pytest.raises(ForbiddenError, match="denied"):
            resolver.resolve(replace(facts, asked=(name,)))
    assert [pair for pair in resolver.resolve(facts).origins if pair[0].startswith("deny:")] == [
        ("deny:fair", "team metadata"),
        ("deny:honest", "team metadata"),
        ("deny:concise", "key metadata"),
    ]


def test_what_follows_a_failure_is_said_class_by_class() -> None:
    file = PolicyFile.model_validate(
        {
            "defaults": {"on_error": "block"},
            "routes": [{"match": {}, "on_error": {"timeout": "retry", "gate": "passthrough"}, "after_retry": "block"}],
            "trust": {"key_metadata": True},
        }
    )
    policy = PolicyResolver(file).resolve(RequestFacts("gpt", key_settings={"on_error": {"gate": "retry"}}))
    assert {kind.value: policy.on_error.reaction_to(kind).value for kind in FailureClass} == {
        "timeout": "retry",
        "overload": "block",
        "engine_down": "block",
        "gate": "retry",
        "invalid_output": "block",
        "bug": "block",
        "judge": "block",
        "unjudged": "block",
    }
    assert policy.after_retry is OnError.BLOCK
    origins = dict(policy.origins)
    assert [origins[f"on_error.{name}"].rpartition("(")[2] for name in ("bug", "timeout", "gate")] == [
        "defaults)",
        "route route-1)",
        "key metadata",
    ]
    assert setting_value(policy, "on_error.gate") is OnError.RETRY


def test_the_last_quota_wins_and_whoever_says_it_has_accounts_of_its_own() -> None:
    tenants = [{"match": {"team": "acme"}, "name": "acme", "quota": 6}]
    file = PolicyFile.model_validate({"tenants": tenants, "trust": {"team_metadata": True, "key_metadata": True}})
    resolver = PolicyResolver(file)
    acme = RequestFacts("gpt", team_id="acme", key_hash="k1")
    seen = [
        resolver.resolve(facts).quota
        for facts in (
            RequestFacts("gpt", key_hash="k0"),
            acme,
            replace(acme, key_hash="k2"),
            replace(acme, team_settings={"quota": 60}),
            replace(acme, key_settings={"quota": 0}),
            replace(acme, key_hash="k2", key_settings={"quota": 0}),
        )
    ]
    assert [quota and quota.seconds for quota in seen] == [None, 6, 6, 60, 0, 0]
    accounts = [quota.account for quota in seen if quota]
    assert accounts[0] == accounts[1]
    assert len(set(accounts)) == 4
    assert dict(resolver.resolve(replace(acme, key_settings={"quota": 0})).origins)["quota"] == "key metadata"
    assert dict(resolver.resolve(acme).origins)["quota"].endswith("(tenant acme)")


def test_a_forbidden_name_is_echoed_short_and_escaped(resolver: PolicyResolver) -> None:
    with pytest.raises(ForbiddenError) as caught:
        resolver.resolve(RequestFacts(asked=("x\r\n" + "y" * 10_000,)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_bypass_where_the_tenant_may(resolver: PolicyResolver) -> None:
    assert resolver.resolve(RequestFacts(key_alias="ci-1", bypass=True)).bypass
    assert not resolver.resolve(RequestFacts(key_alias="ci-1")).bypass
    with pytest.raises(ForbiddenError):
        resolver.resolve(RequestFacts(key_alias="ci-1", bypass=True, key_settings={"allow_bypass": False}))


def test_the_key_says_more_than_the_team(resolver: PolicyResolver) -> None:
    facts = RequestFacts(team_settings={"allow": ["fair"]}, key_settings={"allow": ["honest"]})
    assert _names(resolver.resolve(replace(facts, asked=("honest",)))) == ["honest"]
    with pytest.raises(ForbiddenError):
        resolver.resolve(replace(facts, asked=("fair",)))


def test_bad_metadata_is_ignored_and_logged_once(resolver: PolicyResolver, caplog: pytest.LogCaptureFixture) -> None:
    bad = {"deadline_s": -1, "mode": "nonsense", "surprise": "text", "enforce": ["fair", "nosuch"], "caution": 2.0}
    with caplog.at_level(logging.WARNING):
        policy = resolver.resolve(RequestFacts("gpt", key_settings=bad, team_settings="on"))
        resolver.resolve(RequestFacts("gpt", key_settings=bad, team_settings="on"))
    assert (policy.deadline_s, policy.mode, policy.caution, _names(policy)) == (1, Mode.ENFORCE, 2.0, ["fair"])
    assert sorted(record.getMessage() for record in caplog.records) == [
        "-: key metadata: ignoring setting (unknown): not valid here",
        "-: key metadata: ignoring setting deadline_s: not valid here",
        "-: key metadata: ignoring setting enforce: not valid here",
        "-: key metadata: ignoring setting mode: not valid here",
        "-: team metadata: ignoring setting aligner: not valid here",
    ]


def test_bad_metadata_of_another_team_is_logged_with_its_name(
    resolver: PolicyResolver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for team in ("red", "blue"):
            resolver.resolve(RequestFacts("gpt", team_id=team, team_settings={"enforce": "fair!"}))
    said = [record.getMessage().partition(":")[2].split()[0] for record in caplog.records]
    assert [word.partition(":")[0] for word in said] == ["red", "blue"]


def test_a_star_from_metadata_allows_but_never_enforces(resolver: PolicyResolver) -> None:
    facts = RequestFacts("gpt", key_settings={"allow": ["*"], "enforce": ["*"]}, asked=("fair",))
    assert _names(resolver.resolve(facts)) == ["fair"]


def test_no_two_tenants_share_a_namespace() -> None:
    same = "same"
    facts = [
        RequestFacts(),
        RequestFacts(team_id=same),
        RequestFacts(team_alias=same),
        RequestFacts(key_hash=same),
        RequestFacts(key_alias=same),
        RequestFacts(user_id=same),
        RequestFacts(team_id="-"),
        RequestFacts(team_id="key:same"),
    ]
    assert all(a.namespace != b.namespace for a, b in combinations(facts, 2))
    assert facts[0].namespace == "-"
    assert RequestFacts(team_id="t", key_hash="a").namespace == RequestFacts(team_id="t", key_hash="b").namespace
    assert RequestFacts(key_hash="a", user_id="u").namespace == RequestFacts(key_hash="a").namespace


def test_a_remembered_policy_is_no_other_users(resolver: PolicyResolver) -> None:
    assert [resolver.resolve(RequestFacts("gpt", user_id=user)).tenant for user in "aba"] == [
        "user:a",
        "user:b",
        "user:a",
    ]


def test_what_follows_a_skip_is_set_reason_by_reason() -> None:
    file = PolicyFile.model_validate(
        {
            "defaults": {"on_skip": {"logprobs": "block"}},
            "routes": [{"match": {"model": "all"}, "on_skip": "judge"}, {"match": {}, "on_skip": {"refusal": "judge"}}],
        }
    )
    resolver = PolicyResolver(file)
    every = resolver.resolve(RequestFacts("all")).on_skip
    assert {every.reaction_to(reason) for reason in GOVERNED_SKIPS} == {OnSkip.JUDGE}
    some = resolver.resolve(RequestFacts("gpt")).on_skip
    set_here = {
        reason.value: some.reaction_to(reason)
        for reason in GOVERNED_SKIPS
        if some.reaction_to(reason) is not OnSkip.PASSTHROUGH
    }
    assert set_here == {"logprobs": OnSkip.BLOCK, "refusal": OnSkip.JUDGE, "tool_calls": OnSkip.JUDGE}
    assert some.reaction_to("mode_off") is some.reaction_to(None) is OnSkip.PASSTHROUGH


def test_where_objectives_are_enforced_every_answer_is_to_be_judged() -> None:
    file = PolicyFile.model_validate(
        {
            "defaults": {"on_skip": {"truncated": "passthrough"}},
            "tenants": [{"match": {"team": "a"}, "enforce": ["harmless"]}, {"match": {"team": "b"}}],
        }
    )
    resolver = PolicyResolver(file)
    enforced = resolver.resolve(RequestFacts("gpt", team_id="a"))
    judged = {reason.value for reason in GOVERNED_SKIPS if enforced.on_skip.reaction_to(reason) is OnSkip.JUDGE}
    assert judged == {reason.value for reason in GOVERNED_SKIPS} - {"truncated"}
    assert "enforced" in dict(enforced.origins)["on_skip.logprobs"]
    assert dict(enforced.origins)["on_skip.truncated"].endswith("(defaults)")
    assert resolver.resolve(RequestFacts("gpt", team_id="b")).on_skip.reaction_to("logprobs") is OnSkip.PASSTHROUGH
    by_key = resolver.resolve(RequestFacts("gpt", key_settings={"enforce": ["harmless"]}))
    assert by_key.on_skip.reaction_to("logprobs") is OnSkip.JUDGE


def test_settings_of_file_and_policy_are_the_same() -> None:
    plain = {name for name in SETTINGS if "." not in name}
    assert {*plain, "on_error", "on_skip"} == set(PolicySettings.model_fields)
    assert plain <= set(Policy.__dataclass_fields__)
    assert set(OnErrorByClass.model_fields) == set(FailurePolicy.__dataclass_fields__) == set(map(str, FailureClass))
    assert set(OnSkipByReason.model_fields) == set(map(str, GOVERNED_SKIPS))
    for model in (Route, Tenant, Grants):
        assert issubclass(model, PolicySettings)


UNTRUSTED = """\
defaults: {mode: shadow, on_error: retry, stream: sentence, deadline_s: 5}
routes:
  - match: {model: gpt}
    objectives: [honest]
tenants:
  - match: {team: acme}
    allow: [fair, humour]
    enforce: [harmless]
    allow_bypass: true
    quota: 6
"""


@pytest.fixture
def wary(tmp_path: Path) -> PolicyResolver:
    """A resolver of a file that trusts nobody."""
    path = tmp_path / "p.yaml"
    path.write_text(UNTRUSTED)
    metadata_layers._warn.cache_clear()
    return PolicyResolver(load(path))


LOOSER = {
    "mode": "off",
    "on_error": "passthrough",
    "stream": "passthrough",
    "after_retry": "passthrough",
    "if_nothing_remains": "original",
    "decline": "Whatever.",
    "decline_within": 0,
    "decline_whole_answers": False,
    "deadline_s": 0.001,
    "sample": 0.0,
    "max_answer_chars": 1,
    "gate": [],
    "caution": 50.0,
    "quota": 0,
    "allow": ["*"],
    "allow_bypass": True,
}


@pytest.mark.parametrize("source", ["team_settings", "key_settings"])
@pytest.mark.parametrize("setting", LOOSER)
def test_metadata_that_is_not_trusted_loosens_nothing_and_is_named_with_its_source(
    wary: PolicyResolver, caplog: pytest.LogCaptureFixture, source: str, setting: str
) -> None:
    acme = RequestFacts("gpt", team_id="acme")
    before = wary.resolve(acme)
    facts = replace(acme, **{source: {setting: LOOSER[setting]}})
    after = wary.resolve(facts)
    assert replace(after, origins=()) == replace(before, origins=())
    if setting not in ("allow", "allow_bypass", "after_retry"):
        label = source.removesuffix("_settings")
        assert f"team:acme: {label} metadata: ignoring setting {setting}" in caplog.text
        assert f"trust.{label}_metadata is false" in caplog.text


def test_metadata_that_is_not_trusted_may_tighten(wary: PolicyResolver) -> None:
    strict = {
        "mode": "enforce",
        "on_error": {"bug": "block", "gate": "passthrough"},
        "stream": "hold",
        "after_retry": "block",
        "enforce": ["fair"],
        "deny": ["humour"],
        "allow": ["humour", "fair", "concise"],
        "allow_bypass": False,
    }
    facts = RequestFacts("gpt", team_id="acme", key_settings=strict)
    policy = wary.resolve(facts)
    assert (policy.mode, policy.stream, policy.after_retry) == (Mode.ENFORCE, StreamMode.HOLD, OnError.BLOCK)
    assert (policy.on_error.bug, policy.on_error.gate) == (OnError.BLOCK, OnError.RETRY)
    assert _names(policy) == ["harmless", "fair", "honest"]
    assert dict(policy.origins)["mode"] == "key metadata"
    for more in ({"asked": ("humour",)}, {"asked": ("concise",)}, {"bypass": True}):
        with pytest.raises(ForbiddenError):
            wary.resolve(replace(facts, **more))


def test_a_list_that_is_not_trusted_only_shortens_the_one_before(wary: PolicyResolver) -> None:
    facts = RequestFacts("gpt", team_id="acme", team_settings={"allow": ["fair"]}, key_settings={"allow": ["*"]})
    assert "fair" in _names(wary.resolve(replace(facts, asked=("fair",))))
    with pytest.raises(ForbiddenError):
        wary.resolve(replace(facts, asked=("humour",)))


ALIASES = "tenants: [{match: {team: 'ac*'}, name: t, mode: 'off'}, {match: {key: vip}, name: k, mode: 'off'}]\n"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (RequestFacts(team_id="7f3", team_alias="acme"), "default"),
        (RequestFacts(key_hash="0" * 64, key_alias="vip"), "default"),
        (RequestFacts(team_id="acme", team_alias="other"), "t"),
        (RequestFacts(key_hash="0" * 64, key_alias="vip", alias_by_operator=True), "k"),
        (RequestFacts(key_hash="vip"), "k"),
    ],
)
def test_ids_match_and_aliases_only_where_the_operator_gave_them(
    tmp_path: Path, facts: RequestFacts, name: str
) -> None:
    (tmp_path / "p.yaml").write_text(ALIASES)
    assert PolicyResolver(load(tmp_path / "p.yaml")).resolve(facts).name == name
    (tmp_path / "p.yaml").write_text(ALIASES + "trust: {aliases: true}\n")
    assert PolicyResolver(load(tmp_path / "p.yaml")).resolve(facts).name != "default"


NAMED = """\
routes:
  - match: {model: "own-*"}
    objectives: [concise]
    mode: "off"
    on_error: block
  - match: {model: support}
    objectives: [honest]
    sample: 0.5
    on_error: {gate: retry}
  - match: {}
    mode: "off"
    objectives: [fair]
"""


def test_another_name_has_the_route_of_its_group(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(NAMED)
    resolver = PolicyResolver(load(tmp_path / "p.yaml"))
    group = resolver.resolve(RequestFacts("support"))
    assert (group.mode, _names(group)) == (Mode.ENFORCE, ["honest"])
    assert resolver.resolve(RequestFacts("quick")).mode is Mode.OFF
    assert resolver.resolve(RequestFacts("quick", groups=("support",))) == group


def test_a_route_of_the_alias_itself_is_not_laxer_than_that_of_its_group(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(NAMED)
    policy = PolicyResolver(load(tmp_path / "p.yaml")).resolve(RequestFacts("own-alias", groups=("support",)))
    assert (policy.name, policy.mode, _names(policy)) == ("route-2", Mode.ENFORCE, ["honest"])


NAMES = st.lists(st.sampled_from(["harmless", "concise", "fair", "humour", "nosuch", "*", "honest"]), max_size=4)
WISHES = st.lists(st.sampled_from(["harmless", "concise", "humour", "nosuch", "*", ""]), max_size=4).map(tuple)
METADATA = st.none() | st.fixed_dictionaries(
    {},
    optional={"enforce": NAMES, "allow": NAMES, "deny": NAMES, "deadline_s": st.floats(), "mode": st.text(max_size=3)},
)


@given(WISHES, METADATA, METADATA)
def test_a_request_only_ever_adds(asked: tuple[str, ...], team: object, key: object) -> None:
    file = PolicyFile.model_validate(
        {
            "routes": [{"match": {}, "objectives": ["honest"]}],
            "tenants": [{"match": {}, "enforce": ["harmless"], "allow": ["humour"]}],
            "trust": {"team_metadata": True, "key_metadata": True},
        }
    )
    resolver = PolicyResolver(file)
    base = resolver.resolve(RequestFacts("gpt", team_settings=team, key_settings=key))
    assert base.objectives[0].name == "harmless"
    try:
        policy = resolver.resolve(RequestFacts("gpt", team_settings=team, key_settings=key, asked=asked))
    except ForbiddenError:
        return
    assert policy.objectives[: len(base.objectives)] == base.objectives
    assert len({o.name for o in policy.objectives}) == len(policy.objectives)


def test_a_corrector_is_named_anywhere_a_setting_can_stand(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(
        "plugins: {correctors: {second: {kind: self_refine, model: m}}}\n"
        "defaults: {corrector: first, plugin_rules: [calm]}\n"
        "routes: [{match: {model: a}, corrector: metaaligner}, {match: {}}]\n"
        "trust: {team_metadata: true}\n"
    )
    resolver = PolicyResolver(load(path))
    assert resolver.resolve(RequestFacts("a")).corrector == "metaaligner"
    policy = resolver.resolve(RequestFacts("b"))
    assert (policy.corrector, policy.plugin_rules) == ("first", ("calm",))
    assert dict(policy.origins)["corrector"] == "policies.yaml:2 (defaults)"
    chosen = resolver.resolve(RequestFacts("b", team_id="t", team_settings={"corrector": "second", "plugin_rules": []}))
    assert (chosen.corrector, chosen.plugin_rules) == ("second", ())


def test_metadata_that_names_what_was_never_made_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("defaults: {corrector: first}\ntrust: {team_metadata: true}\n")
    resolver = PolicyResolver(load(path))
    for told in ({"corrector": "second"}, {"corrector": 7}, {"plugin_rules": ["calm"]}, {"plugin_rules": "calm"}):
        policy = resolver.resolve(RequestFacts("b", team_id="t", team_settings=told))
        assert (policy.corrector, policy.plugin_rules) == ("first", ())


def test_policies_of_requests_without_wishes_are_made_once_and_nothing_that_a_client_wrote_is_kept() -> None:
    file = PolicyFile.model_validate({"routes": [{"match": {}}], "trust": {"team_metadata": True}})
    resolver = PolicyResolver(file)
    first, again = (
        resolver.resolve(RequestFacts(model="gpt", team_id="t", system=text, fields={"preference": text}))
        for text in ("Answer in at most 80 words.", "Do not use any lists.")
    )
    assert resolver._resolve_from_cache.cache_info().misses == 1
    assert first is again
    for facts in (
        RequestFacts(model="gpt", tags=("t",)),
        RequestFacts(model="g" * 1000),
        RequestFacts(model="gpt", asked=("harmless",), team_settings={"allow": ["harmless"]}),
        RequestFacts(model="gpt", key_settings={"mode": "off"}),
    ):
        resolver.resolve(facts)
    assert resolver._resolve_from_cache.cache_info().currsize == 1
