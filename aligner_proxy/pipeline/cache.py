"""Cache of corrections: the latest in memory, all on disk or in a plugin's store; never across tenants.

The store may fail in any way without costing a request: an entry that does not prove to be whole is dropped, and a
store that fails is left alone for a while, longer each time, and tried again. `shared` lets identical requests in
flight wait for one computation. Honouring `no-store` and deciding what is worth storing is the caller's business.

A look-up on disk goes through another thread, and on a busy event loop waits for the interpreter twice: hence the
memory. A plugin's store that raises, lies or is slow is a miss, never a failure; keys, proof of wholeness and sharing
stay the gateway's.

Entries age by a clock that does not follow jumps. The library that keeps them knows only the machine's clock: it is
told to keep everything for `_FAR_S` longer, and what has expired is deleted here.
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
from aligner_proxy.engine.api import AlignerInfo, AlignResponse
from aligner_proxy.errors import CorrectionError
from aligner_proxy.observability.metrics import CACHE_FAILURES, CACHE_UP
from aligner_proxy.observability.tracing import stage
from aligner_proxy.plugins.api import CorrectionStore
from aligner_proxy.plugins.extensions import Runner, Work
from aligner_proxy.types import Correction, Exchange, Policy

_MOST_CHARS = 4_000_000
"""Of all texts together; a correction holds its text, and that of its segments once more."""
_Kept = tuple[Correction, int, float]
log = logging.getLogger(__name__)
_T = TypeVar("_T")
Compute = Callable[[], Awaitable[Correction]]
_DIGEST = hashlib.sha256().digest_size
_BUSY_S = 1.0
"""How long to wait for another process's write; a cache that takes longer is worse than none."""

EDITING = 2
"""Counted up when the same aligner would write other text than before. 2: what it writes is judged in its turn."""
BUSY_S = 0.5
"""A store that takes longer is worse than none."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""How long a store is left alone after a failure; at first for `FIRST_PAUSE_S`, then twice as long each time."""
_FAR_S = 366 * 86_400.0
"""A jump of the machine's clock by less expires nothing."""
_FIRST_SWEEP_S = 60.0
_SWEEP_EVERY_S = 600.0


