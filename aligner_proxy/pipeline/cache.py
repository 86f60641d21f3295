"""Cache of corrections: recent ones in memory, all on disk or in a plugin's store; never shared between tenants.

The store may fail in any way without failing a request. An entry that fails its integrity check is dropped. After a
failure the store is not used for a pause, which doubles with each failure. Identical requests in flight share one
computation. The caller honours `no-store` and decides what is worth storing.

A lookup on disk needs another thread, and with a busy event loop it waits twice for the interpreter lock. The memory
cache avoids this wait. If a plugin's store raises, returns bad data or is slow, this counts as a miss, never as a
failure. Keys, integrity checks and sharing remain with the gateway.

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
"""Limit for all texts in memory together. Of a correction, its text and the texts of its segments count."""
_MemoryEntry = tuple[Correction, int, float]
"""(correction in memory, its size in characters, when it expires in seconds of the clock of `Recent`)."""
log = logging.getLogger(__name__)
_T = TypeVar("_T")
Compute = Callable[[], Awaitable[Correction]]
_KEY_ENCODER = json.JSONEncoder(sort_keys=True)
_DIGEST_BYTES = hashlib.sha256().digest_size
_BUSY_S = 1.0
"""Seconds to wait while another process writes to the disk; a slower cache is worse than none."""

EDITING = 14
"""Version in the cache key, raised when the same aligner would write other text. 2: replacements are judged, too.
3: sentences end at other places, and cells, elements and comments are judged by themselves. 4: sentences end at the
marks of more scripts, and names of speakers and leads of lines stay. 5: remarks in brackets, and values in
blocks of data, go alone. 6: so do remarks between commas or dashes, and sentences of values.
7: and lines of a script that print words. 8: a German date does not end a sentence behind its day.
9: the head of a table is emptied while a row stays, and rows keep the marks of a quotation before them. 10: a sentence
may lose only a clause. 11: pictures behind an end mark belong to the sentence before them. 12: a row that loses its
name goes if only amounts or bare values are left, and a line of code may go alone. 13: so do sentences of strings, of
pages and of letters in a block of code, and those in brackets, links and code of a line, which are judged alone.
14: reasons in the middle of a sentence and what says more of its last noun may go alone."""
BUSY_S = 0.5
"""Timeout of a plugin's store in seconds; a slower store is worse than none."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Pause after a failure of the store: `FIRST_PAUSE_S` at first, then twice as long each time, up to this limit."""
_ERRORS_OF_FIRST_CALLER = (DeadlineExceeded, QuotaSpent)
"""Errors of a computation that may only concern the request that began it, whose time or quota was used up."""
_FAR_S = 366 * 86_400.0
"""Added to the expiry times that diskcache stores, so that a smaller jump of the machine's clock expires no entry."""
_FIRST_SWEEP_S = 60.0
_SWEEP_EVERY_S = 600.0
"""Seconds between deletions of expired entries; the first one is after `_FIRST_SWEEP_S`."""


class Recent:
    """Corrections in memory, by key, until they expire. If they exceed `max_chars`, the least recently used ones go.

    `clock` returns seconds.
    """

    def __init__(self, max_chars: int = _MAX_CHARS, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: TLRUCache[str, _MemoryEntry] = TLRUCache(
            max_chars, ttu=lambda _key, entry, _now: entry[2], timer=clock, getsizeof=lambda entry: entry[1]
        )

    def get(self, key: str) -> Correction | None:
        """The correction under `key`; None if there is none, or if it has expired."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: str, correction: Correction, expires_at: float) -> None:
        """Store a correction until `expires_at` (seconds of the clock), unless it is larger than the whole cache."""
        self._entries.pop(key, None)
        chars = len(key) + len(correction.text) + sum(len(segment.text) for segment in correction.segments)
        if chars <= self._entries.maxsize:
            self._entries[key] = (correction, chars, expires_at)


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Reads only values that were stored as bytes.

    diskcache would unpickle any other value, which runs code that somebody may have put there.
    """

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """The stored value; None if it was not stored as bytes."""
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY):
            return None
        return super().fetch(mode, filename, value, read)


class _Store(diskcache.Cache):  # type: ignore[misc]
    """A cache on disk that closes its connection if opening fails; diskcache would leave this to garbage collection."""

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
    """A correction that is being computed, and for which one or more requests wait."""

    task: asyncio.Task[Correction]
    waiters: int = 0
    """Number of requests that wait for the correction; if all of them are cancelled, so is the task."""


