"""Places and engine time: who is turned away when the house is full, and whose account is empty."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.admission import Accounts, Admission, LocalAdmission
from aligner_proxy.engine.api import AlignRequest, Completion, CompletionRequest, DeferredSession
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import AnswerTooLong, EngineOverloaded, QuotaSpent, SessionLost, Shed
from aligner_proxy.types import Correction, Quota, SegmentScore
from tests.support import tiny
from tests.support.scripted import SCRIPTED, ScriptedEngine


class House(ScriptedEngine):
    """Works on a request until it is let go; `inside` are the tenants that it works for."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.most = 0
        self.doors: dict[str, asyncio.Event] = {}

    async def align(self, request: AlignRequest) -> Correction:
        self.inside.append(request.tenant)
        self.most = max(self.most, len(self.inside))
        try:
            await self.doors.setdefault(request.request_id, asyncio.Event()).wait()
            return Correction(request.answer, ms=10.0)
        finally:
            self.inside.remove(request.tenant)


def asked(name: str, tenant: str, quota: Quota | None = None) -> AlignRequest:
    return tiny.request().model_copy(update={"request_id": name, "tenant": tenant, "quota": quota})


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Crowd:
    """Tenants at the door of a house with so many seats."""

    def __init__(self, seats: int) -> None:
        self.house = House()
        self.admission = Admission(self.house, slots=seats)
        self.tasks: dict[str, asyncio.Task[Correction]] = {}

    async def come(self, tenant: str) -> str:
        """One more request of this tenant; its name."""
        name = f"{tenant}{len(self.tasks)}"
        self.tasks[name] = asyncio.create_task(self.admission.align(asked(name, tenant)))
        await settle()
        return name

    async def leave(self, name: str) -> None:
        self.house.doors[name].set()
        await settle()

    def fate(self, name: str) -> Any:
        """What became of it: None while it is inside."""
        task = self.tasks[name]
        return type(task.exception() or task.result()) if task.done() else None

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_while_there_are_places_everybody_comes_in() -> None:
    crowd = Crowd(3)
    names = [await crowd.come("a") for _ in range(3)]
    assert [crowd.fate(name) for name in names] == [None] * 3
    await crowd.leave(names[0])
    assert crowd.fate(names[0]) is Correction
    assert crowd.fate(await crowd.come("b")) is None
    await crowd.close()


async def test_one_tenant_alone_is_told_that_the_house_is_full() -> None:
    crowd = Crowd(2)
    for _ in range(2):
        await crowd.come("a")
    late = await crowd.come("a")
    assert crowd.fate(late) is EngineOverloaded
    error = crowd.tasks[late].exception()
    assert isinstance(error, EngineOverloaded)
    assert error.retry_after_s > 0
    await crowd.close()


async def test_who_has_more_than_its_share_gives_its_latest_place_away() -> None:
    crowd = Crowd(4)
    greedy = [await crowd.come("a") for _ in range(4)]
    modest = [await crowd.come("b") for _ in range(2)]
    assert [crowd.fate(name) for name in greedy] == [None, None, Shed, Shed]
    assert [crowd.fate(name) for name in modest] == [None, None]
    assert crowd.fate(await crowd.come("b")) is Shed
    assert crowd.fate(await crowd.come("a")) is Shed
    third = await crowd.come("c")
    assert crowd.fate(third) is None
    assert Counter(crowd.house.inside) in ({"a": 1, "b": 2, "c": 1}, {"a": 2, "b": 1, "c": 1})
    await crowd.close()


async def test_more_tenants_than_places_is_a_full_house_for_newcomers() -> None:
    crowd = Crowd(2)
    for tenant in ("a", "b"):
        await crowd.come(tenant)
    assert crowd.fate(await crowd.come("c")) is EngineOverloaded
    await crowd.close()


async def test_a_newcomer_that_leaves_while_it_waits_leaves_the_place_free() -> None:
    crowd = Crowd(2)
    for _ in range(2):
        await crowd.come("a")
    crowd.tasks["b"] = asyncio.create_task(crowd.admission.align(asked("b", "b")))
    await asyncio.sleep(0)
    crowd.tasks["b"].cancel()
    await settle()
    assert crowd.tasks["b"].cancelled()
    assert crowd.fate(await crowd.come("b")) is None
    assert crowd.house.most == 2
    await crowd.close()


