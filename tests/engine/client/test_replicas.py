"""Several engines as one: who is asked, who rests, and that one that fails costs nobody an answer."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.client.circuit_breaker import FIRST_PAUSE_S, THRESHOLD
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import LONGEST_PAUSE_S, Replicas
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    QuotaSpent,
    UnknownAligner,
)
from aligner_proxy.types import Correction
from tests.support import tiny
from tests.support.sampling import examples
from tests.support.scripted import SCRIPTED, ScriptedEngine
from tests.support.serving import engine_at, refused_port


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def replicas(*engines: Engine, clock: Clock | None = None, wait_s: float = 0.0) -> Replicas:
    """Engines called 0, 1, 2 ..."""
    named = [(str(i), engine) for i, engine in enumerate(engines)]
    return Replicas(named, wait_s=wait_s, clock=clock or Clock())


def failing(error: CorrectionError) -> ScriptedEngine:
    """One that always says this."""
    return ScriptedEngine(lambda _: error)


async def test_the_least_loaded_one_is_asked_and_equals_take_turns() -> None:
    engines = [ScriptedEngine(delay_s=0.2) for _ in range(3)]
    together = replicas(*engines)
    await asyncio.gather(*(together.align(tiny.request()) for _ in range(9)))
    assert [len(engine.seen) for engine in engines] == [3, 3, 3]
    assert [replica.busy for replica in together.replicas] == [0, 0, 0]
    slow = ScriptedEngine(delay_s=5.0)
    quick = ScriptedEngine()
    together = replicas(slow, quick)
    held = asyncio.create_task(together.align(tiny.request()))
    await asyncio.sleep(0.01)
    for _ in range(5):
        await together.align(tiny.request())
    assert (len(slow.seen), len(quick.seen)) == (1, 5)
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert slow.cancelled
    assert together.replicas[0].busy == 0


@pytest.mark.parametrize("error", [EngineUnavailable("x"), EngineFault("x"), EngineOverloaded("x", 0.1)])
async def test_one_that_fails_costs_nobody_an_answer(error: CorrectionError) -> None:
    good = ScriptedEngine()
    together = replicas(failing(error), good)
    for _ in range(6):
        assert (await together.align(tiny.request())).text == tiny.ANSWER
    assert len(good.seen) == 6


async def test_one_that_is_away_rests_ever_longer_proves_itself_and_is_forgiven() -> None:
    clock = Clock()
    away = failing(EngineUnavailable("x"))
    good = ScriptedEngine()
    together = replicas(away, good, clock=clock)
    for _ in range(10):
        await together.align(tiny.request())
    assert len(away.seen) == 1
    rest = FIRST_PAUSE_S
    for seen in range(2, 12):
        clock.now += rest + 0.01
        for _ in range(3):
            await together.align(tiny.request())
        assert len(away.seen) == seen
        rest = min(rest * 2, LONGEST_PAUSE_S)
    away.script = lambda request: request.answer
    clock.now += rest + 0.01
    for _ in range(8):
        await together.align(tiny.request())
    assert len(away.seen) >= 11 + 4
    assert together.replicas[0].healthy


async def test_after_its_pause_a_replica_is_tried_by_one_request_at_a_time() -> None:
    clock = Clock()
    sick = failing(EngineUnavailable("x"))
    good = ScriptedEngine()
    together = replicas(sick, good, clock=clock)
    await asyncio.gather(*(together.align(tiny.request()) for _ in range(4)))
    assert together.replicas[0].circuit.pause_s == FIRST_PAUSE_S, "failures of the same moment count as one"
    clock.now += FIRST_PAUSE_S
    before = len(sick.seen)
    sick.delay_s = 0.05
    await asyncio.gather(*(together.align(tiny.request()) for _ in range(4)))
    assert len(sick.seen) == before + 1
    assert together.replicas[0].circuit.pause_s == 2 * FIRST_PAUSE_S


async def test_a_trial_that_is_given_up_says_nothing_about_a_replica() -> None:
    clock = Clock()
    sick = failing(EngineUnavailable("x"))
    good = ScriptedEngine()
    together = replicas(sick, good, clock=clock)
    await asyncio.gather(*(together.align(tiny.request()) for _ in range(2)))
    clock.now += FIRST_PAUSE_S
    sick.delay_s = 9.0
    trial = asyncio.create_task(together.align(tiny.request()))
    await asyncio.sleep(0.01)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert together.replicas[0].is_due(clock.now)
    assert together.replicas[0].circuit.pause_s == FIRST_PAUSE_S


async def test_an_outlier_among_good_ones_rests_after_some_faults() -> None:
    bad = failing(EngineFault("x"))
    good = ScriptedEngine()
    together = replicas(bad, good)
    for _ in range(20):
        await together.align(tiny.request())
    assert len(bad.seen) == THRESHOLD


async def test_a_single_fault_is_bad_luck() -> None:
    said = iter([EngineFault("x")])
    unlucky = ScriptedEngine(lambda request: next(said, request.answer))
    good = ScriptedEngine()
    together = replicas(unlucky, good)
    for _ in range(10):
        await together.align(tiny.request())
    assert len(unlucky.seen) == 5


async def test_when_all_rest_all_are_tried_and_the_gravest_word_is_reported() -> None:
    with pytest.raises(EngineUnavailable, match="none of 2 engines answers"):
        await replicas(failing(EngineUnavailable("x")), failing(EngineUnavailable("x"))).align(tiny.request())
    with pytest.raises(EngineFault, match="broken"):
        await replicas(failing(EngineFault("broken")), failing(EngineUnavailable("x"))).align(tiny.request())
    with pytest.raises(EngineOverloaded, match="full"):
        await replicas(failing(EngineUnavailable("x")), failing(EngineOverloaded("full"))).align(tiny.request())
    away = [failing(EngineUnavailable("x")) for _ in range(3)]
    together = replicas(*away)
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await together.align(tiny.request())
    away[2].script = lambda request: request.answer
    assert (await together.align(tiny.request())).text == tiny.ANSWER


async def test_what_is_no_fault_of_an_engine_is_not_asked_twice() -> None:
    first = failing(AnswerTooLong("x"))
    second = failing(AnswerTooLong("x"))
    together = replicas(first, second)
    with pytest.raises(AnswerTooLong):
        await together.align(tiny.request())
    assert len(first.seen) + len(second.seen) == 1
    assert all(not replica.circuit.loss_count for replica in together.replicas)


async def test_a_tenant_without_quota_and_a_wrong_name_make_no_outliers() -> None:
    for error, asked in ((QuotaSpent("used up"), 1), (UnknownAligner("nobody"), 2)):
        engines = [failing(error), failing(error)]
        together = replicas(*engines)
        for _ in range(10):
            with pytest.raises(type(error)):
                await together.align(tiny.request())
        assert all(replica.healthy for replica in together.replicas)
        assert sum(len(engine.seen) for engine in engines) == 10 * asked


async def test_the_deadline_is_the_requests_whoever_is_asked() -> None:
    with pytest.raises(DeadlineExceeded):
        await replicas(ScriptedEngine(delay_s=9), ScriptedEngine(delay_s=9)).align(tiny.request(deadline_s=0.2))


async def test_one_that_proves_itself_and_hangs_leaves_the_others_time() -> None:
    clock = Clock()
    sick = failing(EngineUnavailable("x"))
    good = ScriptedEngine()
    together = replicas(sick, good, clock=clock)
    await together.align(tiny.request())
    await together.align(tiny.request())
    clock.now += FIRST_PAUSE_S + 0.1
    sick.delay_s = 9.0
    before = len(good.seen)
    assert (await together.align(tiny.request(deadline_s=1.0))).text == tiny.ANSWER
    assert len(good.seen) == before + 1


async def test_patience_waits_for_the_first_that_comes_back() -> None:
    said = iter([EngineUnavailable("x")] * 4)
    slow = ScriptedEngine(lambda request: next(said, request.answer))
    together = Replicas([("a", slow)], wait_s=5.0)
    assert (await together.align(tiny.request())).text == tiny.ANSWER
    assert len(slow.seen) == 5


async def test_replicas_of_different_aligners_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    other = ScriptedEngine(about=replace(SCRIPTED, content_hash="f" * 64))
    together = replicas(ScriptedEngine(), other)
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            await together.align(tiny.request())
    assert len([r for r in caplog.records if "serves aligner" in r.message]) == 1


async def test_real_engines_over_sockets_one_of_which_dies() -> None:
    steady = ScriptedEngine()
    dying = ScriptedEngine()
    async with engine_at(steady) as good:
        async with engine_at(dying) as bad:
            clients = [(at, HttpEngine(at, wait_s=0.0)) for at in (bad, good)]
            together = Replicas(clients)
            for _ in range(4):
                await together.align(tiny.request())
            assert len(dying.seen) == len(steady.seen) == 2
            assert (await together.info()).model == "scripted"
            reading = await together.read(tiny.request(""))
            await reading.feed("The harbour")
        for _ in range(4):
            assert (await together.align(tiny.request())).text == tiny.ANSWER
        assert (await reading.finish(tiny.request())).text == tiny.ANSWER
        await reading.aclose()
        assert [replica.busy for replica in together.replicas] == [0, 0]
        await together.aclose()
    assert len(steady.seen) >= 6


async def test_nobody_there_at_all() -> None:
    ports = [refused_port() for _ in range(2)]
    clients = [(str(p), HttpEngine(f"http://127.0.0.1:{p}", wait_s=0.0)) for p in ports]
    together = Replicas(clients, wait_s=0.0)
    with pytest.raises(EngineUnavailable, match="none of 2"):
        await together.info()
    await together.aclose()


Said = st.sampled_from(["good", "away", "fault", "full"])


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.tuples(st.lists(Said, min_size=3, max_size=3), st.floats(0, 3)), min_size=1, max_size=25))
async def test_whoever_can_answer_does(rounds: list[tuple[list[str], float]]) -> None:
    """Whatever the engines did before: as long as one of them works, the request is answered, and loads add up."""
    clock = Clock()
    errors = {"away": EngineUnavailable("x"), "fault": EngineFault("x"), "full": EngineOverloaded("x", 0.0)}
    mood = ["good"] * 3

    def script(number: int) -> ScriptedEngine:
        def say(request: AlignRequest) -> str | Correction | Exception:
            return errors.get(mood[number], request.answer)

        return ScriptedEngine(say)

    together = replicas(*(script(i) for i in range(3)), clock=clock)
    for said, pause in rounds:
        mood[:] = said
        clock.now += pause
        if "good" in said:
            assert (await together.align(tiny.request())).text == tiny.ANSWER
        else:
            with pytest.raises(CorrectionError):
                await together.align(tiny.request())
        assert [replica.busy for replica in together.replicas] == [0, 0, 0]
