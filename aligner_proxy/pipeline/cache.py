"""Cache of corrections: recent ones in memory, all on disk or in a plugin's store; never shared between tenants.

The store may fail in any way without failing a request. An entry that fails its integrity check is dropped. A failing
store is not used for a pause that doubles each time, and is then tried again. Identical requests in flight share one
computation. The caller honours `no-store` and decides what is worth storing.

A lookup on disk needs another thread, and with a busy event loop it waits twice for the interpreter lock. The memory
cache avoids that. If a plugin's store raises, returns bad data or is slow, that is a miss, never a failure. Keys,
integrity checks and sharing remain with the gateway.

Entries age by a clock that ignores jumps of the machine's clock. diskcache knows only the machine's clock, so it gets
an expiry time that is later by `_FAR_S`, and this module deletes what has expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import diskcache
from cachetools import TLRUCache
from pydantic import ValidationError

from aligner_proxy.clock import JUMP_S, SteadyClock
from aligner_proxy.concurrency import end_tasks
from aligner_proxy.engine.api import AlignerInfo, AlignResponse
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, QuotaSpent
from aligner_proxy.observability.metrics import CACHE_FAILURES, CACHE_UP
from aligner_proxy.observability.tracing import stage
from aligner_proxy.plugins.api import CorrectionStore
from aligner_proxy.plugins.extensions import Runner, Work
from aligner_proxy.types import Correction, Exchange, Policy, Write

_MAX_CHARS = 4_000_000
"""Limit for all texts together. A correction counts its text and, once more, the text of its segments."""
_Kept = tuple[Correction, int, float]
"""A correction in memory, its size in characters, and when it expires by the clock of `Recent`."""
log = logging.getLogger(__name__)
_T = TypeVar("_T")
Compute = Callable[[], Awaitable[Correction]]
_KEY_ENCODER = json.JSONEncoder(sort_keys=True)
_DIGEST = hashlib.sha256().digest_size
_BUSY_S = 1.0
"""How long to wait while another process writes; a slower cache is worse than none."""

EDITING = 7
"""Version in the cache key, raised when the same aligner would write other text. 2: replacements are judged, too.
3: sentences end at other places, and cells, elements and comments are judged by themselves. 4: sentences end at the
marks of more scripts, and names of speakers and leads of lines stay. 5: remarks in brackets, and values in
blocks of data, go alone. 6: so do remarks between commas or dashes, and sentences of values.
7: and lines of a script that print words."""
BUSY_S = 0.5
"""Timeout of a plugin's store in seconds; a slower store is worse than none."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Pause after a failure of the store: `FIRST_PAUSE_S` at first, then twice as long each time, up to this limit."""
_OWN_ERRORS = (DeadlineExceeded, QuotaSpent)
"""Errors of a computation that come from what the request which began it had left."""
_FAR_S = 366 * 86_400.0
"""Added to the expiry times that diskcache stores, so that a smaller jump of the machine's clock expires no entry."""
_FIRST_SWEEP_S = 60.0
_SWEEP_EVERY_S = 600.0
"""Seconds between deletions of expired entries; the first one is after `_FIRST_SWEEP_S`."""


