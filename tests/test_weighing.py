"""Objectives that a net chooses: what its weights do to a policy, and what stands when it says nothing sensible."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy import config, weighing
from aligner_proxy.auto import Auto, worded
from aligner_proxy.cache import CorrectionCache
from aligner_proxy.engine.protocol import WeighRequest
from aligner_proxy.engine.scripted import SCRIPTED, ScriptedEngine
from aligner_proxy.errors import ConfigError, EngineUnavailable
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.policy import PolicyResolver, RequestFacts
from aligner_proxy.types import Exchange, Mode, Objective, Policy, Turn

from .test_guardrail import answer, build, data, opened, user

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
SAID = {"Safety": 0.6, "Length": 0.25, "Humour": 0.05, "Harmlessness": 0.02, "Readability": 0.08}


def by_name(request: WeighRequest) -> tuple[float, ...]:
    told = [SAID.get(text.partition(":")[0].partition(" (")[0], 0.01) for text in request.objectives]
    return tuple(weight / sum(told) for weight in told)


def engine(said: Any = by_name) -> ScriptedEngine:
    made = ScriptedEngine()
    made.weights = said
    return made


def resolved(model: str, text: str = FILE, **facts: Any) -> Policy:
    return PolicyResolver(config.loads(text, Path("policies.yaml"))).resolve(RequestFacts(model=model, **facts))


def names(policy: Policy) -> list[str]:
    return [objective.name for objective in policy.objectives]


async def weighed(policy: Policy, made: Any = None) -> Policy:
    return await weighing.weighed(made or engine(), policy, TURNS, "call")


async def test_the_heaviest_stay_in_their_order() -> None:
    policy = await weighed(resolved("some"))
    assert names(policy) == ["safe", "concise"]
    assert policy.auto is not None
    assert dict(policy.auto.weights) == pytest.approx({"safe": 0.6 / 0.85, "concise": 0.25 / 0.85})
    assert policy.auto.reason is None


def test_the_bare_word_stands_for_every_objective_of_the_file() -> None:
    policy = resolved("all")
    assert set(names(policy)) == {*config.builtin_objectives(), "safe"}
    assert policy.auto is not None
    assert set(policy.auto.candidates) == set(names(policy))


async def test_enforced_ones_stay_first_and_keep_their_floor_and_wishes_are_not_dropped() -> None:
    policy = await weighed(resolved("some", team_id="acme", asked=("readable",)))
    assert names(policy) == ["harmless", "safe", "concise", "readable"]
    assert policy.auto is not None
    weights = dict(policy.auto.weights)
    assert weights["harmless"] == pytest.approx(0.3)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["safe"] > weights["concise"] > weights["readable"]


@pytest.mark.parametrize("floor", [0.0, 0.2, 0.5, 1.0])
def test_floors_always_leave_weights(floor: float) -> None:
    given = {"a": 0.01, "b": 0.19, "c": 0.8}
    found = weighing.floored(given, ["a", "b"], floor)
    assert sum(found.values()) == pytest.approx(1)
    assert min(found["a"], found["b"]) >= min(floor, 0.5) - 1e-9
    assert all(weight >= 0 for weight in found.values())
    assert floor or found == pytest.approx(given)


async def test_weights_in_words_where_the_route_wants_them() -> None:
    policy = await weighed(resolved("words"))
    assert policy.objectives[0].text == "Safety: the response should warn of risks", "1.4 times an equal share"
    said = {"Safety": 0.9, "Length": 0.1}
    policy = await weighed(
        resolved("words"), engine(lambda r: tuple(said[text.partition(":")[0]] for text in r.objectives))
    )
    assert [o.text.partition(":")[0] for o in policy.objectives] == [
        "Safety (very important)",
        "Length (less important)",
    ]
    assert worded("no colon here", 3.0) == "no colon here"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "no_weights"),
        (lambda _: EngineUnavailable("gone"), EngineUnavailable.reason),
        (lambda _: (1.0,), "invalid_output"),
        (lambda r: (0.9,) * len(r.objectives), "invalid_output"),
        (lambda r: (float("nan"),) * len(r.objectives), "invalid_output"),
        (lambda _: KeyError("x"), "internal_error"),
        (lambda _: None, "internal_error"),
    ],
)
async def test_without_the_nets_word_all_weigh_the_same(said: Any, reason: str) -> None:
    policy = await weighed(resolved("some", team_id="acme"), engine(said))
    assert policy.auto is not None
    assert policy.auto.reason == reason
    assert names(policy) == ["harmless", "concise", "safe"], "as the file has them"
    assert [round(weight, 3) for _, weight in policy.auto.weights] == [0.333] * 3


async def test_a_net_that_hangs_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "WAIT_S", 0.05)
    made = engine()
    made.delay_s = 30
    policy = await asyncio.wait_for(weighed(resolved("some"), made), 5)
    assert policy.auto is not None
    assert policy.auto.reason == "timeout"


async def test_weights_are_part_of_the_cache_key(tmp_path: Path) -> None:
    cache, exchange = CorrectionCache(tmp_path, 60, 1), Exchange("c", 0, TURNS, "Two.")
    policies = [await weighed(resolved("some")), await weighed(resolved("some"), engine(None))]
    policies += [await weighed(resolved("words"), engine(lambda _, w=w: (w, 1 - w))) for w in (0.1, 0.9)]
    keys = {cache.key(SCRIPTED, policy, exchange) for policy in policies}
    assert len(keys) == 4


async def test_the_pipeline_weighs_what_nobody_weighed_before() -> None:
    seen: list[tuple[str, ...]] = []
    made = engine()
    made.script = lambda request: seen.append(request.objectives) or request.answer  # type: ignore[func-returns-value]
    outcome = await Pipeline(made).align(Exchange("c", 0, TURNS, "Take two."), resolved("some"))
    assert names(outcome.policy) == ["safe", "concise"]
    assert [text.partition(":")[0] for text in seen[0]] == ["Safety", "Length"]


def test_what_has_no_auto_or_is_not_corrected_is_not_weighed() -> None:
    assert weighing.wants(resolved("some"))
    assert not weighing.wants(replace(resolved("some"), mode=Mode.OFF))
    assert not weighing.wants(replace(resolved("some"), bypass=True))
    assert not weighing.wants(Policy("p", (Objective("a", "A: b"),)))
    assert not weighing.wants(Policy("p", auto=Auto(())))


@pytest.mark.parametrize(
    "said", ["{auto: []}", "{auto: [nonesuch]}", "{auto: [concise], keep: 0}", "{auto: [concise], other: 1}", "autos"]
)
def test_mistakes_are_named(said: str) -> None:
    with pytest.raises(ConfigError):
        config.loads(f"routes: [{{match: {{}}, objectives: {said}}}]", Path("policies.yaml"))


ROUTES = {
    "objectives": {"safe": "Safety: the response should warn of risks"},
    "routes": [
        {"match": {"model": mode}, "stream": mode, "objectives": {"auto": ["humour", "concise", "safe"], "keep": 2}}
        for mode in ("hold", "sentence", "live")
    ],
}


async def flow() -> AsyncIterator[Any]:
    from tests.told_streams import chat_items

    for item in chat_items(["Take ", "two. Sleep", " well."]):
        yield item


@pytest.mark.parametrize("mode", ["hold", "sentence", "live"])
async def test_streams_and_headers_tell_the_weights_of_their_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    guard.pipeline = Pipeline(engine())
    request = data(mode)
    await opened(guard, request)
    headers = await guard.async_post_call_response_headers_hook(request, user(), object())
    assert headers is not None
    assert headers["x-aligner-objectives"] == "safe,concise"
    assert headers["x-aligner-weights"] == "safe=0.706,concise=0.294"
    assert "x-aligner-weights-reason" not in headers
    got = [item async for item in guard.async_post_call_streaming_iterator_hook(user(), flow(), request)]
    assert b"status=" in got[-1]


@pytest.mark.parametrize("said", [None, lambda _: KeyError("x")])
async def test_no_response_is_broken_by_a_net_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    made = engine(said)
    made.script = lambda request: request.answer.replace(" You fool.", "")
    guard.pipeline = Pipeline(made)
    request = data("hold")
    ledger = await opened(guard, request)
    response = await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool."))
    assert response.choices[0].message.content == "It is so."
    headers = ledger.headers()
    assert headers["x-aligner-weights"] == "humour=0.500,concise=0.500"
    assert headers["x-aligner-weights-reason"] in ("no_weights", "internal_error")


async def test_the_upstream_is_not_waited_for_and_copies_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = build(tmp_path, monkeypatch, ROUTES)
    made = engine()
    made.delay_s = 0.2
    guard.pipeline = Pipeline(made)
    began = asyncio.get_running_loop().time()
    ledger = await opened(guard, data("hold"))
    assert asyncio.get_running_loop().time() - began < 0.15
    assert ledger.weighing is not None
    assert copy.deepcopy(ledger.weighing) is ledger.weighing
    assert "x-aligner-weights" not in ledger.headers()
    await ledger.weighed()
    assert ledger.headers()["x-aligner-weights"].startswith("safe=")
