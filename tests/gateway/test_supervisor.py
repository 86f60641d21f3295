"""The supervisor with real child processes: order, restarts, exit status, draining, and nothing left behind."""

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
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError, WeightsError
from aligner_proxy.gateway.process import supervisor
from aligner_proxy.gateway.process.memory_limit import MemoryLimit, largest_mb
from aligner_proxy.gateway.process.supervisor import ChildProcess, EngineProcess, Generation, Pace, Ready

WAIT_S = 60.0
QUICK = Pace(first_pause_s=0.05, longest_pause_s=0.2, stable_s=60, grace_s=WAIT_S)

# A child writes what happens to it, one word a line, and ends on SIGTERM. A gateway is held: it waits for a line.
CHILD = """
import os, signal, sys, time
log, name, *more = sys.argv[1:]
def say(what):
    with open(log, "a") as file:
        file.write(f"{name} {what} {os.getpid()}\\n")
def ended(*_):
    say("stopped")
    sys.exit(0)
if name.startswith("gateway") and not sys.stdin.readline():
    sys.exit(1)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in more else ended)
say("started")
if more and more[0].isdigit():
    time.sleep(0.3)
    sys.exit(int(more[0]))
time.sleep(600)
"""


def child(log: Path, name: str, *more: str) -> ChildProcess:
    """A child that runs CHILD."""
    is_held = name.startswith("gateway")
    return ChildProcess(name, [sys.executable, "-c", CHILD, str(log), name, *more], is_held=is_held)


async def run(engine: ChildProcess | None, loaded: Ready, gateway: ChildProcess, serving: Ready, pace: Pace) -> int:
    """Run one generation; there is no second."""
    return await supervisor.run(lambda _: Generation(EngineProcess(engine, loaded), gateway, serving), pace)


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
        await until(started(log, "gateway"))  # else it may be the last that started, and be killed
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


class Generations:
    """Generations of children named after their number; each is ready when its processes have started."""

    def __init__(self, log: Path, *refusals: Exception | str | None) -> None:
        self.log = log
        self.refusals = (None, *refusals)
        self.made = 0

    def make(self, shared: EngineProcess | None) -> Generation:
        refusal = self.refusals[self.made] if self.made < len(self.refusals) else None
        self.made += 1
        if isinstance(refusal, Exception):
            raise refusal
        engine = child(self.log, f"engine{self.made}", *([refusal] if refusal else []))
        gateway = child(self.log, f"gateway{self.made}")

        def ready(name: str) -> Ready:
            return never if refusal else lambda: until(started(self.log, name))

        return Generation(shared or EngineProcess(engine, ready(engine.name)), gateway, ready(gateway.name))


async def restarted(log: Path, generations: Generations, *then: Callable[[], bool]) -> int:
    """Run, ask for a restart when the first generation serves, wait for what follows, and stop."""
    running = asyncio.create_task(supervisor.run(generations.make, QUICK))
    await until(started(log, "gateway1"))
    os.kill(os.getpid(), signal.SIGHUP)
    for true in then:
        await until(true)
    os.kill(os.getpid(), signal.SIGTERM)
    return await running


async def test_a_restart_ends_the_old_processes_when_the_new_ones_serve(log: Path) -> None:
    assert await restarted(log, Generations(log), lambda: "engine1 stopped" in lines(log)) == 0
    assert lines(log) == [
        *("engine1 started", "gateway1 started"),
        *("engine2 started", "gateway2 started", "gateway1 stopped", "engine1 stopped"),
        *("gateway2 stopped", "engine2 stopped"),
    ]
    assert not any(map(alive, pids(log)))


@pytest.mark.parametrize("refusal", [ConfigError("policies.yaml:3: unknown key"), "3"], ids=["config", "engine"])
async def test_a_restart_that_fails_leaves_the_running_processes(
    log: Path, refusal: Exception | str, caplog: pytest.LogCaptureFixture
) -> None:
    generations = Generations(log, refusal)
    assert await restarted(log, generations, lambda: "the running processes stay" in caplog.text) == 0
    assert [line for line in lines(log) if "2" not in line] == [
        *("engine1 started", "gateway1 started", "gateway1 stopped", "engine1 stopped")
    ]
    assert "gateway2 started" not in lines(log)
    assert not any(map(alive, pids(log)))


