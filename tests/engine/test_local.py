"""The in-process engine: order, deadlines, cancellation, closing."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from aligner_proxy.engine import local
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence, Work
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineUnavailable, WeightsError
from aligner_proxy.types import Correction
from tests.support import tiny


class Gate:
    """Stands in for `correct`: every correction asks for one token again and again until it gets a permit."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.begun: list[str] = []
        self.stopped: list[str] = []

    def __call__(self, aligner: Aligner, request: AlignRequest, sequence: TokenSequence) -> Work:
        self.begun.append(request.request_id)
        try:
            while not self.permits.acquire(timeout=0.01):
                yield Ask([3])
                sequence.crop(0)
        except GeneratorExit:
            self.stopped.append(request.request_id)
            raise
        return Correction(request.request_id)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(local, "correct", made)
    return made


def named(name: str, deadline_s: float = 30.0) -> AlignRequest:
    return tiny.request(deadline_s=deadline_s).model_copy(update={"request_id": name})


async def started() -> LocalEngine:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    return engine


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_it_corrects_and_describes_itself() -> None:
    engine = await started()
    result = await engine.align(tiny.request(caution=1e9))
    assert result.text == tiny.ANSWER
    assert result.aligner == (await engine.info()).content_hash == "hash0"
    assert result.ms > 0
    await engine.aclose()


async def test_it_is_unavailable_until_loaded_and_after_closing() -> None:
    engine = LocalEngine(tiny.aligner)
    with pytest.raises(EngineUnavailable, match="still loading"):
        await engine.info()
    await engine.start()
    await engine.aclose()
    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.align(tiny.request())


async def test_a_failed_load_is_raised_by_start_and_named_afterwards() -> None:
    def load() -> Aligner:
        raise WeightsError("no such folder")

    engine = LocalEngine(load)
    with pytest.raises(WeightsError):
        await engine.start()
    with pytest.raises(EngineUnavailable, match="no such folder"):
        await engine.align(tiny.request())
    await engine.aclose()


async def test_requests_are_worked_on_together(gate: Gate) -> None:
    engine = await started()
    tasks = [asyncio.create_task(engine.align(named(str(i)))) for i in range(5)]
    await until(lambda: gate.begun == ["0", "1", "2", "3", "4"])
    gate.permits.release(5)
    assert [r.text for r in await asyncio.gather(*tasks)] == ["0", "1", "2", "3", "4"]
    await engine.aclose()


async def test_a_correction_says_whose_engine_time_it_was() -> None:
    """What it waited for, and the tokens of others, cost it nothing."""
    engine = await started()
    began = time.perf_counter()
    results = await asyncio.gather(*(engine.align(tiny.request(caution=1e9)) for _ in range(8)))
    elapsed = (time.perf_counter() - began) * 1000
    assert all(one.ms > 0 for one in results)
    assert sum(one.ms for one in results) <= elapsed
    await engine.aclose()


async def test_a_deadline_is_kept_and_the_others_go_on(gate: Gate) -> None:
    engine = await started()
    short = asyncio.create_task(engine.align(named("short", 0.2)))
    long = asyncio.create_task(engine.align(named("long")))
    with pytest.raises(DeadlineExceeded):
        await short
    await until(lambda: gate.stopped == ["short"])
    gate.permits.release()
    assert (await long).text == "long"
    await engine.aclose()


async def test_cancelling_stops_one_and_the_others_go_on(gate: Gate) -> None:
    engine = await started()
    first = asyncio.create_task(engine.align(named("first")))
    second = asyncio.create_task(engine.align(named("second")))
    await until(lambda: gate.begun == ["first", "second"])
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await until(lambda: gate.stopped == ["first"])
    third = asyncio.create_task(engine.align(named("third")))
    await until(lambda: gate.begun[-1] == "third")
    gate.permits.release(2)
    assert [(await task).text for task in (second, third)] == ["second", "third"]
    await engine.aclose()


async def test_whatever_the_model_raises_becomes_an_engine_fault_without_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(aligner: Aligner, request: AlignRequest, sequence: TokenSequence) -> Work:
        yield Ask([3])
        raise RuntimeError(f"out of memory at {request.answer}")

    monkeypatch.setattr(local, "correct", broken)
    engine = await started()
    with pytest.raises(EngineFault, match="RuntimeError"):
        await engine.align(tiny.request())
    assert "harbour" not in caplog.text
    assert "test_local.py" in caplog.text
    await engine.aclose()


async def test_closing_gives_up_what_is_in_flight(gate: Gate) -> None:
    engine = await started()
    running = asyncio.create_task(engine.align(named("running")))
    await until(lambda: gate.begun)
    await engine.aclose()
    with pytest.raises(EngineUnavailable):
        await running
