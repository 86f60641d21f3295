"""How do the engine and LiteLLM live together? Starts them in order, restarts the engine, drains both, leaves nothing.

LiteLLM starts when the aligner is loaded, so its own readiness means that both are. When the engine dies it is started
again, ever more slowly; when LiteLLM ends, everything ends with its status. Knows nothing about configs or models.
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
"""Returns when the child can work; waits as long as it takes."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. A child that lived for `stable` is forgiven: its next restart is as quick as the first."""

    first: float = 0.5
    most: float = 30.0
    stable: float = 60.0
    grace: float = 30.0


@dataclass(slots=True)
class Child:
    """One child process, in a session of its own so that Ctrl-C reaches only us; it ends when we end."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; its output is ours."""
        tethered = [sys.executable, "-m", "aligner_proxy.gateway.die_with_parent", str(os.getpid()), *self.command]
        self.process = await asyncio.create_subprocess_exec(*tethered, env=self.env, start_new_session=True)
        log.info("%s: started (pid %d)", self.name, self.process.pid)

    async def wait(self) -> int:
        """Its exit status, when it has ended."""
        assert self.process is not None
        return await self.process.wait()

    async def stop(self, grace: float) -> None:
        """SIGTERM, `grace` seconds to finish, then SIGKILL for it and all it started."""
        if self.process is None or self.process.returncode is not None:
            return
        self._send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), grace)
        except TimeoutError:
            log.warning("%s: not done after %g s, killed", self.name, grace)
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
    """Start `child` again whenever it ends, with a growing pause. Expects it started; returns only by cancellation."""
    pause = pace.first
    while True:
        since = time.monotonic()
        status = await child.wait()
        if time.monotonic() - since >= pace.stable:
            pause = pace.first
        log.error("%s: ended with status %d, starting it again in %g s", child.name, status, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, pace.most)
        await child.start()


async def run(engine: Child | None, ready: Ready, gateway: Child, announce: Ready, pace: Pace | None = None) -> int:
    """Run both until a signal or the gateway's end; the exit status. `engine` is None when it is somebody else's."""
    pace = pace or Pace()
    stop = asyncio.Event()
    with _signals(stop, [child for child in (engine, gateway) if child]):
        work = asyncio.ensure_future(_work(engine, ready, gateway, announce, pace))
        asked = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else 0
        finally:
            work.cancel()
            asked.cancel()
            await asyncio.gather(work, asked, return_exceptions=True)
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
    """Until the engine is ready; one that ends before that would end again, so it is not restarted."""
    waiting = asyncio.ensure_future(ready())
    ended = asyncio.ensure_future(engine.wait())
    try:
        await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise WeightsError(
                f"the engine ended with status {ended.result()} before it was ready; it says why above. "
                "`aligner-proxy doctor` tells what this machine lacks"
            )
        waiting.result()
    finally:
        waiting.cancel()
        ended.cancel()
        await asyncio.gather(waiting, ended, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, children: Sequence[Child]) -> Iterator[None]:
    """The first signal drains, a second one kills."""
    loop = asyncio.get_running_loop()

    def received(number: int) -> None:
        if stop.is_set():
            for child in children:
                child.kill()
        log.info("%s: draining; once more to kill", signal.Signals(number).name)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
