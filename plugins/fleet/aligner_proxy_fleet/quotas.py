"""Usage of tenants across all gateways, in the shared Redis: engine time for quotas, and engine slots.

An engine slot is one request at work on the engine; tenants share slots equally.

No request waits for this. Each gateway counts locally. A task periodically sends the usage since the last exchange and
the slots in use per tenant, and receives the totals. Between two exchanges the usage of others is unknown, so a tenant
can exceed its quota by what others process for it in `EXCHANGE_S`. While the server is unreachable, each gateway counts
alone, and usage from that time is not sent later. Each engine always counts for itself as well.

Accounts and tenants are sent as digests. Times are the server's, so host clocks do not matter. Malformed values on the
server are counted and replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aligner_proxy.concurrency import end_tasks
from aligner_proxy.engine.admission import Accounts
from aligner_proxy.types import Quota
from aligner_proxy_fleet.entries import ALTERED
from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.heartbeats import Heartbeats, heartbeat_arguments, make_member_id, parse_heartbeats
from aligner_proxy_fleet.metrics import REDIS_REFUSED
from aligner_proxy_fleet.server import RedisServer

if TYPE_CHECKING:
    from redis.asyncio import Redis

EXCHANGE_S = 0.5
"""Seconds between two exchanges."""
KNOWN_S = 4 * EXCHANGE_S
"""Seconds for which the slot counts of other gateways are valid; after it, a dead gateway counts as having none."""
_REMEMBERED_S = 120.0
"""Accounts and tenants without requests for this many seconds are no longer exchanged."""
_MAX_DIGITS = 5
"""Maximum digits of another worker's slot count; a longer number is not believed."""
# KEYS: the account. ARGV: seconds used since the last exchange, seconds a minute. Usage decays as in each gateway.
# Stored values that are no numbers, or too large to be ours, are replaced and reported as altered. The account expires
# a minute after its usage has decayed to nothing, but after a day at most.
_USE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local kept = redis.pcall('HMGET', KEYS[1], 'used', 'at')
local altered = 0
if kept.err then
    redis.call('DEL', KEYS[1])
    kept = {false, false}
    altered = 1
end
local before = tonumber(kept[1] or 0)
local at = tonumber(kept[2] or now)
if not before or not at or not (math.abs(before) < 1e9) or not (math.abs(at) < 1e12) then
    before = 0
    at = now
    altered = 1
