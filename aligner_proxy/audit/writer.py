"""Writers of audit entries that a policies file configures: the store, and the sinks of plugins.

`note` neither waits nor raises; the recorder queues what cannot be written yet. Each third-party sink has its own
thread, and every sink has as much memory for queued entries as the store; further entries are dropped and counted. With
`audit: required`, `write` waits until the entry is in the store.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from aligner_proxy.audit.entry import KEEP_TEXT, AuditEvent, Redact, estimate_event_bytes, make_entry
from aligner_proxy.audit.location import AuditDatabase, StoreLocation
from aligner_proxy.audit.opening import open_store
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
"""Timeout in seconds for a sink to write one entry; after it the entry is lost."""
READING_S = 60.0
"""Timeout in seconds of database calls by commands and pages that read or erase."""
_DAY_S = 86_400.0


class AuditWriter(Protocol):
    """Writer of audit entries."""

    def note(self, event: AuditEvent) -> None:
        """Queue an event for writing."""

    async def aclose(self) -> None:
        """Write the queued entries, and close."""


class AuditWriters:
    """All writers of a policies file: the audit store, if enabled, and the sinks. Satisfies `AuditWriter`."""

    def __init__(self, writers: Sequence[AuditWriter]) -> None:
        self._writers = tuple(writers)
        required = [writer for writer in writers if isinstance(writer, Recorder) and writer.required]
        # The recorder on whose entries answers wait; None if no answer waits.
        self._required = required[0] if required else None

    @property
    def required(self) -> bool:
        """Whether an answer may be delivered only when its entry is in the store."""
        return self._required is not None

    def __bool__(self) -> bool:
        return bool(self._writers)

    def note(self, event: AuditEvent) -> None:
        """Queue an event with each writer."""
        for writer in self._writers:
            writer.note(event)

    async def write(self, event: AuditEvent) -> None:
        """Queue an event with each writer; if entries are required, wait until the store has this one.

        Raises `NotRecorded` if the store cannot write it.
        """
        for writer in self._writers:
            if writer is not self._required:
                writer.note(event)
        if self._required is not None:
            await self._required.write(event)

    async def aclose(self) -> None:
        for writer in self._writers:
            await writer.aclose()


def make_audit_writers(file: PolicyFile) -> AuditWriters:
    """Make the writers that a policies file configures; raises `ConfigError`."""
    store = make_recorder(file)
    sinks = registry.configure_plugins(file)["audit_sinks"]
    redact = load_redaction(file) if sinks else KEEP_TEXT
    writers: list[AuditWriter] = [] if store is None else [store]
    for sink in sinks:
        writers.append(SinkWriter(sink.name, sink.make(), sink.make_runner(), redact, queue_limits(file)))
    return AuditWriters(writers)


class SinkWriter:
    """Writer to one sink of a plugin; `runner` runs the sink's code. Satisfies `AuditWriter`."""

    def __init__(self, name: str, sink: AuditSink, runner: Runner, redact: Redact, limits: QueueLimits) -> None:
        self._name = name
        self._sink = sink
        self._runner = runner
        self._redact = redact
        self._budget = MemoryBudget(limits)
        # One task for each entry that is not written yet.
        self._tasks: set[asyncio.Task[None]] = set()
        # Whether the last entry was written; only changes are logged.
        self._is_healthy = True

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

        async def work() -> None:
            await self._sink.write(make_entry(event, self._redact))  # redaction, too, is not our code

        try:
            async with asyncio.timeout(SINK_WRITE_S):
                await self._runner.call(work)
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
    opener = store_opener(file)
    if opener is None:
        return None
    redact = load_redaction(file)
    tidier = RetentionWorker(
        store_location(file), RetentionLimits(settings.keep_days * _DAY_S, settings.max_mb * 2**20)
    )
    return Recorder(opener, queue_limits(file), redact, tidier, required=settings.required)


def store_opener(file: PolicyFile) -> Callable[[], AuditStore] | None:
    """A function that opens the store for writing; None if the store is off. Raises `ConfigError` for bad settings."""
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
    return QueueLimits(file.audit.waiting_mb * 2**20, file.audit.waiting)


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
        reason = error.strerror if isinstance(error, OSError) else error
        raise AuditError(
            f"the audit store {location} cannot be opened ({reason}); try again, or name another"
        ) from None


def has_store(file: PolicyFile) -> bool:
    """Whether a readable store exists; ask before opening, because opening a missing file would create it."""
    return file.audit.enabled and bool(file.audit.database_env or config.audit_file(file).exists())


def _make_seal(file: PolicyFile) -> Seal | None:
    """The cipher with the configured key; None if no key is set."""
    key = config.audit_key(file)
    return Seal(key) if key is not None else None


def load_redaction(file: PolicyFile) -> Redact:
    """Import the operator's redaction function; `KEEP_TEXT` if none is set. Raises `ConfigError`."""
    if file.audit.redact is None:
        return KEEP_TEXT
    module, _, name = file.audit.redact.rpartition(".")
    place = file.source.place_of("audit", "redact")
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{place}: audit.redact: cannot import {module} ({type(error).__name__})") from None
    except AttributeError:
        raise ConfigError(f"{place}: audit.redact: {module} has no {name}") from None
    if not callable(function):
        raise ConfigError(f"{place}: audit.redact: {file.audit.redact} is not a function that takes and gives a text")
    return cast(Redact, function)