class Recent:
    """Corrections by key until they expire; those not used for longest make room. `clock` tells seconds."""

    def __init__(self, most_chars: int = _MOST_CHARS, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: TLRUCache[str, _Kept] = TLRUCache(
            most_chars, ttu=lambda _key, entry, _now: entry[2], timer=clock, getsizeof=lambda entry: entry[1]
        )

    def get(self, key: str) -> Correction | None:
        """The correction, if it is here and young enough."""
        entry = self._entries.get(key)
        return entry[0] if entry else None

    def put(self, key: str, correction: Correction, expires: float) -> None:
        """Keep it until `expires` by the clock; one that would take all the room is not kept."""
        self._entries.pop(key, None)
        chars = len(key) + len(correction.text) + sum(len(segment.text) for segment in correction.segments)
        if chars <= self._entries.maxsize:
            self._entries[key] = correction, chars, expires


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Serves bytes only: diskcache would unpickle, and so run, whatever else somebody put into the store."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY):
            return None
        return super().fetch(mode, filename, value, read)


class _Store(diskcache.Cache):  # type: ignore[misc]
    """Closes its connection where it cannot be opened, which diskcache leaves to the collection of garbage."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        try:
            super().__init__(str(directory), **settings)
        except BaseException:
            self.close()
            raise


_STORE_ERRORS = (sqlite3.Error, OSError, ValueError, TypeError, KeyError)


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Correction]
    waiters: int = 0


class CorrectionCache:
    """Corrections by key: on disk for `ttl_s` seconds and `max_mb` megabytes, in flight for as long as they take."""

    def __init__(self, directory: Path, ttl_s: float, max_mb: int, clock: Callable[[], float] | None = None) -> None:
        self._directory = directory
        self._ttl_s = ttl_s
        self._limit = max_mb * 2**20
        self._clock = clock or SteadyClock("cache").read_time
        self._flights: dict[str, _Flight] = {}
        self._recent = Recent()
        self._store: diskcache.Cache | None = None
        self._closed = False
        self._health = _StoreHealth(directory)
        self._sweep_at = time.monotonic() + min(_FIRST_SWEEP_S, ttl_s)
        # One thread, because sqlite connections belong to threads: this one is opened and closed where it is used.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="correction-cache")

    def key(self, info: AlignerInfo, policy: Policy, exchange: Exchange) -> str:
        """sha256 over everything that decides the correction, and over the tenant, who decides who may see it."""
        parts = {
            "aligner": info.content_hash,
            "template": info.template_hash,
            "objectives": [objective.text for objective in policy.objectives],
            "decoding": {"editing": EDITING, "caution": policy.caution, "verify": policy.verify.value}
            | ({"draft": policy.draft} if policy.draft else {})
            | ({"inner": True} if exchange.inner else {})
            | ({"score_only": True} if policy.score_only else {}),
            "tenant": policy.tenant,
            "turns": [[turn.role, turn.content] for turn in exchange.turns],
            "answer": exchange.answer,
        }
        # Only where there is one, so that answers judged without are still known.
        if any(objective.head for objective in policy.objectives):
            parts["heads"] = [objective.head for objective in policy.objectives]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    async def get(self, key: str, aligner: str | None = None) -> Correction | None:
        """The stored correction, or None when there is none that is whole and young enough.

        `aligner` is the content hash of which the key speaks, for stores that others write to, too.
        """
        with stage("cache"):
            stored_correction = None if self._closed else self._recent.get(key)
            return stored_correction or await self._read_store(key, aligner)

    async def _read_store(self, key: str, aligner: str | None) -> Correction | None:
        """What the disk knows; from now on it is known without it."""
        raw, far = await self._run(lambda store: store.get(key, expire_time=True)) or (None, None)
        if raw is None:
            return None
        correction = unpack(key, raw)
        if correction is None:
            log.warning("correction cache: entry %s is corrupt and was dropped", key[:12])
            await self._run(lambda store: store.delete(key), writes=True)
            return None
        left_s = (far or 0.0) - _FAR_S - self._clock()
        # What would live for longer than any entry may was written when the clock was wrong.
        if not 0 < left_s <= self._ttl_s + JUMP_S:
            return None
        self._recent.put(key, correction, time.monotonic() + left_s)
        return correction

    async def put(self, key: str, correction: Correction) -> None:
        """Remember `correction`; the entries not used for longest make room."""
        packed = pack(key, correction)
        far = self._clock() + self._ttl_s + _FAR_S
        if await self._run(lambda store: store.set(key, packed, expire=far - time.time()), writes=True):
            self._recent.put(key, correction.without_editor, time.monotonic() + self._ttl_s)

    async def get_or_compute(
        self, key: str, compute: Compute, *, aligner: str = "", remember: bool = True, deadline: float = math.inf
    ) -> tuple[Correction, bool | None]:
        """The correction under `key`, and whether it was stored (None: `remember` is off and nothing was looked up).

        `aligner` is the content hash of which the key speaks: what another one computed is not stored. `deadline`, in
        seconds of `time.monotonic()`, is the caller's.

        It is computed once for all who ask for it meanwhile. A waiter that is cancelled leaves the others alone; when
        the last one goes, the computation is cancelled. An error reaches all waiters and is forgotten: the next request
        computes anew.
        """
        if remember and (stored_correction := await self.get(key, aligner)) is not None:
            return stored_correction, True
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            work = self._compute(key, compute, aligner, deadline, remember=remember)
            flight = self._flights[key] = _Flight(asyncio.create_task(work))
            flight.task.add_done_callback(lambda task: self._end_flight(key, task))
        flight.waiters += 1
        try:
            correction = await asyncio.shield(flight.task)
            return correction.without_editor if joined else correction, False if remember else None
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
        """Compute a correction and store it, before the gate.

        The gate is cheap and runs again on every hit, so a changed gate holds at once and needs no new key. A
        correction made by another aligner than the key names (the engine was swapped meanwhile) is not stored, nor is
        one that lacked a taught head which the key names.
        """
        correction = await compute()
        if remember and worth_storing(correction, aligner):
            await self.put(key, correction)
        return correction

    def _end_flight(self, key: str, task: asyncio.Task[Correction]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # every waiter may be gone by now; an unread exception would be logged, with its text

    def _forget(self, key: str, task: asyncio.Task[Correction]) -> None:
        """Take the flight off the board, unless a newer one has taken its place."""
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]

    async def aclose(self) -> None:
        """Cancel what is in flight and close the store."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        self._closed = True
        self._close_store()

    def _close_store(self) -> None:
        store = self._store
        self._store = None
        if store is not None:
            store.close()

    async def _run(self, action: Callable[[diskcache.Cache], _T], *, writes: bool = False) -> _T | None:
        """Do `action` on the store in its thread; None when it cannot be done."""
        if self._closed or self._health.pausing:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._try, action, writes)

    def _try(self, action: Callable[[diskcache.Cache], _T], writes: bool) -> _T | None:
        if self._closed or self._health.pausing:
            return None
        try:
            result = action(self._open_store())
        except diskcache.Timeout:
            return None  # another process is writing; a miss is cheaper than waiting
        except _STORE_ERRORS as error:
            # On a full disk the store can still be read; whatever else may be wrong with it, it is opened anew.
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                self._close_store()
            self._health.note_failure(error)
            return None
        if writes:  # a full disk can still be read
            self._health.note_success()
        self._sweep_now_and_then()
        return result

    def _open_store(self) -> diskcache.Cache:
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
        """Delete what has expired, in a thread of its own: nobody waits for it."""
        now = time.monotonic()
        if self._store is None or now < self._sweep_at:
            return
        self._sweep_at = now + min(_SWEEP_EVERY_S, self._ttl_s)
        threading.Thread(target=self._sweep, args=(self._store,), name="correction-cache-sweep", daemon=True).start()

    def _sweep(self, store: diskcache.Cache) -> None:
        with contextlib.suppress(diskcache.Timeout, *_STORE_ERRORS):
            try:
                store.expire(self._clock() + _FAR_S)
            finally:
                store.close()  # this thread's connection