class Recent:
    """Corrections in memory by key until they expire, least recently used evicted first. `clock` returns seconds."""

    def __init__(self, most_chars: int = _MAX_CHARS, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: TLRUCache[str, _Kept] = TLRUCache(
            most_chars, ttu=lambda _key, entry, _now: entry[2], timer=clock, getsizeof=lambda entry: entry[1]
        )

    def get(self, key: str) -> Correction | None:
        """The correction under `key`; None if there is none, or if it has expired."""
        entry = self._entries.get(key)
        return entry[0] if entry else None

    def put(self, key: str, correction: Correction, expires: float) -> None:
        """Store a correction until `expires` by the clock, unless it is larger than the whole cache."""
        self._entries.pop(key, None)
        chars = len(key) + len(correction.text) + sum(len(segment.text) for segment in correction.segments)
        if chars <= self._entries.maxsize:
            self._entries[key] = correction, chars, expires


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Returns bytes only.

    diskcache would unpickle any other value, which runs code that somebody may have put there.
    """

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """The stored value; None if it was not stored as bytes."""
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY):
            return None
        return super().fetch(mode, filename, value, read)


class _Store(diskcache.Cache):  # type: ignore[misc]
    """Closes its connection if opening fails; diskcache would leave that to garbage collection."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        try:
            super().__init__(str(directory), **settings)
        except BaseException:
            self.close()
            raise


_STORE_ERRORS = (sqlite3.Error, OSError, ValueError, TypeError, KeyError)
"""What sqlite, the file system and damaged entries raise through diskcache."""


@dataclass(slots=True)
class _Flight:
    """A correction that is being computed."""

    task: asyncio.Task[Correction]
    waiters: int = 0
    """Number of requests that wait for it; the task is cancelled when the last of them is."""


class CorrectionCache:
    """Corrections by key, on disk for `ttl_s` seconds and up to `max_mb` megabytes; shared while being computed."""

    def __init__(self, directory: Path, ttl_s: float, max_mb: int, clock: Callable[[], float] | None = None) -> None:
        self._directory = directory
        self._ttl_s = ttl_s
        self._limit = max_mb * 2**20
        self._clock = clock or SteadyClock("cache").read_time
        self._flights: dict[str, _Flight] = {}
        """Corrections that are being computed, by cache key."""
        self._recent = Recent()
        """Copies in memory of what was stored or looked up lately."""
        self._store: diskcache.Cache | None = None
        """The store on disk; None before its first use, after a failure, and after `aclose`."""
        self._closed = False
        self._health = _StoreHealth(directory)
        self._sweep_at = time.monotonic() + min(_FIRST_SWEEP_S, ttl_s)
        """When expired entries are deleted next (`time.monotonic()`)."""
        # One thread, because a sqlite connection belongs to the thread that opened it and must be closed there, too.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="correction-cache")

    def key(self, info: AlignerInfo, policy: Policy, exchange: Exchange) -> str:
        """sha256 over all that determines the correction, and over the tenant so that tenants never share entries."""
        # Settings that have their default are left out, so that entries from before a setting existed are still found.
        decoding = {"editing": EDITING, "caution": policy.caution, "verify": policy.verify.value}
        if policy.effective_write is not Write.FREE:
            decoding["write"] = policy.effective_write.value
        if policy.draft:
            decoding["draft"] = policy.draft
        if exchange.inner:
            decoding["inner"] = True
        if policy.score_only:
            decoding["score_only"] = True
        parts = {
            "aligner": info.content_hash,
            "template": info.template_hash,
            "objectives": [objective.text for objective in policy.objectives],
            "decoding": decoding,
            "tenant": policy.tenant,
            "turns": [[turn.role, turn.content] for turn in exchange.turns],
            "answer": exchange.answer,
        }
        if any(objective.head for objective in policy.objectives):
            parts["heads"] = [objective.head for objective in policy.objectives]
        return hashlib.sha256(_KEY_ENCODER.encode(parts).encode()).hexdigest()

    async def get(self, key: str, aligner: str | None = None) -> Correction | None:
        """The stored correction, or None if there is none that is intact and has not expired.

        `aligner` is the content hash that the key includes, for stores that others write to as well.
        """
        with stage("cache"):
            stored_correction = None if self._closed else self._recent.get(key)
            return stored_correction or await self._read_store(key, aligner)

    async def _read_store(self, key: str, aligner: str | None) -> Correction | None:
        """The correction under `key` on disk, copied to the memory cache; None on a miss. Deletes a corrupt entry."""
        raw, stored_expiry = await self._run(lambda store: store.get(key, expire_time=True)) or (None, None)
        if raw is None:
            return None
        correction = unpack(key, raw)
        if correction is None:
            log.warning("correction cache: entry %s is corrupt and was dropped", key[:12])
            await self._run(lambda store: store.delete(key), writes=True)
            return None
        left_s = (stored_expiry or 0.0) - _FAR_S - self._clock()
        # An entry with more time left than the maximum was written while the clock was wrong.
        if not 0 < left_s <= self._ttl_s + JUMP_S:
            return None
        self._recent.put(key, correction, time.monotonic() + left_s)
        return correction

    async def put(self, key: str, correction: Correction) -> None:
        """Store `correction` on disk and in memory, evicting the least recently used entries."""
        packed = pack(key, correction)
        stored_expiry = self._clock() + self._ttl_s + _FAR_S
        if await self._run(lambda store: store.set(key, packed, expire=stored_expiry - time.time()), writes=True):
            # a request that finds it pays for no editor
            self._recent.put(key, correction.without_editor, time.monotonic() + self._ttl_s)

    async def get_or_compute(
        self, key: str, compute: Compute, *, aligner: str = "", remember: bool = True, deadline: float = math.inf
    ) -> tuple[Correction, bool | None]:
        """(correction, cache hit). The hit is None if `remember` is off, so that nothing was looked up.

        `aligner` is the content hash that the key includes; a correction computed by another aligner is not stored.
        `deadline` is the caller's deadline in seconds of `time.monotonic()`.

        Concurrent callers with the same key share one computation. Cancelling one waiter does not affect the others;
        when the last one is cancelled, so is the computation. An error reaches all waiters and is not stored: the next
        request computes again. But what the first caller ran out of, its time or its quota, the others may still have,
        and they compute again, together.
        """
        if remember and (stored_correction := await self.get(key, aligner)) is not None:
            return stored_correction, True
        while True:
            flight = self._flights.get(key)
            joined = flight is not None
            if flight is None:
                work = self._compute(key, compute, aligner, deadline, remember=remember)
                flight = _Flight(asyncio.create_task(work))
                self._flights[key] = flight
                flight.task.add_done_callback(lambda task: self._end_flight(key, task))
            flight.waiters += 1
            try:
                correction = await asyncio.shield(flight.task)
                # only the request that began the computation pays for the editor
                return correction.without_editor if joined else correction, False if remember else None
            except _OWN_ERRORS:
                if not joined or time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0)  # until the flight that has ended is forgotten
            finally:
                flight.waiters -= 1
                if not flight.waiters and not flight.task.done():
                    flight.task.cancel()
                    self._forget(key, flight.task)

    async def _compute(
        self,
        key: str,
        compute: Compute,
        aligner: str,
        deadline: float,
        *,
        remember: bool,
    ) -> Correction:
        """Compute a correction, store it as it is before the gate (if `remember`), and return it.

        The gate is cheap and runs again on every hit, so a changed gate takes effect at once and needs no new key. A
        correction is not stored if another aligner made it than the key names (the engine was swapped meanwhile), or if
        it lacked a taught head that the key names.
        """
        correction = await compute()
        if remember and worth_storing(correction, aligner):
            await self.put(key, correction)
        return correction

    def _end_flight(self, key: str, task: asyncio.Task[Correction]) -> None:
        """Remove a flight whose task is done; later requests look in the store."""
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # all waiters may be gone; asyncio would log an unretrieved exception, with its text

    def _forget(self, key: str, task: asyncio.Task[Correction]) -> None:
        """Remove the flight, unless a newer one with the same key has replaced it."""
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]

    async def aclose(self) -> None:
        """Cancel all computations in flight and close the store."""
        await end_tasks(*(flight.task for flight in self._flights.values()))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        """Close the store for good; runs in its thread."""
        self._closed = True
        self._close_store()

    def _close_store(self) -> None:
        """Close the store, if open; the next use opens it again."""
        store = self._store
        self._store = None
        if store is not None:
            store.close()

    async def _run(self, action: Callable[[diskcache.Cache], _T], *, writes: bool = False) -> _T | None:
        """Run `action` on the store in its thread and return its result; None if the store cannot be used.

        `writes` says whether it changes the store.
        """
        if self._closed or self._health.pausing:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._try, action, writes)

    def _try(self, action: Callable[[diskcache.Cache], _T], writes: bool) -> _T | None:
        """Run `action` in the store's thread; None if it fails, which pauses the use of the store."""
        # Checked again, because the store may have failed or been closed while this waited for the thread.
        if self._closed or self._health.pausing:
            return None
        try:
            result = action(self._open_store())
        except diskcache.Timeout:
            return None  # another process is writing; a miss is cheaper than waiting
        except _STORE_ERRORS as error:
            # A full disk can still be read, so the store stays open. After any other error it is reopened.
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                self._close_store()
            self._health.note_failure(error)
            return None
        if writes:  # only a write proves recovery, because a full disk can still be read
            self._health.note_success()
        self._sweep_now_and_then()
        return result

    def _open_store(self) -> diskcache.Cache:
        """The store, opened in a folder that only this user can read."""
        if self._store is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            self._store = _Store(
                self._directory,
                timeout=_BUSY_S,
                disk=_BytesDisk,
                size_limit=self._limit,
                eviction_policy="least-recently-used",
            )
        return self._store

    def _sweep_now_and_then(self) -> None:
        """Delete expired entries from time to time, in a separate thread so that nobody waits for it."""
        now = time.monotonic()
        if self._store is None or now < self._sweep_at:
            return
        self._sweep_at = now + min(_SWEEP_EVERY_S, self._ttl_s)
        threading.Thread(target=self._sweep, args=(self._store,), name="correction-cache-sweep", daemon=True).start()

    def _sweep(self, store: diskcache.Cache) -> None:
        """Delete expired entries; errors are ignored, because the next sweep deletes what this one left."""
        with contextlib.suppress(diskcache.Timeout, *_STORE_ERRORS):
            try:
                # entries are stored with a time that is later by `_FAR_S`
                store.expire(self._clock() + _FAR_S)
            finally:
                store.close()  # this thread's connection


