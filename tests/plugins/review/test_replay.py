"""Recorded answers again: every pair of endings, the same tenant and wishes, and figures that add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Correction, Mode, Outcome, Status
from aligner_proxy_review.cli.replay import ReplayReport
from aligner_proxy_review.promotion import ReviewedReplay, compare_with_reviews
from aligner_proxy_review.replay import (
    ReplayCase,
    ReplayDifference,
    ReplayPolicies,
    ReplayResult,
    compute_figures,
    count_differences,
    replay,
)
from aligner_proxy_review.reviews import Review, ReviewOrigin, ReviewVerdict
from tests.audit.conftest import KIND, POLICY, RUDE, noted
from tests.support.scripted import ScriptedEngine

ROUTES = (
    "routes: [{match: {model: '*'}, objectives: [harmless]%s}]\ntenants: [{match: {team: acme}, allow: ['*']}]\n"
    "trust: {team_metadata: true}\n"
)


def resolver(folder: Path, more: str = "", tenants: str = "") -> PolicyResolver:
    text = "objectives: {kind: 'Kindness: be kind'}\n" + (tenants or ROUTES % more)
    (folder / "new.yaml").write_text(text)
    return PolicyResolver(config.load(folder / "new.yaml"))


def recorded(**changes_: Any) -> Entry:
    one = noted()
    return make_entry(replace(one, outcome=replace(one.outcome, **changes_)))


async def again(folder: Path, entries: list[Entry], script: Any, **more: str) -> list[ReplayCase]:
    policies = ReplayPolicies(resolver(folder, **more), Pipeline(ScriptedEngine(script)))
    return await replay(entries, policies, lambda: None)


def unchanged(request: AlignRequest) -> str:
    return request.answer


def kinder(request: AlignRequest) -> str:
    return request.answer.replace(" You fool.", "")


@pytest.mark.parametrize(
    ("before", "script", "after", "change"),
    [
        ({}, kinder, ReplayResult.CHANGED, ReplayDifference.SAME),
        ({}, lambda _: "It is so. You friend.", ReplayResult.CHANGED, ReplayDifference.CHANGED_DIFFERENTLY),
        ({}, unchanged, ReplayResult.LEFT, ReplayDifference.NO_LONGER_CHANGED),
        ({}, lambda _: "", ReplayResult.REFUSED, ReplayDifference.NO_LONGER_CHANGED),
        ({"edited": RUDE, "status": Status.UNCHANGED}, kinder, ReplayResult.CHANGED, ReplayDifference.NEWLY_CHANGED),
        ({"edited": RUDE, "status": Status.UNCHANGED}, unchanged, ReplayResult.LEFT, ReplayDifference.SAME),
        (
            {"edited": RUDE, "status": Status.UNCHANGED},
            lambda _: EngineFault("x"),
            ReplayResult.FAILED,
            ReplayDifference.OTHER_RESULT,
        ),
    ],
)
async def test_every_way_it_can_differ(
    tmp_path: Path, before: Any, script: Any, after: ReplayResult, change: ReplayDifference
) -> None:
    (case,) = await again(tmp_path, [recorded(**before)], script)
    assert (case.after.result, case.difference) == (after, change)


async def test_a_shadow_counts_as_what_it_would_have_done(tmp_path: Path) -> None:
    shadow = replace(POLICY, mode=Mode.SHADOW)
    was = recorded(status=Status.SHADOW, reason="would_correct", policy=shadow, text=RUDE)
    (case,) = await again(tmp_path, [was], kinder, more=", mode: shadow")
    assert (case.before.result, case.after.result, case.difference) == (
        ReplayResult.CHANGED,
        ReplayResult.CHANGED,
        ReplayDifference.SAME,
    )
    assert case.after.text == KIND


async def test_the_request_is_the_same_again(tmp_path: Path) -> None:
    heard: list[AlignRequest] = []
    await again(tmp_path, [recorded()], lambda request: heard.append(request) or request.answer)  # type: ignore[func-returns-value]
    (request,) = heard
    assert (request.answer, request.turns[0].content) == (RUDE, "Is it so?")
    assert request.objectives[1:] == ("Kindness: be kind",), "its wish"
    assert request.caution == 1.0, "its team's metadata"


async def test_a_wish_that_is_no_longer_allowed(tmp_path: Path) -> None:
    (case,) = await again(tmp_path, [recorded()], kinder, tenants="routes: [{match: {}, objectives: [harmless]}]\n")
    assert (case.after.result, case.difference) == (ReplayResult.FORBIDDEN, ReplayDifference.NO_LONGER_CHANGED)


async def test_a_deadline_of_its_own_goes_before_the_policys(tmp_path: Path) -> None:
    heard: list[AlignRequest] = []
    pipeline = Pipeline(ScriptedEngine(lambda request: heard.append(request) or request.answer))  # type: ignore[func-returns-value]
    policies = ReplayPolicies(resolver(tmp_path, ", deadline_s: 3.0"), pipeline)
    await replay([recorded()], policies, lambda: None, 90.0)
    await replay([recorded()], policies, lambda: None)
    assert [round(request.deadline_s) for request in heard] == [90, 3]


async def test_a_change_is_compared_with_the_current_file(tmp_path: Path) -> None:
    """Not with the record, which the current file would no longer give."""
    engine = ScriptedEngine(lambda request: KIND if len(request.objectives) == 2 else request.answer)
    current = ReplayPolicies(resolver(tmp_path), Pipeline(engine))
    one_more = (ROUTES % "").replace("[harmless]", "[harmless, helpful]")
    changed = ReplayPolicies(resolver(tmp_path, tenants=one_more), Pipeline(engine))
    entries = [
        replace(recorded(), aligner_id="a" * 32),
        replace(recorded(edited=RUDE, status=Status.UNCHANGED), aligner_id="b" * 32),
    ]
    cases = await replay(entries, changed, lambda: None, None, current)
    assert [(case.difference, case.is_as_recorded) for case in cases] == [
        (ReplayDifference.NO_LONGER_CHANGED, True),
        (ReplayDifference.NO_LONGER_CHANGED, False),
    ]
    reviews = [
        Review(name * 32, 0, ReviewVerdict.RIGHT, "reviewer:ann", at=0.0, chosen=ReviewOrigin.RANDOM) for name in "ab"
    ]
    # of the second answer a person said that leaving it was right, which says nothing of today's edit
    assert compare_with_reviews(cases, reviews) == ReviewedReplay(answers=1, damaged=0, lost=1, repaired=0, caught=0)


async def test_what_has_no_text_cannot_be_replayed(tmp_path: Path) -> None:
    assert await again(tmp_path, [make_entry(noted(no_store=True))], kinder) == []


async def test_figures_add_up(tmp_path: Path) -> None:
    entries = [recorded() for _ in range(3)] + [recorded(edited=RUDE, reason="gate_empty", status=Status.UNCHANGED)]
    cases = await again(tmp_path, entries, lambda _: Correction(KIND, ms=40.0))
    before = compute_figures([case.before for case in cases])
    after = compute_figures([case.after for case in cases])
    assert (before.results[ReplayResult.CHANGED], before.refusals, before.p50_ms) == (3, {"gate_empty": 1}, 12.5)
    assert (after.results[ReplayResult.CHANGED], after.refusals, after.p95_ms) == (4, {}, 40.0)
    assert (before.forwards, after.forwards) == (4.0, 0.0)
    assert count_differences(cases)[ReplayDifference.NEWLY_CHANGED] == 1
    assert sum(count_differences(cases).values()) == sum(after.results.values()) == 4


async def test_keys_of_the_file_are_those_of_files_that_users_kept(tmp_path: Path) -> None:
    cases = await again(tmp_path, [recorded()], kinder)
    ReplayReport(cases, "new.yaml", 0).write(tmp_path)
    written = json.loads((tmp_path / "replay.json").read_text())
    assert written["before"]["endings"]["changed"] == written["before"]["answers"] == 1
    assert list(written["after"]) == ["answers", "endings", "refusals", "changed", "p50_ms", "p95_ms", "forwards"]
    assert [set(figures["before"]) for figures in written["by_policy"].values()] == [set(written["after"])]
    assert set(written["cases"][0]["after"]) == {"ending", "reason", "engine_ms"}


def test_an_outcome_without_a_judgement_changes_nothing() -> None:
    assert Outcome(Status.FAILED, "timeout", RUDE, POLICY).edited is None
