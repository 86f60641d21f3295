"""Location of an audit store: a file of SQLite, or a PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_S = 5.0
"""How long a call of a database may take."""


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL by its URL; `name` is the variable that holds it."""

    url: str = field(repr=False)
    name: str
    patience_s: float = PATIENCE_S


StoreLocation = Path | Database
"""Where an audit store is: a file of SQLite, or a PostgreSQL."""
