"""The in-process engine: order, bound, deadlines, cancellation, closing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aligner_proxy.engine import local
from aligner_proxy.engine.correct import Aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.runner import Check
from aligner_proxy.errors import DeadlineExceeded, EngineFault, EngineOverloaded, EngineUnavailable, WeightsError
from aligner_proxy.types import Correction

from . import tiny


class Gate:
    """Stands in for `correct`: every call waits for a permit, calling `check` as forwards would."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.begun: list[str] = []
        self.stopped: list[str] = []

    def __call__(self, aligner: Aligner, request: AlignRequest, check: Check) -> Correction:
        self.begun.append(request.request_id)
        while not self.permits.acquire(timeout=0.01):
            try:
                check()
            except Exception:
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


async def started(queue: int = 64) -> LocalEngine:
    engine = LocalEngine(tiny.aligner, queue=queue)
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


async def test_requests_are_served_in_order(gate: Gate) -> None:
    engine = await started()
    tasks = [asyncio.create_task(engine.align(named(str(i)))) for i in range(5)]
    gate.permits.release(5)
    assert [r.text for r in await asyncio.gather(*tasks)] == ["0", "1", "2", "3", "4"]
    assert gate.begun == ["0", "1", "2", "3", "4"]
    await engine.aclose()


async def test_a_full_queue_refuses_with_an_estimate(gate: Gate) -> None:
    engine = await started(queue=2)
    tasks = [asyncio.create_task(engine.align(named(str(i)))) for i in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EngineOverloaded) as refused:
        await engine.align(named("2"))
    assert refused.value.retry_after_s > 0
    gate.permits.release(2)
    await asyncio.gather(*tasks)
    gate.permits.release()
    assert (await engine.align(named("3"))).text == "3"
    await engine.aclose()


async def test_a_deadline_is_kept_while_working_and_while_queued(gate: Gate) -> None:
    engine = await started()
    working = asyncio.create_task(engine.align(named("working", 0.2)))
    queued = asyncio.create_task(engine.align(named("queued", 0.1)))
    with pytest.raises(DeadlineExceeded):
        await queued
    with pytest.raises(DeadlineExceeded):
        await working
    await until(lambda: gate.stopped == ["working"])
    assert gate.begun == ["working"]
    await engine.aclose()


async def test_cancelling_stops_the_running_one_and_drops_the_queued_one(gate: Gate) -> None:
    engine = await started(queue=2)
    running = asyncio.create_task(engine.align(named("running")))
    queued = asyncio.create_task(engine.align(named("queued")))
    await until(lambda: gate.begun == ["running"])
    queued.cancel()
    running.cancel()
    results = await asyncio.gather(running, queued, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await until(lambda: gate.stopped == ["running"])
    gate.permits.release()
    assert (await engine.align(named("next"))).text == "next"
    assert gate.begun == ["running", "next"]
    await engine.aclose()


async def test_whatever_the_model_raises_becomes_an_engine_fault_without_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(aligner: Aligner, request: AlignRequest, check: Check) -> Correction:
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
