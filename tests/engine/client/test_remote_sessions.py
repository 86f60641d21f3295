"""A reading from a gateway, over the socket: verdicts that are waited for, stretches that are replaced, what breaks."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest

from aligner_proxy.engine import wire
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignResponse, Span
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.server.sessions import EngineSessions
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable, InvalidOutput
from aligner_proxy.types import SegmentScore, score_whole_answer
from tests.engine.server.test_app import bare, serving
from tests.support import tiny
from tests.support.scripted import ScriptedEngine, SegmentEngine

ANSWER = "It is so. You fool. Go home."
SPAN = Span(first=1, stop=2, end=len(ANSWER), before="It is so.", deadline_s=20)


def engine(**more: Any) -> SegmentEngine:
    return SegmentEngine(lambda text: 1.5 if "fool" in text else -1.5, lambda _: "You friend.", **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "e.sock"


async def test_verdicts_are_waited_for_and_stretches_replaced(path: Path) -> None:
    made = engine()
    async with serving(made, path) as client:
        reading = await client.read(tiny.request(""))
        waiting = asyncio.create_task(reading.wait_for_verdicts(0))
        await reading.feed(ANSWER[:8])
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await reading.feed(ANSWER[8:12])
        first = await waiting
        assert first is not None
        assert [(v.text, v.flagged) for v in first] == [("It is so.", False)]
        await reading.feed(ANSWER[12:])
        await reading.end()
        verdicts: Any = ()
        while len(verdicts) < 3:
            verdicts = await reading.wait_for_verdicts(len(verdicts))
        assert [v.flagged for v in verdicts] == [False, True, False]
        assert (await reading.replace(SPAN)).text == "You friend."
        assert made.sessions[0].spans == [SPAN]
        await reading.aclose()
        async with asyncio.timeout(10):
            while not made.sessions[0].closed:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("nats", [None, -0.75])
async def test_what_segments_say_of_the_whole_answer_comes_with_their_verdicts(path: Path, nats: float | None) -> None:
    made = engine()
    made.evidence = None if nats is None else lambda text: (nats - ("fool" in text), 0, 0.5)
    async with serving(made, path) as client:
        done = await client.align(tiny.request(ANSWER, score_only=True))
        assert score_whole_answer(done.segments) == (None if nats is None else (pytest.approx(nats - 1 / 3), 0, 0.5))
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        await reading.end()
        verdicts: Any = ()
        while len(verdicts) < 3:
            verdicts = await reading.wait_for_verdicts(len(verdicts))
        assert verdicts == done.segments
        await reading.aclose()


def test_an_engine_that_says_nothing_of_whole_answers_is_read_as_before() -> None:
    content = b'{"text": "It is so.", "segments": [{"text": "It is so.", "score": -1.5, "flagged": false}]}'
    done = AlignResponse.model_validate_json(content).correction()
    assert done.segments == (SegmentScore("It is so.", -1.5, flagged=False),)
    assert score_whole_answer(done.segments) is None


async def test_an_engine_that_reads_nothing_ahead_says_so(path: Path) -> None:
    async with serving(ScriptedEngine(), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        assert await reading.wait_for_verdicts(0) is None
        with pytest.raises(EngineFault):
            await reading.replace(SPAN)
        await reading.aclose()


async def test_nonsense_from_an_engine_is_named_as_such() -> None:
    said = {"/v1/read": b'{"reading": "r"}', "/v1/read/r": b"[]"}

    class Noisy(HttpEngine):
        async def send(self, method: str, path: str, content: bytes | None) -> bytes:
            return said.get(path, b"noise")

    reading = await Noisy("http://engine").read(tiny.request(""))
    await reading.feed(ANSWER)
    with pytest.raises(InvalidOutput):
        await reading.wait_for_verdicts(0)
    with pytest.raises(InvalidOutput):
        await reading.replace(SPAN)
    said["/v1/read/r"] = b"noise"
    await reading.feed("More.")
    async with asyncio.timeout(10):
        while not reading._broken:
            await asyncio.sleep(0.01)
    with pytest.raises(InvalidOutput):
        await reading.wait_for_verdicts(0)
    await reading.aclose()


async def test_a_full_engine_says_so_to_whoever_waits_for_verdicts(path: Path) -> None:
    class Full(SegmentEngine):
        async def read(self, request: Any) -> Any:
            raise EngineOverloaded("full")

    async with serving(Full(len), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        with pytest.raises(EngineOverloaded):
            await reading.wait_for_verdicts(0)


async def test_without_an_engine_nobody_waits_for_verdicts(path: Path) -> None:
    client = HttpEngine(f"unix:{path}", wait_s=0.2)
    reading = await client.read(tiny.request(""))
    await reading.feed(ANSWER)
    with pytest.raises(EngineUnavailable):
        await reading.wait_for_verdicts(0)
    await client.aclose()


async def test_a_replacement_has_its_deadline(path: Path) -> None:
    async with serving(engine(lag_s=30), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        with pytest.raises(DeadlineExceeded):
            await reading.replace(SPAN.model_copy(update={"deadline_s": 0.2}))
        await reading.aclose()


class Slowly(HttpEngine):
    """An engine that takes its time to say the name of a reading that it has opened already."""

    def __init__(self) -> None:
        super().__init__("http://engine")
        self.open: set[str] = set()
        self.opened = asyncio.Event()
        self.heard = asyncio.Event()

    async def send(self, method: str, path: str, content: bytes | None) -> bytes:
        if method == "DELETE":
            self.open.discard(path.removeprefix("/v1/read/"))
            return b""
        self.open.add("name")
        self.opened.set()
        await self.heard.wait()
        return b'{"reading": "name"}'


@pytest.mark.parametrize("how", ["closed", "finished", "cancelled"])
async def test_an_opening_on_its_way_is_never_cut_off(how: str) -> None:
    """Or the engine keeps a reading, and its place, whose name nobody knows."""
    engine = Slowly()
    reading = await engine.read(tiny.request(""))
    await reading.feed(ANSWER)
    await engine.opened.wait()
    if how == "closed":
        await reading.aclose()
    elif how == "finished":
        with pytest.raises(DeadlineExceeded):
            await reading.finish(tiny.request(deadline_s=0.05))
    else:
        task = asyncio.create_task(reading.finish(tiny.request()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert engine.open
    engine.heard.set()
    async with asyncio.timeout(5):
        while engine.open:
            await asyncio.sleep(0.01)


async def test_readings_that_are_let_go_of_at_once_leave_no_place_taken(path: Path) -> None:
    async with serving(Admission(engine(), slots=2), path) as client:
        for pause in range(60):
            reading = await client.read(tiny.request(""))
            await reading.feed(ANSWER)
            await asyncio.sleep(pause / 10_000)
            await reading.aclose()
        await asyncio.gather(*client._closing_tasks)
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        assert await reading.wait_for_verdicts(0)
        await reading.aclose()


async def test_whoever_leaves_while_it_waits_gives_its_place_back(path: Path) -> None:
    """A gateway that dies says no more."""
    async with serving(Admission(engine(), slots=1), path) as client, bare(path) as dying:
        opened = await dying.post("/v1/read", content=tiny.request("").model_dump_json(), headers=wire.VERSION_HEADERS)
        name = opened.json()["reading"]
        with pytest.raises(httpx.ReadTimeout):
            await dying.post(f"/v1/read/{name}/judged", json={"known": 0}, headers=wire.VERSION_HEADERS, timeout=0.1)
        assert (await client.align(tiny.request(ANSWER, deadline_s=5))).text


async def test_what_nobody_feeds_any_more_is_let_go_of_by_itself() -> None:
    made = engine()
    readings = EngineSessions(made, idle_s=0.05)
    await readings.open(tiny.request(""))
    async with asyncio.timeout(5):
        while not made.sessions[0].closed:
            await asyncio.sleep(0.01)
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


async def test_a_reading_that_failed_is_gone_when_it_is_closed(path: Path) -> None:
    """It has the whole conversation, and must not wait for the collector of garbage."""
    client = HttpEngine(f"unix:{path}", wait_s=0)
    gc.disable()
    try:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        with pytest.raises(EngineUnavailable):
            await reading.wait_for_verdicts(0)
        await reading.aclose()
        gone = weakref.ref(reading)
        del reading
        for _ in range(5):  # tasks that have ended tell so in the next round of the loop
            await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
        await client.aclose()
