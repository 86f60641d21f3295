"""Who writes entries, when everybody else has better things to do? One thread behind a bounded queue.

`note` neither waits nor raises: whatever is wrong with disk, file or redaction costs the entry, which is counted and
logged without its text, and never a response. After a failure the file is left alone for a while, so that a locked
disk does not make a queue.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from aligner_proxy import telemetry
from aligner_proxy.audit.entry import Noted, Redact, entry
from aligner_proxy.audit.store import Store
from aligner_proxy.errors import AuditError

log = logging.getLogger(__name__)

_TIDY_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long, and how much."""

    seconds: float
    max_bytes: int
    waiting: int
    """Entries that may wait for the disk."""
    pause_s: float = 5.0
    """How long a file that could not be written is left alone."""


class Recorder:
    """Takes notes of one process."""

    def __init__(self, opened: Callable[[], Store], keeping: Keeping, redact: Redact | None = None) -> None:
        self._open, self._keeping, self._redact = opened, keeping, redact
        self._room = threading.BoundedSemaphore(keeping.waiting)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        self._store: Store | None = None
        self._well = True
        """Whether the last entry could be written; a change is logged, not every entry."""
        self._not_before = 0.0
        self._tidied = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def note(self, noted: Noted) -> None:
        """Keep `noted` when there is time for it."""
        if not self._room.acquire(blocking=False):
            telemetry.audited("dropped")
            return
        try:
            future = self._thread.submit(self._write, noted)
        except RuntimeError:  # the process is ending, and takes no more work
            self._room.release()
            telemetry.audited("dropped")
            return
        future.add_done_callback(self._written)
        self._tidy_later()

    async def aclose(self) -> None:
        """Write what waits, and close."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown(wait=False)

    def _write(self, noted: Noted | None) -> None:
        """In the thread. None: there is nothing to write, only to tidy."""
        if time.monotonic() < self._not_before:
            raise AuditError("the audit store is left alone after a failure")
        written = None if noted is None else entry(noted, self._redact)
        try:
            if self._store is None:
                self._store = self._open()
            if written is not None:
                self._store.add(written)
            if time.monotonic() - self._tidied >= _TIDY_EVERY_S:
                self._store.tidy(time.time() - self._keeping.seconds, self._keeping.max_bytes)
                self._tidied = time.monotonic()
        except (sqlite3.Error, OSError, AuditError):
            self._not_before = time.monotonic() + self._keeping.pause_s
            self._let_go()
            raise

    def _written(self, future: Future[None]) -> None:
        """A future holds whatever was raised, the redaction's own mistakes too; of these only the type is told."""
        self._room.release()
        error = future.exception() if not future.cancelled() else None
        telemetry.audited("written" if error is None else "lost")
        if error is not None and self._well:
            ours = str(error) if isinstance(error, AuditError) else type(error).__name__
            what = getattr(error, "sqlite_errorname", ours)
            log.error("audit: entries are lost (%s); answers are not affected", what)
        elif error is None and not self._well:
            log.info("audit: entries are written again")
        self._well = error is None

    def _tidy_later(self) -> None:
        """Old entries go in time even where nothing more is asked."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TIDY_EVERY_S, self._tidy_now)

    def _tidy_now(self) -> None:
        self._timer = None
        self._thread.submit(self._write, None)
        self._tidy_later()

    def _let_go(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
