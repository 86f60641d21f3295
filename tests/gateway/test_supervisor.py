"""The supervisor with real child processes: order, restart, exit status, draining, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aligner_proxy.errors import WeightsError
from aligner_proxy.gateway.supervisor import Child, Pace, run

WAIT_S = 20.0
QUICK = Pace(first=0.05, most=0.2, stable=60, grace=WAIT_S)

# A child writes what happens to it, one word a line, and ends on SIGTERM.
CHILD = """
import os, signal, sys, time
log, name, *more = sys.argv[1:]
def say(what):
    with open(log, "a") as file:
        file.write(f"{name} {what} {os.getpid()}\\n")
def ended(*_):
    say("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in more else ended)
say("started")
if more and more[0].isdigit():
    time.sleep(0.3)
    sys.exit(int(more[0]))
time.sleep(600)
"""


def child(log: Path, name: str, *more: str) -> Child:
    """A child that runs CHILD."""
    return Child(name, [sys.executable, "-c", CHILD, str(log), name, *more])


def lines(log: Path) -> list[str]:
    """What the children said, without their ids."""
    return [line.rsplit(" ", 1)[0] for line in log.read_text().splitlines()] if log.exists() else []


def pids(log: Path) -> list[int]:
    """The ids of all children that ever started."""
    return [int(line.split()[2]) for line in log.read_text().splitlines() if " started " in line]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens in another process."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.02)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file that children write to."""
    return tmp_path / "log"


async def never() -> None:
    """An announcement or readiness that does not come."""
    await asyncio.sleep(600)


def started(log: Path, name: str) -> Callable[[], bool]:
    """Whether `name` has started."""
    return lambda: f"{name} started" in lines(log)


async def test_gateway_starts_when_the_engine_is_ready_and_its_status_is_ours(log: Path) -> None:
    async def ready() -> None:
        await until(started(log, "engine"))

    assert await run(child(log, "engine"), ready, child(log, "gateway", "7"), never, QUICK) == 7
    assert lines(log) == ["engine started", "gateway started", "engine stopped"]
    assert not any(map(alive, pids(log)))


async def test_sigterm_drains_gateway_then_engine_and_is_success(log: Path) -> None:
    async def ready() -> None:
        await until(started(log, "engine"))

    async def announce() -> None:
        await until(started(log, "gateway"))
        os.kill(os.getpid(), signal.SIGTERM)

    assert await run(child(log, "engine"), ready, child(log, "gateway"), announce, QUICK) == 0
    assert lines(log)[2:] == ["gateway stopped", "engine stopped"]


async def test_sigterm_while_the_aligner_loads_is_success(log: Path) -> None:
    async def ready() -> None:
        await until(started(log, "engine"))
        os.kill(os.getpid(), signal.SIGTERM)
        await never()

    assert await run(child(log, "engine"), ready, child(log, "gateway"), never, QUICK) == 0
    assert lines(log) == ["engine started", "engine stopped"]


async def test_dead_engine_is_started_again(log: Path) -> None:
    async def ready() -> None:
        await until(started(log, "engine"))

    async def announce() -> None:
        for times in (1, 2):
            os.kill(pids(log)[0 if times == 1 else -1], signal.SIGKILL)
            await until(lambda count=times + 1: lines(log).count("engine started") == count)  # type: ignore[misc]
        os.kill(os.getpid(), signal.SIGTERM)

    assert await run(child(log, "engine"), ready, child(log, "gateway"), announce, QUICK) == 0
    assert lines(log).count("engine started") == 3
    assert lines(log).count("gateway started") == 1
    assert not any(map(alive, pids(log)))


async def test_engine_that_cannot_load_is_an_error_with_its_status(log: Path) -> None:
    with pytest.raises(WeightsError, match="status 3 before it was ready"):
        await run(child(log, "engine", "3"), never, child(log, "gateway"), never, QUICK)
    assert lines(log) == ["engine started"]


async def test_somebody_elses_engine_is_only_waited_for(log: Path) -> None:
    async def ready() -> None:
        await asyncio.sleep(0)

    assert await run(None, ready, child(log, "gateway", "0"), never, QUICK) == 0
    assert lines(log) == ["gateway started"]


async def test_child_that_ignores_sigterm_is_killed_after_its_grace(log: Path) -> None:
    stubborn = child(log, "gateway", "stubborn")
    await stubborn.start()
    await until(started(log, "gateway"))
    await stubborn.stop(0.2)
    assert await stubborn.wait() == -signal.SIGKILL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tethers children")
async def test_nothing_is_left_when_we_are_killed(log: Path) -> None:
    script = f"""
        import asyncio, sys
        from aligner_proxy.gateway.supervisor import Child, run
        sys.argv = ["", {str(log)!r}]
        def child(name): return Child(name, [sys.executable, "-c", {CHILD!r}, {str(log)!r}, name])
        async def now(): pass
        async def never(): await asyncio.sleep(600)
        asyncio.run(run(child("engine"), now, child("gateway"), never))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) as parent:
        with contextlib.ExitStack() as stack:
            stack.callback(parent.kill)
            await until(lambda: len(pids(log)) == 2 if log.exists() else False)
        parent.wait(WAIT_S)
    await until(lambda: not any(map(alive, pids(log))))


def test_a_tethered_command_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tethers children")
    made = tmp_path / "made"
    began = time.monotonic()
    status = subprocess.run(
        [sys.executable, "-m", "aligner_proxy.gateway.die_with_parent", "1", "touch", str(made)], check=False
    )
    assert status.returncode == 128 + signal.SIGTERM
    assert not made.exists()
    assert time.monotonic() - began < WAIT_S
