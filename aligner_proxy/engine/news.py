"""How does the event loop learn that the model's thread has something new? No torch.

`spread` may be called from any thread, as often as it likes; whoever waits looks again after each.
"""

from __future__ import annotations

import asyncio
import contextlib


class News:
    """Made in the event loop in which it is waited for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def spread(self) -> None:
        """There is something new."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Return when something new has been spread since the last time."""
        await self._event.wait()
        self._event.clear()
