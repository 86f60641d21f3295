"""Reading along: everything that is said is passed on, what is not used is let go of, and no stream suffers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litellm.types.utils import ModelResponseStream

from aligner_proxy.engine.api import AlignRequest, DeferredSession
from aligner_proxy.errors import EngineOverloaded
from aligner_proxy.formats import chat
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.streaming import prefill
from aligner_proxy.gateway.streaming.delivery import StreamRequest
from aligner_proxy.gateway.streaming.held import HeldStream
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, SegmentScore, SkipReason, Status, Turn
from tests.support.scripted import ScriptedEngine
from tests.support.stream_fixtures import flow

POLICY = Policy("p", objectives=(Objective("harmless", "Harmlessness: no harm"),))
DATA = {"messages": [{"role": "user", "content": "When does the harbour open?"}]}


@pytest.fixture(autouse=True)
def _read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams of these tests have no pauses, and are read from their first piece on."""
    monkeypatch.setattr(prefill, "UNREAD_S", 0.0)


class Listener(DeferredSession):
    """A reading that remembers."""

    def __init__(self, engine: ReadingEngine, request: AlignRequest) -> None:
        super().__init__(engine)
        self.engine = engine
        self.request = request
        self.heard = ""
        self.finished: AlignRequest | None = None
        self.closed = 0

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        if self.engine.deaf_after is not None and len(self.heard) >= self.engine.deaf_after:
            raise RuntimeError("the harbour is closed")
        self.heard += text
        return ()

    async def finish(self, request: AlignRequest) -> Correction:
        self.finished = request
        return Correction(request.answer.upper(), aligner=self.engine.about.content_hash)

    async def aclose(self) -> None:
        self.closed += 1


class ReadingEngine(ScriptedEngine):
    """Reads along, and says in capitals what it has read."""

    def __init__(self, deaf_after: int | None = None, full: bool = False) -> None:
        super().__init__()
        self.deaf_after = deaf_after
        self.full = full
        self.listeners: list[Listener] = []

    async def read(self, request: AlignRequest) -> Any:
        if self.full:
            raise EngineOverloaded("full")
        self.listeners.append(Listener(self, request))
        return self.listeners[-1]


def chunk(text: str | None, index: int = 0) -> ModelResponseStream:
    return ModelResponseStream(id="1", created=1, choices=[{"index": index, "delta": {"content": text}}])


def exchange(answer: str, index: int = 0, **more: Any) -> Exchange:
    return Exchange("call-1", index, (Turn("user", "When?"),), answer, **more)


def held(engine: ReadingEngine, data: dict[str, Any] | None = None) -> HeldStream:
    """A held stream whose corrector takes the sessions of these choices, and corrects nothing."""

    class Corrector:
        def __init__(self) -> None:
            self.pipeline = Pipeline(engine)
            self.taken: list[Any] = []

        async def correct(self, exchanges: Any, take_session: Any) -> list[Outcome]:
            self.taken += [take_session(exchange.index) for exchange in exchanges if exchange.index == 0]
            return []

    made: Any = Corrector()
    return HeldStream(StreamRequest(chat, {**DATA, **(data or {})}, RequestState("call-1", POLICY, "m"), made))


async def played(stream: HeldStream, *items: object) -> list[Any]:
    """What was taken."""
    assert [item async for item in stream.deliver(flow(items))][: len(items)] == list(items)
    made: Any = stream._request.corrector
    return list(made.taken)


async def test_what_is_said_is_read_choice_by_choice() -> None:
    engine = ReadingEngine()
    items = (chunk("The "), chunk("At ", 1), chunk(None), "no chunk", chunk("harbour"), chunk("six", 1))
    taken = await played(held(engine), *items)
    assert [(one.heard, one.request.request_id[-2:]) for one in engine.listeners] == [
        ("The harbour", "/0"),
        ("At six", "/1"),
    ]
    assert engine.listeners[0].request.answer == ""
    assert engine.listeners[0].request.turns == (Turn("user", "When does the harbour open?"),)
    assert taken == [engine.listeners[0]]
    assert [one.closed for one in engine.listeners] == [0, 1], "who takes one closes it"


async def test_a_stream_that_is_there_at_once_is_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "UNREAD_S", 60.0)
    engine = ReadingEngine()
    assert await played(held(engine), chunk("The "), chunk("harbour")) == [None]
    assert engine.listeners == []


async def test_what_came_before_the_reading_began_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "UNREAD_S", 0.02)
    engine = ReadingEngine()

    async def source() -> AsyncIterator[object]:
        yield chunk("The ")
        yield chunk("harbour ")
        await asyncio.sleep(0.03)
        yield chunk("opens ")
        yield chunk("at six.")

    assert [item async for item in held(engine).deliver(source())]
    assert [one.heard for one in engine.listeners] == ["The harbour opens at six."]


@pytest.mark.parametrize("engine", [ReadingEngine(full=True), ReadingEngine(deaf_after=3)])
async def test_an_engine_that_cannot_read_costs_the_stream_nothing(
    engine: ReadingEngine, caplog: pytest.LogCaptureFixture
) -> None:
    assert await played(held(engine), *(chunk("The harbour") for _ in range(4))) == [None]
    assert [one.closed for one in engine.listeners] == ([] if engine.full else [1])
    assert len(caplog.records) == 1
    assert "harbour" not in caplog.text


@pytest.mark.parametrize("wish", [{"response_format": {"type": "json_object"}}, {"logprobs": True}])
async def test_what_will_not_be_corrected_is_not_read(wish: dict[str, Any]) -> None:
    engine = ReadingEngine()
    await played(held(engine, wish), chunk("{"))
    assert bool(engine.listeners) == ("logprobs" in wish), "logprobs show themselves in the answer only"


async def test_the_pipeline_finishes_what_was_read_and_lets_go_of_it() -> None:
    engine = ReadingEngine()
    pipeline = Pipeline(engine)
    reading = await pipeline.read(exchange("The"), POLICY)
    outcome = await pipeline.align(exchange("The harbour opens."), POLICY, reading)
    assert outcome.text == "THE HARBOUR OPENS."
    assert engine.seen == []
    finished = engine.listeners[0].finished
    assert finished is not None
    assert finished.answer == "The harbour opens."
    assert engine.listeners[0].closed == 1


async def test_an_answer_that_is_skipped_in_the_end_is_let_go_of() -> None:
    engine = ReadingEngine()
    pipeline = Pipeline(engine)
    reading = await pipeline.read(exchange("The"), POLICY)
    outcome = await pipeline.align(exchange("The harbour", finish_reason="length"), POLICY, reading)
    assert (outcome.status, outcome.reason) == (Status.SKIPPED, SkipReason.TRUNCATED.value)
    assert engine.listeners[0].closed == 1


async def test_a_client_that_leaves_takes_the_reading_with_it() -> None:
    engine = ReadingEngine()

    async def source() -> AsyncIterator[object]:
        yield chunk("The")
        await asyncio.sleep(30)

    async def play() -> None:
        async for _ in held(engine).deliver(source()):
            pass

    task = asyncio.create_task(play())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.listeners[0].closed == 1
