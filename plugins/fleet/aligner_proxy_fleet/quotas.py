"""Usage of tenants across all gateways, in the shared Redis: engine time for quotas, and engine slots.

An engine slot is taken by one running request; tenants share slots equally. An account is what a quota is counted in.

No request waits for an exchange with Redis. Each gateway counts locally. A task periodically sends the usage since the
last exchange and the slots in use by tenant, and receives the totals. Between two exchanges the usage in other gateways
is unknown, so a tenant can exceed its quota by its usage there during `EXCHANGE_S`. While the server is unreachable,
each gateway counts alone, and usage from that time is not sent later. Each engine always counts for itself as well.

Accounts and tenants are sent as digests. Times are the server's, so host clocks do not matter. Malformed values on the
server are counted in a metric and replaced.
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
"""Seconds for which the slot counts of another gateway are valid; after them, it is dead and has no slots."""
_REMEMBERED_S = 120.0
"""Seconds without requests after which an account or tenant is no longer exchanged."""
_MAX_DIGITS = 5
"""Maximum digits of another gateway's slot count; a longer number must be wrong."""
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
        self._asked_at: dict[str, float] = {}
        """By tenant: when its slots were last asked for (by `clock`)."""
        self._count_slots: Callable[[], Counter[str]] = Counter
        """Returns the number of slots that each tenant has in this gateway."""
        self._slots_elsewhere: dict[str, tuple[int, float]] = {}
        """By tenant: its slots in other gateways, and when their number was received (by `clock`)."""
        self._exchange_task: asyncio.Task[None] | None = None
        """The task that exchanges periodically; None before the first request."""
        self._exchange_lock = asyncio.Lock()
        """Allows one exchange at a time. Two at once would lose usage: the totals that one receives lack what the other
        is sending."""

    def is_used_up(self, quota: Quota) -> bool:
        """Whether a quota is used up, as of the last exchange; further exchanges include its account."""
        self._active_quotas[quota.account] = quota, self.clock()
        self._keep_exchanging()
        return super().is_used_up(quota)

    def charge(self, quota: Quota, seconds: float) -> None:
        """Count engine time that was used in this gateway; the next exchange sends it."""
        super().charge(quota, seconds)
        self._unreported[quota.account] = self._unreported.get(quota.account, 0.0) + seconds
        self._active_quotas[quota.account] = quota, self.clock()
        self._keep_exchanging()

    def register_slots(self, count_slots: Callable[[], Counter[str]]) -> None:
        """Set the function that counts each tenant's slots in this gateway; each exchange calls it."""
        self._count_slots = count_slots

    def count_slots_elsewhere(self, tenant: str) -> int:
        """Slots of this tenant in other gateways, as of the last exchange; 0 if this is older than `KNOWN_S`.

        Further exchanges include this tenant.
        """
        self._asked_at[tenant] = self.clock()
        self._keep_exchanging()
        count, received_at = self._slots_elsewhere.get(tenant, (0, 0.0))
        return count if self.clock() - received_at < KNOWN_S else 0

    def _keep_exchanging(self) -> None:
        if self._exchange_task is None or self._exchange_task.done():
            self._exchange_task = asyncio.create_task(self._exchange_repeatedly())

    async def _exchange_repeatedly(self) -> None:
        """Exchange usage and slots periodically, until no account or tenant had a request for `_REMEMBERED_S`."""
        while self._active_quotas or self._asked_at:
            await self.exchange()
            await asyncio.sleep(EXCHANGE_S)
            self._forget_inactive()

    def _forget_inactive(self) -> None:
        """Forget accounts and tenants without a request for `_REMEMBERED_S`, so that they are no longer exchanged."""
        oldest = self.clock() - _REMEMBERED_S
        self._active_quotas = {
            account: (quota, used_at) for account, (quota, used_at) in self._active_quotas.items() if used_at > oldest
        }
        self._asked_at = {tenant: asked_at for tenant, asked_at in self._asked_at.items() if asked_at > oldest}
        self._slots_elsewhere = {
            tenant: count for tenant, count in self._slots_elsewhere.items() if tenant in self._asked_at
        }

    async def exchange(self) -> None:
        """Send the usage and slots of this gateway to the server, and receive the totals of all gateways."""
        async with self._exchange_lock:
            await self._exchange()

    async def _exchange(self) -> None:
        """Send usage and slots in one pipeline, and store the totals; usage that could not be sent is dropped."""
        used_seconds = {account: self._unreported.pop(account, 0.0) for account in self._active_quotas}
        slot_counts = self._count_slots()
        own_slots = {tenant: slot_counts[tenant] for tenant in self._asked_at}

        async def run_scripts(redis: Redis) -> list[Any]:
            pipeline = redis.pipeline(transaction=False)
            for account, seconds in used_seconds.items():
                quota, _used_at = self._active_quotas[account]
                pipeline.eval(_USE, 1, f"{self._prefix}used:{account}", seconds, quota.seconds)
            for tenant, count in own_slots.items():
                value = str(count).encode() if count else b""  # empty: this gateway has no slot of the tenant
                pipeline.eval(*heartbeat_arguments(f"{self._prefix}places:{tenant}", self._member, value, KNOWN_S))
            replies: list[Any] = await pipeline.execute()
            return replies

        try:
            replies = await self._server.write(run_scripts)
        except (RedisAway, RedisRefused):
            return  # the server may have counted the usage, so it must not be sent again
        now = self.clock()
        usage_replies = replies[: len(used_seconds)]
        slot_replies = replies[len(used_seconds) :]
        for account, (total_seconds, is_altered) in zip(used_seconds, usage_replies, strict=True):
            # the total lacks what was used here while the exchange ran
            self._used[account] = (float(total_seconds) + self._unreported.get(account, 0.0), now)
            if is_altered:
                REDIS_REFUSED.labels(ALTERED).inc()
        for tenant, reply in zip(own_slots, slot_replies, strict=True):
            self._slots_elsewhere[tenant] = (_add_up_slots(parse_heartbeats(reply)), now)

    async def aclose(self) -> None:
        """End the task that exchanges."""
        if self._exchange_task is not None:
            await end_tasks(self._exchange_task)


def _add_up_slots(heartbeats: Heartbeats) -> int:
    """The sum of a tenant's slots in other gateways; malformed values are counted in a metric and skipped."""
    total = 0
    for value in heartbeats.values():
        if value.isdigit() and len(value) <= _MAX_DIGITS:
            total += int(value)
        else:
            REDIS_REFUSED.labels(ALTERED).inc()
    return total
