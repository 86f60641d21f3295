"""The circuit breaker: its state machine alone, and in front of an engine that dies, hangs and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aligner_proxy.engine.api import AlignerInfo, AlignRequest, DeferredSession
from aligner_proxy.engine.client.circuit_breaker import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    PROBE,
    THRESHOLD,
    Breaker,
    Circuit,
    State,
)
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import (
    AnswerTooLong,
    BreakerOpen,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.types import Correction, SegmentScore
from tests.support import tiny
from tests.support.sampling import examples
from tests.support.scripted import ScriptedEngine


class Machine(RuleBasedStateMachine):
    """Whatever happens in whatever order: one probe at a time, open means closed to requests, life closes it."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0.0
        self.probes = 0

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(late=st.booleans())
    def a_request_fails(self, late: bool) -> None:
        before = self.circuit.loss_count
        self.circuit.note_failure(self.now, late=late)
        if not late and before + 1 >= THRESHOLD:
            assert self.circuit.state is not State.CLOSED

    @rule()
    def the_engine_speaks(self) -> None:
        self.circuit.note_answer()
        assert self.circuit.state is State.CLOSED
        assert not self.circuit.loss_count
        assert not self.circuit.timeout_count

    @precondition(lambda self: self.circuit.wants_probe(self.now))
    @rule()
    def a_probe_begins(self) -> None:
        self.circuit.begin_probe()
        self.probes += 1
        assert not self.circuit.wants_probe(self.now)

    @precondition(lambda self: self.probes)
    @rule(alive=st.sampled_from([True, False, None]))
    def a_probe_ends(self, alive: bool | None) -> None:
        self.circuit.end_probe(alive=alive, now=self.now)
        self.probes -= 1
        if alive is False:
            assert self.circuit.state is State.OPEN
            assert self.circuit.paused_until > self.now
        if alive:
            assert self.circuit.state is State.CLOSED

    @invariant()
    def one_probe_at_most(self) -> None:
        assert self.probes == int(self.circuit.is_probing) <= 1

    @invariant()
    def only_a_probe_is_half_open(self) -> None:
        assert self.circuit.state is not State.HALF_OPEN or self.circuit.is_probing

    @invariant()
    def nobody_is_left_alone_for_long(self) -> None:
        assert FIRST_PAUSE_S <= self.circuit.pause_s <= LONGEST_PAUSE_S
        if self.circuit.state is State.OPEN:
            assert self.circuit.paused_until - self.now <= LONGEST_PAUSE_S
            assert self.circuit.is_probing or self.circuit.wants_probe(self.circuit.paused_until)


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, max_examples=examples(60))


class World:
    """An engine that does as it is told, a clock, and what the breaker said of itself."""

    def __init__(self, said: Exception | str = "edited") -> None:
        self.said: Exception | str = said
        self.now = 0.0
        self.states = list[State]()
        self.engine = ScriptedEngine(lambda _: self.said)
        self.breaker = Breaker(self.engine, self.states.append, clock=lambda: self.now)

    async def outcome(self) -> str:
        """What one request comes to."""
        try:
            return (await self.breaker.align(tiny.request())).text
        except CorrectionError as error:
            return error.reason

    async def several(self, count: int) -> list[str]:
        return [await self.outcome() for _ in range(count)]


@pytest.mark.parametrize("error", [EngineUnavailable("gone"), InvalidOutput("garbage")])
async def test_after_a_few_losses_nobody_waits_for_a_dead_engine(error: Exception) -> None:
    world = World(error)
    assert await world.several(THRESHOLD + 3) == [error.reason] * THRESHOLD + ["breaker_open"] * 3  # type: ignore[attr-defined]
    assert len(world.engine.seen) == THRESHOLD
    assert world.states == [State.CLOSED, State.OPEN]


async def test_an_engine_that_is_back_is_found_by_the_next_request_after_the_pause() -> None:
    world = World(EngineUnavailable("gone"))
    await world.several(THRESHOLD)
    world.said = "edited"
    assert await world.outcome() == "breaker_open"
    world.now += FIRST_PAUSE_S
    assert await world.several(2) == ["edited", "edited"]
    assert world.engine.seen[THRESHOLD:] == ["probe", "r1", "r1"]
    assert world.states == [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED]


async def test_the_pause_grows_and_is_forgiven() -> None:
    world = World(EngineUnavailable("gone"))
    await world.several(THRESHOLD)
    pauses = []
    for _ in range(6):
        pauses.append(world.breaker.circuit.paused_until - world.now)
        world.now = world.breaker.circuit.paused_until
        assert await world.several(2) == ["breaker_open"] * 2
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert world.engine.seen[THRESHOLD:] == ["probe"] * 6
    world.now = world.now + 10
    world.said = "edited"
    await world.outcome()
    world.said = EngineUnavailable("gone")
    await world.several(THRESHOLD)
    assert world.breaker.circuit.paused_until - world.now == FIRST_PAUSE_S