class _StoreHealth:
    """Tracks whether the store works and how long to pause after failures; sets the metrics."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pause_s = 0.0
        """Length of the latest pause; 0 while the store works."""
        self._not_before = 0.0
        """When the pause ends (`time.monotonic()`)."""
        CACHE_UP.set(1)

    @property
    def pausing(self) -> bool:
        """Whether the store is not used at present because of a recent failure."""
        return self._pause_s > 0 and time.monotonic() < self._not_before

    def note_failure(self, error: Exception) -> None:
        """Count and log a failure, and pause the use of the store for twice as long as last time."""
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        CACHE_FAILURES.labels(name).inc()
        CACHE_UP.set(0)
        if not self._pause_s:
            log.warning(
                "correction cache: %s cannot be used (%s); going on without it until it works again. "
                "If it is damaged, remove the folder",
                self._directory,
                name,
            )
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        self._not_before = time.monotonic() + self._pause_s

    def note_success(self) -> None:
        """End the pause after a successful write; logs the recovery."""
        if self._pause_s:
            log.info("correction cache: %s is used again", self._directory)
        self._pause_s = 0.0
        CACHE_UP.set(1)


def worth_storing(correction: Correction, aligner: str) -> bool:
    """Whether a correction was made by the aligner of its key, `aligner`, with all taught heads of its key."""
    return correction.aligner in ("", aligner) and not correction.untaught


def pack(key: str, correction: Correction) -> bytes:
    """Serialize a correction for storage: a digest, then the JSON body."""
    body = AlignResponse.from_correction(correction).model_dump_json().encode()
    return _digest(key, body) + body


def _digest(key: str, body: bytes) -> bytes:
    """Digest over key and body. The key is included so that an entry moved to another tenant's key is rejected."""
    return hashlib.sha256(key.encode() + b"\n" + body).digest()


