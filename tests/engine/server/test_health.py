"""Alive, ready, degraded: three questions over real sockets, while an engine loads, works, is full, and is stuck."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.scheduling import metrics
from aligner_proxy.engine.server import app
from tests.support import tiny
from tests.support.scripted import ScriptedEngine

from .test_app import bare, serving


@pytest.fixture(autouse=True)
def no_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests fill engines."""
    monkeypatch.setattr(metrics, "_last_refusal", [float("-inf")])


async def answers(path: Path) -> dict[str, tuple[int, str]]:
    """Status code and word of every question."""
    async with bare(path) as http:
        asked = {path: await http.get(path) for path in ("/health", "/health/live", "/health/ready", "/ready")}
    return {path: (got.status_code, got.json()["status"]) for path, got in asked.items()}


async def test_an_engine_that_loads_is_alive_and_not_ready(tmp_path: Path) -> None:
    go = threading.Event()

    def load() -> tiny.Aligner:
        go.wait()
        return tiny.aligner()

    engine = LocalEngine(load)
    async with serving(engine, tmp_path / "e.sock"):
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.05)
        loading = await answers(tmp_path / "e.sock")
        go.set()
        await starting
        ready = await answers(tmp_path / "e.sock")
    await engine.aclose()
    assert loading == {
        "/health": (200, "loading"),
        "/health/live": (200, "alive"),
        "/health/ready": (503, "loading"),
        "/ready": (503, "loading"),
    }
    assert ready == {
        "/health": (200, "ready"),
        "/health/live": (200, "alive"),
        "/health/ready": (200, "ready"),
        "/ready": (200, "ready"),
    }


async def test_an_engine_that_turns_requests_away_is_degraded_and_ready() -> None:
    engine = ScriptedEngine()
    assert await app.check_health(engine) == app.Health("ready", alive=True, ready=True)
    metrics.count_refusal("overloaded")
    assert await app.check_health(engine) == app.Health("degraded", alive=True, ready=True, reasons=("overloaded",))


class Slow(ScriptedEngine):
    """Its step takes `seconds`."""

    seconds = 0.0

    def stalled_s(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("seconds", "status", "alive"),
    [(1.0, "ready", True), (app.SLOW_S + 1, "degraded", True), (app.STUCK_S + 1, "stuck", False)],
)
async def test_a_step_that_does_not_end_is_told_and_then_fatal(
    tmp_path: Path, seconds: float, status: str, alive: bool
) -> None:
    engine = Slow()
    engine.seconds = seconds
    async with serving(engine, tmp_path / "e.sock"):
        got = await answers(tmp_path / "e.sock")
    assert got["/health"] == (200 if alive else 503, status)
    assert got["/health/live"][0] == (200 if alive else 503)
    assert got["/health/ready"][0] == (200 if alive else 503)


async def test_a_stuck_engine_does_not_describe_itself_so_that_gateways_see_it(tmp_path: Path) -> None:
    engine = Slow()
    async with serving(engine, tmp_path / "e.sock") as client:
        await client.info()
        engine.seconds = app.STUCK_S + 1
        async with bare(tmp_path / "e.sock") as http:
            assert (await http.get("/info")).status_code == 503


async def test_an_idle_engine_does_not_stall_and_a_dead_thread_does() -> None:
    engine = LocalEngine(tiny.aligner)
    assert engine.stalled_s() == 0.0
    await engine.start()
    await engine.align(tiny.request(caution=1e9))
    while engine.stalled_s():  # the result is there before the step that made it has ended
        await asyncio.sleep(0.01)
    engine._closed = True  # the thread ends as if something had broken it
    engine._inbox.put(None)
    assert engine._thread is not None
    await asyncio.to_thread(engine._thread.join)
    engine._closed = False
    assert engine.stalled_s() > app.STUCK_S
