"""`objectives: auto`: what weights do to a policy, and what stands when nothing sensible is said of them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.engine.api import StatesRequest
from aligner_proxy.errors import ConfigError, EngineUnavailable
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import extensions, registry
from aligner_proxy.plugins.api import TextEncoder
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Exchange, Mode, Objective, Policy, Turn
from aligner_proxy_systems.meal.net import WeightNet
from aligner_proxy_systems.meal.selector import (
    AutoSelector,
    ObjectiveWeights,
    Weigher,
    add_weight_words,
    apply_floor,
    find_weights,
)
from tests.gateway.test_guardrail import answer, build, data, opened, user
from tests.support.scripted import SCRIPTED, ScriptedEngine

TURNS = (Turn("user", "How many tablets may I take?"),)
FILE = """
objectives:
  safe: "Safety: the response should warn of risks"
routes:
  - match: {model: all}
    objectives: auto
  - match: {model: some}
    objectives: {auto: [concise, safe, humour], keep: 2, floor: 0.3}
  - match: {model: words}
    objectives: {auto: [concise, safe], words: true}
tenants:
  - match: {team: acme}
    enforce: [harmless]
    allow: [readable]
"""
WEIGHTS = {"Safety": 0.6, "Length": 0.25, "Humour": 0.05, "Harmlessness": 0.02, "Readability": 0.08}


class ByName(Weigher):
    """Weighs by the objectives' names."""

    def __init__(self, weights: dict[str, float] = WEIGHTS, delay_s: float = 0.0) -> None:
        super().__init__()
        self.by_name = weights
        self.delay_s = delay_s

    async def weights(self, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder) -> Sequence[float]:
        await asyncio.sleep(self.delay_s)
        weights = [self.by_name.get(text.partition(":")[0], 0.01) for text in objectives]
        return [weight / sum(weights) for weight in weights]


def engine(rows: Any = None) -> ScriptedEngine:
    """One with hidden states: random rows of the right size, or what `rows` says."""
    scripted = ScriptedEngine()
    size = WeightNet.load().size
    scripted.rows = rows or (lambda request: [[len(text) / 100] * size for text in request.texts])
    return scripted


def pipeline(weigher: Any = None, scripted: ScriptedEngine | None = None) -> Pipeline:
    return Pipeline(scripted or engine(), extensions=Extensions([AutoSelector(weigher)]))


def resolve_policy(model: str, text: str = FILE, **facts: Any) -> Policy:
    file = registry.parse_policies(text, Path("policies.yaml"))
    return PolicyResolver(file).resolve(RequestFacts(model=model, **facts))


def names(policy: Policy) -> list[str]:
    return [objective.name for objective in policy.objectives]


async def weigh_policy(policy: Policy, weigher: Any = None, scripted: ScriptedEngine | None = None) -> Policy:
    return await pipeline(weigher, scripted).select_objectives(Exchange("call", 0, TURNS, ""), policy)


def weights_of(policy: Policy) -> ObjectiveWeights:
    known = find_weights(policy)
    assert known is not None
    return known


async def test_the_heaviest_stay_in_their_order() -> None:
    policy = await weigh_policy(resolve_policy("some"), ByName())
    assert names(policy) == ["safe", "concise"]
    assert dict(weights_of(policy).weights) == pytest.approx({"safe": 0.6 / 0.85, "concise": 0.25 / 0.85})
    assert weights_of(policy).reason is None


async def test_the_net_weighs_what_the_engine_encodes() -> None:
    policy = await weigh_policy(resolve_policy("all"))
    assert sum(weight for _, weight in weights_of(policy).weights) == pytest.approx(1)
    assert weights_of(policy).reason is None
    ordered = [weight for _, weight in weights_of(policy).weights]
    assert ordered == sorted(ordered, reverse=True)
    assert len(set(ordered)) > 1


def test_the_bare_word_stands_for_every_objective_of_the_file() -> None:
    policy = resolve_policy("all")
    assert set(names(policy)) == {*config.builtin_objectives(), "safe"}
    assert policy.selection is not None
    assert set(policy.selection.candidates) == set(names(policy))


async def test_enforced_ones_stay_first_and_keep_their_floor_and_what_is_asked_for_is_not_dropped() -> None:
    policy = await weigh_policy(resolve_policy("some", team_id="acme", asked=("readable",)), ByName())
    assert names(policy) == ["harmless", "safe", "concise", "readable"]
    weights = dict(weights_of(policy).weights)
    assert weights["harmless"] == pytest.approx(0.3)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["safe"] > weights["concise"] > weights["readable"]


