"""The hot path, with a scripted engine: every way an answer can go, and that nothing but a cancellation escapes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.engine.api import AlignRequest, DeferredSession
from aligner_proxy.errors import (
    AnswerTooLong,
    BreakerOpen,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
    QuotaSpent,
    Shed,
)
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.pipeline import pipeline
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.outcomes import MORE_CAUTION, blocks
from aligner_proxy.pipeline.pipeline import Pipeline, StageList, _TextCorrection
from aligner_proxy.plugins.stage import AnswerSoFar
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Allowance,
    Correction,
    Exchange,
    FailureClass,
    FailurePolicy,
    Mode,
    Objective,
    OnError,
    Outcome,
    Policy,
    Quota,
    SegmentScore,
    SkipReason,
    Status,
    Turn,
)
from tests.support.scripted import SCRIPTED, ScriptedEngine

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
    assert (heard[0].caution, heard[0].request_id) == (1.5, "call-1/0")
    assert 0 < heard[0].deadline_s < 3.0
    assert heard[0].heads == ()


async def test_the_engine_gets_the_head_of_each_objective_that_has_one() -> None:
    heard: list[AlignRequest] = []
    engine = ScriptedEngine(lambda request: heard.append(request) or request.answer)  # type: ignore[func-returns-value]
    objectives = (Objective("short", "Brevity: short"), replace(KIND, head="1" * 64))
    await align(engine, policy=replace(POLICY, objectives=objectives))
    assert heard[0].objectives == ("Brevity: short", KIND.text)
    assert heard[0].heads == ("", "1" * 64)


async def test_an_answer_read_under_one_head_is_sent_anew_under_another() -> None:
    """What was read ahead is good for the very question that was read."""
    finished: list[str] = []

    class Reading(ScriptedEngine):
        async def read(self, request: AlignRequest) -> DeferredSession:
            return Session(self)

    class Session(DeferredSession):
        async def finish(self, request: AlignRequest) -> Correction:
            finished.append(request.heads[0])
            return await super().finish(request)

    policies = [replace(POLICY, objectives=(replace(KIND, head=name * 64),)) for name in "12"]
    pipeline = Pipeline(Reading())
    for at_end in policies:
        session = await pipeline.read(ASKED, policies[0])
        correction = _TextCorrection(pipeline, ASKED, policies[0], time.monotonic() + 5, session)
        await correction.correct(ASKED.answer or "", at_end)
    assert finished == ["1" * 64]


async def test_an_equal_correction_is_unchanged() -> None:
    outcome = await align(ScriptedEngine())
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, None, ASKED.answer)


async def test_the_gate_keeps_the_original() -> None:
    outcome = await align(ScriptedEngine(lambda _: ""))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, "gate_empty", ASKED.answer)


async def test_the_gate_keeps_the_good_edits() -> None:
    asked = replace(ASKED, answer="It costs 30 euros, you fool. Ask them. You oaf! Go home.")

    def script(request: AlignRequest) -> Correction:
        pieces = [piece.text for piece in split(request.answer)]
        segments = tuple(SegmentScore(text, 1.0, i % 2 == 0) for i, text in enumerate(pieces))
        return Correction("It costs 40 euros. Ask them. Go home.", segments)

    outcome = await align(ScriptedEngine(script), asked)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "gate_partly:lost_number")
    assert outcome.text == "It costs 30 euros, you fool. Ask them. Go home."
    assert (outcome.edits, outcome.dropped) == (2, ("lost_number",))
    shadow = await align(ScriptedEngine(script), asked, replace(POLICY, mode=Mode.SHADOW))
    assert (shadow.status, shadow.reason, shadow.text) == (Status.SHADOW, "gate_partly:lost_number", asked.answer)


@pytest.mark.parametrize(
    ("script", "reason"), [(better, "would_correct"), (lambda r: r.answer, "would_leave"), (lambda _: "", "gate_empty")]
)
async def test_shadow_records_and_delivers_the_original(script: Any, reason: str) -> None:
    outcome = await align(ScriptedEngine(script), policy=replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, reason, ASKED.answer)
    assert outcome.edited == (BETTER if reason == "would_correct" else ASKED.answer)
    assert outcome.correction is not None


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (EngineUnavailable("x"), Status.FAILED, "engine_unavailable"),
        (EngineOverloaded("x"), Status.FAILED, "overloaded"),
        (DeadlineExceeded("x"), Status.FAILED, "timeout"),
        (EngineFault("x"), Status.FAILED, "engine_error"),
        (InvalidOutput("x"), Status.FAILED, "invalid_output"),
        (BreakerOpen("x", 1.0), Status.FAILED, "breaker_open"),
        (Shed("x"), Status.FAILED, "shed"),
        (QuotaSpent("x"), Status.SKIPPED, "quota"),
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


async def test_a_report_that_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports of a long answer are made in a thread, which nobody can stop."""
    end = threading.Event()

    def report(stages: StageList, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        end.wait(60)
        return replace(outcome, renumbered=7)

    monkeypatch.setattr(pipeline, "_LEAST_REPORT_S", 0.05)
    monkeypatch.setattr(StageList, "report", report)
    stages_with = StageList.stages_with
    monkeypatch.setattr(
        StageList, "stages_with", lambda stages, name: (object(),) if name == "report" else stages_with(stages, name)
    )
    answer = "Paint the fence with a brush. " * 40
    exchange = replace(ASKED, answer=f"{answer}You fool.")
    outcome = await align(ScriptedEngine(lambda _: answer), exchange, replace(POLICY, deadline_s=2.0))
    end.set()
    assert (outcome.status, outcome.renumbered) == (Status.CORRECTED, 0)


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
    ],
)
async def test_what_the_policy_skips_never_meets_the_engine(change: dict[str, Any], reason: SkipReason) -> None:
    engine = ScriptedEngine(better)
    outcome = await align(engine, policy=replace(POLICY, **change))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SKIPPED, reason.value, ASKED.answer)
    assert engine.seen == []


