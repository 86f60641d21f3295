"""Deletion of old audit entries in the background, by one process at a time.

A lease decides which worker deletes: a lock file next to the store, or a lock in a shared database. It is released
when that worker ends. Entries are deleted in small portions, with pauses in which other workers can write. The age of
an entry is measured by a clock that ignores jumps. The clock's last reading is stored with the lease, so a machine that
boots with a wrong time does not delete entries because of it.
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

from aligner_proxy.audit.location import Lease, StoreLocation
from aligner_proxy.audit.opening import open_store
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.clock import BELIEVED_AFTER_S, ClockReading, SteadyClock, read_clocks
from aligner_proxy.errors import AuditError
from aligner_proxy.observability.metrics import AUDIT_DELETED

log = logging.getLogger(__name__)

ROUND_S = 600.0
"""Seconds between two rounds."""
_USUAL_GAP_S = 3600.0
"""Seconds between two boots of the machine that are always accepted as real."""
_GAP_SHARE = 0.1
"""Clock error after a boot that is accepted, as a share of the retention time."""
_FILL_AFTER = 0.9
"""Fill level after deleting, as a share of the size limit, so that not every new entry triggers a deletion."""
_PORTION_S = 0.02
"""Seconds for which one portion should lock the store."""
_PAUSE_S = 0.002
"""The shortest pause between two portions, in seconds."""
_READING: TypeAdapter[ClockReading] = TypeAdapter(ClockReading)


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """Limits of the store in age (seconds) and size (bytes)."""

    seconds: float
    max_bytes: int


class RetentionLease:
    """Exclusive right to delete old entries; one process of this host holds it until it ends or closes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Descriptor of the locked file; None if this process does not hold the lease.
        self._file: int | None = None

    def take(self) -> bool:
        """Take the lease if it is free; returns whether this process holds it now.

        Raises `OSError` if the file cannot be opened.
        """
        if self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            self._file = file
        return True

    def read(self) -> ClockReading | None:
        """The clock reading in the lock file; None if there is none that can be read."""
        try:
            return _READING.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, reading: ClockReading) -> None:
        """Replace the clock reading in the lock file; the lease must be held."""
        assert self._file is not None
        text = json.dumps(asdict(reading)).encode()
        # In place: the lock is on this very file, so it must not be replaced.
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _make_lease(location: StoreLocation) -> Lease:
    """The lease of a store: a lock file beside the store's file, or a lock in its database."""
    if isinstance(location, Path):
        return RetentionLease(location.with_name(location.name + ".tidy"))
    return location.make_lease()


class RetentionWorker:
    """Background thread that deletes entries beyond the limits of age and size, in a round every `round_s` seconds.

    `read_clock` reads the machine's clocks.
    """

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
        """Run one round: delete entries that are too old, then the oldest until the rest fits; returns their number.

        Returns 0 if another process holds the lease. Raises the errors of the kind of store.
        """
        if not self._lease.take():
            return 0
        store = open_store(self._location)
        try:
            now = self._read_believed_time(store)
            pace = _DeletionPace(self._stop)
            last = store.last_expired(now - self._limits.seconds, now)
            expired_count = 0 if last is None else pace.delete(lambda count: store.delete_first(count, last))
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
        room = self._limits.max_bytes * _FILL_AFTER
        return pace.delete(lambda count: store.delete_first(count) if store.used_bytes() > room else 0)

    def _read_believed_time(self, store: AuditStore) -> float:
        """The earlier of the machine's time and the steady clock's time, so that a wrong clock deletes too little.

        Stores the reading with the lease.
        """
        if self._clock is None:
            last = self._lease.read()
            # Without a stored reading the time of the newest entry is the last one known.
            newest = store.newest_time() if last is None else None
            self._clock = SteadyClock(
                "audit",
                ClockReading(newest) if newest is not None else last,
                gap_s=max(_USUAL_GAP_S, self._limits.seconds * _GAP_SHARE),
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
        """Entries or pages of the next portion; adapted to the time that the last one took."""

    def delete(self, delete_portion: Callable[[int], int]) -> int:
        """Call `delete_portion` with a count until it deletes nothing or `stop` is set; returns the total deleted."""
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
