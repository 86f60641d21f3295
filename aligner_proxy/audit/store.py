"""SQLite store of audit entries, with the encryption of their texts.

One file (WAL), readable by its owner only. Every worker has a connection of its own, which belongs to the thread that
opened it. The file knows which version of the tables it holds and is brought up to date by whoever opens it first. What
is deleted is overwritten. A block of text is encrypted with AES-256-GCM, bound to the row in which it stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ValidationError

from aligner_proxy.audit.entry import CONTENT
from aligner_proxy.errors import AuditError
from aligner_proxy.plugins.api import Content, Entry

_NONCE = 12
_BUSY_S = 1.0
"""How long to wait for another process's write."""
_ROOM = 0.9
"""Share of the size bound that is left after making room, so that not every entry has to make room anew."""
_PORTION = 20
"""Of all entries one in so many goes at a time when the file is too large."""


STEPS = (
    """
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        call_id TEXT NOT NULL,
        choice INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        endpoint TEXT,
        policy TEXT NOT NULL,
        policy_hash TEXT NOT NULL,
        mode TEXT NOT NULL,
        objectives TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        aligner TEXT,
        cache_hit INTEGER,
        ms REAL NOT NULL,
        engine_ms REAL NOT NULL,
        forwards INTEGER NOT NULL,
        chars INTEGER NOT NULL,
        sealed_by TEXT,
        content BLOB
    );
    CREATE INDEX entries_at ON entries (at);
    CREATE INDEX entries_call ON entries (call_id);
    """,
)
"""What brings the tables from one version to the next; the file's version is the number of steps it has seen."""


class Seal:
    """One key. `name` tells keys apart without telling them."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.name = hashlib.sha256(b"aligner-proxy audit " + key).hexdigest()[:8]

    def close(self, content: bytes, row: bytes) -> bytes:
        """Encrypt `content`; it opens in the place that `row` names and in no other."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, row)

    def open(self, sealed: bytes, row: bytes) -> bytes:
        """Decrypt; raises `AuditError` when a bit or the place is wrong."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], row)
        except InvalidTag:
            raise AuditError("an entry of the audit store was changed, moved or cut off") from None


_PLAIN = tuple(field.name for field in fields(Entry) if field.name != "content")
_COLUMNS = (*_PLAIN, "sealed_by", "content")
_INSERT = f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM entries WHERE at >= ? AND at < ? ORDER BY at DESC, id DESC LIMIT ?"


class Store:
    """An open file. Raises `sqlite3.Error` and `OSError` as they come; `AuditError` for a file that is not ours."""

    def __init__(self, path: Path, seal: Seal | None = None, *, steps: Sequence[str] = STEPS) -> None:
        _private(path)
        self._seal = seal
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            for setting in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL"):
                self._connection.execute(f"PRAGMA {setting}")
            self._connection.execute("PRAGMA secure_delete = ON")
            self._bring_up_to_date(path, steps)
        except BaseException:
            self._connection.close()
            raise

    def add(self, entry: Entry) -> None:
        """Keep one entry."""
        content = None
        key = None
        if entry.content is not None:
            content = CONTENT.dump_json(entry.content)
            if self._seal is not None:
                content = self._seal.close(content, _place(entry.call_id, entry.choice, entry.at))
                key = self._seal.name
        plain = [getattr(entry, name) for name in _PLAIN]
        plain[_PLAIN.index("objectives")] = json.dumps(entry.objectives)
        # JSON text stays text, so that an operator can ask SQLite for parts of it.
        self._connection.execute(_INSERT, (*plain, key, content if key else content and content.decode()))

    def entries(self, since: float = 0.0, until: float = float("inf"), limit: int = -1) -> Iterator[Entry]:
        """Entries of a time, the newest first; -1: all. Raises `AuditError` for one that does not open."""
        for row in self._connection.execute(_SELECT, (since, until, limit)):
            told = dict(zip(_COLUMNS, row, strict=True))
            sealed_by = told.pop("sealed_by")
            raw = told.pop("content")
            told["objectives"] = tuple(json.loads(told["objectives"]))
            told["cache_hit"] = None if told["cache_hit"] is None else bool(told["cache_hit"])
            yield Entry(**told, content=None if raw is None else self._opened(raw, sealed_by, told))

    def tidy(self, before: float, max_bytes: int) -> int:
        """Delete what is older than `before`, then the oldest until the rest fits; how many went."""
        gone = self._connection.execute("DELETE FROM entries WHERE at < ?", (before,)).rowcount
        if self._used() > max_bytes:
            while self._used() > max_bytes * _ROOM and (some := self._forget_oldest()):
                gone += some
        if gone:
            self._connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _bring_up_to_date(self, path: Path, steps: Sequence[str]) -> None:
        version = self._version()
        if version > len(steps):
            raise AuditError(f"{path} was written by a newer aligner-proxy; use that one, or another file")
        if version == len(steps):
            return
        self._connection.execute("BEGIN IMMEDIATE")  # another worker may be at it
        try:
            for step in steps[self._version() :]:
                for statement in filter(str.strip, step.split(";")):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(steps)}")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _version(self) -> int:
        return self._pragma("user_version")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _used(self) -> int:
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _forget_oldest(self) -> int:
        count = self._connection.execute("SELECT count(*) FROM entries").fetchone()[0]
        oldest = "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY at, id LIMIT ?)"
        return self._connection.execute(oldest, (-(-count // _PORTION),)).rowcount

    def _opened(self, raw: str | bytes, sealed_by: str | None, told: dict[str, Any]) -> Content:
        if sealed_by is not None:
            if self._seal is None or self._seal.name != sealed_by:
                raise AuditError(f"an entry was encrypted with key {sealed_by}, which is not the key given here")
            assert isinstance(raw, bytes)
            raw = self._seal.open(raw, _place(told["call_id"], told["choice"], told["at"]))
        try:
            return CONTENT.validate_json(raw)
        except ValidationError:
            raise AuditError("an entry of the audit store is damaged") from None


def _place(call_id: str, choice: int, at: float) -> bytes:
    return json.dumps([call_id, choice, at]).encode()


def _private(path: Path) -> None:
    """Make the file ours alone before SQLite opens it; its companions (-wal, -shm) get the same permissions."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(file).st_mode & 0o077:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)
