"""Writer of audit entries to the store, for one process.

Events wait in a bounded queue, from which one thread writes them in batches as entries. If a write fails, the events
stay in the queue and the write is tried again. When the queue is full, new events are dropped and counted, and the fact
is logged without their text.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass

from aligner_proxy.audit.entry import KEEP_TEXT, AuditEvent, Redact, estimate_event_bytes, make_entry
from aligner_proxy.audit.retention import RetentionWorker
from aligner_proxy.audit.store import AuditStore, Row
from aligner_proxy.errors import AuditError, CorrectionError, NoRoomForRecord, NotRecorded
from aligner_proxy.observability.metrics import AUDIT_ENTRIES, AUDIT_WAITING
from aligner_proxy.plugins.extensions import Boundary

log = logging.getLogger(__name__)

MAX_WAIT_S = 5.0
"""Seconds for which the store may fail before answers that wait for their entry are refused."""
LAST_TRIES_S = 2.0
"""Seconds for which queued entries are retried when the process ends."""
_BATCH_ENTRIES = 64
"""Most entries in one transaction."""
_BATCH_BYTES = 4 * 2**20
"""Most bytes in one transaction; a single larger entry is still written."""
_FIRST_PAUSE_S = 0.1
"""Seconds of the first pause after a failure; each further pause is twice as long, up to a limit."""


def count_entries(result: str, count: int = 1) -> None:
    """Add to the entries metric. `result` is written, lost or dropped (queue full), with "sink_" before it for a sink.

    Lost are entries after a failed redaction or at shutdown, and those that the store cannot hold.
    """
    if count:
        AUDIT_ENTRIES.labels(result).inc(count)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of the queue, and the longest pause between attempts to write."""

    max_bytes: int
    max_entries: int | None = None
    """None if only `max_bytes` limits the queue."""
    longest_pause_s: float = 1.0
    """Longest pause in seconds after failures; the pauses grow up to it."""


