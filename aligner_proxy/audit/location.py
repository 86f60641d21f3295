"""Location of an audit store: an SQLite file, or a database that hosts share and that a plugin connects to.

`open_store` opens the store at its location.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.clock import ClockReading


class Lease(Protocol):
    """Exclusive right to delete old entries of a store, which only one process has at a time.

    A process has the lease until it ends or closes the lease. Calls raise the errors of the store's kind (SQLite or
    database).
    """

    def take(self) -> bool:
        """Take the lease if it is free; return whether this process has it now."""

    def read(self) -> ClockReading | None:
        """The clock reading of the last deletion round, by whichever process; None if there is none."""

    def write(self, reading: ClockReading) -> None:
        """Store a clock reading for the next process that takes the lease."""

    def close(self) -> None:
        """Release the lease."""


class AuditDatabase(Protocol):
    """A database that hosts share. Its errors are `AuditError`, and never contain its address."""

    def open_store(self, seal: Seal | None, *, durable: bool) -> AuditStore:
        """Open the audit store in this database; with `seal` its texts are encrypted, with `durable` writes reach the
        disk before a call returns."""

    def make_lease(self) -> Lease:
        """Return the lease of this database, for which all hosts compete; it is not taken yet."""

    def with_wait_limit(self, seconds: float) -> AuditDatabase:
        """The same database with this timeout for each call."""


StoreLocation = Path | AuditDatabase
"""The location of an audit store: the path of a file, or a database."""


def open_store(location: StoreLocation, seal: Seal | None = None, *, durable: bool = False) -> AuditStore:
    """Open the store at `location`, with the parameters of `AuditStore`; raises the errors of its kind of store."""
    if isinstance(location, Path):
        return AuditStore(location, seal, durable=durable)
    return location.open_store(seal, durable=durable)