async def test_a_restart_that_does_not_get_ready_is_given_up(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Generations):
        def make(self, shared: EngineProcess | None) -> Generation:
            made = super().make(shared)
            engine = EngineProcess(made.engine.child, never)
            return Generation(engine, made.gateway, never) if self.made > 1 else made

    running = asyncio.create_task(supervisor.run(Slow(log).make, replace(QUICK, start_s=0.3)))
    await until(started(log, "gateway1"))
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: "not ready after 0.3 s" in caplog.text)
    await until(lambda: not any(map(alive, pids(log)[2:])))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


async def test_a_stop_in_the_middle_of_a_restart_leaves_nothing(log: Path) -> None:
    class Slow(Generations):
        def make(self, shared: EngineProcess | None) -> Generation:
            made = super().make(shared)
            engine = EngineProcess(made.engine.child, never)
            return Generation(engine, made.gateway, never) if self.made > 1 else made

    assert await restarted(log, Slow(log), started(log, "engine2")) == 0
    assert sorted(lines(log)[-3:]) == ["engine1 stopped", "engine2 stopped", "gateway1 stopped"]
    assert not any(map(alive, pids(log)))


async def test_a_gateway_that_has_served_is_started_again_and_the_engine_stays(log: Path) -> None:
    running = asyncio.create_task(supervisor.run(Generations(log).make, QUICK))
    await until(started(log, "gateway1"))
    await asyncio.sleep(0.1)  # it is noticed that it serves
    for number in (1, 2):
        os.kill(pids(log)[-1], signal.SIGKILL)
        await until(started(log, f"gateway{number + 1}"))
        await asyncio.sleep(0.1)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert [line for line in lines(log) if line.startswith("engine")] == ["engine1 started", "engine1 stopped"]
    assert not any(map(alive, pids(log)))


async def test_the_gateway_of_a_second_generation_is_started_again_too(log: Path) -> None:
    running = asyncio.create_task(supervisor.run(Generations(log).make, QUICK))
    await until(started(log, "gateway1"))
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: "engine1 stopped" in lines(log))
    os.kill(pids(log)[-1], signal.SIGKILL)
    await until(started(log, "gateway3"))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert "engine3 started" not in lines(log)
    assert not any(map(alive, pids(log)))


class NotAgain(Generations):
    """Only the first gateway gets to serve; later ones end at once, but for one that has an engine of its own."""

    def make(self, shared: EngineProcess | None) -> Generation:
        made = super().make(shared)
        if shared is not None:
            made.gateway = child(self.log, made.gateway.name, "9")
            made.wait_serving = never
        return made


