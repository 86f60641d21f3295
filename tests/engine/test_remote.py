"""A reading from a gateway, over the socket: verdicts that are waited for, stretches that are replaced, what breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.engine.client import HttpEngine
from aligner_proxy.engine.protocol import Span
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.engine.scripted_reading import SegmentEngine
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable

from . import tiny
from .test_server import serving

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
        waiting = asyncio.create_task(reading.judged(0))
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
            verdicts = await reading.judged(len(verdicts))
        assert [v.flagged for v in verdicts] == [False, True, False]
        assert (await reading.replace(SPAN)).text == "You friend."
        assert made.readings[0].spans == [SPAN]
        await reading.aclose()
        async with asyncio.timeout(10):
            while not made.readings[0].closed:
                await asyncio.sleep(0.01)


async def test_an_engine_that_reads_nothing_ahead_says_so(path: Path) -> None:
    async with serving(ScriptedEngine(), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        assert await reading.judged(0) is None
        with pytest.raises(EngineFault):
            await reading.replace(SPAN)
        await reading.aclose()


async def test_a_full_engine_says_so_to_whoever_waits_for_verdicts(path: Path) -> None:
    class Full(SegmentEngine):
        async def read(self, request: Any) -> Any:
            raise EngineOverloaded("full")

    async with serving(Full(len), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        with pytest.raises(EngineOverloaded):
            await reading.judged(0)


async def test_without_an_engine_nobody_waits_for_verdicts(path: Path) -> None:
    client = HttpEngine(f"unix:{path}", patience_s=0.2)
    reading = await client.read(tiny.request(""))
    await reading.feed(ANSWER)
    with pytest.raises(EngineUnavailable):
        await reading.judged(0)
    await client.aclose()


async def test_a_replacement_has_its_deadline(path: Path) -> None:
    async with serving(engine(lag_s=30), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(ANSWER)
        with pytest.raises(DeadlineExceeded):
            await reading.replace(SPAN.model_copy(update={"deadline_s": 0.2}))
        await reading.aclose()
