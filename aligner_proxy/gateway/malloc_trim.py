"""Periodically returns freed memory to the operating system (`malloc_trim`).

When a client disconnects during a long answer, its texts stay in reference cycles of a few old objects. Python counts
objects, not bytes, so a few objects among the hundreds of thousands that LiteLLM imports trigger no full collection,
least of all in an idle process. In addition, glibc keeps freed memory: long texts from many threads leave gaps in its
heaps that small objects keep open. A timer therefore collects old garbage and returns every free page.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable

EVERY_S = 30.0
"""Seconds between two collections."""
_running: set[asyncio.Task[None]] = set()
"""Strong reference to the timer, since the loop keeps only a weak one."""


def trim_periodically() -> None:
    """Start a task in the running loop that returns memory; does nothing without a loop or with collection disabled."""
    if _running or not gc.isenabled():
        return
    with contextlib.suppress(RuntimeError):
        task = asyncio.get_running_loop().create_task(_trim_repeatedly())
        _running.add(task)
        task.add_done_callback(_running.discard)


async def _trim_repeatedly() -> None:
    """Collect garbage and return free memory every `EVERY_S` seconds, until cancelled."""
    return_free_pages = find_trim()
    gc.freeze()  # imported modules stay, so collections can skip them
    try:
        while True:
            await asyncio.sleep(EVERY_S)
            # Needed in an idle process, too, since releasing old objects triggers no collection.
            if all(gc.get_threshold()):  # 0 while stalls.py suppresses collections
                gc.collect()
                if return_free_pages is not None:
                    await asyncio.to_thread(return_free_pages)  # other threads run on, as for every C function
    finally:
        gc.unfreeze()


def find_trim() -> Callable[[], object] | None:
    """The C library's function that returns free pages to the system; None if the library lacks it."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl and macOS lack the function, Windows the library
        return None
    return lambda: trim(ctypes.c_size_t(0))
