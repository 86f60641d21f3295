"""Supervisor of the engine and LiteLLM: starts, restarts, replaces and drains both. A generation is an engine and the
LiteLLM that uses it.

Both start at once, since their imports take seconds. LiteLLM serves only after the aligner is loaded, so LiteLLM's
readiness means that both are ready. A process that ends is restarted with growing pauses. If LiteLLM ends before it was
ever ready, a restart would fail again, so `serve` exits with its status. The remaining subprocesses of a child
are ended before the next child starts, so that nothing else answers on the port.

On SIGHUP a second generation of both starts next to the first. Once it serves, the first LiteLLM stops accepting
connections and finishes its requests with the engine they began with; then that engine ends. If the second generation
does not become ready, it is stopped and the first one stays. If only LiteLLM must be replaced because of its memory,
the next generation shares the engine, which ends with its last user.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from aligner_proxy.concurrency import end_tasks
from aligner_proxy.errors import AlignerProxyError, WeightsError
from aligner_proxy.gateway.process.die_with_parent import tether_command
from aligner_proxy.gateway.process.memory_limit import MemoryLimit

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STDERR = 2
_SUBPROCESSES_S = 5.0
"""Seconds that the subprocesses of an ended child get to finish."""
_CHECK_EVERY_S = 0.05
"""Seconds between two checks whether those subprocesses have ended."""

Ready = Callable[[], Awaitable[None]]
"""Async function that returns when the child is ready."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses and time limits of the supervisor, in seconds. The pause before a restart grows from `first_pause_s` to
    `longest_pause_s`, and is reset once a child has run for `stable_s` seconds. Running requests get `grace_s` seconds
    at shutdown, `handover_s` seconds when a new generation serves, and `short_grace_s` seconds when memory is short. A
    new generation gets `start_s` seconds to become ready.
    """

    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    stable_s: float = 60.0
    grace_s: float = 30.0
    handover_s: float = 600.0
    start_s: float = 900.0
    short_grace_s: float = 5.0


@dataclass(slots=True)
class ChildProcess:
    """A child process in its own session, so that Ctrl-C does not reach it; it ends with this process. Of this
    process's file descriptors it inherits only `descriptors`. A held child waits, after its imports, for a line on its
    standard input, which `release` writes.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    descriptors: Sequence[int] = ()
    is_held: bool = False
    process: asyncio.subprocess.Process | None = None
    """The process that was started last; None before the first start."""
    started_at: float = -math.inf
    """Time of its last start, on the monotonic clock."""
    _end_task: asyncio.Task[int] | None = None
    """Waits for the end of `process` and its subprocesses; its result is the exit status."""

    async def start(self) -> None:
        """Start the process; it writes to this process's output."""
        command = tether_command(self.command)
        self.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if self.is_held else None,
            env=self.env,
            start_new_session=True,
            pass_fds=tuple(self.descriptors),
        )
        self.started_at = time.monotonic()
        self._end_task = asyncio.ensure_future(self._wait_end())
        log.info("%s: started (pid %d)", self.name, self.process.pid)

    def release(self) -> None:
        """Let a held child go on; of no effect on a child that has ended."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(b"\n")
            self.process.stdin.close()

    async def wait(self) -> int:
        """Wait until the child and its subprocesses have ended; return the exit status."""
        assert self._end_task is not None
        return await asyncio.shield(self._end_task)

    async def _wait_end(self) -> int:
        """Wait for the child, then end the subprocesses that it left behind; return its exit status."""
        assert self.process is not None
        status = await self.process.wait()
        if self._signal_group(signal.SIGTERM):
            log.warning("%s: ended and left subprocesses running; ending them, too", self.name)
            for _ in range(round(_SUBPROCESSES_S / _CHECK_EVERY_S)):
                if not self._signal_group(0):  # signal 0 only asks whether any process is left
                    break
                await asyncio.sleep(_CHECK_EVERY_S)
            self._signal_group(signal.SIGKILL)  # what is left after `_SUBPROCESSES_S` seconds
        return status

    async def stop(self, grace_s: float) -> None:
        """Send SIGTERM and wait for the end; after `grace_s` seconds send SIGKILL to the child and its own children."""
        if self.process is None:
            return
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        try:
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes when the child has just ended.
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            log.warning("%s: still running %g s after SIGTERM, killed", self.name, grace_s)
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """Send SIGKILL to the child and its own children."""
        if self._end_task is not None and not self._end_task.done():
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, signal_number: int) -> bool:
        """Send a signal to the child's process group; return whether any process is left.

        Must not be called after the task of `_wait_end` has finished, since the group's id may be reused then.
        """
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal_number)
        except (ProcessLookupError, PermissionError):  # macOS raises PermissionError if only zombies are left
            return False
        return True


class EngineProcess:
    """The engine of one or several generations; kept alive until the last of them has ended. `child` is None if the
    engine runs elsewhere.
    """

    def __init__(self, child: ChildProcess | None, wait_loaded: Ready) -> None:
        self.child = child
        self._wait_loaded = wait_loaded
        self._users = set[Generation]()
        """The generations whose LiteLLM uses this engine."""
        self._keep_alive_task: asyncio.Task[None] | None = None
        """Task that restarts the engine when it ends; None until it is ready, and if the engine is not our child."""

    async def start(self, user: Generation, pace: Pace) -> None:
        """Start the engine for its first generation, `user`, wait until it is ready, and restart it whenever it ends.

        For a further generation, this only notes that it uses the engine, which serves already.
        """
        is_shared = bool(self._users)
        self._users.add(user)
        if is_shared:  # it serves already
            return
        if self.child is None:
            await self._wait_loaded()
            return
        await self.child.start()
        await _wait_ready(self.child, self._wait_loaded)
        self._keep_alive_task = asyncio.ensure_future(keep_alive(self.child, pace))

    async def stop(self, user: Generation, grace_s: float) -> None:
        """Stop the engine unless a generation other than `user` uses it; kill it after `grace_s` seconds."""
        self._users.discard(user)
        if self._users:
            return
        if self._keep_alive_task is not None:
            # The task ends first, since it would restart the stopped engine.
            await end_tasks(self._keep_alive_task)
        if self.child:
            await self.child.stop(grace_s)

    def kill(self) -> None:
        """Send SIGKILL to the engine, if it is our child."""
        if self.child:
            self.child.kill()


@dataclass(slots=True, eq=False)
class Generation:
    """An engine and the LiteLLM that uses it, of one version and configuration."""

    engine: EngineProcess
    gateway: ChildProcess
    """LiteLLM, a held child."""
    wait_serving: Ready
    """Returns when LiteLLM answers requests."""
    has_served: bool = False
    """Whether LiteLLM has answered requests; if not, a restart would fail again."""

    async def start_engine(self, pace: Pace) -> None:
        """Start the engine, unless another generation already runs it; meanwhile LiteLLM imports its code."""
        await self.gateway.start()
        await self.engine.start(self, pace)

    async def start_gateway(self) -> None:
        """Let LiteLLM go on and wait until it serves."""
        self.gateway.release()
        await _wait_ready(self.gateway, self.wait_until_serving)

    async def wait_until_serving(self) -> None:
        """Wait until LiteLLM answers requests, and note that in `has_served`."""
        await self.wait_serving()
        self.has_served = True

    async def stop(self, gateway_grace_s: float, engine_grace_s: float) -> None:
        """Stop LiteLLM, which first finishes its requests with the engine, then the engine; kill each if too slow."""
        try:
            await self.gateway.stop(gateway_grace_s)
        finally:
            await self.engine.stop(self, engine_grace_s)

    def kill(self) -> None:
        """Send SIGKILL to LiteLLM and the engine."""
        self.gateway.kill()
        self.engine.kill()


class _RestartPauses:
    """Growing pauses before the restarts of one child."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._next_pause_s = pace.first_pause_s
        """Seconds of the next pause, unless the child runs for `stable_s` seconds before."""

    def take_pause(self, run_s: float) -> float:
        """The seconds to pause now, after the child ran for `run_s` seconds; the following pause is twice as long.

        After a run of `stable_s` seconds the pauses start again with the shortest.
        """
        if run_s >= self._pace.stable_s:
            self._next_pause_s = self._pace.first_pause_s
        pause_s = self._next_pause_s
        self._next_pause_s = min(pause_s * 2, self._pace.longest_pause_s)
        return pause_s