async def test_a_client_that_leaves_is_not_taken_for_one_that_was_shed() -> None:
    crowd = Crowd(2)
    name = await crowd.come("a")
    crowd.tasks[name].cancel()
    await settle()
    assert crowd.tasks[name].cancelled()
    assert crowd.house.inside == []


STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=40)


@settings(deadline=None)
@given(st.integers(1, 6), STEPS)
def test_nobody_at_or_below_an_equal_share_gives_way_to_somebody_above(
    seats: int, steps: list[tuple[str, bool]]
) -> None:
    asyncio.run(_crowded(seats, steps))


async def _crowded(seats: int, steps: list[tuple[str, bool]]) -> None:
    crowd = Crowd(seats)
    for tenant, leaving in steps:
        inside = [name for name in crowd.tasks if crowd.fate(name) is None]
        if leaving and inside:
            await crowd.leave(inside[0])
            continue
        before = Counter(name[0] for name in inside)
        name = await crowd.come(tenant)
        shed = [one for one in inside if crowd.fate(one) is Shed]
        share = seats / len({*before, tenant})
        assert len(shed) <= 1
        assert all(before[one[0]] > share and before[tenant] + 1 <= share for one in shed)
        if crowd.fate(name) is not None:
            assert len(inside) == seats
            assert before[tenant] + 1 > share
        assert crowd.house.most <= seats
    await crowd.close()


# answers that are read ahead


class Ahead(DeferredSession):
    """A reading that knows whether anybody holds on to it."""

    closed = 0

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        return (SegmentScore(text, 0.0, False),)

    async def aclose(self) -> None:
        self.closed += 1


