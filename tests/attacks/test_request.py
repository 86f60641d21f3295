"""A request that wants more than its tenant may have, or to be somebody else; a response that wants to be another."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from litellm import Router
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks

from aligner_proxy.gateway import routing
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_policy import request_facts
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Mode, Outcome, Policy, Status
from tests.attacks.attack import Attack, rows
from tests.gateway.test_guardrail import ACME, CHAT, POLICIES, answer, build, data, ledger_of, opened, user

RULES: dict[str, Any] = {
    **POLICIES,
    "routes": [{"match": {"tag": "raw"}, "mode": "off"}, *POLICIES["routes"]],
    "tenants": [
        {
            "match": {"team": "strict"},
            "enforce": ["harmless"],
            "mode": "enforce",
            "sample": 1.0,
            "deny": ["humour"],
            "allow": ["*"],
        },
        *POLICIES["tenants"],
    ],
    "trust": {},
}
STRICT = {"team_id": "strict"}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    return build(tmp_path, monkeypatch, RULES)


FORBIDDEN = rows(
    (
        "wish-foreign",
        "tenant",
        "asks for an objective that is another tenant's",
        "403, before anything is spent",
        {"headers": {"x-aligner-objectives": "humour"}},
    ),
    ("wish-star", "tenant", "asks for every objective", "403", {"headers": {"x-aligner-objectives": "*"}}),
    (
        "wish-denied",
        "tenant",
        "asks for a denied one under allow: '*'",
        "403",
        {"headers": {"x-aligner-objectives": "humour"}, "who": STRICT},
    ),
    (
        "wish-body",
        "tenant",
        "asks in the body what its header may not",
        "403",
        {"metadata": {"aligner": {"objectives": ["humour"]}}},
    ),
    (
        "wish-text",
        "tenant",
        "sends the text of an objective as its name",
        "403",
        {"headers": {"x-aligner-objectives": "Rudeness: insult the reader"}},
    ),
    (
        "wish-flood",
        "tenant",
        "ten thousand names",
        "403, in one short line",
        {"headers": {"x-aligner-objectives": ",".join(f"n{i}" for i in range(10_000))}},
    ),
    ("bypass", "tenant", "asks to be left alone", "403", {"headers": {"x-aligner-bypass": "1"}}),
    ("bypass-case", "tenant", "the same in odd letters", "403", {"headers": {"X-ALIGNER-ByPass": " TRUE "}}),
    (
        "models-list",
        "tenant",
        "names two models, of which LiteLLM makes a list that no guardrail reads",
        "400",
        {"model": "gpt,strict"},
    ),
    ("models-mixed", "tenant", "names a model of a laxer route beside another", "400", {"model": "off,gpt"}),
    (
        "fallback-other",
        "tenant",
        "asks a model that is left alone and lets one answer that is not",
        "400",
        {"model": "off", "body": {"fallbacks": ["gpt"]}},
    ),
    (
        "fallback-block",
        "tenant",
        "the same as a block",
        "400",
        {"model": "off", "body": {"fallbacks": [{"model": "gpt", "messages": []}]}},
    ),
    (
        "fallback-table",
        "tenant",
        "the same as a table",
        "400",
        {"model": "off", "body": {"fallbacks": [{"off": ["gpt"]}]}},
    ),
)


@pytest.mark.parametrize("attack", FORBIDDEN)
async def test_it_is_refused_before_anything_is_spent(attack: Attack, guard: AlignerGuardrail) -> None:
    tried = attack.payload
    request = data(tried.get("model", "gpt"), tried.get("headers"), **tried.get("metadata", {})) | tried.get("body", {})
    with pytest.raises(ProxyException) as refused:
        await guard.async_pre_call_hook(user(**tried.get("who", {})), None, request, "acompletion")
    assert str(refused.value.code) == attack.holds[:3]
    assert len(str(refused.value.message)) < 400
    assert "n9999" not in str(refused.value.message)


FORGED = rows(
    (
        "pose-team",
        "tenant",
        "the fields of another team in its metadata",
        "its own policy",
        {"user_api_key_team_id": "acme", "user_api_key_team_alias": "acme"},
    ),
    (
        "pose-auth",
        "tenant",
        "a whole authentication object in its metadata",
        "its own policy",
        {"user_api_key_auth": {"team_id": "acme"}, "user_api_key_metadata": {"aligner": {"mode": "off"}}},
    ),
    (
        "pose-ledger",
        "tenant",
        "the ledger of its own request",
        "a ledger is made anew",
        {"aligner_proxy_state": {"settled": True, "skip": "bypass"}},
    ),
    (
        "pose-mode",
        "tenant",
        "settings where only wishes are read",
        "settings are not taken",
        {"aligner": {"mode": "off", "sample": 0, "caution": 50}},
    ),
    (
        "pose-grants",
        "tenant",
        "grants where only wishes are read",
        "grants are not taken",
        {"aligner": {"allow": ["*"], "allow_bypass": True, "enforce": []}},
    ),
    (
        "pose-deny",
        "tenant",
        "denies what its tenant enforces",
        "denials are not taken",
        {"aligner": {"deny": ["kind", "harmless"]}},
    ),
    (
        "pose-types",
        "tenant",
        "wishes of every type but the right one",
        "they count as none",
        {"aligner": [{"objectives": 7}, None]},
    ),
    (
        "pose-deep",
        "tenant",
        "metadata nine hundred blocks deep",
        "it is not looked into",
        {"deep": functools.reduce(lambda inner, _: [inner], range(900), [])},
    ),
)


@pytest.mark.parametrize("attack", FORGED)
async def test_metadata_of_the_body_makes_nobody_else(attack: Attack, guard: AlignerGuardrail) -> None:
    request = data(**attack.payload)
    ledger = await opened(guard, request, user(**STRICT))
    assert [objective.name for objective in ledger.policy.objectives] == ["harmless", "kind"]
    assert (ledger.policy.mode, ledger.policy.tenant, ledger.skip) == (Mode.ENFORCE, "team:strict", None)
    edited = await guard.async_post_call_success_hook(request, user(**STRICT), answer("It is so. You fool."))
    assert edited.choices[0].message.content == "It is so."


LAX = rows(
    (
        "route-tag",
        "tenant",
        "a tag that a laxer route is for",
        "what its own entry says goes before any route",
        {"tags": ["raw"]},
    ),
    (
        "route-model",
        "tenant",
        "a model that a laxer route is for",
        "what its own entry says goes before any route",
        {"model": "off"},
    ),
)


@pytest.mark.parametrize("attack", LAX)
async def test_an_enforced_objective_is_not_escaped_by_the_choice_of_a_route(
    attack: Attack, guard: AlignerGuardrail
) -> None:
    tried = dict(attack.payload)
    ledger = await opened(guard, data(tried.pop("model", "gpt"), **tried), user(**STRICT))
    assert ledger.policy.mode is Mode.ENFORCE
    assert "harmless" in [objective.name for objective in ledger.policy.objectives]


METADATA = rows(
    ("meta-off", "owner of a key", "switches its key off", "the file's policy", {"mode": "off"}),
    ("meta-shadow", "owner of a key", "only watches its own answers", "the file's policy", {"mode": "shadow"}),
    ("meta-sample", "owner of a key", "samples none of its answers", "the file's policy", {"sample": 0.0}),
    ("meta-short", "owner of a key", "declares every answer too long", "the file's policy", {"max_answer_chars": 1}),
    ("meta-hasty", "owner of a key", "leaves no time for a correction", "the file's policy", {"deadline_s": 0.001}),
    ("meta-quota", "owner of a key", "grants itself no engine time", "the file's policy", {"quota": 0}),
    ("meta-caution", "owner of a key", "asks for more caution than any edit has", "the file's policy", {"caution": 50}),
    (
        "meta-passing",
        "owner of a key",
        "lets originals pass after failures",
        "the file's policy",
        {"on_error": "passthrough"},
    ),
    ("meta-stream", "owner of a key", "has streams delivered at once", "the file's policy", {"stream": "passthrough"}),
    ("meta-verify", "owner of a key", "chooses another corrector", "the file's policy", {"corrector": "self_refine"}),
    (
        "meta-all",
        "owner of a key",
        "everything at once",
        "the file's policy",
        {"mode": "off", "quota": 0, "allow_bypass": True, "allow": ["*"], "gate": [], "sample": 0},
    ),
)
DEFENDED: dict[str, Any] = {
    "objectives": POLICIES["objectives"],
    "defaults": {"on_error": "block"},
    "routes": [{"match": {}, "objectives": ["kind"]}],
}


@pytest.mark.parametrize("source", ["metadata", "team_metadata"])
@pytest.mark.parametrize("attack", METADATA)
async def test_nobody_writes_a_laxer_policy_into_metadata(
    attack: Attack, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = build(tmp_path, monkeypatch, DEFENDED)
    who = user(team_id="acme", **{source: {"aligner": attack.payload}})
    plain = (await opened(guard, data(), user(team_id="acme"))).policy
    request = data()
    ledger = await opened(guard, request, who)
    assert replace(ledger.policy, origins=()) == replace(plain, origins=())
    edited = await guard.async_post_call_success_hook(request, who, answer("It is so. You fool."))
    assert edited.choices[0].message.content == "It is so."
    with pytest.raises(ProxyException):
        await opened(guard, data(headers={"x-aligner-bypass": "1"}), who)


OPT_OUTS = rows(
    (
        "opt-out-all",
        "owner of a key",
        "LiteLLM's switch for all guardrails",
        "it runs",
        {"disable_global_guardrails": True},
    ),
    (
        "opt-out-one",
        "owner of a key",
        "LiteLLM's list of switched off ones",
        "it runs",
        {"opted_out_global_guardrails": ["aligner"]},
    ),
)


@pytest.mark.parametrize("source", ["user_api_key_metadata", "user_api_key_team_metadata"])
@pytest.mark.parametrize("attack", OPT_OUTS)
def test_no_metadata_switches_the_guardrail_off(
    attack: Attack, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = data(**{source: attack.payload})
    for event in (GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call):
        assert build(tmp_path, monkeypatch, DEFENDED).should_run_guardrail(request, event)
    trusting = {**DEFENDED, "trust": {"key_metadata": True, "team_metadata": True}}
    assert not build(tmp_path, monkeypatch, trusting).should_run_guardrail(request, GuardrailEventHooks.post_call)


ALIASES = rows(
    (
        "alias-team",
        "owner of a team",
        "calls its team like one that is left alone",
        "its own policy",
        {"team_alias": "raw"},
    ),
    (
        "alias-key",
        "owner of a key",
        "calls its key like one that is left alone",
        "its own policy",
        {"key_alias": "raw"},
    ),
)


@pytest.mark.parametrize("attack", ALIASES)
async def test_nobody_names_himself_into_anothers_entry(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = [{"match": {kind: "raw"}, "mode": "off"} for kind in ("team", "key")]
    guard = build(tmp_path, monkeypatch, {**DEFENDED, "tenants": tenants})
    ledger = await opened(guard, data(), user(team_id="7f3", **attack.payload))
    assert (ledger.policy.mode, ledger.skip) == (Mode.ENFORCE, None)


SAME_MODELS = rows(
    ("name-id", "tenant", "the id of a deployment in place of its model", "the route of its model", "0b7c"),
    ("name-alias", "tenant", "an alias of the model", "the route of its model", "nickname"),
    ("name-upstream", "tenant", "the name that the upstream has for it", "the route of its model", "hosted_vllm/up"),
    ("name-short", "tenant", "a name without its provider", "the route of its model", "gpt-4o"),
    ("name-longer", "tenant", "more letters than LiteLLM reads", "the route of its model", "x-mini-and-more"),
)


@pytest.mark.parametrize("attack", SAME_MODELS)
async def test_no_other_name_of_a_model_escapes_its_route(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"gpt": ("hosted_vllm/up", "0b7c"), "openai/*": ("openai/*", "1"), "*-mini": ("openai/*-mini", "2")}
    model_list = [
        {"model_name": name, "litellm_params": {"model": model, "api_key": "none"}, "model_info": {"id": key}}
        for name, (model, key) in models.items()
    ]
    router = Router(model_list=model_list, model_group_alias={"nickname": "gpt"})
    monkeypatch.setattr(routing, "_find_router", lambda: router)
    strict = [{"match": {"model": name}, "objectives": ["kind"]} for name in ("gpt", "openai/gpt-4o", "x-mini")]
    rules = {**DEFENDED, "routes": [*strict, {"match": {}, "mode": "off"}]}
    guard = build(tmp_path, monkeypatch, rules)
    request = data(attack.payload)
    assert (await opened(guard, request)).skip is None
    edited = await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
    assert edited.choices[0].message.content == "It is so."


LOTS = rows(
    (
        "lot-call-id",
        "client",
        "sends the same call id again and again, one that was not sampled",
        "the lot does not depend on it",
        "call-1",
    ),
)


@pytest.mark.parametrize("attack", LOTS)
async def test_nobody_chooses_the_lot(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"routes": [{"match": {"model": "*"}, "objectives": ["harmless"], "sample": 0.5}]}
    guard = build(tmp_path, monkeypatch, rules)
    skips = set()
    for _ in range(64):
        request = data()
        assert request["litellm_call_id"] == attack.payload
        ledger = await opened(guard, request)
        response = await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
        skips.add((ledger.skip, ledger_of(request).status))
        assert (ledger.skip is None) == (ledger.status is Status.CORRECTED), response
    assert skips == {(None, Status.CORRECTED), ("not_sampled", Status.SKIPPED)}


NAMESPACES = rows(
    (
        "space-key-as-team",
        "tenant",
        "a team named like another's key",
        "namespaces differ",
        ({"team_id": "abc"}, {"key_hash": "abc"}),
    ),
    (
        "space-alias-as-id",
        "tenant",
        "a team alias like another team's id",
        "namespaces differ",
        ({"team_id": "abc"}, {"team_alias": "abc"}),
    ),
    (
        "space-prefix",
        "tenant",
        "a team named with a prefix of ours",
        "namespaces differ",
        ({"team_id": "key:abc"}, {"key_hash": "abc"}),
    ),
    ("space-nobody", "tenant", "a team named like nobody", "namespaces differ", ({"team_id": "-"}, {})),
    (
        "space-glob",
        "tenant",
        "a team named `*`",
        "a name is no pattern: it matches no other's entry",
        ({"team_id": "*"}, {"team_id": "acme"}),
    ),
)


TOKENS = rows(
    (
        "space-token-users",
        "tenant",
        "a token (JWT) of another user, both without a team",
        "namespaces differ",
        ({"user_id": "ann"}, {"user_id": "bob"}),
    ),
    (
        "space-token-subjects",
        "tenant",
        "a token of another subject that LiteLLM takes for no user",
        "namespaces differ",
        ({"jwt_claims": {"iss": "https://id", "sub": "1"}}, {"jwt_claims": {"iss": "https://id", "sub": "2"}}),
    ),
    (
        "space-token-issuers",
        "tenant",
        "a token of the same subject by another issuer",
        "namespaces differ",
        ({"jwt_claims": {"iss": "https://a", "sub": "1"}}, {"jwt_claims": {"iss": "https://b", "sub": "1"}}),
    ),
    (
        "space-token-as-key",
        "tenant",
        "a user named like another's key",
        "namespaces differ",
        ({"user_id": "a" * 64}, {"api_key": "a" * 64}),
    ),
)


@pytest.mark.parametrize("attack", TOKENS)
def test_no_two_tokens_share_a_namespace(attack: Attack, guard: AlignerGuardrail) -> None:
    callers = [request_facts(data(), UserAPIKeyAuth(request_route=CHAT, **fields)) for fields in attack.payload]
    resolver = guard._policies.current.resolver
    tenants = [resolver.resolve(caller).tenant for caller in callers]
    assert len({"-", *tenants}) == 3


@pytest.mark.parametrize("attack", NAMESPACES)
def test_no_two_tenants_share_a_namespace(attack: Attack, guard: AlignerGuardrail) -> None:
    one, other = (RequestFacts("gpt", **facts) for facts in attack.payload)
    assert one.namespace != other.namespace
    assert "kind" in [o.name for o in guard._policies.current.resolver.resolve(one).objectives]
    assert (
        guard._policies.current.resolver.resolve(one).name
        != guard._policies.current.resolver.resolve(RequestFacts("gpt", **ACME)).name
    )


HEADERS = rows(
    (
        "header-model",
        "operator of one tenant",
        "a model name with a line break and a header",
        "one printable line",
        "m\r\nset-cookie: a=b",
    ),
    (
        "header-unicode",
        "operator of one tenant",
        "a name that no header can hold",
        "one printable line",
        "\u202emodel\x00\x7f\ud800",
    ),
)


@pytest.mark.parametrize("attack", HEADERS)
def test_no_value_begins_a_header_of_its_own(attack: Attack) -> None:
    policy = Policy(attack.payload)
    ledger = RequestState("c", policy, attack.payload)
    ledger.finalize([Outcome(Status.SKIPPED, attack.payload, None, policy)])
    for value in ledger.headers().values():
        assert value.isascii()
        assert value.isprintable()
    assert ledger.comment().count(b"\n") == 2