def unpack(key: str, raw: object) -> Correction | None:
    """The correction in `raw`, or None if a single bit of it is wrong."""
    # the store is not trusted: others may have written to it
    if not isinstance(raw, bytes) or _digest(key, raw[_DIGEST:]) != raw[:_DIGEST]:
        return None
    try:
        return AlignResponse.model_validate_json(raw[_DIGEST:]).correction()
    except ValidationError:
        return None


class PluginCache(CorrectionCache):
    """Corrections in a plugin's store. Makes no folder on disk."""

    def __init__(self, directory: Path, ttl_s: float, store: CorrectionStore, caller: Runner) -> None:
        # the size does not matter, because the store on disk is never opened
        super().__init__(directory, ttl_s, max_mb=1)
        self._age_s = ttl_s
        """Seconds that the store keeps an entry."""
        self._entries = store
        self._caller = caller
        """Runs calls of the plugin; its errors come out as `CorrectionError`."""
        self._is_store_up = True
        """Whether the latest call of the store succeeded."""

    async def get(self, key: str, aligner: str | None = None) -> Correction | None:
        raw = await self._ask_store(lambda: self._entries.get(key))
        return None if raw is None else unpack(key, raw)

    async def put(self, key: str, correction: Correction) -> None:
        """Store `correction`, if the plugin's store accepts it."""
        packed = pack(key, correction)
        await self._ask_store(lambda: self._entries.put(key, packed, self._age_s))

    async def _ask_store(self, work: Work[_T]) -> _T | None:
        """The store's answer; None if it fails or is slow, which is logged only the first time."""
        try:
            async with asyncio.timeout(BUSY_S):
                answer = await self._caller.call(work)
        except (CorrectionError, TimeoutError) as error:
            name = type(error).__name__
            if self._is_store_up:
                log.warning("correction cache: its store failed (%s); going on without it until it works again", name)
            self._is_store_up = False
            CACHE_FAILURES.labels(name).inc()
            CACHE_UP.set(0)
            return None
        self._is_store_up = True
        CACHE_UP.set(1)
        return answer