@pytest.mark.parametrize("error", [EngineOverloaded("full"), EngineFault("broken"), AnswerTooLong("long")])
async def test_an_engine_that_refuses_is_alive(error: Exception) -> None:
    world = World(EngineUnavailable("gone"))
    await world.several(THRESHOLD - 1)
    world.said = error
    await world.several(10)
    world.said = EngineUnavailable("gone")
    await world.several(THRESHOLD - 1)
    assert world.states == [State.CLOSED]
    await world.outcome()
    world.now = world.now + 10
    world.said = error
    assert await world.outcome() == error.reason  # type: ignore[attr-defined]
    assert world.states[-1] is State.CLOSED


async def test_one_tenants_short_deadlines_turn_nobody_away() -> None:
    world = World(DeadlineExceeded("late"))
    assert await world.several(THRESHOLD) == ["timeout"] * THRESHOLD
    world.said = "edited"
    assert await world.several(2) == ["edited"] * 2
    assert world.states == [State.CLOSED]
    assert world.engine.seen[THRESHOLD:] == ["probe", "r1", "r1"]


class Hanging(ScriptedEngine):
    """Answers nothing, or only its description."""

    hung = True

    async def align(self, request: AlignRequest) -> Correction:
        if self.hung:
            self.seen.append(request.request_id)
            async with asyncio.timeout(request.deadline_s):
                await asyncio.Event().wait()
        return await super().align(request)


async def test_a_hung_engine_that_still_describes_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "aligner_proxy.engine.client.circuit_breaker.PROBE", PROBE.model_copy(update={"deadline_s": 0.05})
    )
    engine = Hanging()
    breaker = Breaker(engine)
    for _ in range(THRESHOLD):
        await breaker.info()
        breaker.circuit.note_failure(0, late=True)
    with pytest.raises(BreakerOpen):
        await breaker.align(tiny.request(deadline_s=60.0))
    for ask in (breaker.info, lambda: breaker.align(tiny.request())):
        with pytest.raises(BreakerOpen) as caught:
            await ask()
        assert 0 < caught.value.retry_after_s <= FIRST_PAUSE_S
    assert engine.seen == ["probe"]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


async def test_one_request_probes_and_the_others_do_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "aligner_proxy.engine.client.circuit_breaker.PROBE", PROBE.model_copy(update={"deadline_s": 0.3})
    )
    engine = Hanging()
    breaker = Breaker(engine)
    for _ in range(THRESHOLD):
        breaker.circuit.note_failure(-1e9, late=False)
    probing = asyncio.create_task(breaker.align(tiny.request()))
    await until(lambda: engine.seen == ["probe"])
    for _ in range(2):
        with pytest.raises(BreakerOpen):
            await breaker.align(tiny.request())
    probing.cancel()  # its deadline, or its client: the question is answered without it
    with pytest.raises(asyncio.CancelledError):
        await probing
    assert breaker.circuit.state is State.HALF_OPEN
    await until(lambda: breaker.circuit.state is State.OPEN)
    engine.hung = False
    breaker.circuit.paused_until = 0.0
    assert (await breaker.align(tiny.request())).text == tiny.ANSWER
    assert engine.seen == ["probe", "probe", "r1"]


