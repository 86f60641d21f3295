"""The hot path, with a scripted engine: every way an answer can go, and that nothing but a cancellation escapes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.cache import CorrectionCache
from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.scripted import SCRIPTED, ScriptedEngine
from aligner_proxy.errors import AnswerTooLong, DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable
from aligner_proxy.pipeline import Pipeline, skipped_by_policy
from aligner_proxy.types import Correction, Exchange, Mode, Objective, Outcome, Policy, SkipReason, Status, Turn

KIND = Objective("kind", "Kindness: the response should never insult the reader")
POLICY = Policy("p", (KIND,), tenant="team:a")
ASKED = Exchange("call-1", 0, (Turn("user", "What?"),), "It is so. You fool.")
BETTER = "It is so."


def better(request: AlignRequest) -> str:
    return request.answer.replace(" You fool.", "")


async def align(engine: Any, exchange: Exchange = ASKED, policy: Policy = POLICY) -> Outcome:
    return await Pipeline(engine).align(exchange, policy)


async def test_a_correction_is_delivered() -> None:
    outcome = await align(ScriptedEngine(better))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.CORRECTED, None, BETTER)
    assert outcome.correction is not None
    assert outcome.cache_hit is None
    assert outcome.ms > 0


async def test_the_engine_gets_what_the_policy_says() -> None:
    heard: list[AlignRequest] = []
    policy = replace(POLICY, caution=1.5, deadline_s=3.0)
    await align(ScriptedEngine(lambda request: heard.append(request) or request.answer), policy=policy)  # type: ignore[func-returns-value]
    assert heard[0].objectives == (KIND.text,)
    assert (heard[0].caution, heard[0].deadline_s, heard[0].request_id) == (1.5, 3.0, "call-1/0")


async def test_an_equal_correction_is_unchanged() -> None:
    outcome = await align(ScriptedEngine())
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, None, ASKED.answer)


async def test_the_gate_keeps_the_original() -> None:
    outcome = await align(ScriptedEngine(lambda _: ""))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, "gate_empty", ASKED.answer)


@pytest.mark.parametrize(
    ("script", "reason"), [(better, "would_correct"), (lambda r: r.answer, "would_leave"), (lambda _: "", "gate_empty")]
)
async def test_shadow_records_and_delivers_the_original(script: Any, reason: str) -> None:
    outcome = await align(ScriptedEngine(script), policy=replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, reason, ASKED.answer)
    assert outcome.correction is not None


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (EngineUnavailable("x"), Status.FAILED, "engine_unavailable"),
        (EngineOverloaded("x"), Status.FAILED, "overloaded"),
        (DeadlineExceeded("x"), Status.FAILED, "timeout"),
        (EngineFault("x"), Status.FAILED, "engine_error"),
        (AnswerTooLong("x"), Status.SKIPPED, "too_long"),
    ],
)
async def test_every_error_has_its_reason(error: Exception, status: Status, reason: str) -> None:
    outcome = await align(ScriptedEngine(lambda _: error))
    assert (outcome.status, outcome.reason, outcome.text) == (status, reason, ASKED.answer)


async def test_a_foreign_error_is_caught_and_only_its_type_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedEngine):
        async def align(self, request: AlignRequest) -> Correction:
            raise RuntimeError(f"secret {request.answer}")

    with caplog.at_level(logging.DEBUG):
        outcome = await align(Broken())
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "internal_error", ASKED.answer)
    assert "RuntimeError" in caplog.text
    assert "fool" not in caplog.text
    assert "secret" not in caplog.text


async def test_the_deadline_holds_even_if_the_engine_ignores_it() -> None:
    class Deaf(ScriptedEngine):
        async def align(self, request: AlignRequest) -> Correction:
            await asyncio.sleep(60)
            return Correction(request.answer)

    outcome = await asyncio.wait_for(align(Deaf(), policy=replace(POLICY, deadline_s=0.05)), 5)
    assert (outcome.status, outcome.reason) == (Status.FAILED, "timeout")


async def test_cancellation_passes_and_reaches_the_engine() -> None:
    engine = ScriptedEngine(delay_s=60)
    task = asyncio.create_task(align(engine))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled == ["call-1/0"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": Mode.OFF}, SkipReason.MODE_OFF),
        ({"bypass": True}, SkipReason.BYPASS),
        ({"objectives": ()}, SkipReason.NO_OBJECTIVES),
        ({"sample": 0.0}, SkipReason.NOT_SAMPLED),
    ],
)
async def test_what_the_policy_skips_never_meets_the_engine(change: dict[str, Any], reason: SkipReason) -> None:
    engine = ScriptedEngine(better)
    outcome = await align(engine, policy=replace(POLICY, **change))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SKIPPED, reason.value, ASKED.answer)
    assert engine.seen == []


async def test_what_is_not_eligible_never_meets_the_engine() -> None:
    engine = ScriptedEngine(better)
    for exchange in (replace(ASKED, tool_calls=True), replace(ASKED, answer=None), replace(ASKED, answer=" \n")):
        assert (await align(engine, exchange)).status is Status.SKIPPED
    assert engine.seen == []


def test_sampling_is_stable_and_fair() -> None:
    policy = replace(POLICY, sample=0.25)
    drawn = [skipped_by_policy(policy, f"call-{n}") is None for n in range(4000)]
    assert drawn == [skipped_by_policy(policy, f"call-{n}") is None for n in range(4000)]
    assert 0.22 < sum(drawn) / len(drawn) < 0.28


@pytest.fixture
async def cache(tmp_path: Path) -> Any:
    made = CorrectionCache(tmp_path / "cache", 60, 16)
    yield made
    await made.aclose()


async def test_the_second_time_the_cache_answers(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(better)
    pipeline = Pipeline(engine, cache)
    first, second = [await pipeline.align(ASKED, POLICY) for _ in range(2)]
    assert (first.cache_hit, second.cache_hit, len(engine.seen)) == (False, True, 1)
    assert first.text == second.text == BETTER


async def test_an_unchanged_answer_is_remembered_too(cache: CorrectionCache) -> None:
    engine = ScriptedEngine()
    pipeline = Pipeline(engine, cache)
    assert [(await pipeline.align(ASKED, POLICY)).status for _ in range(2)] == [Status.UNCHANGED] * 2
    assert len(engine.seen) == 1


async def test_the_gate_runs_again_on_a_hit(cache: CorrectionCache, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(ScriptedEngine(better), cache)
    assert (await pipeline.align(ASKED, POLICY)).status is Status.CORRECTED
    monkeypatch.setattr("aligner_proxy.gate.check", lambda *_: SkipReason.EMPTY)
    again = await pipeline.align(ASKED, POLICY)
    assert (again.status, again.cache_hit) == (Status.UNCHANGED, True)


async def test_no_store_neither_reads_nor_writes(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(better)
    pipeline = Pipeline(engine, cache)
    for exchange in (replace(ASKED, no_store=True), ASKED, replace(ASKED, no_store=True)):
        await pipeline.align(exchange, POLICY)
    assert len(engine.seen) == 3


async def test_requests_in_flight_share_one_correction_but_not_across_tenants(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(better, delay_s=0.1)
    pipeline = Pipeline(engine, cache)
    other = replace(POLICY, tenant="team:b")
    outcomes = await asyncio.gather(*(pipeline.align(ASKED, policy) for policy in (POLICY, other, POLICY, other)))
    assert {outcome.text for outcome in outcomes} == {BETTER}
    assert len(engine.seen) == 2


async def test_without_the_namespace_in_the_key_tenants_would_share(
    cache: CorrectionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that the test above can fail: it is the namespace in the key that keeps tenants apart."""
    real = CorrectionCache.key
    monkeypatch.setattr(
        CorrectionCache,
        "key",
        lambda self, info, policy, exchange: real(self, info, replace(policy, tenant="-"), exchange),
    )
    engine = ScriptedEngine(better, delay_s=0.1)
    pipeline = Pipeline(engine, cache)
    await asyncio.gather(*(pipeline.align(ASKED, replace(POLICY, tenant=name)) for name in ("a", "b")))
    assert len(engine.seen) == 1


async def test_without_a_memory_flights_are_still_shared(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(better, delay_s=0.1)
    pipeline = Pipeline(engine, cache, remember=False)
    outcomes = await asyncio.gather(*(pipeline.align(ASKED, POLICY) for _ in range(3)))
    assert {outcome.cache_hit for outcome in outcomes} == {None}
    assert len(engine.seen) == 1
    await pipeline.align(ASKED, POLICY)
    assert len(engine.seen) == 2


async def test_a_correction_of_a_swapped_aligner_is_not_stored(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(lambda request: Correction(better(request), aligner="another"), about=SCRIPTED)
    pipeline = Pipeline(engine, cache)
    for _ in range(2):
        assert (await pipeline.align(ASKED, POLICY)).status is Status.CORRECTED
    assert len(engine.seen) == 2
