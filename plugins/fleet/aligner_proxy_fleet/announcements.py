"""Announcements through the shared Redis (publish and subscribe), by which gateways compare their state at once.

A missed message only delays the next comparison. Messages have no content, so a forged message only causes a
comparison. A subscription has a connection of its own; if it breaks, it is opened again after a growing pause.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from aligner_proxy.concurrency import is_being_cancelled
from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.server import FIRST_PAUSE_S, LONGEST_PAUSE_S, RedisServer

_MESSAGE_WAIT_S = 30.0
"""Timeout in seconds of one wait for a message, after which the wait is repeated."""


class Announcements:
    """The channel on which a gateway tells other gateways to compare their state."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self._server = server
        self._channel = f"{prefix}look"

    async def announce(self) -> None:
        """Tell all gateways to compare their state now; failures are ignored."""
        with contextlib.suppress(RedisAway, RedisRefused):
            await self._server.ask(lambda redis: redis.publish(self._channel, b""))

    async def listen(self, on_message: Callable[[], object]) -> None:
        """Call `on_message` for every message, and after each new connection for missed messages, until cancelled."""
        from redis.exceptions import RedisError

        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        # the library may lose a cancellation (`RedisServer._call`), so `while True` might never end
        while not is_being_cancelled():
            started = loop.time()
            with contextlib.suppress(RedisError, OSError, ValueError):
                await self._listen_once(on_message)
            # after a connection that lasted for a long time, the pauses begin anew
            has_lasted = loop.time() - started > LONGEST_PAUSE_S
            pause_s = FIRST_PAUSE_S if has_lasted else min(LONGEST_PAUSE_S, pause_s * 2)
            await asyncio.sleep(pause_s)

    async def _listen_once(self, on_message: Callable[[], object]) -> None:
        """Subscribe and call `on_message` once, then for every message.

        The first call makes up for messages that came before the subscription. Raises the library's error if the
        connection fails.
        """
        client = self._server.new_client()
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(self._channel)
                on_message()
                # the library may lose a cancellation here, too
                while not is_being_cancelled():
                    message = await subscription.get_message(ignore_subscribe_messages=True, timeout=_MESSAGE_WAIT_S)
                    if message is not None:
                        on_message()
        finally:
            await client.aclose()