class CorrectionCache:
    """Corrections by key, on disk for `ttl_s` seconds and up to `max_mb` megabytes.

    Requests share a correction while it is being computed. `clock` returns seconds, and ignores jumps of the machine's
    clock.
    """

    def __init__(self, directory: Path, ttl_s: float, max_mb: int, clock: Callable[[], float] | None = None) -> None:
        self._directory = directory
        self._ttl_s = ttl_s
        self._max_bytes = max_mb * 2**20
        self._clock = clock or SteadyClock("cache").read_time
        self._flights: dict[str, _Flight] = {}
        """Corrections that are being computed, by cache key."""
        self._recent = Recent()
        """Corrections in memory that were stored or looked up lately."""
        self._store: diskcache.Cache | None = None
        """The store on disk; None before its first use, after a failure, and after `aclose`."""
        self._closed = False
        self._health = _StoreHealth(directory)
        self._sweep_at = time.monotonic() + min(_FIRST_SWEEP_S, ttl_s)
        """When expired entries are deleted next (`time.monotonic()`)."""
        # One thread, because a sqlite connection belongs to the thread that opened it and must be closed there, too.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="correction-cache")

    def key(self, info: AlignerInfo, policy: Policy, exchange: Exchange) -> str:
        """The cache key: a hash of tenant and all that determines the correction. `info` describes the aligner."""
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
        """The stored correction; None if there is none that is intact and has not expired.

        `aligner` is the content hash that the key includes; subclasses may check it against the entry's.
        """
        with stage("cache"):
            stored_correction = None if self._closed else self._recent.get(key)
            return stored_correction or await self._read_store(key, aligner)

    async def _read_store(self, key: str, aligner: str | None) -> Correction | None:
        """Read a correction from disk into the memory cache and return it; None on a miss. Deletes corrupt entries."""
        raw, stored_expiry = await self._run(lambda store: store.get(key, expire_time=True)) or (None, None)
        if raw is None:
            return None
        correction = unpack(key, raw)
        if correction is None:
            log.warning("correction cache: entry %s is corrupt and was dropped", key[:12])
            await self._run(lambda store: store.delete(key), writes=True)
            return None
        seconds_left = (stored_expiry or 0.0) - _FAR_S - self._clock()
        # An entry with more time left than the maximum was written while the clock was wrong.
        if not 0 < seconds_left <= self._ttl_s + JUMP_S:
            return None
        self._recent.put(key, correction, time.monotonic() + seconds_left)
        return correction

    async def put(self, key: str, correction: Correction) -> None:
        """Store `correction` on disk and, if this succeeds, in memory; the least recently used entries may go."""
        packed = pack(key, correction)
        stored_expiry = self._clock() + self._ttl_s + _FAR_S
        # diskcache adds the machine's time to `expire`
        expire_s = stored_expiry - time.time()
        is_stored = await self._run(lambda store: store.set(key, packed, expire=expire_s), writes=True)
        if is_stored:
            # a request that finds the correction in memory pays for no editor
            self._recent.put(key, correction.without_editor, time.monotonic() + self._ttl_s)

    async def get_or_compute(
        self, key: str, compute: Compute, *, aligner: str = "", remember: bool = True, deadline: float = math.inf
    ) -> tuple[Correction, bool | None]:
        """Return (correction, whether it was in the cache; None without `remember`, since nothing was looked up then).

        If it is not in the cache, call `compute` and, with `remember`, store the result. `aligner` is the content hash
        that the key includes; a correction by another aligner is not stored. `deadline` is the caller's deadline in
        seconds of `time.monotonic()`.

        Concurrent callers with the same key share one computation. Cancelling one caller does not affect the others;
        when the last one is cancelled, so is the computation. An error reaches all callers and is not stored. But if
        the computation failed because the first caller's time or quota was used up, the others compute again, together.
        """
        if remember and (stored_correction := await self.get(key, aligner)) is not None:
            return stored_correction, True
        while True:
            flight = self._flights.get(key)
            has_joined = flight is not None
            if flight is None:
                work = self._compute(key, compute, aligner, deadline, remember=remember)
                flight = _Flight(asyncio.create_task(work))
                self._flights[key] = flight
                flight.task.add_done_callback(lambda task: self._end_flight(key, task))
            flight.waiters += 1
            try:
                correction = await asyncio.shield(flight.task)
                if has_joined:
                    # only the request that began the computation pays for the editor
                    correction = correction.without_editor
                return correction, False if remember else None
            except _ERRORS_OF_FIRST_CALLER:
                if not has_joined or time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0)  # lets the callback of the failed task remove its flight
            finally:
                flight.waiters -= 1
                if not flight.waiters and not flight.task.done():
                    flight.task.cancel()
                    self._forget(key, flight.task)

    async def _compute(
        self, key: str, compute: Compute, aligner: str, deadline: float, *, remember: bool
    ) -> Correction:
        """Compute a correction and return it; with `remember`, store it if it is what the key names.

        It is not what the key names if another aligner made it, because the engine was replaced meanwhile, or if a
        taught head was missing. What is stored was not judged by the gate: the gate is cheap and runs again on every
        hit, so a changed gate takes effect at once and needs no new key.
        """
        correction = await compute()
        if remember and worth_storing(correction, aligner):
            await self.put(key, correction)
        return correction

    def _end_flight(self, key: str, task: asyncio.Task[Correction]) -> None:
        """Remove a flight whose task is done, so that later requests look in the store."""
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # all waiters may be gone; asyncio would log an unretrieved exception, with its text

    def _forget(self, key: str, task: asyncio.Task[Correction]) -> None:
        """Remove the flight of this task, unless a newer one with the same key has replaced it."""
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
        """Call `action` with the store, in the store's thread, and return its result; None if this fails.

        `writes` says whether `action` changes the store.
        """
        if self._closed or self._health.is_pausing:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._try, action, writes)

    def _try(self, action: Callable[[diskcache.Cache], _T], writes: bool) -> _T | None:
        """Do what `_run` does, in the store's thread; a failure pauses the use of the store."""
        # Checked again, because the store may have failed or been closed while this call waited for the thread.
        if self._closed or self._health.is_pausing:
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
        if writes:  # only a write shows that the store works again, because a full disk can still be read
            self._health.note_success()
        self._sweep_now_and_then()
        return result

    def _open_store(self) -> diskcache.Cache:
        """Return the store; opens it if it is closed, in a folder that only this user can read."""
        if self._store is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            self._store = _Store(
                self._directory,
                timeout=_BUSY_S,
                disk=_BytesDisk,
                size_limit=self._max_bytes,
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
        """Delete expired entries; errors are ignored, because the next sweep deletes the entries that were left."""
        with contextlib.suppress(diskcache.Timeout, *_STORE_ERRORS):
            try:
                # entries are stored with an expiry time that is later by `_FAR_S`
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
    def is_pausing(self) -> bool:
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
    """Whether a correction was made as its cache key says: by this aligner (content hash), with all taught heads."""
    return correction.aligner in ("", aligner) and not correction.untaught


def pack(key: str, correction: Correction) -> bytes:
    """Serialize a correction for storage under `key`: a digest, then JSON."""
    body = AlignResponse.from_correction(correction).model_dump_json().encode()
    return _digest(key, body) + body


def _digest(key: str, body: bytes) -> bytes:
    """Digest over key and body. The key is included so that an entry moved to another tenant's key is rejected."""
    return hashlib.sha256(key.encode() + b"\n" + body).digest()


def unpack(key: str, raw: object) -> Correction | None:
    """The correction that `pack` serialized as `raw` under `key`; None if `raw` is anything else."""
    # the store is not trusted, because others may have written to it
    if not isinstance(raw, bytes):
        return None
    body = raw[_DIGEST_BYTES:]
    if _digest(key, body) != raw[:_DIGEST_BYTES]:
        return None
    try:
        return AlignResponse.model_validate_json(body).correction()
    except ValidationError:
        return None


class PluginCache(CorrectionCache):
    """Corrections in a plugin's store, which keeps them for `ttl_s` seconds.

    `runner` runs calls of the plugin, and turns its errors into `CorrectionError`. No folder is made in `directory`.
    """

    def __init__(self, directory: Path, ttl_s: float, store: CorrectionStore, runner: Runner) -> None:
        # the size does not matter, because the store on disk is never opened
        super().__init__(directory, ttl_s, max_mb=1)
        self._plugin_store = store
        self._runner = runner
        self._is_store_up = True
        """Whether the latest call of the store succeeded."""

    async def get(self, key: str, aligner: str | None = None) -> Correction | None:
        raw = await self._call_store(lambda: self._plugin_store.get(key))
        return None if raw is None else unpack(key, raw)

    async def put(self, key: str, correction: Correction) -> None:
        """Store `correction`, if the plugin's store accepts it."""
        packed = pack(key, correction)
        await self._call_store(lambda: self._plugin_store.put(key, packed, self._ttl_s))

    async def _call_store(self, work: Work[_T]) -> _T | None:
        """Run a call of the plugin's store and return its result; None if it fails or is slow.

        Only the first failure in a row is logged.
        """
        try:
            async with asyncio.timeout(BUSY_S):
                result = await self._runner.call(work)
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
        return result
