"""Background writers of audit entries: to the store and to the sinks of plugins.

`note` neither waits nor raises. One thread behind a bounded queue writes to the store. A fault of disk, file or
redaction loses the entry, which is counted and logged without its text, and never affects a response. After a failure
the writer pauses, so that a locked disk builds no queue. Each sink of a plugin has its own thread and a bounded queue;
entries beyond it are counted and lost.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from aligner_proxy.audit.entry import AuditEvent, Redact, entry
from aligner_proxy.audit.store import Seal, Store
from aligner_proxy.errors import AuditError, ConfigError, CorrectionError
from aligner_proxy.observability.metrics import AUDITED
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import AuditSink
from aligner_proxy.plugins.isolation import InlineRunner, Runner, ThreadRunner
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile

log = logging.getLogger(__name__)

_TIDY_EVERY_S = 600.0
WRITE_S = 10.0
"""Time limit of a sink for one entry; a slower one is lost."""
_DAY_S = 86_400.0


def audited(result: str) -> None:
    """Count an entry: written, lost (disk, file, redaction), or dropped because the queue is full."""
    AUDITED.labels(result).inc()


@dataclass(frozen=True, slots=True)
class Keeping:
    """Limits of the store in time and size."""

    seconds: float
    max_bytes: int
    waiting: int
    """Entries that may wait for the disk."""
    pause_s: float = 5.0
    """Seconds without writes after a failure."""


class Recorder:
    """Writer to the audit store for one process."""

    def __init__(self, opened: Callable[[], Store], keeping: Keeping, redact: Redact | None = None) -> None:
        self._open = opened
        self._keeping = keeping
        self._redact = redact
        self._room = threading.BoundedSemaphore(keeping.waiting)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        self._store: Store | None = None
        self._healthy = True
        """Whether the last entry was written; only a change is logged."""
        self._not_before = 0.0
        self._tidied = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def note(self, event: AuditEvent) -> None:
        """Queue an event for writing."""
        if not self._room.acquire(blocking=False):
            audited("dropped")
            return
        try:
            future = self._thread.submit(self._write, event)
        except RuntimeError:  # the process is shutting down
            self._room.release()
            audited("dropped")
            return
        future.add_done_callback(self._written)
        self._tidy_later()

    async def aclose(self) -> None:
        """Write the queued entries, and close."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _write(self, event: AuditEvent | None) -> None:
        """Runs in the writer thread. None: only delete old entries."""
        if time.monotonic() < self._not_before:
            raise AuditError("writes to the audit store are paused after a failure")
        record = None if event is None else entry(event, self._redact)
        try:
            if self._store is None:
                self._store = self._open()
            if record is not None:
                self._store.add(record)
            if time.monotonic() - self._tidied >= _TIDY_EVERY_S:
                self._store.tidy(time.time() - self._keeping.seconds, self._keeping.max_bytes)
                self._tidied = time.monotonic()
        except (sqlite3.Error, OSError, AuditError):
            self._not_before = time.monotonic() + self._keeping.pause_s
            self._close()
            raise

    def _written(self, future: Future[None]) -> None:
        """Log a failure once; of errors from the operator's redaction only the type."""
        self._room.release()
        error = future.exception() if not future.cancelled() else None
        audited("written" if error is None else "lost")
        if error is not None and self._healthy:
            reason = str(error) if isinstance(error, AuditError) else type(error).__name__
            reason = getattr(error, "sqlite_errorname", reason)
            log.error("audit: entries are lost (%s); answers are not affected", reason)
        elif error is None and not self._healthy:
            log.info("audit: entries are written again")
        self._healthy = error is None

    def _tidy_later(self) -> None:
        """Schedule the deletion of old entries, so that it happens without new requests."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TIDY_EVERY_S, self._tidy_now)

    def _tidy_now(self) -> None:
        self._timer = None
        self._thread.submit(self._write, None)
        self._tidy_later()

    def _close(self) -> None:
        store = self._store
        self._store = None
        if store is not None:
            store.close()


class AuditWriter(Protocol):
    """Writer of audit entries."""

    def note(self, event: AuditEvent) -> None:
        """Queue an event for writing."""
        ...

    async def aclose(self) -> None:
        """Write the queued entries, and close."""
        ...


class AuditWriters:
    """All writers of a policies file: the audit store, if enabled, and the sinks. Satisfies `AuditWriter`."""

    def __init__(self, writers: Sequence[AuditWriter]) -> None:
        self._writers = tuple(writers)

    def __bool__(self) -> bool:
        """Whether there is any writer."""
        return bool(self._writers)

    def note(self, event: AuditEvent) -> None:
        """Queue an event with each writer."""
        for writer in self._writers:
            writer.note(event)

    async def aclose(self) -> None:
        """Close each writer."""
        for writer in self._writers:
            await writer.aclose()


def audit_writers(file: PolicyFile) -> AuditWriters:
    """The writers that a policies file configures; raises `ConfigError`."""
    store = recorder(file)
    sinks = registry.configured(file)["audit_sinks"]
    redact = redaction(file) if sinks else None
    writers: list[AuditWriter] = [] if store is None else [store]
    for sink in sinks:
        caller = ThreadRunner(sink.name) if sink.offer.plugin.third_party else InlineRunner()
        writers.append(Sink(sink.name, sink.make(), caller, redact, file.audit.waiting))
    return AuditWriters(writers)


class Sink:
    """Writer to one sink of a plugin. Satisfies `AuditWriter`."""

    def __init__(self, name: str, sink: AuditSink, caller: Runner, redact: Redact | None, waiting: int) -> None:
        self._name = name
        self._sink = sink
        self._caller = caller
        self._redact = redact
        self._waiting = waiting
        self._tasks: set[asyncio.Task[None]] = set()
        self._healthy = True

    def note(self, event: AuditEvent) -> None:
        """Pass an event to the sink, unless too many are waiting."""
        if len(self._tasks) >= self._waiting:
            audited("sink_dropped")
            return
        task = asyncio.get_running_loop().create_task(self._write(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for the pending entries."""
        await asyncio.gather(*self._tasks)

    async def _write(self, event: AuditEvent) -> None:
        async def work() -> None:
            await self._sink.write(entry(event, self._redact))  # redaction is foreign code, too

        try:
            async with asyncio.timeout(WRITE_S):
                await self._caller.call(work)
        except (CorrectionError, TimeoutError) as error:
            audited("sink_lost")
            if self._healthy:
                name = type(error).__name__
                log.warning("audit sink %s: entries are lost (%s); answers are not affected", self._name, name)
            self._healthy = False
        else:
            audited("sink_written")
            self._healthy = True


