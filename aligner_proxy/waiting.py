"""How is something waited for without falling silent, and how does a stream come in while somebody else is busy?

Comments keep a connection alive that has nothing else to say; every SSE parser ignores them. A stream is read in one
task of its own from its beginning to its end, since what it is made of may be bound to the task that reads it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any

KEEPALIVE = b": keep-alive\n\n"


_ending: set[asyncio.Task[None]] = set()


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end, whether or not it is waited for.

    When a client leaves a stream, its server cancels again at every await (anyio), so nothing that waits gets done.
    """
    task = asyncio.create_task(work)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    await asyncio.shield(task)


async def heartbeats(work: Coroutine[Any, Any, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """Do the work; meanwhile a comment every so often (0: none). Raises what the work raises; ends it when left."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=every_s or None)
            if not task.done():
                yield KEEPALIVE
        task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


class Inflow:
    """The items of a stream as they come; `changed` is called for each, and at the end."""

    def __init__(self, source: AsyncIterable[object], changed: Callable[[], None]) -> None:
        self.items: deque[object] = deque()
        self._changed = changed
        self._task = asyncio.ensure_future(self._read(source))
        self._task.add_done_callback(lambda _: changed())

    @property
    def over(self) -> bool:
        """The stream has ended; there may be items left."""
        return self._task.done()

    @property
    def error(self) -> BaseException | None:
        """What broke it."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    async def aclose(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read(self, source: AsyncIterable[object]) -> None:
        async for item in source:
            self.items.append(item)
            self._changed()
