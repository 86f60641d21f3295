"""Cache of corrections that several gateways share through Redis, so that only one gateway computes each correction.

The latest corrections are in memory, and all corrections are in Redis, under the same keys as on disk. While Redis is
away, the cache folder on disk is used instead, as in a gateway without Redis. Every entry from Redis is verified
(complete, right name, right aligner) before use; an invalid entry is counted, deleted and computed again.

A correction that is in no cache is computed by the gateway that gets its lease (leases.py). Other gateways wait for it,
but no longer than half of their remaining time, so that each can still compute it alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from pydantic import ValidationError

from aligner_proxy.concurrency import run_to_end
from aligner_proxy.engine.api import AlignResponse
from aligner_proxy.pipeline.cache import Compute, CorrectionCache, worth_storing
from aligner_proxy.types import Correction
from aligner_proxy_fleet.entries import ALTERED, FOREIGN, EntryCodec
from aligner_proxy_fleet.errors import RedisAway, RedisRefused, RefusedEntry
from aligner_proxy_fleet.leases import Claim, EntryLookup, SharedEntries
from aligner_proxy_fleet.metrics import REDIS_COMPUTED, REDIS_LOOKUPS, REDIS_REFUSED

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.1
"""Seconds between two polls for a correction that another gateway computes: first and longest pause."""
_MAX_REMAINING_S = 10.0
"""Upper limit of the remaining time of which a gateway waits half for another gateway, in seconds."""
log = logging.getLogger("aligner_proxy.fleet")


class SharedCache(CorrectionCache):
    """A cache in Redis whose entries expire after `ttl_s` seconds.
    `directory` and `max_mb` are for the disk cache that is used while Redis is away.
    """

    def __init__(self, directory: Path, ttl_s: float, max_mb: int, shared: SharedEntries, entries: EntryCodec) -> None:
        super().__init__(directory, ttl_s, max_mb)
        self._shared = shared
        self._entries = entries

    async def aclose(self) -> None:
        """Cancel corrections in progress, and close the disk cache and the connections."""
        await super().aclose()
        await self._shared.aclose()

    async def put(self, key: str, correction: Correction) -> None:
        """Store `correction` in Redis, or on disk while Redis is away."""
        await self._publish(key, correction, None)

    async def _read_store(self, key: str, aligner: str | None) -> Correction | None:
        """Return a correction from Redis, or from disk while Redis is away; None if there is no valid one.

        `aligner` is the content hash of the aligner that must have made it; None accepts any. Counts hits and misses.
        """
        if self._closed:
            return None
        try:
            lookup = await self._shared.look_up(key)
        except RedisAway:
            return await super()._read_store(key, aligner)
        stored_correction = await self._verify_entry(key, lookup, aligner)
        REDIS_LOOKUPS.labels("miss" if stored_correction is None else "hit").inc()
        return stored_correction

    async def _verify_entry(self, key: str, lookup: EntryLookup, aligner: str | None) -> Correction | None:
        """Return the correction in an entry, and copy it to memory; None if there is no valid entry.

        An invalid entry is counted, logged and deleted. `aligner` is explained at `_read_store`.
        """
        if lookup.entry is None:
            return None
        try:
            correction = self._decode_correction(key, lookup, aligner)
        except RefusedEntry as error:
            REDIS_REFUSED.labels(error.reason).inc()
            log.warning("shared corrections: entry %s is %s and was dropped", key[:12], error.reason)
            await self._shared.drop(key)
            return None
        self._recent.put(key, correction.without_editor, time.monotonic() + min(lookup.ttl_s, self._ttl_s))
        return correction

    def _decode_correction(self, key: str, lookup: EntryLookup, aligner: str | None) -> Correction:
        """Return the correction in an entry; raises `RefusedEntry` if it is damaged or of another aligner."""
        content = self._entries.unpack(self._shared.entry_name(key), lookup.entry or b"")
        try:
            correction = AlignResponse.model_validate_json(content).correction()
        except ValidationError:
            raise RefusedEntry(ALTERED) from None
        # our own entries always expire, and come from the aligner that is part of their key
        is_of_other_aligner = aligner is not None and correction.aligner not in ("", aligner)
        if lookup.ttl_s < 0 or is_of_other_aligner:
            raise RefusedEntry(FOREIGN)
        return correction

    async def _compute(
        self, key: str, compute: Compute, aligner: str, deadline: float, *, remember: bool
    ) -> Correction:
        """Compute a correction for all gateways, or wait for the gateway that computes it; otherwise compute it alone.

        `deadline` is by `time.monotonic`. `remember` says whether the correction may be shared and stored.
        """
        if not remember:
            return await compute()
        now = time.monotonic()
        until = now + min(_MAX_REMAINING_S, deadline - now) / 2
        was_stored = False
        try:
            while time.monotonic() < until:
                claim = await self._shared.claim(key)
                if claim.is_granted:
                    return await self._compute_for_all(key, compute, aligner, claim)
                # `_await_entry` deletes an unusable entry; if there is an entry again, waiting is in vain
                if not claim.others_compute or (claim.is_stored and was_stored):
                    break
                was_stored = claim.is_stored
                stored_correction = await self._await_entry(key, aligner, until)
                # None if the holder gave up; then the next turn asks for the lease again
                if stored_correction is not None:
                    REDIS_COMPUTED.labels("elsewhere").inc()
                    return stored_correction.without_editor
        except (RedisAway, RedisRefused):
            pass
        REDIS_COMPUTED.labels("alone").inc()
        return await super()._compute(key, compute, aligner, deadline, remember=remember)

    async def _await_entry(self, key: str, aligner: str, until: float) -> Correction | None:
        """Poll for a correction of another gateway; None if no gateway computes it any more, or at time `until`."""
        pause_s = _FIRST_PAUSE_S
        while True:
            lookup = await self._shared.look_up(key)
            stored_correction = await self._verify_entry(key, lookup, aligner)
            if stored_correction is not None:
                return stored_correction
            if not lookup.is_being_computed or time.monotonic() + pause_s > until:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.5)

    async def _compute_for_all(self, key: str, compute: Compute, aligner: str, claim: Claim) -> Correction:
        """Compute under a lease and publish the result; the lease is always released, so that nobody waits in vain."""
        REDIS_COMPUTED.labels("for_all").inc()
        is_published = False
        others_alone = True  # if the result cannot be shared, a second gateway's result could not be shared either
        try:
            async with self._shared.keep_lease(key, claim):
                correction = await compute()
            if worth_storing(correction, aligner):
                is_published = await self._publish(key, correction, claim)
            return correction
        except asyncio.CancelledError:
            others_alone = False  # the client disconnected, so the next gateway may compute for all
            raise
        finally:
            if not is_published:
                await run_to_end(self._shared.release(key, claim, others_alone=others_alone))

    async def _publish(self, key: str, correction: Correction, claim: Claim | None) -> bool:
        """Store a correction for all gateways; return whether this call stored it in Redis.

        `claim` is the lease under which it was computed, None without one. False means that the correction is too
        large, that Redis fails (the correction is then stored on disk), or that a later holder of the lease was faster.
        """
        content = AlignResponse.from_correction(correction).model_dump_json().encode()
        entry = self._entries.pack(self._shared.entry_name(key), content)
        if entry is None:
            return False
        try:
            is_stored = await self._shared.store(key, entry, claim)
        except (RedisAway, RedisRefused):
            await super().put(key, correction)
            return False
        if is_stored:
            self._recent.put(key, correction.without_editor, time.monotonic() + self._ttl_s)
        else:
            REDIS_COMPUTED.labels("superseded").inc()
        return is_stored
