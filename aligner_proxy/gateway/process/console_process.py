"""The console beside a gateway: a child that is replaced with the engine it asks, restarted when it ends, and ended.

Its end is never the gateway's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aligner_proxy.gateway.process.supervisor import ChildProcess, Pace, keep_alive

LOOK_S = 0.5
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class ConsoleKeeper:
    """`serving` gives the number of the generation that serves, None before one does; `make` its console."""

    serving: Callable[[], int | None]
    make: Callable[[], ChildProcess]
    pace: Pace = field(default_factory=Pace)
    look_s: float = LOOK_S

    async def keep_running(self) -> None:
        """Keep the console of the generation that serves; runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            current: int | None = None
            keeping: asyncio.Task[None] | None = None
            while True:
                number = self.serving()
                if number != current and number is not None:
                    if keeping is not None:
                        keeping.cancel()
                        await asyncio.wait({keeping})
                    keeping = group.create_task(self._run_console())
                    current = number
                await asyncio.sleep(self.look_s)

    async def _run_console(self) -> None:
        """One console, restarted whenever it ends; stopped when cancelled."""
        child = self.make()
        try:
            await child.start()
            await keep_alive(child, self.pace)
        finally:
            await child.stop(_GRACE_S)