class Library(House):
    """A house that reads ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Ahead] = []

    async def read(self, request: AlignRequest) -> Ahead:
        self.sessions.append(Ahead(self))
        return self.sessions[-1]


async def test_what_is_read_ahead_has_a_place_until_somebody_needs_it() -> None:
    house = Library()
    admission = Admission(house, slots=2)
    first, second = [await admission.read(asked(name, "a")) for name in ("1", "2")]
    with pytest.raises(EngineOverloaded):
        await admission.read(asked("3", "b"))
    assert len(house.sessions) == 2
    task = asyncio.create_task(admission.align(asked("w", "a")))
    await settle()
    assert house.inside == ["a"]
    assert [one.closed for one in house.sessions] == [0, 1]
    assert await first.feed("Bring") != ()
    for late in (second.feed("a coat"), second.finish(asked("2", "a"))):
        with pytest.raises(SessionLost):
            await late
    await second.aclose()
    await first.aclose()
    await first.aclose()
    house.doors["w"].set()
    await task
    assert [one.closed for one in house.sessions] == [1, 1]
    assert admission._tickets == []


async def test_an_answer_that_was_read_ahead_keeps_its_place_to_its_end() -> None:
    house = Library()
    admission = Admission(house, slots=1)
    reading = await admission.read(asked("r", "a"))
    task = asyncio.create_task(reading.finish(asked("r", "a")))
    await settle()
    with pytest.raises(EngineOverloaded):
        await admission.align(asked("w", "b"))
    house.doors["r"].set()
    assert (await task).text == tiny.ANSWER
    await reading.aclose()
    assert admission._tickets == []


async def test_one_that_is_being_finished_gives_way_like_any_other() -> None:
    house = Library()
    admission = Admission(house, slots=2)
    readings = [await admission.read(asked(name, "a")) for name in "12"]
    tasks = [asyncio.create_task(one.finish(asked(name, "a"))) for one, name in zip(readings, "12", strict=True)]
    await settle()
    other = asyncio.create_task(admission.align(asked("w", "b")))
    await settle()
    assert sorted(house.inside) == ["a", "b"]
    with pytest.raises(Shed):
        await tasks[1]
    for name in "1w":
        house.doors[name].set()
    await asyncio.gather(tasks[0], other)
    assert admission._tickets == []


async def test_reading_ahead_is_charged_even_if_nobody_wants_it_in_the_end() -> None:
    clock = Clock()
    quota = Quota("acme", 1.0)
    admission = Admission(Library(), clock=clock)
    reading = await admission.read(asked("r", "a", quota))
    clock.now += 30
    await reading.aclose()
    with pytest.raises(QuotaSpent):
        await admission.read(asked("r", "a", quota))
    clock.now += 1
    reading = await admission.read(asked("r", "a", quota))
    admission._accounts.charge(quota, 1.0)
    with pytest.raises(QuotaSpent):
        await reading.finish(asked("r", "a", quota))
    assert admission._tickets == []


async def test_completions_take_places_too() -> None:
    admission = LocalAdmission(LocalEngine(tiny.aligner), slots=1)
    await admission.start()
    wanted = CompletionRequest(prompt="The harbour", max_tokens=4)
    tasks = [asyncio.create_task(admission.complete(wanted, name, 30.0)) for name in "ab"]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in done] == [Completion, EngineOverloaded]
    assert admission.load().totals.finished == 1
    await admission.aclose()


# engine time


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_account_is_refilled_evenly() -> None:
    clock = Clock()
    accounts = Accounts(clock)
    quota = Quota("acme", 6.0)
    assert not accounts.is_used_up(quota)
    accounts.charge(quota, 6.0)
    assert accounts.is_used_up(quota)
    assert not accounts.is_used_up(Quota("other", 6.0))
    clock.now += 10  # a sixth of a minute gives back a sixth of the quota
    assert not accounts.is_used_up(quota)
    accounts.charge(quota, 1.0)
    assert accounts.is_used_up(quota)
    clock.now += 59.9
    accounts.charge(quota, 0.0)
    assert accounts.is_used_up(Quota("acme", 0.0))
    clock.now += 3600
    assert accounts.is_used_up(Quota("acme", 0.0))


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 3)), min_size=1, max_size=80), st.floats(0.1, 60))
def test_in_the_long_run_nobody_gets_more_than_the_quota(steps: list[tuple[float, float]], seconds: float) -> None:
    clock = Clock()
    accounts = Accounts(clock)
    quota = Quota("acme", seconds)
    used = 0.0
    for pause, cost in steps:
        clock.now += pause
        if not accounts.is_used_up(quota):
            accounts.charge(quota, cost)
            used += cost
    longest = max(cost for _, cost in steps)
    assert used <= seconds * (1 + clock.now / 60) + longest + 1e-6


async def test_beyond_its_quota_a_tenant_is_refused_and_the_engine_left_alone() -> None:
    clock = Clock()
    quota = Quota("acme", 1.0)
    engine = ScriptedEngine(lambda request: Correction(request.answer, ms=600.0))
    admission = Admission(engine, clock=clock)
    for _ in range(2):
        await admission.align(asked("r", "a", quota))
    with pytest.raises(QuotaSpent, match="1 s of engine time a minute"):
        await admission.align(asked("r", "a", quota))
    await admission.align(asked("free", "a"))
    assert engine.seen == ["r", "r", "free"]
    clock.now += 60
    await admission.align(asked("r", "a", quota))


async def test_what_did_not_end_costs_no_more_than_a_usual_correction() -> None:
    """Or a tenant would pay for the time that it waited for others, or nothing for what it breaks off."""
    clock = Clock()
    quota = Quota("acme", 1.5)
    house = House()
    admission = Admission(house, clock=clock)
    for wait in (0.25, 1000.0):
        task = asyncio.create_task(admission.align(asked("r", "a", quota)))
        await settle()
        clock.now += wait
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    used = admission._accounts._current_use(quota)
    assert used == pytest.approx(1.0)  # of the first nothing is left by now; a usual correction is taken for 1 s


async def test_an_error_passes_and_its_place_is_free_again() -> None:
    admission = Admission(ScriptedEngine(lambda _: AnswerTooLong("long")), slots=1)
    for _ in range(3):
        with pytest.raises(AnswerTooLong):
            await admission.align(asked("r", "a"))


async def test_the_rest_is_the_engines() -> None:
    engine = ScriptedEngine()
    admission = Admission(engine)
    assert await admission.start() == await admission.info() == SCRIPTED
    await admission.aclose()
    assert engine.closed


async def test_a_real_engine_behind_it_never_sees_more_than_the_places() -> None:
    admission = LocalAdmission(LocalEngine(tiny.aligner), slots=2)
    await admission.start()
    tasks = [asyncio.create_task(admission.align(asked(f"{i}", tenant))) for i, tenant in enumerate("aaab")]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Correction, Shed, EngineOverloaded, Correction]
    assert "and this tenant already has its share" in str(results[1])
    await admission.aclose()
