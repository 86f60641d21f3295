"""Entries of the shared cache that can be neither used nor deleted, from a server of our own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aligner_proxy.types import Correction
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.leases import Claim, EntryLookup, SharedEntries
from aligner_proxy_fleet.shared_cache import SharedCache

_STORED = Claim(-1)


class EmptyEntries(SharedEntries):
    """Every key has an entry, and all of them are empty."""

    def __init__(self) -> None:
        self.asked = 0

    def entry_name(self, key: str) -> str:
        return key

    async def look_up(self, key: str) -> EntryLookup:
        self.asked += 1
        await asyncio.sleep(0)
        return EntryLookup(None, 60.0, False)

    async def claim(self, key: str) -> Claim:
        self.asked += 1
        await asyncio.sleep(0)
        return _STORED

    async def store(self, key: str, entry: bytes, claim: Claim | None) -> bool:
        return False

    async def aclose(self) -> None: ...


async def test_an_entry_that_can_be_neither_used_nor_deleted_delays_nobody(tmp_path: Path) -> None:
    """Gateways once asked for it without a pause, for half of the time that was left."""
    entries = EmptyEntries()
    cache = SharedCache(tmp_path, 60.0, 4, entries, EntryCodec(None))

    async def compute() -> Correction:
        return Correction("It is so.")

    found = await cache.get_or_compute("k", compute, deadline=time.monotonic() + 2.0)
    assert found == (Correction("It is so."), False)
    assert entries.asked < 10
    await cache.aclose()
