"""Periodic return of freed memory to the operating system (`malloc_trim`).

A client that leaves during a long answer leaves its texts in reference cycles of a few old objects. Python counts
objects, not bytes, so a few objects beside the hundreds of thousands that LiteLLM imports do not trigger a full
collection, least of all in an idle process. And glibc keeps freed memory: long texts from many threads leave gaps in
its heaps that small objects keep open. So a timer collects old garbage and returns every free page.
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
    """Return freed memory until the running loop ends; does nothing without a loop or with collection disabled."""
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
            # Also in an idle process, since releasing old objects triggers no collection.
            if all(gc.get_threshold()):
                gc.collect()
                if trim is not None:
                    await asyncio.to_thread(trim)  # without the interpreter's lock
    finally:
        gc.unfreeze()


def find_trim() -> Callable[[], object] | None:
    """The function that returns free pages; None if the C library has none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl and macOS have none, Windows no such library
        return None
    return lambda: trim(ctypes.c_size_t(0))