async def test_what_is_not_eligible_never_meets_the_engine() -> None:
    engine = ScriptedEngine(better)
    for exchange in (replace(ASKED, logprobs=True), replace(ASKED, answer=None), replace(ASKED, answer=" \n")):
        assert (await align(engine, exchange)).status is Status.SKIPPED
    assert engine.seen == []


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
    monkeypatch.setattr("aligner_proxy.gate.judge._verdict_cache", OrderedDict())  # as after an upgrade
    monkeypatch.setattr("aligner_proxy.gate.judge.judge", lambda original, *_: Verdict(original, "gate_x", 1, ("x",)))
    again = await pipeline.align(ASKED, POLICY)
    assert (again.status, again.cache_hit, again.dropped) == (Status.UNCHANGED, True, ("x",))


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


async def test_two_aligners_of_one_engine_share_nothing_in_the_cache(cache: CorrectionCache) -> None:
    about = replace(SCRIPTED, others={"legal": replace(SCRIPTED, content_hash="legal's")})
    pipeline = Pipeline(ScriptedEngine(lambda r: f"{r.aligner} says so.", about=about), cache)
    policies = POLICY, replace(POLICY, aligner="legal"), replace(POLICY, aligner="nobody")
    first = [await pipeline.align(ASKED, policy) for policy in policies]
    again = [await pipeline.align(ASKED, policy) for policy in policies[:2]]
    said = [o.correction.text for o in (*first[:2], *again) if o.correction]
    assert said == ["default says so.", "legal says so."] * 2
    assert [o.cache_hit for o in again] == [True, True]
    assert (first[2].status, first[2].reason, first[2].text) == (Status.FAILED, "unknown_aligner", ASKED.answer)


async def test_a_correction_of_a_swapped_aligner_is_not_stored(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(lambda request: Correction(better(request), aligner="another"), about=SCRIPTED)
    pipeline = Pipeline(engine, cache)
    for _ in range(2):
        assert (await pipeline.align(ASKED, POLICY)).status is Status.CORRECTED
    assert len(engine.seen) == 2


# what follows a failure


def failing(*kinds: str, **policy: Any) -> Policy:
    """The policy with these classes tried again."""
    return replace(POLICY, on_error=FailurePolicy(**dict.fromkeys(kinds, OnError.RETRY)), **policy)


def scripted(*said: str | Exception) -> ScriptedEngine:
    """An engine that says these one after the other."""
    rest = list(said)
    return ScriptedEngine(lambda _: rest.pop(0))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timeout", DeadlineExceeded("x")),
        ("overload", EngineOverloaded("x", 0.01)),
        ("overload", Shed("x", 0.01)),
        ("engine_down", EngineUnavailable("x")),
        ("engine_down", BreakerOpen("x", 0.01)),
        ("invalid_output", InvalidOutput("x")),
        ("bug", EngineFault("x")),
        ("bug", ValueError("x")),
    ],
)
async def test_a_failure_is_tried_again_where_the_policy_says_so(kind: str, error: Exception) -> None:
    outcome = await align(scripted(error, BETTER), policy=failing(kind))
    assert (outcome.status, outcome.text, outcome.attempts) == (Status.CORRECTED, BETTER, 2)
    others = {each.value for each in FailureClass} - {kind}
    outcome = await align(scripted(error, BETTER), policy=failing(*others))
    assert (outcome.status, outcome.text, outcome.attempts) == (Status.FAILED, ASKED.answer, 1)


class Ahead(DeferredSession):
    """What an engine read ahead; it is good for one end, and that one comes to `said`."""

    def __init__(self, engine: ScriptedEngine, said: Exception | Correction) -> None:
        super().__init__(engine)
        self.said = said
        self.finished = list[AlignRequest]()
        self.closed = 0

    async def finish(self, request: AlignRequest) -> Correction:
        self.finished.append(request)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("said", [EngineFault("broken"), RuntimeError("broken")])
async def test_what_was_read_ahead_is_good_for_one_try(said: Exception) -> None:
    engine = scripted(BETTER)
    reading = Ahead(engine, said)
    outcome = await Pipeline(engine).align(ASKED, failing("bug"), reading)
    assert (outcome.status, outcome.attempts) == (Status.CORRECTED, 2)
    assert (len(reading.finished), reading.closed, len(engine.seen)) == (1, 1, 1)


