"""When is garbage collected? Under CPython 3.11 between two callbacks of the event loop, and never anywhere else.

Until 3.12 a collection starts wherever an object is made, also in the middle of `ContextVar.set`; a finaliser that sets
a context variable then frees what is being copied, and the process dies (python/cpython#148891). 3.12 waits by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time

# Between two looks: what waits for long leaves the processor's cache, and an idle process need not look often.
SHORTEST_S = 0.01
LONGEST_S = 0.1
FULL_S = 30.0
"""At least so long between two full collections, which stop everything for as long as they take."""
IS_SAFE = sys.version_info >= (3, 12)
_running: set[asyncio.Task[None]] = set()


def between_callbacks() -> None:
    """From now on, until the running loop ends; does nothing where there is no loop, or Python needs no help."""
    if IS_SAFE or _running or not gc.isenabled():
        return
    with contextlib.suppress(RuntimeError):
        task = asyncio.get_running_loop().create_task(_collected())
        _running.add(task)
        task.add_done_callback(_running.discard)


async def _collected() -> None:
    gc.freeze()  # what has been imported stays; no collection need look at it again
    gc.disable()
    pause = SHORTEST_S
    full = time.monotonic()
    try:
        while True:
            await asyncio.sleep(pause)
            pause = min(LONGEST_S, 2 * pause)
            if (due := oldest_due(2 if time.monotonic() - full >= FULL_S else 1)) is not None:
                gc.collect(due)
                pause = SHORTEST_S
                full = time.monotonic() if due == 2 else full
    finally:
        gc.unfreeze()
        gc.enable()


def oldest_due(oldest: int) -> int | None:
    """The oldest generation up to `oldest` whose count has passed its threshold."""
    both = list(zip(gc.get_count(), gc.get_threshold(), strict=True))
    return next((age for age in range(oldest, -1, -1) if both[age][1] and both[age][0] > both[age][1]), None)