@pytest.mark.parametrize("floor", [0.0, 0.2, 0.5, 1.0])
def test_floors_always_leave_weights(floor: float) -> None:
    given = {"a": 0.01, "b": 0.19, "c": 0.8}
    lifted = apply_floor(given, ["a", "b"], floor)
    assert sum(lifted.values()) == pytest.approx(1)
    assert min(lifted["a"], lifted["b"]) >= min(floor, 0.5) - 1e-9
    assert all(weight >= 0 for weight in lifted.values())
    assert floor or lifted == pytest.approx(given)


async def test_weights_in_words_where_the_route_wants_them() -> None:
    policy = await weigh_policy(resolve_policy("words"), ByName())
    assert policy.objectives[0].text == "Safety: the response should warn of risks", "1.4 times an equal share"
    policy = await weigh_policy(resolve_policy("words"), ByName({"Safety": 0.9, "Length": 0.1}))
    assert [o.text.partition(":")[0] for o in policy.objectives] == [
        "Safety (very important)",
        "Length (less important)",
    ]
    assert add_weight_words("no colon here", 3.0) == "no colon here"


def _without_states() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [
        (_without_states, "no_weights"),
        (lambda: engine(lambda _: EngineUnavailable("gone")), EngineUnavailable.reason),
        (lambda: engine(lambda r: [[1.0]] * len(r.texts)), "no_weights"),
        (lambda: engine(lambda _: KeyError("x")), "plugin_error"),
        (lambda: engine(lambda _: None), "plugin_error"),
    ],
)
async def test_without_the_nets_weights_all_weigh_the_same(scripted: Any, reason: str) -> None:
    policy = await weigh_policy(resolve_policy("some", team_id="acme"), None, scripted())
    assert weights_of(policy).reason == reason
    assert names(policy) == ["harmless", "concise", "safe"], "as the file has them"
    assert [round(weight, 3) for _, weight in weights_of(policy).weights] == [0.333] * 3


async def test_an_engine_that_hangs_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "SELECT_S", 0.05)
    slow = engine()
    slow.delay_s = 30
    policy = await asyncio.wait_for(weigh_policy(resolve_policy("some"), None, slow), 5)
    assert weights_of(policy).reason == "timeout"
    assert names(policy) == ["concise", "safe"], "`keep` holds then, too"


async def test_weights_are_part_of_the_cache_key(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, 60, 1)
    exchange = Exchange("c", 0, TURNS, "Two.")
    policies = [
        await weigh_policy(resolve_policy("some"), ByName()),
        await weigh_policy(resolve_policy("some"), None, _without_states()),
    ]
    policies += [
        await weigh_policy(resolve_policy("words"), ByName({"Length": share, "Safety": 1 - share}))
        for share in (0.1, 0.9)
    ]
    keys = {cache.key(SCRIPTED, policy, exchange) for policy in policies}
    assert len(keys) == 4
    await cache.aclose()


async def test_the_pipeline_weighs_what_nobody_weighed_before() -> None:
    seen: list[tuple[str, ...]] = []
    scripted = engine()
    scripted.script = lambda request: seen.append(request.objectives) or request.answer  # type: ignore[func-returns-value]
    weighing = pipeline(ByName(), scripted)
    outcome = await weighing.align(Exchange("c", 0, TURNS, "Take two."), resolve_policy("some"))
    assert names(outcome.policy) == ["safe", "concise"]
    assert [text.partition(":")[0] for text in seen[0]] == ["Safety", "Length"]


async def test_objectives_of_a_request_for_states_are_texts_of_the_policy() -> None:
    seen: list[StatesRequest] = []
    scripted = engine(lambda request: seen.append(request) or [[0.0] * 1728 for _ in request.texts])
    await weigh_policy(resolve_policy("some", team_id="acme"), None, scripted)
    *objectives, request = seen
    assert request.texts == (TURNS[0].content,)
    assert sum(len(one.texts) for one in objectives) == 4
    assert request.tenant not in ("-", "team:acme"), "the tenant travels as a digest"