def recorder(file: PolicyFile) -> Recorder | None:
    """The writer to the audit store, not opened yet; None where it is off. Raises `ConfigError` for bad settings."""
    settings = file.audit
    if not settings.enabled:
        return None
    path = config.audit_file(file)
    seal = _seal(file)
    redact = redaction(file)
    keeping = Keeping(settings.keep_days * _DAY_S, settings.max_mb * 2**20, settings.waiting)
    return Recorder(lambda: Store(path, seal), keeping, redact)


def store(file: PolicyFile, path: Path | None = None) -> Store:
    """The store, open for reading; raises `ConfigError` where there is none."""
    path = path or config.audit_file(file)
    if not path.exists():
        raise ConfigError(
            f"there is no audit store at {path}; turn it on with audit: {{enabled: true}}, or name another"
        )
    return Store(path, _seal(file))


def _seal(file: PolicyFile) -> Seal | None:
    key = config.audit_key(file)
    return Seal(key) if key is not None else None


def redaction(file: PolicyFile) -> Redact | None:
    """The operator's redaction function, imported at the start; raises `ConfigError`."""
    if file.audit.redact is None:
        return None
    module, _, name = file.audit.redact.rpartition(".")
    place = file.source.at("audit", "redact")
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{place}: audit.redact: cannot import {module} ({type(error).__name__})") from None
    except AttributeError:
        raise ConfigError(f"{place}: audit.redact: {module} has no {name}") from None
    if not callable(function):
        raise ConfigError(f"{place}: audit.redact: {file.audit.redact} is not a function that takes and gives a text")
    return cast(Redact, function)
