"""Return of freed memory to the operating system, now and then.

A client that leaves a long answer behind leaves its texts in cycles of a few old objects: Python counts objects, not
their size, and beside the hundred thousands that LiteLLM imports a few are no reason for a full collection, least of
all in a process that is idle by then. And glibc keeps what is freed: long texts, allocated by many threads, leave gaps
in its heaps that small objects hold open. So old garbage is collected by the clock, and every free page is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable

EVERY_S = 30.0
_running: set[asyncio.Task[None]] = set()


def trim_periodically() -> None:
    """Give freed memory back until the running loop ends; does nothing without one, or where nothing is collected."""
    if _running or not gc.isenabled():
        return
    with contextlib.suppress(RuntimeError):
        task = asyncio.get_running_loop().create_task(_trim_repeatedly())
        _running.add(task)
        task.add_done_callback(_running.discard)


async def _trim_repeatedly() -> None:
    trim = find_trim()
    gc.freeze()  # imported modules stay, so collections can skip them
    try:
        while True:
            await asyncio.sleep(EVERY_S)
            # However idle: what old objects let go of adds to no count.
            if all(gc.get_threshold()):
                gc.collect()
                if trim is not None:
                    await asyncio.to_thread(trim)  # without the interpreter's lock
    finally:
        gc.unfreeze()


def find_trim() -> Callable[[], object] | None:
    """Function that gives free pages back; None where the C library has none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl and macOS have none, Windows no such library
        return None
    return lambda: trim(ctypes.c_size_t(0))