async def test_a_gateway_that_does_not_come_back_is_tried_again_with_growing_pauses(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = asyncio.create_task(
        supervisor.run(NotAgain(log).make, replace(QUICK, first_pause_s=0.1, longest_pause_s=0.2))
    )
    await until(started(log, "gateway1"))
    await asyncio.sleep(0.1)
    os.kill(pids(log)[-1], signal.SIGKILL)
    await until(started(log, "gateway4"))
    pauses = [message.rsplit(" ", 2)[1] for message in caplog.messages if "restart in" in message]
    assert pauses[:3] == ["0.1", "0.2", "0.2"]
    assert not running.done()
    os.kill(os.getpid(), signal.SIGHUP)  # the operator has put it right: now, and with an engine of its own
    await until(lambda: "engine1 stopped" in lines(log))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert not any(map(alive, pids(log)))


# A child with a process of its own, which does not end with it unless somebody sees to it.
PARENT = """
import subprocess, sys
code, log, name, *more = sys.argv[1:]
subprocess.run([sys.executable, "-c", code, log, name, *more])
"""


@pytest.mark.parametrize("manner", [[], ["stubborn"]], ids=["willing", "stubborn"])
async def test_the_processes_of_a_killed_child_end_before_the_next_one_starts(
    log: Path, manner: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_SUBPROCESSES_S", 0.3)
    parent = ChildProcess("gateway", [sys.executable, "-c", PARENT, CHILD, str(log), "worker", *manner])
    await parent.start()
    await until(started(log, "worker"))
    (worker,) = pids(log)
    assert parent.process is not None
    parent.process.kill()
    assert await parent.wait() == -signal.SIGKILL
    await until(lambda: not alive(worker))


@dataclass(frozen=True, slots=True)
class Limited(MemoryLimit):
    """Every process holds more, and is looked at once it has written to `log`."""

    log: Path = Path()

    async def wait_until_near(self, pid: int) -> int:
        await until(lambda: pid in pids(self.log))
        return await MemoryLimit.wait_until_near(self, pid)


def limited(log: Path) -> Limited:
    """A limit that every process passes."""
    return Limited(max_mb=1, check_every_s=0.05, log=log)


async def until_renewed(log: Path, times: int, pace: Pace, *, restart: bool = False) -> int:
    """Run until so many gateways were replaced for memory, and stop; with `restart` by a whole one in the end."""
    running = asyncio.create_task(supervisor.run(Generations(log).make, pace, memory=limited(log)))
    await until(lambda: f"gateway{times} stopped" in lines(log))
    if restart:
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "engine1 stopped" in lines(log))
    os.kill(os.getpid(), signal.SIGTERM)
    return await running


async def test_a_gateway_that_holds_too_much_is_replaced_and_the_engine_stays(log: Path) -> None:
    assert await until_renewed(log, 2, replace(QUICK, stable_s=0.0)) == 0
    said = lines(log)
    assert said[:5] == [
        "engine1 started",
        "gateway1 started",
        "gateway2 started",
        "gateway1 stopped",
        "gateway3 started",
    ]
    assert said.count("engine1 started") == 1
    assert [line for line in said if line.startswith("engine")] == ["engine1 started", "engine1 stopped"]
    assert said[-1] == "engine1 stopped"
    assert not any(map(alive, pids(log)))


async def test_a_whole_restart_after_it_ends_the_shared_engine(log: Path) -> None:
    assert await until_renewed(log, 1, replace(QUICK, stable_s=1.0), restart=True) == 0
    assert not any(map(alive, pids(log)))


async def test_a_new_gateway_is_not_replaced_at_once(log: Path) -> None:
    running = asyncio.create_task(
        supervisor.run(Generations(log).make, replace(QUICK, stable_s=600.0), memory=limited(log))
    )
    await until(lambda: "gateway1 stopped" in lines(log))
    await asyncio.sleep(0.6)  # three looks and more
    assert "gateway3 started" not in lines(log)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


class Stubborn(Generations):
    """Gateways that have requests which do not end."""

    def make(self, shared: EngineProcess | None) -> Generation:
        made = super().make(shared)
        made.gateway = child(self.log, made.gateway.name, "stubborn")
        return made


@dataclass(frozen=True, slots=True)
class ToldMemory(Limited):
    """All processes are near the limit; those in `beyond` are beyond it."""

    beyond: list[int] = field(default_factory=list)

    async def wait_until_exceeded(self, pid: int) -> int:
        await until(lambda: pid in self.beyond)
        return 2


async def test_a_gateway_that_leaves_and_holds_too_much_ends_soon(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = ToldMemory(max_mb=1, check_every_s=0.05, log=log)
    pace = replace(QUICK, grace_s=0.2, short_grace_s=0.2)
    running = asyncio.create_task(supervisor.run(Stubborn(log).make, pace, memory=memory))
    await until(started(log, "gateway2"))
    first, second = pids(log)[1:]
    await asyncio.sleep(0.5)
    assert alive(first)  # it has --handover
    memory.beyond.append(first)
    await until(lambda: not alive(first))
    assert alive(second)
    assert "still running 0.2 s after SIGTERM, killed" in caplog.text
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert not any(map(alive, pids(log)))


async def test_a_third_gateway_starts_only_when_the_first_has_ended(log: Path) -> None:
    memory = ToldMemory(max_mb=1, check_every_s=0.05, log=log)
    pace = replace(QUICK, grace_s=0.2, short_grace_s=0.2, stable_s=0.0)
    running = asyncio.create_task(supervisor.run(Stubborn(log).make, pace, memory=memory))
    await until(started(log, "gateway2"))
    await asyncio.sleep(0.5)  # near the limit all that time
    assert "gateway3 started" not in lines(log)
    first, second = pids(log)[1:]
    assert alive(first)
    memory.beyond.append(second)
    await until(started(log, "gateway3"))
    assert not alive(first)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert not any(map(alive, pids(log)))


async def test_an_engine_ends_with_the_last_gateway_that_uses_it(log: Path) -> None:
    engine = EngineProcess(child(log, "engine"), lambda: until(started(log, "engine")))
    first, second = (Generation(engine, child(log, name), never) for name in ("gateway1", "gateway2"))
    for generation in (first, second):
        await generation.start_engine(QUICK)
    await first.stop(WAIT_S, WAIT_S)
    await first.stop(WAIT_S, WAIT_S)  # as when all is stopped while one is leaving
    assert lines(log) == ["engine started"]
    await second.stop(WAIT_S, WAIT_S)
    assert lines(log) == ["engine started", "engine stopped"]


async def test_a_gateway_imports_while_the_engine_loads_and_goes_on_when_it_has_loaded(log: Path) -> None:
    gateway = child(log, "gateway")

    async def loaded() -> None:
        await until(lambda: gateway.process is not None and alive(gateway.process.pid))
        assert "gateway started" not in lines(log)

    generation = Generation(EngineProcess(None, loaded), gateway, lambda: until(started(log, "gateway")))
    await generation.start_engine(QUICK)
    assert "gateway started" not in lines(log)
    await generation.start_gateway()
    await generation.stop(WAIT_S, WAIT_S)
    assert lines(log) == ["gateway started", "gateway stopped"]


async def test_a_held_gateway_ends_when_nobody_lets_it_go_on(log: Path) -> None:
    gateway = child(log, "gateway")
    await gateway.start()
    assert gateway.process is not None
    assert gateway.process.stdin is not None
    gateway.process.stdin.close()
    assert await gateway.wait() == 1
    gateway.release()
    assert lines(log) == []


def test_the_largest_of_a_process_and_its_children_counts() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    large = "import time; held = bytearray(200 << 20); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, large], start_new_session=True) as parent:
        try:
            limit = time.monotonic() + WAIT_S
            while largest_mb(parent.pid) < 200 and time.monotonic() < limit:
                time.sleep(0.05)
            assert largest_mb(parent.pid) >= 200
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


async def test_child_that_ignores_sigterm_is_killed_after_its_grace(log: Path) -> None:
    stubborn = child(log, "engine", "stubborn")
    await stubborn.start()
    await until(started(log, "engine"))
    await stubborn.stop(0.2)
    assert await stubborn.wait() == -signal.SIGKILL


async def test_a_stop_that_is_cancelled_when_its_child_has_just_ended_is_cancelled(log: Path) -> None:
    stopped = child(log, "engine")
    await stopped.start()
    await until(started(log, "engine"))
    stopping = asyncio.create_task(stopped.stop(WAIT_S))
    await asyncio.shield(stopped._end_task)  # type: ignore[arg-type]
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tethers children")
async def test_nothing_is_left_when_we_are_killed(log: Path) -> None:
    script = f"""
        import asyncio, sys
        from aligner_proxy.gateway.process.supervisor import ChildProcess, EngineProcess, Generation, run
        sys.argv = ["", {str(log)!r}]
        def child(name):
            command = [sys.executable, "-c", {CHILD!r}, {str(log)!r}, name]
            return ChildProcess(name, command, is_held=name == "gateway")
        async def now(): pass
        async def never(): await asyncio.sleep(600)
        asyncio.run(run(lambda _: Generation(EngineProcess(child("engine"), now), child("gateway"), never)))
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
        [sys.executable, "-m", "aligner_proxy.gateway.process.die_with_parent", "1", "touch", str(made)], check=False
    )
    assert status.returncode == 128 + signal.SIGTERM
    assert not made.exists()
    assert time.monotonic() - began < WAIT_S
