"""Deletion of old audit entries in the background, by one process at a time.

A lease decides which worker deletes: a lock file next to the store, or a lock in a shared database. It is released
when that worker ends. Entries are deleted in small portions, with pauses in which other workers can write. The age of
an entry is measured by a steady clock, which ignores jumps of the machine's time. The clock's last reading is stored
with the lease, so a machine that boots with a wrong time does not delete entries because of it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.audit.location import Lease, StoreLocation, open_store
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.clock import BELIEVED_AFTER_S, ClockReading, SteadyClock, read_clocks
from aligner_proxy.errors import AuditError
from aligner_proxy.observability.metrics import AUDIT_DELETED

log = logging.getLogger(__name__)

ROUND_S = 600.0
"""Seconds between two rounds."""
_ACCEPTED_GAP_S = 3600.0
"""Seconds that the clock may jump at a boot of the machine and is always believed."""
_ACCEPTED_ERROR_SHARE = 0.1
"""Largest jump of the clock at a boot that is believed, as a share of the retention time."""
_FILL_SHARE = 0.9
"""Size after a deletion, as a share of the size limit, so that not every new entry triggers a deletion."""
_PORTION_S = 0.02
"""Seconds for which the deletion of one portion should lock the store."""
_PAUSE_S = 0.002
"""The shortest pause between two portions, in seconds."""
_CLOCK_READING_TYPE: TypeAdapter[ClockReading] = TypeAdapter(ClockReading)


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """Limits of the store in age (seconds) and size (bytes)."""

    seconds: float
    max_bytes: int


class RetentionLease:
    """Lease in the form of a locked file at `path`. Satisfies `Lease`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        """File descriptor of the locked file; None if this process does not have the lease."""

    def take(self) -> bool:
        """Take the lease if it is free; return whether this process has it now. Raises `OSError`."""
        if self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._descriptor = descriptor
        return True

    def read(self) -> ClockReading | None:
        """The clock reading in the lock file; None if there is none that can be read."""
        try:
            return _CLOCK_READING_TYPE.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, reading: ClockReading) -> None:
        """Replace the clock reading in the lock file; this process must have the lease."""
        assert self._descriptor is not None
        text = json.dumps(asdict(reading)).encode()
        # The file is overwritten, not replaced, because the lock is on this very file.
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _make_lease(location: StoreLocation) -> Lease:
    if isinstance(location, Path):
        return RetentionLease(location.with_name(location.name + ".tidy"))
    return location.make_lease()


class RetentionWorker:
    """Background thread that deletes entries beyond the limits of age and size, in a round every `round_s` seconds."""

    def __init__(
        self,
        location: StoreLocation,
        limits: RetentionLimits,
        *,
        round_s: float = ROUND_S,
        read_clock: Callable[[], ClockReading] = read_clocks,
    ) -> None:
        self._location = location
        self._limits = limits
        self._round_s = round_s
        self._read_clock = read_clock
        self._lease = _make_lease(location)
        self._clock: SteadyClock | None = None
        """A clock that ignores jumps of the machine's time; None until this worker holds the lease."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_healthy = True
        """Whether the last round succeeded; only changes are logged."""

    def start(self) -> None:
        """Start the background thread if it does not run yet; the store must exist."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_rounds, name="audit-tidier", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop after the current portion, and release the lease."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._lease.close()

    def delete_old(self) -> int:
        """Run one round: delete entries that are too old, then the oldest entries until the rest fits the size limit.

        Returns the number of deleted entries; 0 if another process has the lease. Raises the errors of the kind of
        store.
        """
        if not self._lease.take():
            return 0
        store = open_store(self._location)
        try:
            now = self._read_believed_time(store)
            pace = _DeletionPace(self._stop)
            last_expired = store.last_expired(now - self._limits.seconds, now)
            expired_count = 0
            if last_expired is not None:
                expired_count = pace.delete(lambda count: store.delete_first(count, last_expired))
            surplus_count = self._delete_surplus(store, pace)
            if expired_count or surplus_count:
                pace.delete(store.shrink)
                store.empty_log()
        finally:
            store.close()
        AUDIT_DELETED.labels("age").inc(expired_count)
        AUDIT_DELETED.labels("size").inc(surplus_count)
        return expired_count + surplus_count

    def _delete_surplus(self, store: AuditStore, pace: _DeletionPace) -> int:
        """Delete the oldest entries if the store is above its size limit; returns their number."""
        if store.used_bytes() <= self._limits.max_bytes:
            return 0
        target_bytes = self._limits.max_bytes * _FILL_SHARE
        return pace.delete(lambda count: store.delete_first(count) if store.used_bytes() > target_bytes else 0)

    def _read_believed_time(self, store: AuditStore) -> float:
        """The earlier of the machine's time and the steady clock's time, so that a wrong clock deletes too little.

        Stores the steady clock's reading with the lease.
        """
        if self._clock is None:
            last_reading = self._lease.read()
            # Without a stored reading, the newest entry has the last known time.
            newest = store.newest_time() if last_reading is None else None
            self._clock = SteadyClock(
                "audit",
                last_reading if newest is None else ClockReading(newest),
                gap_s=max(_ACCEPTED_GAP_S, self._limits.seconds * _ACCEPTED_ERROR_SHARE),
                believed_after_s=min(BELIEVED_AFTER_S, self._limits.seconds),
                read=self._read_clock,
            )
        reading = self._clock.take_reading()
        self._lease.write(reading)
        return min(reading.believed_time, reading.wall)

    def _run_rounds(self) -> None:
        """Run rounds until stopped, the first at once; log a failure only when it begins."""
        pause = 0.0
        while not self._stop.wait(pause):
            pause = self._round_s
            try:
                self.delete_old()
            except (sqlite3.Error, OSError, AuditError) as error:
                if self._is_healthy:
                    reason = getattr(error, "sqlite_errorname", type(error).__name__)
                    log.warning("audit: old entries cannot be deleted (%s); trying again in the next round", reason)
                self._is_healthy = False
            else:
                self._is_healthy = True


class _DeletionPace:
    """Pace of deletion: portions that take about `_PORTION_S`, each followed by a pause at least as long."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._count = 16
        """Number of entries or pages in the next portion; adapted to the time that the last portion took."""

    def delete(self, delete_portion: Callable[[int], int]) -> int:
        """Call `delete_portion` with a number to delete until it deletes none or `stop` is set; return the sum."""
        total = 0
        while not self._stop.is_set():
            start = time.monotonic()
            deleted = delete_portion(self._count)
            if deleted <= 0:
                break
            total += deleted
            seconds = time.monotonic() - start
            if seconds > _PORTION_S:
                self._count = max(1, self._count // 2)
            elif seconds < _PORTION_S / 2:
                self._count = min(1000, self._count * 2)
            self._stop.wait(max(seconds, _PAUSE_S))
        return total
