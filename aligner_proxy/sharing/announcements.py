"""Announcements in the shared Redis: "look now", by publish and subscribe. Who misses one finds out when it looks next.

A message has no content, so a forged one costs a look. Listening has a connection of its own, because a subscribed one
can do nothing else; where it breaks it is made anew, with pauses that grow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from aligner_proxy.errors import RedisAway, RedisRefused
from aligner_proxy.sharing.server import FIRST_PAUSE_S, LONGEST_PAUSE_S, RedisServer

_LOOK_S = 30.0
"""How long to wait for a message before waiting again."""


class Announcements:
    """One channel."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self._server = server
        self._channel = f"{prefix}look"

    async def announce(self) -> None:
        """Tell everybody to look; it does not matter if that fails."""
        with contextlib.suppress(RedisAway, RedisRefused):
            await self._server.ask(lambda redis: redis.publish(self._channel, b""))

    async def listen(self, on_message: Callable[[], object]) -> None:
        """Call `heard` at every message, and whenever some may have been missed; until cancelled."""
        from redis.exceptions import RedisError

        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            with contextlib.suppress(RedisError, OSError, ValueError):
                await self._listen_once(on_message)
            pause_s = FIRST_PAUSE_S if loop.time() - began > LONGEST_PAUSE_S else min(LONGEST_PAUSE_S, pause_s * 2)
            await asyncio.sleep(pause_s)

    async def _listen_once(self, on_message: Callable[[], object]) -> None:
        """Listen until the connection breaks; raises the library's errors."""
        client = self._server.new_client()
        try:
            async with client.pubsub() as subscribed:
                await subscribed.subscribe(self._channel)
                on_message()
                while True:
                    if await subscribed.get_message(ignore_subscribe_messages=True, timeout=_LOOK_S) is not None:
                        on_message()
        finally:
            await client.aclose()
