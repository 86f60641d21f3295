"""How does a store of a plugin hold corrections? Keys, proof of wholeness and sharing stay the gateway's.

A store that raises, lies or is slow is a miss, never a failure: a cache must not cost an answer its correction.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TypeVar

from aligner_proxy import config, plugged
from aligner_proxy.apart import Apart, Caller, Here, Work
from aligner_proxy.cache import CorrectionCache, pack, unpack
from aligner_proxy.errors import CorrectionError
from aligner_proxy.hookspecs import CorrectionStore
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.types import Correction

log = logging.getLogger(__name__)
_T = TypeVar("_T")
BUSY_S = 0.5
"""A store that takes longer is worse than none."""


def correction_cache(file: PolicyFile) -> CorrectionCache:
    """The cache of this file: on disk, or in a plugin's store; raises `ConfigError`."""
    folder, told = config.cache_dir(file), file.cache
    for one in plugged.wanted(file)["caches"]:
        caller = Apart("cache") if one.offer.plugin.third_party else Here()
        return PluggedCache(folder, told.ttl_s, one.make(), caller)
    return CorrectionCache(folder, told.ttl_s, told.max_mb)


class PluggedCache(CorrectionCache):
    """Corrections in a plugin's store; the folder is never made."""

    def __init__(self, directory: Path, ttl_s: float, store: CorrectionStore, caller: Caller) -> None:
        super().__init__(directory, ttl_s, max_mb=1)
        self._age_s, self._kept, self._caller = ttl_s, store, caller
        self._well = True

    async def get(self, key: str) -> Correction | None:
        """The stored correction, or None where there is none, or none that is whole."""
        raw = await self._asked(lambda: self._kept.get(key))
        return None if raw is None else unpack(key, raw)

    async def put(self, key: str, correction: Correction) -> None:
        """Remember `correction`, if the store takes it."""
        packed = pack(key, correction)
        await self._asked(lambda: self._kept.put(key, packed, self._age_s))

    async def _asked(self, work: Work[_T]) -> _T | None:
        try:
            async with asyncio.timeout(BUSY_S):
                answer = await self._caller.call(work)
        except (CorrectionError, TimeoutError) as error:
            if self._well:
                name = type(error).__name__
                log.warning("correction cache: its store fails (%s); going on without it meanwhile", name)
            self._well = False
            return None
        self._well = True
        return answer
