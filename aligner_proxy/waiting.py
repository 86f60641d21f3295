"""Work that is done to its end, whether or not it is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aligner_proxy.errors import DeadlineExceeded

_ending: set[asyncio.Task[None]] = set()
"""The loop itself holds tasks only weakly."""


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end.

    When a client leaves a stream, its server cancels again at every await (anyio), so nothing that waits gets done.
    """
    task = asyncio.create_task(work)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    await asyncio.shield(task)


@contextlib.asynccontextmanager
async def within(deadline_s: float) -> AsyncIterator[None]:
    """Raises `DeadlineExceeded` in place of what takes longer."""
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"the deadline of {deadline_s:g} s passed") from None