async def keep_alive(child: ChildProcess, pace: Pace) -> None:
    """Restart a started `child` whenever it ends, with a growing pause; runs until cancelled."""
    pauses = _RestartPauses(pace)
    while True:
        status = await child.wait()
        pause_s = pauses.take_pause(run_s=time.monotonic() - child.started_at)
        log.error("%s: ended with status %d, restart in %g s", child.name, status, pause_s)
        await asyncio.sleep(pause_s)
        await child.start()


MakeGeneration = Callable[[EngineProcess | None], Generation]
"""Creates the next generation: with the given running engine, or a new one, which may raise `ConfigError`."""


class _Demand(Enum):
    """What happens next to the serving generation."""

    END = "its LiteLLM has ended"
    REPLACE = "both processes are to be replaced"
    RENEW = "its LiteLLM alone is to be replaced"


async def run(
    make_generation: MakeGeneration,
    pace: Pace | None = None,
    on_drain: Callable[[], None] = lambda: None,
    memory: MemoryLimit | None = None,
) -> int:
    """Supervise the engine and LiteLLM; return 0 after a signal, or the status of a LiteLLM that ends before it serves.

    `make_generation` builds a generation. `on_drain` is called at the shutdown, before the child processes are stopped.
    """
    supervisor = _Supervisor(make_generation, pace or Pace(), memory or MemoryLimit())
    with supervisor.handle_signals():
        run_task = asyncio.ensure_future(supervisor.run())
        signal_task = asyncio.ensure_future(supervisor.stop.wait())
        try:
            await asyncio.wait({run_task, signal_task}, return_when=asyncio.FIRST_COMPLETED)
            return run_task.result() if run_task.done() else 0  # 0: a signal asked for the end
        finally:
            on_drain()
            await end_tasks(run_task, signal_task)
            await supervisor.stop_all()


