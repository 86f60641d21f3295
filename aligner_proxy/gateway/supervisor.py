"""Supervisor of the engine and LiteLLM: starts them in order, restarts the engine, drains both.

LiteLLM starts when the aligner is loaded, so its readiness means that both are ready. When the engine ends it is
restarted with a growing pause; when LiteLLM ends, everything ends with its status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aligner_proxy.errors import WeightsError

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Ready = Callable[[], Awaitable[None]]
"""Returns when the child is ready."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses between restarts in seconds. A child that ran for `stable` starts again with the first pause."""

    first: float = 0.5
    most: float = 30.0
    stable: float = 60.0
    grace: float = 30.0


@dataclass(slots=True)
class Child:
    """Child process in its own session, so that Ctrl-C does not reach it; it ends with this process."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; it shares our output."""
        tethered = [sys.executable, "-m", "aligner_proxy.gateway.die_with_parent", str(os.getpid()), *self.command]
        self.process = await asyncio.create_subprocess_exec(*tethered, env=self.env, start_new_session=True)
        log.info("%s: started (pid %d)", self.name, self.process.pid)

    async def wait(self) -> int:
        """Wait for the end; the exit status."""
        assert self.process is not None
        return await self.process.wait()

    async def stop(self, grace: float) -> None:
        """SIGTERM, `grace` seconds to finish, then SIGKILL for the child and its own children."""
        if self.process is None or self.process.returncode is not None:
            return
        self._send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), grace)
        except TimeoutError:
            log.warning("%s: still running %g s after SIGTERM, killed", self.name, grace)
            self.kill()
            await self.process.wait()

    def kill(self) -> None:
        """SIGKILL for the child and its own children."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _send(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


async def keep_alive(child: Child, pace: Pace) -> None:
    """Restart a started `child` whenever it ends, with a growing pause; runs until cancelled."""
    pause = pace.first
    while True:
        since = time.monotonic()
        status = await child.wait()
        if time.monotonic() - since >= pace.stable:
            pause = pace.first
        log.error("%s: ended with status %d, restart in %g s", child.name, status, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, pace.most)
        await child.start()


async def run(engine: Child | None, ready: Ready, gateway: Child, announce: Ready, pace: Pace | None = None) -> int:
    """Run both until a signal or the gateway's end; the exit status. `engine` is None if it is run elsewhere."""
    pace = pace or Pace()
    stop = asyncio.Event()
    with _signals(stop, [child for child in (engine, gateway) if child]):
        work = asyncio.ensure_future(_work(engine, ready, gateway, announce, pace))
        signalled = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work, signalled}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else 0
        finally:
            work.cancel()
            signalled.cancel()
            await asyncio.gather(work, signalled, return_exceptions=True)
            await gateway.stop(pace.grace)
            if engine:
                await engine.stop(pace.grace)


async def _work(engine: Child | None, ready: Ready, gateway: Child, announce: Ready, pace: Pace) -> int:
    if engine:
        await engine.start()
        await _loaded(engine, ready)
    else:
        await ready()
    await gateway.start()
    keeping = [asyncio.ensure_future(announce())]
    if engine:
        keeping.append(asyncio.ensure_future(keep_alive(engine, pace)))
    try:
        return await gateway.wait()
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _loaded(engine: Child, ready: Ready) -> None:
    """Wait until the engine is ready; if it ends before that, it would end again, so it is not restarted."""
    waiting = asyncio.ensure_future(ready())
    ended = asyncio.ensure_future(engine.wait())
    try:
        await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise WeightsError(
                f"the engine ended with status {ended.result()} before it was ready; its log above says why. "
                "`aligner-proxy doctor` lists what this machine lacks"
            )
        waiting.result()
    finally:
        waiting.cancel()
        ended.cancel()
        await asyncio.gather(waiting, ended, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, children: Sequence[Child]) -> Iterator[None]:
    """Signal handlers: the first signal drains, a second one kills."""
    loop = asyncio.get_running_loop()

    def received(number: int) -> None:
        if stop.is_set():
            for child in children:
                child.kill()
        log.info("%s: draining; send it again to kill", signal.Signals(number).name)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