async def test_after_the_gate_the_more_careful_try_reads_the_whole() -> None:
    heard: list[float] = []
    engine = ScriptedEngine(lambda request: heard.append(request.caution) or BETTER)  # type: ignore[func-returns-value]
    reading = Ahead(engine, Correction("No."))
    outcome = await Pipeline(engine).align(ASKED, failing("gate"), reading)
    assert (outcome.status, outcome.attempts) == (Status.CORRECTED, 2)
    assert heard == [reading.finished[0].caution + MORE_CAUTION]


async def test_a_fault_that_stays_is_tried_twice_and_no_more() -> None:
    engine = ScriptedEngine(lambda _: EngineFault("x"))
    outcome = await align(engine, policy=failing("bug"))
    assert (outcome.reason, outcome.attempts, len(engine.seen)) == ("engine_error", 2, 2)


async def test_a_retry_gets_only_what_is_left() -> None:
    left: list[float] = []

    def script(request: AlignRequest) -> str | Exception:
        left.append(request.deadline_s)
        return EngineUnavailable("x") if len(left) < 3 else BETTER

    await align(ScriptedEngine(script), policy=failing("engine_down", deadline_s=5.0))
    assert 5.0 > left[0] > left[1] > left[2] > 0


async def test_nothing_is_retried_past_the_deadline() -> None:
    engine = ScriptedEngine(lambda _: EngineOverloaded("full", 60.0))
    outcome = await align(engine, policy=failing("overload", deadline_s=5.0))
    assert (outcome.reason, outcome.attempts, len(engine.seen)) == ("overloaded", 1, 1)


async def test_a_hung_try_leaves_time_for_another_one() -> None:
    class Hung(ScriptedEngine):
        async def align(self, request: AlignRequest) -> Correction:
            if not self.seen:
                self.seen.append(request.request_id)
                await asyncio.sleep(60)
            return await super().align(request)

    outcome = await align(Hung(better), policy=failing("timeout", deadline_s=4.0))
    assert (outcome.status, outcome.attempts) == (Status.CORRECTED, 2)


async def test_after_the_gate_a_more_careful_correction_is_asked_for(cache: CorrectionCache) -> None:
    engine = ScriptedEngine(lambda request: "" if request.caution < 1 else better(request))
    pipeline = Pipeline(engine, cache)
    for hit in (False, True):
        outcome = await pipeline.align(ASKED, failing("gate"))
        assert (outcome.status, outcome.text, outcome.attempts) == (Status.CORRECTED, BETTER, 2)
        assert (outcome.cache_hit, outcome.policy) == (hit, failing("gate"))
    assert len(engine.seen) == 2


async def test_a_refused_correction_can_cost_the_answer_where_the_policy_says_so() -> None:
    policy = replace(POLICY, on_error=FailurePolicy(gate=OnError.BLOCK))
    outcome = await align(ScriptedEngine(lambda _: ""), policy=policy)
    assert (outcome.status, outcome.reason, blocks(outcome)) == (Status.FAILED, "gate_empty", True)
    shadow = await align(ScriptedEngine(lambda _: ""), policy=replace(policy, mode=Mode.SHADOW))
    assert (shadow.status, blocks(shadow)) == (Status.SHADOW, False)


async def test_cancellation_passes_between_two_tries() -> None:
    engine = ScriptedEngine(lambda _: EngineOverloaded("full", 30.0))
    task = asyncio.create_task(align(engine, policy=failing("overload", deadline_s=100.0)))
    while not engine.seen:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(engine.seen) == 1


async def test_a_tenant_beyond_its_quota_is_skipped_and_never_an_error() -> None:
    policy = replace(POLICY, on_error=FailurePolicy(*[OnError.BLOCK] * 6), quota=Quota("tenant team:a", 2.0))
    heard: list[AlignRequest] = []

    def script(request: AlignRequest) -> Exception:
        heard.append(request)
        return QuotaSpent("used up")

    outcome = await align(ScriptedEngine(script), policy=policy)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SKIPPED, "quota", ASKED.answer)
    assert not blocks(outcome)
    assert heard[0].quota is not None
    assert heard[0].quota.seconds == 2.0
    assert "team" not in heard[0].model_dump_json(include={"tenant", "quota"})


@pytest.mark.parametrize(("own", "common"), [((), 2), ((1,), 1), ((0, 1), 0), ((0,), 0)])
async def test_the_engine_is_told_which_objectives_no_request_brought(own: tuple[int, ...], common: int) -> None:
    """What it computes of those serves other tenants, too; what stands behind the first of a request does not."""
    objectives = [KIND, Objective("concise", "Concise: be brief")]
    for number in own:
        objectives[number] = replace(objectives[number], allowance=Allowance())
    seen: list[int] = []

    def script(request: AlignRequest) -> str:
        seen.append(request.common)
        return better(request)

    await align(ScriptedEngine(script), policy=replace(POLICY, objectives=tuple(objectives)))
    assert seen == [common]