async def test_of_many_requests_at_once_one_asks() -> None:
    engine = ScriptedEngine()
    breaker = Breaker(engine)
    for _ in range(THRESHOLD):
        breaker.circuit.note_failure(-1e9, late=False)
    results = await asyncio.gather(*(breaker.align(tiny.request()) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [Correction] + [BreakerOpen] * 4
    assert engine.seen == ["probe", "r1"]


async def test_a_deadline_shorter_than_the_question_does_not_keep_a_hung_engine_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "aligner_proxy.engine.client.circuit_breaker.PROBE", PROBE.model_copy(update={"deadline_s": 0.3})
    )
    breaker = Breaker(Hanging())
    breaker.circuit.timeout_count = THRESHOLD
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await breaker.align(tiny.request())
    assert breaker.circuit.state is State.CLOSED  # others are not turned away while it is only slow
    await until(lambda: breaker.circuit.state is State.OPEN)
    await breaker.aclose()


async def test_closing_ends_the_question() -> None:
    engine = Hanging()
    breaker = Breaker(engine)
    breaker.circuit.timeout_count = THRESHOLD
    asking = asyncio.create_task(breaker.align(tiny.request()))
    await until(lambda: engine.seen == ["probe"])
    await breaker.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not breaker.circuit.is_probing


async def test_a_request_that_probed_has_less_time_left() -> None:
    heard: list[tuple[str, float]] = []
    times = iter([0.0, 0.0, 1.5, 1.5])
    engine = ScriptedEngine(lambda request: heard.append((request.request_id, request.deadline_s)) or "x")  # type: ignore[func-returns-value]
    breaker = Breaker(engine, clock=lambda: next(times))
    breaker.circuit.timeout_count = THRESHOLD
    await breaker.align(tiny.request(deadline_s=10.0))
    assert heard == [("probe", PROBE.deadline_s), ("r1", 8.5)]


async def test_a_description_that_cannot_be_had_counts_and_one_that_is_remembered_does_not() -> None:
    class Gone(ScriptedEngine):
        async def info(self) -> AlignerInfo:
            raise EngineUnavailable("gone")

    breaker = Breaker(Gone())
    for _ in range(THRESHOLD):
        with pytest.raises(EngineUnavailable):
            await breaker.info()
    assert breaker.circuit.state is State.OPEN
    remembering = Breaker(ScriptedEngine())
    remembering.circuit.loss_count = THRESHOLD - 1
    await remembering.info()
    assert remembering.circuit.loss_count == THRESHOLD - 1


async def test_a_real_model_answers_the_probe_and_leaves_it_as_it_is() -> None:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    assert (await engine.align(PROBE)).text == PROBE.answer
    await engine.aclose()


@pytest.mark.parametrize(("waited", "late"), [(0.1, 0), (0.3, 1)])
async def test_a_description_that_is_given_up_after_a_while_is_late(waited: float, late: int) -> None:
    class Silent(ScriptedEngine):
        async def info(self) -> AlignerInfo:
            return await asyncio.Event().wait()  # type: ignore[return-value]

    times = iter([0.0, 0.0, waited, waited])
    breaker = Breaker(Silent(), clock=lambda: next(times))
    task = asyncio.create_task(breaker.info())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.circuit.timeout_count == late


class Reader(ScriptedEngine):
    """Reads ahead; `said` is what the end of a reading comes to."""

    def __init__(self, said: str | Exception = "edited") -> None:
        super().__init__(lambda _: said)
        self.heard: list[str] = []
        self.closed_readings = 0

    async def read(self, request: AlignRequest) -> DeferredSession:
        return Heard(self)


class Heard(DeferredSession):
    def __init__(self, engine: Reader) -> None:
        super().__init__(engine)
        self.reader = engine

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        self.reader.heard.append(text)
        return ()

    async def aclose(self) -> None:
        self.reader.closed_readings += 1


async def test_the_end_of_a_reading_counts_once_and_the_way_there_not_at_all() -> None:
    engine = Reader(EngineUnavailable("gone"))
    breaker = Breaker(engine)
    for lost in range(1, THRESHOLD + 1):
        reading = await breaker.read(tiny.request(""))
        await reading.feed("Bring ")
        await reading.feed("a coat.")
        with pytest.raises(EngineUnavailable):
            await reading.finish(tiny.request())
        assert breaker.circuit.loss_count == lost
        await reading.aclose()
    assert breaker.circuit.state is State.OPEN
    assert engine.closed_readings == THRESHOLD
    assert len(engine.heard) == 2 * THRESHOLD


async def test_a_reading_that_ends_well_is_a_sign_of_life() -> None:
    breaker = Breaker(Reader())
    breaker.circuit.loss_count = breaker.circuit.timeout_count = THRESHOLD - 1
    reading = await breaker.read(tiny.request(""))
    assert (await reading.finish(tiny.request())).text == "edited"
    assert (breaker.circuit.loss_count, breaker.circuit.timeout_count) == (0, 0)


@pytest.mark.parametrize("late", [False, True])
async def test_an_engine_in_doubt_reads_nothing_ahead_and_is_asked_at_the_end(late: bool) -> None:
    engine = Reader()
    breaker = Breaker(engine)
    for _ in range(THRESHOLD):
        breaker.circuit.note_failure(-1e9, late=late)
    reading = await breaker.read(tiny.request(""))
    await reading.feed("Bring a coat.")
    assert (engine.heard, engine.seen) == ([], [])
    assert (await reading.finish(tiny.request())).text == "edited"
    assert engine.seen == ["probe", "r1"]


async def test_a_reading_that_outlives_its_engine_waits_for_nobody() -> None:
    engine = Reader()
    breaker = Breaker(engine, clock=lambda: 0.0)
    reading = await breaker.read(tiny.request(""))
    for _ in range(THRESHOLD):
        breaker.circuit.note_failure(0.0, late=False)
    with pytest.raises(BreakerOpen):
        await reading.finish(tiny.request())
    await reading.aclose()
    assert (engine.seen, engine.closed_readings) == ([], 1)


async def test_closing_reaches_the_engine() -> None:
    engine = ScriptedEngine()
    await Breaker(engine).aclose()
    assert engine.closed