class _Supervisor:
    """The running generations: the one that serves, one that starts, and those that finish their requests."""

    def __init__(self, make_generation: MakeGeneration, pace: Pace, memory: MemoryLimit) -> None:
        self.stop = asyncio.Event()
        """Set when a signal asks for the end."""
        self._restart = asyncio.Event()
        """Set when SIGHUP asks for a new generation."""
        self._hurry_drains = asyncio.Event()
        """Set while draining generations must end soon, because memory is short."""
        self._make_next_generation = make_generation
        self._pace = pace
        self._memory = memory
        self._pauses = _RestartPauses(pace)
        self._renewed_at = -math.inf
        """Monotonic time of the last replacement, or attempt, because of memory."""
        self._generations: list[Generation] = []
        self._retirements: set[asyncio.Task[None]] = set()
        """Tasks that drain and stop the generations that were replaced."""

    async def run(self) -> int:
        """Start the first generation; replace it if SIGHUP asks for this, or LiteLLM ends or uses too much memory.

        Returns only if the first LiteLLM ends before it serves: its exit status.
        """
        current = self._make_generation()
        await current.start_engine(self._pace)
        # Not `start_gateway`, which raises if LiteLLM ends before it serves; here its exit status is returned instead.
        current.gateway.release()
        serving_task = asyncio.ensure_future(current.wait_until_serving())  # sets `has_served`
        try:
            while True:
                demand = await self._wait_for_demand(current)
                if demand is not _Demand.END:
                    shared_engine = current.engine if demand is _Demand.RENEW else None
                    successor = await self._replace_generation(current, shared_engine, "the running processes stay")
                    if successor is not None:
                        current = successor
                elif current.has_served:
                    current = await self._revive(current)
                else:
                    return await current.gateway.wait()
        finally:
            await end_tasks(serving_task)

    async def _wait_for_demand(self, current: Generation) -> _Demand:
        """Wait until the serving generation has to be replaced or has ended; return which of these demands came."""
        demand_by_task = {
            asyncio.ensure_future(current.gateway.wait()): _Demand.END,
            asyncio.ensure_future(self._restart.wait()): _Demand.REPLACE,
            asyncio.ensure_future(self._wait_too_large(current)): _Demand.RENEW,
        }
        try:
            await asyncio.wait(demand_by_task, return_when=asyncio.FIRST_COMPLETED)
            # If several tasks are done, the first in the dictionary's order counts: a LiteLLM that has ended.
            return next(demand for task, demand in demand_by_task.items() if task.done())
        finally:
            self._restart.clear()
            await end_tasks(*demand_by_task)

    async def _wait_too_large(self, current: Generation) -> None:
        """Wait until LiteLLM uses too much memory, at least `stable_s` seconds after the last attempt to replace it."""
        await asyncio.sleep(max(0.0, self._renewed_at + self._pace.stable_s - time.monotonic()))
        assert current.gateway.process is not None
        resident_mb = await self._memory.wait_until_near(current.gateway.process.pid)
        if self._retirements:
            await self._wait_until_drained(current.gateway.process.pid)
        self._renewed_at = time.monotonic()
        log.warning("litellm: uses %d MB of %d; a new process replaces it", resident_mb, self._memory.max_mb)

    async def _wait_until_drained(self, pid: int) -> None:
        """Wait until no earlier LiteLLM is finishing requests, before the serving LiteLLM `pid` gets a successor.

        Three LiteLLM processes at once would need too much memory. If the serving process exceeds its limit meanwhile,
        the earlier processes must finish quickly.
        """
        retirements = set(self._retirements)
        limit_task = asyncio.ensure_future(self._memory.wait_until_exceeded(pid))
        drain_task = asyncio.ensure_future(asyncio.wait(retirements))
        try:
            await asyncio.wait({limit_task, drain_task}, return_when=asyncio.FIRST_COMPLETED)
            if not drain_task.done():
                self._hurry_drains.set()
                await asyncio.wait(retirements)
        finally:
            self._hurry_drains.clear()
            await end_tasks(limit_task, drain_task)

    async def _revive(self, predecessor: Generation) -> Generation:
        """Replace a generation whose LiteLLM has ended, trying until it works; return the new generation.

        The engine stays, unless SIGHUP arrives. The listening port stays open, so clients wait instead of being
        refused.
        """
        status = await predecessor.gateway.wait()
        run_s = time.monotonic() - predecessor.gateway.started_at
        while True:
            pause_s = self._pauses.take_pause(run_s)
            log.error("%s: ended with status %d, restart in %g s", predecessor.gateway.name, status, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._restart.wait()
            shared_engine = None if self._restart.is_set() else predecessor.engine
            self._restart.clear()
            successor = await self._replace_generation(predecessor, shared_engine, "trying again")
            if successor is not None:
                return successor
            run_s = 0.0  # the successor never served, so the pauses keep growing

    async def _replace_generation(
        self, current: Generation, shared_engine: EngineProcess | None, consequence: str
    ) -> Generation | None:
        """Start a generation in place of `current`, with its own engine or, if given, a shared engine.

        `current` is drained and stopped in the background. If the new generation cannot be started, `current` stays and
        None is returned; `consequence` says in the log what happens then.
        """
        log.info("restart: starting a new %sLiteLLM", "" if shared_engine else "engine and ")
        successor = None
        try:
            successor = self._make_generation(shared_engine)
            async with asyncio.timeout(self._pace.start_s):
                await successor.start_engine(self._pace)
                await successor.start_gateway()
        except (AlignerProxyError, TimeoutError) as error:
            fault = str(error) or f"not ready after {self._pace.start_s:g} s"
            log.error("restart: refused, %s: %s", consequence, fault)  # noqa: TRY400 - the error is a sentence
            if successor is not None:
                await successor.stop(self._pace.grace_s, self._pace.grace_s)
                self._generations.remove(successor)
            return None
        retirement = asyncio.ensure_future(self._retire(current))
        self._retirements.add(retirement)
        retirement.add_done_callback(self._retirements.discard)
        return successor

    async def _retire(self, generation: Generation) -> None:
        """Let a generation that was replaced finish its requests, as long as memory allows; then stop it."""
        await self._drain(generation.gateway)
        await generation.stop(self._pace.short_grace_s, self._pace.grace_s)
        self._generations.remove(generation)
        log.info("restart: done, the old processes have ended")

    async def _drain(self, gateway: ChildProcess) -> None:
        """Let LiteLLM finish its requests and end; return early if it or its successor exceeds the memory limit."""
        assert gateway.process is not None
        stop_task = asyncio.ensure_future(gateway.stop(self._pace.handover_s))
        limit_task = asyncio.ensure_future(self._memory.wait_until_exceeded(gateway.process.pid))
        hurry_task = asyncio.ensure_future(self._hurry_drains.wait())
        try:
            await asyncio.wait({stop_task, limit_task, hurry_task}, return_when=asyncio.FIRST_COMPLETED)
            if not stop_task.done():
                log.warning("litellm: too much memory is used, the old process ends in %g s", self._pace.short_grace_s)
        finally:
            await end_tasks(stop_task, limit_task, hurry_task)

    def _make_generation(self, engine: EngineProcess | None = None) -> Generation:
        """A new generation, not started, with this running engine or a new one; raises `ConfigError`."""
        generation = self._make_next_generation(engine)
        self._generations.append(generation)
        return generation

    async def stop_all(self) -> None:
        """Let all generations finish their requests and stop, concurrently."""
        await end_tasks(*self._retirements)
        await asyncio.gather(
            *(generation.stop(self._pace.grace_s, self._pace.grace_s) for generation in self._generations)
        )

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Context manager during which SIGHUP replaces engine and LiteLLM, the first SIGTERM or SIGINT lets them finish
        their requests and end, and a second one kills them.
        """
        loop = asyncio.get_running_loop()
        had_terminal = os.isatty(_STDERR)

        def handle_signal(signal_number: int) -> None:
            """Ask for the end; the second signal kills all processes."""
            if self.stop.is_set():
                for generation in self._generations:
                    generation.kill()
                return
            signal_name = signal.Signals(signal_number).name
            log.info("%s: finishing requests; send the signal again to stop at once", signal_name)
            self.stop.set()

        def handle_hangup() -> None:
            """Ask for a new generation or, if the signal came because the terminal was closed, for the end."""
            if had_terminal and not os.isatty(_STDERR):
                handle_signal(signal.SIGHUP)
            else:
                self._restart.set()

        for signal_number in _SIGNALS:
            loop.add_signal_handler(signal_number, handle_signal, signal_number)
        loop.add_signal_handler(signal.SIGHUP, handle_hangup)
        try:
            yield
        finally:
            for signal_number in (*_SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(signal_number)


async def _wait_ready(child: ChildProcess, wait_until_ready: Ready) -> None:
    """Wait until a started child is ready; raise `WeightsError` if it ends first, since a restart would fail again."""
    ready_task = asyncio.ensure_future(wait_until_ready())
    end_task = asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait({ready_task, end_task}, return_when=asyncio.FIRST_COMPLETED)
        if end_task.done():
            raise WeightsError(
                f"the {child.name} ended with status {end_task.result()} before it was ready; its log above says why. "
                "`aligner-proxy doctor` lists what this machine lacks"
            )
        ready_task.result()  # raises the error of `wait_until_ready`
    finally:
        await end_tasks(ready_task, end_task)