class MemoryBudget:
    """Thread-safe memory budget for queued entries. An entry larger than the whole budget may wait alone."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._reserved_bytes = 0
        self._reserved_entries = 0

    def take(self, size: int) -> bool:
        """Reserve `size` bytes for one entry; return False if there is too little room."""
        max_entries = self._limits.max_entries
        with self._lock:
            fits_bytes = self._reserved_bytes + size <= self._limits.max_bytes
            fits_entries = max_entries is None or self._reserved_entries < max_entries
            if self._reserved_entries and not (fits_bytes and fits_entries):
                return False
            self._reserved_bytes += size
            self._reserved_entries += 1
        AUDIT_WAITING.inc(size)
        return True

    def give_back(self, size: int) -> None:
        """Release the `size` bytes that `take` reserved for one entry."""
        with self._lock:
            self._reserved_bytes -= size
            self._reserved_entries -= 1
        AUDIT_WAITING.dec(size)


@dataclass(frozen=True, slots=True, eq=False)
class _QueuedEntry:
    """An entry in the queue, which is not yet made of its event and written."""

    event: AuditEvent
    size: int
    """Estimated memory in bytes, as reserved in the budget."""
    completion: Future[None] | None = None
    """The future for which the answer waits; None if the answer does not wait for its entry."""

    def resolve(self, error: NotRecorded | None) -> None:
        """Complete the future, if an answer waits: with success if `error` is None, otherwise with the error."""
        if self.completion is None:
            return
        # False if the request that waited was cancelled
        if not self.completion.set_running_or_notify_cancel():
            return
        if error is None:
            self.completion.set_result(None)
        else:
            self.completion.set_exception(error)


class _StoreWriter:
    """Makes rows of queued entries, and writes them to a store that it opens when there is something to write."""

    def __init__(self, open_store: Callable[[], AuditStore], redact: Redact) -> None:
        self._open_store = open_store
        self._redact = redact
        self._store: AuditStore | None = None
        """The open store; None before the first write, and after a failure."""
        self._is_losing = False
        """Whether the last batch had entries that are lost; only changes are logged."""

    def write(self, batch: Collection[_QueuedEntry]) -> set[_QueuedEntry]:
        """Write a batch in one transaction; return the entries that can never be stored, and log that they are lost.

        Raises the errors of the store, after which the batch can be tried again.
        """
        if self._store is None:
            self._store = self._open_store()
        rows: dict[_QueuedEntry, Row] = {}
        for item in batch:
            try:
                with Boundary():  # redaction is the operator's code, and its error messages may contain text
                    rows[item] = self._store.make_row(make_entry(item.event, self._redact))
            except CorrectionError as error:
                self._log_loss(str(error))
        items_with_row = list(rows)
        unstorable = {items_with_row[index] for index in self._store.insert(list(rows.values()))}
        if unstorable:
            self._log_loss("a row that the store cannot hold")
        items_without_row = set(batch) - set(rows)
        unwritable = items_without_row | unstorable
        self._is_losing = bool(unwritable)
        return unwritable

    def close(self) -> None:
        """Close the store; the next write opens it again."""
        store = self._store
        self._store = None
        if store is not None:
            store.close()

    def _log_loss(self, reason: str) -> None:
        """Log that entries are lost, unless the last batch had losses, too."""
        if not self._is_losing:
            log.error("audit: entries are lost (%s)", reason)
        self._is_losing = True


class Recorder:
    """Writer to the audit store.

    `open_store` opens the store and is called in the writer thread; `redact` is applied to all texts. `retention`
    deletes old entries; it starts after the first write, because the store must exist.
    """

    def __init__(
        self,
        open_store: Callable[[], AuditStore],
        limits: QueueLimits,
        redact: Redact = KEEP_TEXT,
        retention: RetentionWorker | None = None,
        *,
        required: bool = False,
    ) -> None:
        self.required = required
        """Whether an answer may be delivered only when its entry is on disk."""
        self._writer = _StoreWriter(open_store, redact)
        self._retention = retention
        self._longest_pause_s = limits.longest_pause_s
        self._budget = MemoryBudget(limits)
        self._items: deque[_QueuedEntry] = deque()
        """Entries that are not stored yet, oldest first, including those that the thread is writing."""
        self._condition = threading.Condition()
        """Guards `_items`, `_thread` and `_closing_at`."""
        self._thread: threading.Thread | None = None
        """The writer thread; None until the first entry."""
        self._closing = threading.Event()
        """Set by `close`; ends the pauses between attempts."""
        self._closing_at: float | None = None
        """Monotonic time of the first call of `close`; None while the recorder is open."""
        self._failing_since: float | None = None
        """Monotonic time since when all attempts have failed; None while writing works."""
        self._is_dropping = False
        """Whether the last entry was dropped; only changes are logged."""

    def note(self, event: AuditEvent) -> None:
        """Queue an event without waiting; it is dropped and counted if the queue is full."""
        self._enqueue(event, completion=None)

    async def write(self, event: AuditEvent) -> None:
        """Queue an event and wait until it is on disk; cancelling the wait does not stop the write.

        Raises `NoRoomForRecord` if the queue is full, and `NotRecorded` if the event cannot be written.
        """
        completion: Future[None] = Future()
        if not self._enqueue(event, completion):
            raise NoRoomForRecord("too many audit entries wait")
        await asyncio.wrap_future(completion)

    async def aclose(self) -> None:
        """Write the queued entries, as far as possible within `LAST_TRIES_S` seconds, and close."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write the queued entries, as far as possible within `LAST_TRIES_S` seconds, and close; blocks the caller."""
        with self._condition:
            # The time of the first call counts, because a second call must not give the queue more time.
            self._closing_at = self._closing_at or time.monotonic()
            self._closing.set()
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        if self._retention is not None:
            self._retention.close()
        _OPEN.discard(self)

    def _enqueue(self, event: AuditEvent, completion: Future[None] | None) -> bool:
        """Queue an event for the writer thread; return False, count and log if the queue is full or closed."""
        item = _QueuedEntry(event, estimate_event_bytes(event), completion)
        with self._condition:
            is_accepted = self._closing_at is None and self._budget.take(item.size)
            if is_accepted:
                self._items.append(item)
                self._condition.notify()
            if is_accepted and self._thread is None:
                # A daemon thread, because while the store fails only `close` would end it, and the process could not
                # exit.
                self._thread = threading.Thread(target=self._write_batches, name="audit", daemon=True)
                self._thread.start()
                _OPEN.add(self)
        if not is_accepted:
            count_entries("dropped")
            if not self._is_dropping:
                log.error("audit: the queue is full, entries are dropped")
        self._is_dropping = not is_accepted
        return is_accepted

    def _write_batches(self) -> None:
        """Write batches, retrying failed ones, until the recorder is closed and the queue is empty."""
        pause = _FIRST_PAUSE_S
        while batch := self._wait_for_batch():
            try:
                unwritable = self._writer.write(batch)
            except Exception as error:  # noqa: BLE001 - the thread must survive; the batch is tried again
                self._handle_failure(error)
                # While closing the wait ends at once; a short pause keeps the last attempts from spinning.
                if self._closing.wait(pause):
                    time.sleep(_FIRST_PAUSE_S)
                pause = min(self._longest_pause_s, pause * 2)
            else:
                self._finish_batch(batch, unwritable)
                pause = _FIRST_PAUSE_S
        self._writer.close()

    def _wait_for_batch(self) -> list[_QueuedEntry]:
        """Wait for entries and return the first batch, which stays queued; empty if closed and all is written."""
        batch: list[_QueuedEntry] = []
        batch_bytes = 0
        # while writing fails, only one entry is tried, because that is cheap
        max_entries = _BATCH_ENTRIES if self._failing_since is None else 1
        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closing_at is not None)
            for item in self._items:
                batch_bytes += item.size
                if batch and (batch_bytes > _BATCH_BYTES or len(batch) == max_entries):
                    break
                batch.append(item)
        return batch

    def _finish_batch(self, batch: Collection[_QueuedEntry], unwritable: Collection[_QueuedEntry]) -> None:
        """Count a batch that was written except for its `unwritable` entries, tell waiting answers, and dequeue it."""
        count_entries("written", len(batch) - len(unwritable))
        count_entries("lost", len(unwritable))
        for item in batch:
            self._budget.give_back(item.size)
            is_lost = item in unwritable
            item.resolve(NotRecorded("no audit entry can be made for this answer") if is_lost else None)
        if self._failing_since is not None:
            log.info("audit: entries are written again")
        self._failing_since = None
        if self._retention is not None:
            self._retention.start()
        with self._condition:
            # The batch is the front of the queue, because only this thread removes entries.
            for _ in batch:
                self._items.popleft()

    def _handle_failure(self, error: Exception) -> None:
        """Close the store and keep the queue for the next attempt, but give up entries if this lasts too long."""
        self._writer.close()
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            reason = str(error) if isinstance(error, AuditError) else type(error).__name__
            reason = getattr(error, "sqlite_errorname", reason)
            effect = "answers are refused" if self.required else "answers are not affected"
            log.error("audit: entries cannot be written (%s) and wait; %s", reason, effect)
        if self._closing_at is not None and now - self._closing_at >= LAST_TRIES_S:
            self._give_up(lambda _: True)
        elif now - self._failing_since >= MAX_WAIT_S:
            # Only entries for which an answer waits are given up; the others can wait until the store works again.
            self._give_up(lambda item: item.completion is not None)

    def _give_up(self, is_hopeless: Callable[[_QueuedEntry], bool]) -> None:
        """Remove the entries for which `is_hopeless` is true, count them as lost, and refuse the answers that wait."""
        with self._condition:
            hopeless_items = [item for item in self._items if is_hopeless(item)]
            self._items = deque(item for item in self._items if not is_hopeless(item))
        count_entries("lost", len(hopeless_items))
        for item in hopeless_items:
            self._budget.give_back(item.size)
            item.resolve(NotRecorded("the audit store cannot be written"))


_OPEN: weakref.WeakSet[Recorder] = weakref.WeakSet()
"""Recorders whose thread runs."""


@atexit.register
def _close_all() -> None:
    """Write queued entries even if a process ends without closing its recorders."""
    for recorder in list(_OPEN):
        recorder.close()
