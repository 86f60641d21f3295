"""Writers of audit entries: to the store and to the sinks of plugins, behind the responses' backs.

`note` neither waits nor raises. One thread behind a bounded queue writes to the store: whatever is wrong with disk,
file or redaction costs the entry, which is counted and logged without its text, and never a response. After a failure
the file is left alone for a while, so that a locked disk does not make a queue. Each sink of a plugin has a thread of
its own and a bounded number of entries that wait for it; what it does not take is counted and lost.
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
"""An entry that takes longer is lost."""
_DAY_S = 86_400.0


def audited(result: str) -> None:
    """An entry for the audit store was written, lost (disk, file, redaction), or dropped because too many wait."""
    AUDITED.labels(result).inc()


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
        self._open = opened
        self._keeping = keeping
        self._redact = redact
        self._room = threading.BoundedSemaphore(keeping.waiting)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        self._store: Store | None = None
        self._well = True
        """Whether the last entry could be written; a change is logged, not every entry."""
        self._not_before = 0.0
        self._tidied = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def note(self, noted: AuditEvent) -> None:
        """Keep `noted` when there is time for it."""
        if not self._room.acquire(blocking=False):
            audited("dropped")
            return
        try:
            future = self._thread.submit(self._write, noted)
        except RuntimeError:  # the process is ending, and takes no more work
            self._room.release()
            audited("dropped")
            return
        future.add_done_callback(self._written)
        self._tidy_later()

    async def aclose(self) -> None:
        """Write what waits, and close."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown(wait=False)

    def _write(self, noted: AuditEvent | None) -> None:
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
        audited("written" if error is None else "lost")
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
        store = self._store
        self._store = None
        if store is not None:
            store.close()


class AuditWriter(Protocol):
    """Takes notes."""

    def note(self, noted: AuditEvent) -> None:
        """Keep `noted` when there is time for it."""
        ...

    async def aclose(self) -> None:
        """Keep what waits, and let go."""
        ...


class AuditWriters:
    """Satisfies `AuditWriter`: the audit store, if it is turned on, and the sinks that the file names."""

    def __init__(self, keepers: Sequence[AuditWriter]) -> None:
        self._keepers = tuple(keepers)

    def __bool__(self) -> bool:
        """Whether anything is kept at all."""
        return bool(self._keepers)

    def note(self, noted: AuditEvent) -> None:
        """Tell each of them."""
        for keeper in self._keepers:
            keeper.note(noted)

    async def aclose(self) -> None:
        """Close each of them."""
        for keeper in self._keepers:
            await keeper.aclose()


def audit_writers(file: PolicyFile) -> AuditWriters:
    """Whoever is to be told by this file; raises `ConfigError`."""
    store = recorder(file)
    wanted = registry.configured(file)["audit_sinks"]
    redact = redaction(file) if wanted else None
    made: list[AuditWriter] = [] if store is None else [store]
    for one in wanted:
        caller = ThreadRunner(one.name) if one.offer.plugin.third_party else InlineRunner()
        made.append(Sink(one.name, one.make(), caller, redact, file.audit.waiting))
    return AuditWriters(made)


class Sink:
    """Satisfies `AuditWriter`: one sink of a plugin."""

    def __init__(self, name: str, sink: AuditSink, caller: Runner, redact: Redact | None, waiting: int) -> None:
        self._name = name
        self._sink = sink
        self._caller = caller
        self._redact = redact
        self._waiting = waiting
        self._tasks: set[asyncio.Task[None]] = set()
        self._well = True

    def note(self, noted: AuditEvent) -> None:
        """Hand it over, unless too many wait already."""
        if len(self._tasks) >= self._waiting:
            audited("sink_dropped")
            return
        task = asyncio.get_running_loop().create_task(self._write(noted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for what waits."""
        await asyncio.gather(*self._tasks)

    async def _write(self, noted: AuditEvent) -> None:
        async def work() -> None:
            await self._sink.write(entry(noted, self._redact))  # redaction is foreign code, too

        try:
            async with asyncio.timeout(WRITE_S):
                await self._caller.call(work)
        except (CorrectionError, TimeoutError) as error:
            audited("sink_lost")
            if self._well:
                name = type(error).__name__
                log.warning("audit sink %s: entries are lost (%s); answers are not affected", self._name, name)
            self._well = False
        else:
            audited("sink_written")
            self._well = True


def recorder(file: PolicyFile) -> Recorder | None:
    """Who takes notes, as the file says; None where nobody does. Opens nothing yet, but refuses a wrong setting."""
    told = file.audit
    if not told.enabled:
        return None
    path, seal, redact = config.audit_file(file), _seal(file), redaction(file)
    keeping = Keeping(told.keep_days * _DAY_S, told.max_mb * 2**20, told.waiting)
    return Recorder(lambda: Store(path, seal), keeping, redact)


def store(file: PolicyFile, path: Path | None = None) -> Store:
    """The store, to be read; raises `ConfigError` where there is none."""
    place = path or config.audit_file(file)
    if not place.exists():
        raise ConfigError(
            f"there is no audit store at {place}; turn it on with audit: {{enabled: true}}, or name another"
        )
    return Store(place, _seal(file))


def _seal(file: PolicyFile) -> Seal | None:
    key = config.audit_key(file)
    return Seal(key) if key is not None else None


def redaction(file: PolicyFile) -> Redact | None:
    """The operator's function; it is imported now, so that a mistake is known before the first answer."""
    if file.audit.redact is None:
        return None
    module, _, name = file.audit.redact.rpartition(".")
    place = file.source.at("audit", "redact")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{place}: audit.redact: cannot import {module} ({type(error).__name__})") from None
    except AttributeError:
        raise ConfigError(f"{place}: audit.redact: {module} has no {name}") from None
    if not callable(found):
        raise ConfigError(f"{place}: audit.redact: {file.audit.redact} is not a function that takes and gives a text")
    return cast(Redact, found)
