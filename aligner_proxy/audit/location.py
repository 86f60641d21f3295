"""Location of an audit store: a file of SQLite, or a database that hosts share, which a plugin reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.clock import ClockReading


class Lease(Protocol):
    """Exclusive right to delete old entries, held by one process of all that use the store until it ends or closes it.

    A call raises what a call of its kind of store raises.
    """

    def take(self) -> bool:
        """Whether this process holds the lease, having taken it if it was free."""
        ...

    def read(self) -> ClockReading | None:
        """The clock reading of the last round, whichever process held the lease; None if there is none."""
        ...

    def write(self, reading: ClockReading) -> None:
        """Keep a clock reading for the next holder."""
        ...

    def close(self) -> None:
        """Give the lease back."""
        ...


class AuditDatabase(Protocol):
    """A database that hosts share. Errors are `AuditError`, and quote no address."""

    def open_store(self, seal: Seal | None, *, durable: bool) -> AuditStore:
        """The store in it."""
        ...

    def make_lease(self) -> Lease:
        """The lease of all hosts, not taken."""
        ...

    def with_patience(self, seconds: float) -> AuditDatabase:
        """The same database, each call of which may take so long."""
        ...


StoreLocation = Path | AuditDatabase
"""Where an audit store is."""