async def test_what_was_encoded_before_an_engine_failed_is_not_asked_for_again() -> None:
    seen: list[int] = []

    def rows(request: StatesRequest) -> list[list[float]] | Exception:
        seen.append(len(request.texts))
        return EngineUnavailable("busy") if len(seen) % 2 == 0 else [[0.1] * 1728 for _ in request.texts]

    weighing = pipeline(None, engine(rows))
    policy = resolve_policy("some", team_id="acme")
    chosen = [await weighing.select_objectives(Exchange("call", 0, TURNS, ""), policy) for _ in range(3)]
    reason = EngineUnavailable.reason
    assert [weights_of(one).reason for one in chosen] == [reason, reason, None]
    assert seen == [2, 2, 2, 1, 1]


async def test_requests_at_once_ask_for_objective_texts_once() -> None:
    seen: list[str] = []
    scripted = engine(lambda request: seen.extend(request.texts) or [[0.1] * 1728 for _ in request.texts])
    scripted.delay_s = 0.01
    weighing = pipeline(None, scripted)
    await asyncio.gather(
        *(weighing.select_objectives(Exchange("c", 0, TURNS, ""), resolve_policy("some")) for _ in range(5))
    )
    assert len(seen) == 3 + 5


def test_a_list_of_objectives_is_not_weighed() -> None:
    extension = AutoSelector(ByName())
    assert extension.selects(resolve_policy("some"))
    assert not extension.selects(Policy("p", (Objective("a", "A: b"),)))
    assert not extension.selects(replace(resolve_policy("some"), objectives=()))


@pytest.mark.parametrize(
    "text", ["{auto: []}", "{auto: [nonesuch]}", "{auto: [concise], keep: 0}", "{auto: [concise], other: 1}", "autos"]
)
def test_mistakes_are_named(text: str) -> None:
    with pytest.raises(ConfigError):
        registry.parse_policies(f"routes: [{{match: {{}}, objectives: {text}}}]", Path("policies.yaml"))


ROUTES = {
    "objectives": {"safe": "Safety: the response should warn of risks"},
    "routes": [
        {
            "match": {"model": mode},
            "stream": mode,
            "objectives": {"auto": ["humour", "concise", "safe"], "keep": 2},
        }
        for mode in ("hold", "sentence", "passthrough")
    ]
    + [{"match": {"model": "off"}, "mode": "off", "objectives": "auto"}],
}


async def flow() -> AsyncIterator[Any]:
    from tests.support.stream_fixtures import chat_items

    for item in chat_items(["Take ", "two. Sleep", " well."]):
        yield item


@pytest.mark.parametrize("mode", ["hold", "sentence", "passthrough"])
async def test_streams_and_headers_tell_the_weights_of_their_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    guard.pipeline = pipeline(ByName())
    request = data(mode)
    await opened(guard, request)
    headers = await guard.async_post_call_response_headers_hook(request, user(), object())
    assert headers is not None
    assert headers["x-aligner-objectives"] == "safe,concise"
    assert headers["x-aligner-weights"] == "safe=0.706,concise=0.294"
    assert "x-aligner-weights-reason" not in headers
    got = [item async for item in guard.async_post_call_streaming_iterator_hook(user(), flow(), request)]
    assert b"status=" in got[-1]


@pytest.mark.parametrize("scripted", [_without_states, lambda: engine(lambda _: KeyError("x"))])
async def test_no_response_is_broken_by_a_net_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: Any
) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    failing = scripted()
    failing.script = lambda request: request.answer.replace(" You fool.", "")
    guard.pipeline = pipeline(None, failing)
    request = data("hold")
    ledger = await opened(guard, request)
    response = await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
    assert response.choices[0].message.content == "It is so."
    headers = ledger.headers()
    assert headers["x-aligner-weights"] == "humour=0.500,concise=0.500"
    assert headers["x-aligner-weights-reason"] in ("no_weights", "plugin_error")


async def test_the_upstream_is_not_waited_for_and_copies_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    guard.pipeline = pipeline(ByName(delay_s=0.2))
    began = asyncio.get_running_loop().time()
    ledger = await opened(guard, data("hold"))
    assert asyncio.get_running_loop().time() - began < 0.15
    assert ledger.selecting is not None
    assert copy.deepcopy(ledger.selecting) is ledger.selecting
    assert "x-aligner-weights" not in ledger.headers()
    await ledger.wait_for_selection()
    assert ledger.headers()["x-aligner-weights"].startswith("safe=")


async def test_what_is_not_corrected_is_not_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    guard.pipeline = pipeline(ByName())
    ledger = await opened(guard, data("off"))
    assert ledger.policy.mode is Mode.OFF
    assert ledger.selecting is None
