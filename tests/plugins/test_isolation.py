"""Foreign code: what it raises gets a name, what it blocks is its own thread, and who leaves takes the work along."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineOverloaded, PluginFault, PluginStuck
from aligner_proxy.plugins.extensions import InlineRunner, Runner
from aligner_proxy.plugins.isolation import ThreadRunner

SECRET = "the answer of a tenant"


class Own(CorrectionError):
    """A class that only the plugin knows."""

    reason = SECRET


def raises(error: BaseException) -> Callable[[], Any]:
    async def work() -> None:
        raise error

    return work


@pytest.fixture(params=["here", "apart"])
def caller(request: pytest.FixtureRequest) -> Runner:
    return InlineRunner() if request.param == "here" else ThreadRunner("test")


async def test_what_it_returns_comes_back(caller: Runner) -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await caller.call(work) == "done"


@pytest.mark.parametrize("error", [ValueError(SECRET), SystemExit(SECRET), Own(SECRET), RuntimeError(SECRET)])
async def test_what_it_raises_gets_our_name_and_loses_its_text(caller: Runner, error: BaseException) -> None:
    with pytest.raises(PluginFault) as caught:
        await caller.call(raises(error))
    assert str(caught.value) == f"a plugin raised {type(error).__name__}"
    assert caught.value.__cause__ is None


async def test_our_own_failures_pass_as_they_are(caller: Runner) -> None:
    with pytest.raises(EngineOverloaded) as caught:
        await caller.call(raises(EngineOverloaded("full", 7.0)))
    assert caught.value.retry_after_s == 7.0
    with pytest.raises(DeadlineExceeded):
        await caller.call(raises(TimeoutError(SECRET)))


async def test_a_cancellation_that_a_plugin_makes_up_cancels_nobody() -> None:
    with pytest.raises(PluginFault, match="CancelledError"):
        await ThreadRunner("test").call(raises(asyncio.CancelledError()))


async def test_whoever_leaves_takes_the_work_along() -> None:
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    task = asyncio.create_task(ThreadRunner("test").call(work))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 30)


async def test_code_that_blocks_costs_one_deadline_and_then_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aligner_proxy.plugins.isolation._GRACE_S", 0.0)
    apart = ThreadRunner("test")
    door = threading.Event()

    async def blocks() -> str:
        door.wait()
        return "late"

    async def quick() -> str:
        return "quick"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await apart.call(blocks)
    with pytest.raises(PluginStuck):
        await apart.call(quick)
    door.set()
    while True:  # until the thread has heard the knock
        try:
            assert await apart.call(quick) == "quick"
            break
        except PluginStuck:
            await asyncio.sleep(0.01)


async def test_a_thread_that_was_ended_is_begun_anew() -> None:
    apart = ThreadRunner("test")

    async def ends() -> None:
        asyncio.get_running_loop().stop()

    async def quick() -> str:
        return "quick"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await apart.call(ends)
    assert apart._thread is not None
    await asyncio.to_thread(apart._thread.join)
    assert await apart.call(quick) == "quick"
