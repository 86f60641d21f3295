"""Workaround for a crash of CPython 3.11: collect garbage only between two callbacks of the event loop.

Before 3.12 a collection can start whenever an object is created, even inside `ContextVar.set`. A finaliser that sets a
context variable then frees the data that is being copied, and the process crashes (python/cpython#148891). Collecting
the oldest generation is left to malloc_trim.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys

# Pause between two checks in seconds: short while garbage is produced, long in an idle process.
SHORTEST_S = 0.01
LONGEST_S = 0.1
IS_SAFE = sys.version_info >= (3, 12)
"""Whether this Python starts collections only between two instructions, not when an object is created."""
_running: set[asyncio.Task[None]] = set()
"""Strong reference to the task, since the loop keeps only a weak one."""


def collect_between_callbacks() -> None:
    """Start collecting between callbacks of the running loop; does nothing without a loop or from Python 3.12 on."""
    if IS_SAFE or _running or not gc.isenabled():
        return
    with contextlib.suppress(RuntimeError):
        task = asyncio.get_running_loop().create_task(_collect_repeatedly())
        _running.add(task)
        task.add_done_callback(_running.discard)


async def _collect_repeatedly() -> None:
    """Collect the young generations between callbacks in place of Python's own collection, until cancelled."""
    gc.freeze()  # imported modules stay, so collections can skip them
    gc.disable()
    pause = SHORTEST_S
    try:
        while True:
            await asyncio.sleep(pause)
            pause = min(LONGEST_S, 2 * pause)
            generation = due_generation()
            if generation is not None:
                gc.collect(generation)
                pause = SHORTEST_S
    finally:
        gc.unfreeze()
        gc.enable()


def due_generation() -> int | None:
    """The older of the two young generations (0 and 1) whose count exceeds its threshold; None if neither does."""
    counts = gc.get_count()
    thresholds = gc.get_threshold()
    for generation in (1, 0):
        # A threshold of 0 switches collections off, as stalls.py does for a moment.
        if 0 < thresholds[generation] < counts[generation]:
            return generation
    return None
