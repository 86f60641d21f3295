"""Location of an audit store: an SQLite file, or a database that hosts share and that a plugin connects to."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.clock import ClockReading


class Lease(Protocol):
    """Exclusive right to delete old entries; one process of all users of the store holds it until it ends or closes it.

    Calls raise the errors of the store's kind (SQLite or database).
    """

    def take(self) -> bool:
        """Take the lease if it is free; returns whether this process holds it now."""

    def read(self) -> ClockReading | None:
        """The clock reading of the last deletion round, by any holder of the lease; None if there is none."""

    def write(self, reading: ClockReading) -> None:
        """Store a clock reading for the next holder."""

    def close(self) -> None:
        """Release the lease."""


class AuditDatabase(Protocol):
    """A database that hosts share. Its errors are `AuditError`, and never contain its address."""

    def open_store(self, seal: Seal | None, *, durable: bool) -> AuditStore:
        """Open the audit store in this database; with `seal` its texts are encrypted, with `durable` writes reach the
        disk before a call returns."""

    def make_lease(self) -> Lease:
        """A lease object that all hosts compete for; it is not taken yet."""

    def with_wait_limit(self, seconds: float) -> AuditDatabase:
        """The same database with this timeout for each call."""


StoreLocation = Path | AuditDatabase
"""The location of an audit store: the path of a file, or a database."""
