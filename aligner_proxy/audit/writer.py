"""Writers of audit entries that a policies file configures: the store, and the sinks of plugins.

An event holds the facts about one answer, and the entry that is stored is made of it. `note` queues an event, and
neither waits nor raises. Each third-party sink has its own thread, and every sink has as much memory for queued events
as the store; further events are dropped and counted. With `audit: required`, `write` waits until the entry is in the
store.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from aligner_proxy.audit.entry import KEEP_TEXT, AuditEvent, Redact, estimate_event_bytes, make_entry
from aligner_proxy.audit.location import AuditDatabase, StoreLocation, open_store
from aligner_proxy.audit.recorder import MemoryBudget, QueueLimits, Recorder, count_entries
from aligner_proxy.audit.retention import RetentionLimits, RetentionWorker
from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.errors import AuditError, ConfigError, CorrectionError
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import AuditSink
from aligner_proxy.plugins.extensions import Runner
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile

log = logging.getLogger(__name__)

SINK_WRITE_S = 10.0
"""Timeout in seconds for a sink to write one entry, which is lost after that time."""
READING_S = 60.0
"""Timeout in seconds of database calls by commands and pages that read or erase."""
_DAY_S = 86_400.0


class AuditWriters:
    """All writers of a policies file: the audit store, if enabled, and the sinks."""

    def __init__(self, writers: Sequence[Recorder | SinkWriter]) -> None:
        self._writers = tuple(writers)
        required = [writer for writer in writers if isinstance(writer, Recorder) and writer.required]
        self._required_recorder = required[0] if required else None
        """The recorder that must have stored an entry before its answer is delivered; None if no answer waits."""

    @property
    def required(self) -> bool:
        """Whether an answer may be delivered only when its entry is in the store."""
        return self._required_recorder is not None

    def __bool__(self) -> bool:
        return bool(self._writers)

    def note(self, event: AuditEvent) -> None:
        for writer in self._writers:
            writer.note(event)

    async def write(self, event: AuditEvent) -> None:
        """Queue an event with each writer; if entries are required, wait until the store has this event's entry.

        Raises `NotRecorded` if the store cannot write it.
        """
        for writer in self._writers:
            if writer is not self._required_recorder:
                writer.note(event)
        if self._required_recorder is not None:
            await self._required_recorder.write(event)

    async def aclose(self) -> None:
        for writer in self._writers:
            await writer.aclose()


def make_audit_writers(file: PolicyFile) -> AuditWriters:
    """Make the writers that a policies file configures; raises `ConfigError`."""
    store = make_recorder(file)
    sinks = registry.configure_plugins(file)["audit_sinks"]
    redact = load_redaction(file) if sinks else KEEP_TEXT
    writers: list[Recorder | SinkWriter] = [] if store is None else [store]
    for sink in sinks:
        writers.append(SinkWriter(sink.name, sink.make(), sink.make_runner(), redact, queue_limits(file)))
    return AuditWriters(writers)


class SinkWriter:
    """Writer of redacted entries to one sink of a plugin, whose code `runner` runs."""

    def __init__(self, name: str, sink: AuditSink, runner: Runner, redact: Redact, limits: QueueLimits) -> None:
        self._name = name
        self._sink = sink
        self._runner = runner
        self._redact = redact
        self._budget = MemoryBudget(limits)
        self._tasks: set[asyncio.Task[None]] = set()
        """One task for each entry that is not written yet."""
        self._is_healthy = True
        """Whether the last entry was written; only changes are logged."""

    def note(self, event: AuditEvent) -> None:
        """Pass an event to the sink in a background task; if the queue is full, drop and count it."""
        size = estimate_event_bytes(event)
        if not self._budget.take(size):
            count_entries("sink_dropped")
            return
        task = asyncio.get_running_loop().create_task(self._write(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._budget.give_back(size))

    async def aclose(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _write(self, event: AuditEvent) -> None:
        """Write one event to the sink; a failure or timeout is counted, and logged when it begins."""

        async def write_entry() -> None:
            # redaction runs here, too, because it is not our code
            await self._sink.write(make_entry(event, self._redact))

        try:
            async with asyncio.timeout(SINK_WRITE_S):
                await self._runner.call(write_entry)
        except (CorrectionError, TimeoutError) as error:
            count_entries("sink_lost")
            if self._is_healthy:
                name = type(error).__name__
                log.warning("audit sink %s: entries are lost (%s); answers are not affected", self._name, name)
            self._is_healthy = False
        else:
            count_entries("sink_written")
            self._is_healthy = True


def make_recorder(file: PolicyFile) -> Recorder | None:
    """The writer to the audit store, not opened yet; None if the store is off. Raises `ConfigError`."""
    settings = file.audit
    open_audit_store = store_opener(file)
    if open_audit_store is None:
        return None
    redact = load_redaction(file)
    retention_limits = RetentionLimits(seconds=settings.keep_days * _DAY_S, max_bytes=settings.max_mb * 2**20)
    retention = RetentionWorker(store_location(file), retention_limits)
    return Recorder(open_audit_store, queue_limits(file), redact, retention, required=settings.required)


def store_opener(file: PolicyFile) -> Callable[[], AuditStore] | None:
    """Return a function that opens the store for writing; None if the store is off. Raises `ConfigError`."""
    if not file.audit.enabled:
        return None
    location = store_location(file)
    seal = _make_seal(file)
    return lambda: open_store(location, seal, durable=file.audit.required)


def store_location(file: PolicyFile, wait_s: float | None = None) -> StoreLocation:
    """The location of the store; raises `ConfigError` if the database's variable contains no address.

    `wait_s` is the timeout of database calls in seconds; by default that of a gateway.
    """
    address = config.audit_database_address(file)
    if address is None:
        return config.audit_file(file)
    database: AuditDatabase = registry.make_server(file, "audit_databases", address)
    return database if wait_s is None else database.with_wait_limit(wait_s)


def queue_limits(file: PolicyFile) -> QueueLimits:
    """The limits that the settings `audit.waiting_mb` and `audit.waiting` set for each queue."""
    return QueueLimits(max_bytes=file.audit.waiting_mb * 2**20, max_entries=file.audit.waiting)


def open_for_reading(file: PolicyFile, path: Path | None = None) -> AuditStore:
    """Open the store at `path`, by default that of the policies file, for reading.

    Raises `ConfigError` if there is no store, and `AuditError` if it cannot be opened.
    """
    location = path or store_location(file, READING_S)
    if isinstance(location, Path) and not location.exists():
        raise ConfigError(
            f"there is no audit store at {location}; turn it on with audit: {{enabled: true}}, or name another"
        )
    seal = _make_seal(file)
    try:
        return open_store(location, seal)
    except (sqlite3.Error, OSError) as error:
        # the text of an OSError would repeat the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise AuditError(
            f"the audit store {location} cannot be opened ({reason}); try again, or name another"
        ) from None


def has_store(file: PolicyFile) -> bool:
    """Whether a readable store exists; ask before opening, because opening a missing file would create it."""
    return file.audit.enabled and bool(file.audit.database_env or config.audit_file(file).exists())


def _make_seal(file: PolicyFile) -> Seal | None:
    key = config.encryption_key(file, "audit")
    return None if key is None else Seal(key)


def load_redaction(file: PolicyFile) -> Redact:
    """Import the operator's redaction function; `KEEP_TEXT` if none is set. Raises `ConfigError`."""
    if file.audit.redact is None:
        return KEEP_TEXT
    module_name, _, function_name = file.audit.redact.rpartition(".")
    place = file.source.place_of("audit", "redact")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise ConfigError(f"{place}: audit.redact: cannot import {module_name} ({type(error).__name__})") from None
    except AttributeError:
        raise ConfigError(f"{place}: audit.redact: {module_name} has no {function_name}") from None
    if not callable(function):
        raise ConfigError(f"{place}: audit.redact: {file.audit.redact} is not a function that takes and gives a text")
    return cast(Redact, function)