class _StoreHealth:
    """Whether the store of a cache works, and how long it is left alone while it does not; known to the metrics."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pause_s = 0.0
        self._not_before = 0.0
        CACHE_UP.set(1)

    @property
    def pausing(self) -> bool:
        """Whether the store failed a moment ago."""
        return self._pause_s > 0 and time.monotonic() < self._not_before

    def note_failure(self, error: Exception) -> None:
        """Leave the store alone for a while, longer than the last time."""
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
        """Use the store without pauses."""
        if self._pause_s:
            log.info("correction cache: %s is used again", self._directory)
        self._pause_s = 0.0
        CACHE_UP.set(1)


def worth_storing(correction: Correction, aligner: str) -> bool:
    """Whether it is of the aligner that the key names, with all heads that the key names."""
    return correction.aligner in ("", aligner) and not correction.untaught


def pack(key: str, correction: Correction) -> bytes:
    """As it is stored: its digest, then itself."""
    body = AlignResponse.from_correction(correction).model_dump_json().encode()
    return _digest(key, body) + body


def _digest(key: str, body: bytes) -> bytes:
    """The key is part of it: an entry that was moved under another key, say another tenant's, is not whole."""
    return hashlib.sha256(key.encode() + b"\n" + body).digest()


def unpack(key: str, raw: object) -> Correction | None:
    """The correction in `raw`, or None if a single bit of it is wrong."""
    if not isinstance(raw, bytes) or _digest(key, raw[_DIGEST:]) != raw[:_DIGEST]:
        return None
    try:
        return AlignResponse.model_validate_json(raw[_DIGEST:]).correction()
    except ValidationError:
        return None


class PluginCache(CorrectionCache):
    """Corrections in a plugin's store; the folder is never made."""

    def __init__(self, directory: Path, ttl_s: float, store: CorrectionStore, caller: Runner) -> None:
        super().__init__(directory, ttl_s, max_mb=1)
        self._age_s = ttl_s
        self._entries = store
        self._caller = caller
        self._well = True

    async def get(self, key: str, aligner: str | None = None) -> Correction | None:
        """The stored correction, or None where there is none, or none that is whole."""
        raw = await self._ask_store(lambda: self._entries.get(key))
        return None if raw is None else unpack(key, raw)

    async def put(self, key: str, correction: Correction) -> None:
        """Remember `correction`, if the store takes it."""
        packed = pack(key, correction)
        await self._ask_store(lambda: self._entries.put(key, packed, self._age_s))

    async def _ask_store(self, work: Work[_T]) -> _T | None:
        try:
            async with asyncio.timeout(BUSY_S):
                answer = await self._caller.call(work)
        except (CorrectionError, TimeoutError) as error:
            name = type(error).__name__
            if self._well:
                log.warning("correction cache: its store fails (%s); going on without it meanwhile", name)
            self._well = False
            CACHE_FAILURES.labels(name).inc()
            CACHE_UP.set(0)
            return None
        self._well = True
        CACHE_UP.set(1)
        return answer
