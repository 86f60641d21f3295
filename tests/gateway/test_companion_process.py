"""A process beside a gateway: it is replaced with the generation, restarted when it ends, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

from aligner_proxy.gateway.process.companion_process import CompanionKeeper
from aligner_proxy.gateway.process.supervisor import ChildProcess, Pace


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


def runs(child: ChildProcess) -> bool:
    return child.process is not None and child.process.returncode is None


async def test_it_lives_as_long_as_its_generation() -> None:
    number: int | None = None
    made: list[ChildProcess] = []

    def make() -> ChildProcess:
        made.append(ChildProcess("companion", [sys.executable, "-c", "import time; time.sleep(600)"]))
        return made[-1]

    beside = CompanionKeeper(lambda: number, make, Pace(first_pause_s=0.01), check_every_s=0.02)
    task = asyncio.ensure_future(beside.keep_running())
    await asyncio.sleep(0.1)
    assert not made  # nothing serves yet
    number = 1
    await until(lambda: bool(made) and runs(made[0]))
    first = made[0].process
    made[0].kill()
    await until(lambda: made[0].process is not first and runs(made[0]))
    number = 2
    await until(lambda: len(made) == 2 and runs(made[1]))
    assert not runs(made[0])
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not runs(made[1])
