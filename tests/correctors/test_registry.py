"""Correctors of plugins in the pipeline: deadline, failure policy, cache, gate and tenant limits as at the engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.registry import PluginCorrector
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import AnswerTooLong, EngineOverloaded
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.outcomes import blocks
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import InlineRunner, Runner
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.types import (
    Correction,
    Exchange,
    FailurePolicy,
    Objective,
    OnError,
    Outcome,
    Policy,
    Quota,
    Status,
    Turn,
)
from tests.support.scripted import ScriptedEngine

KIND = Objective("kind", "Kindness: the response should never insult the reader")
POLICY = Policy("p", (KIND,), tenant="team:a", corrector="mine", deadline_s=5.0)
ASKED = Exchange("call-1", 0, (Turn("user", "What?"),), "It is so. You fool.")
BLOCK = FailurePolicy(**dict.fromkeys(FailurePolicy.__slots__, OnError.BLOCK))
Script = Callable[[AlignRequest], Any]


class Mine:
    """A corrector that says what a function says."""

    def __init__(self, script: Script, identity: str = "1") -> None:
        self.script = script
        self.version = identity
        self.seen: list[AlignRequest] = []

    async def identity(self) -> str:
        return self.version

    async def correct(self, request: AlignRequest) -> Any:
        self.seen.append(request)
        said = self.script(request)
        if isinstance(said, BaseException):
            raise said
        return await said if asyncio.iscoroutine(said) else said


def kinder(request: AlignRequest) -> Correction:
    return Correction(request.answer.replace(" You fool.", ""))


def pipeline(mine: Any, *, runner: Runner | None = None, label: str = "mine", **more: Any) -> Pipeline:
    engine = Admission(PluginCorrector("mine", label, mine, runner or InlineRunner()), slots=more.pop("slots", 8))
    return Pipeline(ScriptedEngine(), correctors={"mine": engine}, **more)


async def align(mine: Any, policy: Policy = POLICY, **more: Any) -> Outcome:
    return await pipeline(mine, **more).align(ASKED, policy)


async def test_a_route_gets_the_corrector_that_it_names() -> None:
    mine = Mine(kinder)
    outcome = await align(mine)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "It is so.")
    assert mine.seen[0].objectives == (KIND.text,)
    assert outcome.correction is not None
    assert outcome.correction.aligner


async def test_others_get_the_aligner_on_the_engine() -> None:
    mine = Mine(kinder)
    outcome = await align(mine, replace(POLICY, corrector="metaaligner"))
    assert outcome.status is Status.UNCHANGED
    assert mine.seen == []


async def test_a_corrector_that_nobody_has_made_yet_is_an_engine_that_is_away() -> None:
    outcome = await align(Mine(kinder), replace(POLICY, corrector="new"))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "engine_unavailable", ASKED.answer)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (lambda _: ValueError("secret"), "plugin_error"),
        (lambda _: "It is so.", "invalid_output"),
        (lambda _: None, "invalid_output"),
        (lambda _: Correction("\ud800"), "invalid_output"),
        (lambda _: Correction(None), "invalid_output"),  # type: ignore[arg-type]
        (lambda _: EngineOverloaded("full"), "overloaded"),
        (lambda _: TimeoutError(), "timeout"),
        (lambda _: asyncio.CancelledError(), "plugin_error"),
    ],
)
async def test_whatever_it_does_has_a_class_and_on_error_follows(script: Script, reason: str) -> None:
    outcome = await align(Mine(script), runner=ThreadRunner("mine"))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, reason, ASKED.answer)
    assert not blocks(outcome)
    assert blocks(await align(Mine(script), replace(POLICY, on_error=BLOCK), runner=ThreadRunner("mine")))


async def test_what_does_not_fit_is_skipped_as_at_the_engine() -> None:
    outcome = await align(Mine(lambda _: AnswerTooLong("long")))
    assert (outcome.status, outcome.reason) == (Status.SKIPPED, "too_long")


@pytest.mark.parametrize("blocking", [True, False])
async def test_one_that_hangs_or_blocks_costs_its_deadline_and_no_other_route(blocking: bool) -> None:
    door = threading.Event()
    script: Script = (lambda _: door.wait()) if blocking else (lambda _: asyncio.sleep(3600))
    made = pipeline(Mine(script), runner=ThreadRunner("mine"))
    slow = asyncio.create_task(made.align(ASKED, replace(POLICY, deadline_s=0.3)))
    other = await made.align(ASKED, replace(POLICY, corrector="metaaligner"))
    assert other.status is Status.UNCHANGED
    assert not slow.done()
    outcome = await slow
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "timeout", ASKED.answer)
    door.set()


async def test_a_retry_asks_it_again() -> None:
    said = iter([EngineOverloaded("full", 0.0), Correction("It is so.")])
    policy = replace(POLICY, on_error=FailurePolicy(overload=OnError.RETRY))
    outcome = await align(Mine(lambda _: next(said)), policy)
    assert (outcome.status, outcome.attempts) == (Status.CORRECTED, 2)


async def test_the_gate_judges_it_as_it_judges_the_aligner() -> None:
    outcome = await align(Mine(lambda request: Correction(request.answer + " Write to me@example.org.")))
    assert (outcome.status, outcome.reason) == (Status.UNCHANGED, "gate_new_personal_data")


async def test_a_full_house_turns_away_and_a_spent_quota_skips() -> None:
    door = asyncio.Event()

    async def waits(request: AlignRequest) -> Correction:
        await door.wait()
        return Correction(request.answer)

    mine = Mine(lambda request: waits(request))
    made = pipeline(mine, slots=1)
    first = asyncio.create_task(made.align(ASKED, POLICY))
    while not mine.seen:
        await asyncio.sleep(0)
    assert (await made.align(ASKED, POLICY)).reason == "overloaded"
    door.set()
    assert (await first).status is Status.UNCHANGED
    spent = replace(POLICY, quota=Quota("team a", 0.0))
    outcome = await made.align(ASKED, spent)
    assert (outcome.status, outcome.reason) == (Status.SKIPPED, "quota")


async def test_its_time_is_charged_to_the_quota() -> None:
    async def slow(request: AlignRequest) -> Correction:
        await asyncio.sleep(0.05)
        return Correction(request.answer)

    made = pipeline(Mine(lambda request: slow(request)))
    metered = replace(POLICY, quota=Quota("team a", 0.02))
    assert (await made.align(ASKED, metered)).status is Status.UNCHANGED
    assert (await made.align(ASKED, metered)).reason == "quota"


async def test_a_stream_holds_no_place_while_the_upstream_writes() -> None:
    mine = Mine(kinder)
    made = pipeline(mine, slots=1)
    readings = [await made.read(replace(ASKED, answer=None), POLICY) for _ in range(3)]
    assert None not in readings
    assert mine.seen == []
    outcome = await made.align(ASKED, POLICY, readings[0])
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "It is so.")
    gone = await made.read(replace(ASKED, answer=None), replace(POLICY, corrector="new"))
    assert (await made.align(ASKED, replace(POLICY, corrector="new"), gone)).reason == "engine_unavailable"


@pytest.mark.parametrize("odd", [None, object(), Mine(kinder).correct])
async def test_something_that_is_no_corrector_at_all_is_a_fault_of_its_plugin(odd: Any) -> None:
    outcome = await align(odd, runner=ThreadRunner("mine"))
    assert (outcome.status, outcome.reason) == (Status.FAILED, "plugin_error")


async def test_identity_settings_and_version_are_in_the_cache_key(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path / "store", 60, 4)
    mine = Mine(kinder)
    hits = []
    for identity, label in (("1", "a"), ("1", "a"), ("2", "a"), ("1", "b"), ("1", "a")):
        mine.version = identity
        hits.append((await align(mine, cache=cache, label=label)).cache_hit)
    assert hits == [False, True, False, False, True]
    other = await align(mine, replace(POLICY, tenant="team:b"), cache=cache, label="a")
    assert other.cache_hit is False
    engine = await align(mine, replace(POLICY, corrector="metaaligner"), cache=cache)
    assert engine.cache_hit is False
    await cache.aclose()


async def test_what_another_version_made_meanwhile_is_not_stored(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path / "store", 60, 4)
    mine = Mine(lambda request: replace(kinder(request), aligner="newer"))
    assert (await align(mine, cache=cache)).cache_hit is False
    assert (await align(mine, cache=cache)).cache_hit is False
    await cache.aclose()


async def test_only_a_cancellation_of_ours_leaves_the_pipeline() -> None:
    task = asyncio.create_task(align(Mine(lambda _: asyncio.sleep(3600)), runner=ThreadRunner("mine")))
    began = time.monotonic()
    while time.monotonic() - began < 0.05:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
