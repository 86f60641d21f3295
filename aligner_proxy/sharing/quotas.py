"""Engine time that tenants used through all gateways, in the shared Redis.

A request waits for none of it: each gateway counts for itself, and a task tells the server now and then what was used
since, and hears what all used together. Between two such moments the others' use is not known, so a tenant can run into
debt by what they work on for it in `EXCHANGE_S`. While the server is away each gateway counts alone, and what it used
meanwhile is not told afterwards; each engine goes on counting for itself in any case.

Accounts are told as digests. The time that passes is the server's, so that the clocks of hosts do not matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aligner_proxy.engine.admission import Accounts
from aligner_proxy.errors import RedisAway, RedisRefused
from aligner_proxy.sharing.server import RedisServer
from aligner_proxy.types import Quota

if TYPE_CHECKING:
    from redis.asyncio import Redis

EXCHANGE_S = 0.5
_REMEMBERED_S = 120.0
"""An account that nobody asked for lately is no longer exchanged."""
# KEYS: the account. ARGV: seconds used since, seconds a minute. What was used is forgotten as in each gateway.
_USE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local kept = redis.call('HMGET', KEYS[1], 'used', 'at')
local rate = tonumber(ARGV[2]) / 60
local used = math.max(0, (tonumber(kept[1]) or 0) - (now - (tonumber(kept[2]) or now)) * rate) + tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'used', tostring(used), 'at', string.format('%.6f', now))
local lives = 60
if rate > 0 then lives = math.min(86400, 60 + used / rate) end
redis.call('PEXPIRE', KEYS[1], math.ceil(lives * 1000))
return tostring(used)
"""


class SharedAccounts(Accounts):
    """What tenants used through all gateways, as far as this one knows."""

    def __init__(self, server: RedisServer, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._server = server
        self._prefix = prefix
        self._untold: dict[str, float] = {}
        self._asked: dict[str, tuple[Quota, float]] = {}
        self._exchanging: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """One exchange after the other: what one is telling would be missing in what the next one hears."""

    def spent(self, quota: Quota) -> bool:
        """Whether nothing is left of a quota, as of the last exchange."""
        self._seen(quota)
        return super().spent(quota)

    def charge(self, quota: Quota, seconds: float) -> None:
        """Count what was used here, and tell the others soon."""
        super().charge(quota, seconds)
        self._untold[quota.account] = self._untold.get(quota.account, 0.0) + seconds
        self._seen(quota)

    def _seen(self, quota: Quota) -> None:
        """Exchange this account from now on."""
        self._asked[quota.account] = quota, self.clock()
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._exchange_repeatedly())

    async def _exchange_repeatedly(self) -> None:
        """Exchange all accounts, until none was asked for lately."""
        while self._asked:
            await self.exchange()
            await asyncio.sleep(EXCHANGE_S)
            late = [name for name, (_, at) in self._asked.items() if self.clock() - at > _REMEMBERED_S]
            for name in late:
                del self._asked[name]

    async def exchange(self) -> None:
        """Tell the server what was used here, and hear what was used everywhere."""
        async with self._turn:
            await self._exchange()

    async def _exchange(self) -> None:
        told = {name: self._untold.pop(name, 0.0) for name in self._asked}

        async def work(redis: Redis) -> list[Any]:
            pipe = redis.pipeline(transaction=False)
            for name, used in told.items():
                quota, _ = self._asked[name]
                pipe.eval(_USE, 1, f"{self._prefix}used:{name}", used, quota.seconds)
            answers: list[Any] = await pipe.execute()
            return answers

        try:
            everywhere = await self._server.write(work)
        except (RedisAway, RedisRefused):
            return  # whether it was counted there is not known, and must not be counted twice
        for name, used in zip(told, everywhere, strict=True):
            self._used[name] = (float(used) + self._untold.get(name, 0.0), self.clock())

    async def aclose(self) -> None:
        """Exchange nothing more."""
        if self._exchanging is not None:
            self._exchanging.cancel()
            await asyncio.gather(self._exchanging, return_exceptions=True)