end
local rate = tonumber(ARGV[2]) / 60
local used = math.max(0, before - math.max(0, now - at) * rate) + tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'used', tostring(used), 'at', string.format('%.6f', now))
local lives = 60
if rate > 0 then lives = math.min(86400, 60 + used / rate) end
redis.call('PEXPIRE', KEYS[1], math.ceil(lives * 1000))
return {tostring(used), altered}
"""


class SharedAccounts(Accounts):
    """Usage of tenants across all gateways, and their slots in other gateways, as of the last exchange."""

    def __init__(self, server: RedisServer, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._server = server
        self._prefix = prefix
        self._member = make_member_id()
        """Random id of this gateway."""
        self._unreported: dict[str, float] = {}
        """Seconds of engine time used here since the last exchange, by account."""
        self._active_quotas: dict[str, tuple[Quota, float]] = {}
        """By account: its quota, and when a request last used it (by `clock`)."""
        self._tenants: dict[str, float] = {}
        """When the slots of a tenant were last asked for (by `clock`), by tenant."""
        self._count_slots: Callable[[], Counter[str]] = Counter
        """Returns the number of slots that each tenant has in this gateway."""
        self._elsewhere: dict[str, tuple[int, float]] = {}
        """By tenant: its slots in other gateways, and when they were received (by `clock`)."""
        self._exchanging: asyncio.Task[None] | None = None
        """The task that exchanges periodically; None before the first request."""
        self._turn = asyncio.Lock()
        """Allows one exchange at a time, because usage that one is sending would be missing in the next one's
        totals."""

    def is_used_up(self, quota: Quota) -> bool:
        """Whether a quota is used up, as of the last exchange; from now on the exchanges include it."""
        self._active_quotas[quota.account] = quota, self.clock()
        self._keep_exchanging()
        return super().is_used_up(quota)

    def charge(self, quota: Quota, seconds: float) -> None:
        """Count usage of this gateway, and send it with the next exchange."""
        super().charge(quota, seconds)
        self._unreported[quota.account] = self._unreported.get(quota.account, 0.0) + seconds
        self._active_quotas[quota.account] = quota, self.clock()
        self._keep_exchanging()

    def register_places(self, places: Callable[[], Counter[str]]) -> None:
        """Set the function that returns each tenant's slots in this gateway, which are sent to the others."""
        self._count_slots = places

    def count_elsewhere(self, tenant: str) -> int:
        """Slots of this tenant in other gateways, as of the last exchange; 0 if that is too old.

        From now on the exchanges include this tenant.
        """
        self._tenants[tenant] = self.clock()
        self._keep_exchanging()
        count, at = self._elsewhere.get(tenant, (0, 0.0))
        return count if self.clock() - at < KNOWN_S else 0

    def _keep_exchanging(self) -> None:
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._exchange_repeatedly())

    async def _exchange_repeatedly(self) -> None:
        """Exchange usage and slots periodically, until no account or tenant had a request for `_REMEMBERED_S`."""
        while self._active_quotas or self._tenants:
            await self.exchange()
            await asyncio.sleep(EXCHANGE_S)
            oldest = self.clock() - _REMEMBERED_S
            self._active_quotas = {name: record for name, record in self._active_quotas.items() if record[1] > oldest}
            self._tenants = {name: at for name, at in self._tenants.items() if at > oldest}
            self._elsewhere = {name: record for name, record in self._elsewhere.items() if name in self._tenants}

    async def exchange(self) -> None:
        """Send the usage of this gateway to the server, and receive the totals of all."""
        async with self._turn:
            await self._exchange()

    async def _exchange(self) -> None:
        """Send usage and slots in one pipeline, and store the totals; usage that failed to be sent is dropped."""
        used = {name: self._unreported.pop(name, 0.0) for name in self._active_quotas}
        counts = self._count_slots()
        places = {name: counts[name] for name in self._tenants}

        async def run_scripts(redis: Redis) -> list[Any]:
            pipe = redis.pipeline(transaction=False)
            for name, seconds in used.items():
                quota, _ = self._active_quotas[name]
                pipe.eval(_USE, 1, f"{self._prefix}used:{name}", seconds, quota.seconds)
            for name, count in places.items():
                value = str(count).encode() if count else b""
                pipe.eval(*heartbeat_arguments(f"{self._prefix}places:{name}", self._member, value, KNOWN_S))
            answers: list[Any] = await pipe.execute()
            return answers

        try:
            answers = await self._server.write(run_scripts)
        except (RedisAway, RedisRefused):
            return  # the server may have counted the usage, so it must not be sent again
        now = self.clock()
        # Not strict: the answers for usage come first, and those for slots follow.
        for name, (total_used, altered) in zip(used, answers, strict=False):
            # The total lacks what was used here while the exchange ran.
            self._used[name] = (float(total_used) + self._unreported.get(name, 0.0), now)
            if altered:
                REDIS_REFUSED.labels(ALTERED).inc()
        for name, answer in zip(places, answers[len(used) :], strict=True):
            self._elsewhere[name] = (_total_places(parse_heartbeats(answer)), now)

    async def aclose(self) -> None:
        """End the task that exchanges."""
        if self._exchanging is not None:
            await end_tasks(self._exchanging)


def _total_places(heartbeats: Heartbeats) -> int:
    """The sum of the slots of other gateways; malformed values are counted in a metric and skipped."""
    total = 0
    for value in heartbeats.values():
        if value.isdigit() and len(value) <= _MAX_DIGITS:
            total += int(value)
        else:
            REDIS_REFUSED.labels(ALTERED).inc()
    return total
