"""Keeps a companion process, such as the console, running next to the gateway.

The companion is restarted when it ends, and replaced whenever `serve` replaces engine and LiteLLM by a new generation.
Its end never ends the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aligner_proxy.gateway.process.supervisor import ChildProcess, Pace, keep_alive

CHECK_EVERY_S = 0.5
_GRACE_S = 5.0
"""Seconds that a companion gets to end after SIGTERM."""


@dataclass(frozen=True, slots=True)
class CompanionKeeper:
    """Runs one companion for each serving generation, which is an engine with its LiteLLM. `serving` returns the number
    of the serving generation (None while none serves); `make` creates its companion, which is not started yet.
    """

    serving: Callable[[], int | None]
    make: Callable[[], ChildProcess]
    pace: Pace = field(default_factory=Pace)
    check_every_s: float = CHECK_EVERY_S

    async def keep_running(self) -> None:
        """Keep the companion of the serving generation running, until cancelled."""
        async with asyncio.TaskGroup() as group:
            task_generation: int | None = None  # the generation for which `task` was started
            task: asyncio.Task[None] | None = None  # runs the companion
            while True:
                generation = self.serving()
                # While no generation serves, the last companion stays.
                if generation != task_generation and generation is not None:
                    if task is not None:
                        task.cancel()
                        await asyncio.wait({task})
                    task = group.create_task(self._run_companion())
                    task_generation = generation
                await asyncio.sleep(self.check_every_s)

    async def _run_companion(self) -> None:
        """Run one companion: restart it whenever it ends, and stop it when cancelled."""
        child = self.make()
        try:
            await child.start()
            await keep_alive(child, self.pace)
        finally:
            await child.stop(_GRACE_S)
