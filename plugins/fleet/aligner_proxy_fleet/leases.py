"""Corrections in the shared Redis, and the leases by which gateways agree who computes each of them.

A gateway that finds no entry asks for the lease of the correction's key. The first gateway gets it, with a fencing
token, a number that grows with every lease. It computes the correction, and then writes the entry and releases the
lease in one step; other gateways poll for the entry. A lease lasts `LEASE_S` and is renewed while its holder works, so
a dead holder delays other gateways for at most `LEASE_S`. A slow holder whose lease has expired may write a missing
entry, but never replaces the entry of a later holder. If a holder's result must not be shared, it marks the key, and
other gateways compute for themselves at once.

Every read-modify-write is a Redis script, so that it is atomic.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aligner_proxy_fleet.entries import LARGEST
from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.server import RedisServer

if TYPE_CHECKING:
    from redis.asyncio import Redis

LEASE_S = 1.5
"""Seconds that a lease lasts without being renewed."""
_RENEWALS = 3
"""Number of renewals within the duration of a lease."""
_ALONE_S = 1.0
"""Seconds for which every gateway computes for itself, after a holder whose result must not be shared."""
_ALONE = b"-"
"""Value of a lease while every gateway computes the correction for itself."""
# What _CLAIM returns instead of a token (tokens begin at 1): another gateway holds the lease, or the entry is stored
# already. Any other number below 0 means that every gateway computes for itself now.
_HELD = 0
_STORED = -1

# KEYS: entry, lease, counter. ARGV: milliseconds of the lease.
_CLAIM = """
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
local holder = redis.call('GET', KEYS[2])
if holder == '-' then return -2 end
if holder then return 0 end
local token = redis.call('INCR', KEYS[3])
redis.call('SET', KEYS[2], token, 'PX', ARGV[1])
return token
"""
# KEYS: entry, lease. ARGV: token or empty, entry, milliseconds of the entry. Returns 1 if the entry was written, and 0
# if a later holder has the lease or has stored an entry.
_STORE = """
local holder = redis.call('GET', KEYS[2])
if holder == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    redis.call('DEL', KEYS[2])
    return 1
end
if (holder and holder ~= '-') or redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
# KEYS: lease. ARGV: token, milliseconds.
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS: lease. ARGV: token, milliseconds for which every gateway computes for itself (0: the next one gets the lease).
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], '-', 'PX', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class EntryLookup:
    """What the server has for a key."""

    entry: bytes | None
    """The encoded entry; None if there is none."""
    ttl_s: float
    """Seconds until the entry expires; negative if there is no entry or it never expires."""
    is_being_computed: bool
    """Whether a gateway holds the lease, so that the entry is worth waiting for."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim: the fencing token of the lease, or `_HELD`, `_STORED` or another number below 0."""

    token: int

    @property
    def is_granted(self) -> bool:
        """Whether the caller has the lease, and computes for all gateways."""
        return self.token > 0

    @property
    def others_compute(self) -> bool:
        """Whether another gateway holds the lease, or has just written the entry."""
        return self.is_stored or self.token == _HELD

    @property
    def is_stored(self) -> bool:
        """Whether an entry is stored, even if it is unusable."""
        return self.token == _STORED


class SharedEntries:
    """Entries and leases on one server, under names that begin with `prefix`; entries expire after `ttl_s` seconds."""

    def __init__(self, server: RedisServer, prefix: str, ttl_s: float, *, lease_s: float = LEASE_S) -> None:
        self._server = server
        self._prefix = prefix
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._lease_ms = max(1, int(lease_s * 1000))

    def entry_name(self, key: str) -> str:
        """The name of an entry; its content is cryptographically bound to this name."""
        return f"{self._prefix}correction:{key}"

    async def look_up(self, key: str) -> EntryLookup:
        """Look up the entry of a key, its remaining life, and whether a gateway computes it now; raises `RedisAway`."""
        name = self.entry_name(key)

        async def read_entry(redis: Redis) -> list[Any]:
            pipeline = redis.pipeline(transaction=False)
            # at most the size of the largest entry, because another program may have stored a huge value
            pipeline.getrange(name, 0, LARGEST)
            pipeline.pttl(name)
            pipeline.get(self._lease_name(key))
            results: list[Any] = await pipeline.execute(raise_on_error=False)
            return [_check_result(result) for result in results]

        entry, ttl_ms, holder = await self._server.ask(read_entry)
        is_being_computed = holder not in (None, _ALONE)
        return EntryLookup(entry or None, ttl_ms / 1000, is_being_computed)

    async def drop(self, key: str) -> None:
        """Delete an unusable entry; failures are ignored."""
        with contextlib.suppress(RedisAway, RedisRefused):
            await self._server.write(lambda redis: redis.unlink(self.entry_name(key)))

    async def claim(self, key: str) -> Claim:
        """Ask for the lease of a key. Raises `RedisAway` and `RedisRefused`."""
        names = (self.entry_name(key), self._lease_name(key), f"{self._prefix}tokens")
        token = await self._server.write(lambda redis: redis.eval(_CLAIM, len(names), *names, self._lease_ms))
        return Claim(int(token))

    async def store(self, key: str, entry: bytes, claim: Claim | None) -> bool:
        """Write an entry and release the lease; returns False if a later holder was faster, and nothing was written.

        If `claim` is None, only a missing entry is written. Raises `RedisAway` and `RedisRefused`.
        """
        token = claim.token if claim else ""
        names = (self.entry_name(key), self._lease_name(key))
        is_stored = await self._server.write(
            lambda redis: redis.eval(_STORE, len(names), *names, token, entry, self._ttl_ms)
        )
        return bool(is_stored)

    async def release(self, key: str, claim: Claim, *, others_alone: bool = False) -> None:
        """Release the lease without having written an entry; failures are ignored.

        The next gateway that asks gets the lease. With `others_alone`, no gateway gets it for `_ALONE_S`, and every
        gateway computes for itself.
        """
        alone_ms = int(_ALONE_S * 1000) if others_alone else 0
        with contextlib.suppress(RedisAway, RedisRefused):
            await self._server.write(
                lambda redis: redis.eval(_RELEASE, 1, self._lease_name(key), claim.token, alone_ms)
            )

    @contextlib.asynccontextmanager
    async def keep_lease(self, key: str, claim: Claim) -> AsyncIterator[None]:
        """Return a context manager that renews the lease in the background."""
        renewal_task = asyncio.create_task(self._renew(key, claim))
        try:
            yield
        finally:
            renewal_task.cancel()

    async def _renew(self, key: str, claim: Claim) -> None:
        """Renew the lease regularly until cancelled; failures are ignored."""
        while True:
            await asyncio.sleep(self._lease_ms / 1000 / _RENEWALS)
            with contextlib.suppress(RedisAway, RedisRefused):
                await self._server.write(
                    lambda redis: redis.eval(_RENEW, 1, self._lease_name(key), claim.token, self._lease_ms)
                )

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._server.aclose()

    def _lease_name(self, key: str) -> str:
        return f"{self._prefix}lease:{key}"


def _check_result(result: Any) -> Any:
    """Return the result of one command of a pipeline, or raise the result if it is an error.

    A value of another type was written by another program. For it, b"?" is returned, which is refused as an entry.
    """
    if isinstance(result, Exception):
        if str(result).startswith("WRONGTYPE"):
            return b"?"
        raise result
    return result
