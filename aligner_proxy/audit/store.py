"""SQLite store of audit entries, with the encryption of their texts.

One file (WAL), readable by its owner only. Every worker has its own connection, which belongs to the thread that
opened it. The file stores the version of its tables; the first process to open it migrates it. Deleted data is
overwritten. A block of text is encrypted with AES-256-GCM and bound to its row.
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
"""Share of the size bound that remains in use after deleting, so that not every entry causes deletions."""
_PORTION = 20
"""The oldest 1/20 of all entries is deleted at a time while the file is too large."""

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
"""Migrations from each version of the tables to the next; the file's version is the number applied."""


class Seal:
    """Cipher with one key. `name` identifies the key without revealing it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.name = hashlib.sha256(b"aligner-proxy audit " + key).hexdigest()[:8]

    def close(self, content: bytes, row: bytes) -> bytes:
        """Encrypt `content`, bound to `row`."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, row)

    def open(self, sealed: bytes, row: bytes) -> bytes:
        """Decrypt; raises `AuditError` when the content or its row was changed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], row)
        except InvalidTag:
            raise AuditError("an entry of the audit store was changed, moved or cut off") from None


_PLAIN = tuple(field.name for field in fields(Entry) if field.name != "content")
_COLUMNS = (*_PLAIN, "sealed_by", "content")
_INSERT = f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM entries WHERE at >= ? AND at < ? ORDER BY at DESC, id DESC LIMIT ?"


class Store:
    """An open store. Raises `sqlite3.Error`, `OSError`, and `AuditError` for a file that is no audit store."""

    def __init__(self, path: Path, seal: Seal | None = None, *, steps: Sequence[str] = STEPS) -> None:
        _private(path)
        self._seal = seal
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            for setting in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL"):
                self._connection.execute(f"PRAGMA {setting}")
            self._connection.execute("PRAGMA secure_delete = ON")
            self._migrate(path, steps)
        except BaseException:
            self._connection.close()
            raise

    def add(self, entry: Entry) -> None:
        """Add one entry."""
        content = None
        key = None
        if entry.content is not None:
            content = CONTENT.dump_json(entry.content)
            if self._seal is not None:
                content = self._seal.close(content, _place(entry.call_id, entry.choice, entry.at))
                key = self._seal.name
        plain = [getattr(entry, name) for name in _PLAIN]
        plain[_PLAIN.index("objectives")] = json.dumps(entry.objectives)
        # Plain JSON is stored as text, so that an operator can query parts of it.
        self._connection.execute(_INSERT, (*plain, key, content if key else content and content.decode()))

    def entries(self, since: float = 0.0, until: float = float("inf"), limit: int = -1) -> Iterator[Entry]:
        """Entries from `since` to `until`, newest first; limit -1: all. Raises `AuditError` where decryption fails."""
        for row in self._connection.execute(_SELECT, (since, until, limit)):
            columns = dict(zip(_COLUMNS, row, strict=True))
            sealed_by = columns.pop("sealed_by")
            raw = columns.pop("content")
            columns["objectives"] = tuple(json.loads(columns["objectives"]))
            columns["cache_hit"] = None if columns["cache_hit"] is None else bool(columns["cache_hit"])
            yield Entry(**columns, content=None if raw is None else self._opened(raw, sealed_by, columns))

    def tidy(self, before: float, max_bytes: int) -> int:
        """Delete entries older than `before`, then the oldest until the rest fits; returns how many."""
        deleted = self._connection.execute("DELETE FROM entries WHERE at < ?", (before,)).rowcount
        if self._used() > max_bytes:
            while self._used() > max_bytes * _ROOM and (count := self._delete_oldest()):
                deleted += count
        if deleted:
            self._connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return deleted

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _migrate(self, path: Path, steps: Sequence[str]) -> None:
        version = self._pragma("user_version")
        if version > len(steps):
            raise AuditError(f"{path} was written by a newer aligner-proxy; use that one, or another file")
        if version == len(steps):
            return
        self._connection.execute("BEGIN IMMEDIATE")  # another worker may be migrating
        try:
            for step in steps[self._pragma("user_version") :]:
                for statement in filter(str.strip, step.split(";")):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(steps)}")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _used(self) -> int:
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def _delete_oldest(self) -> int:
        count = self._connection.execute("SELECT count(*) FROM entries").fetchone()[0]
        oldest = "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY at, id LIMIT ?)"
        return self._connection.execute(oldest, (-(-count // _PORTION),)).rowcount

    def _opened(self, raw: str | bytes, sealed_by: str | None, columns: dict[str, Any]) -> Content:
        if sealed_by is not None:
            if self._seal is None or self._seal.name != sealed_by:
                raise AuditError(f"an entry was encrypted with key {sealed_by}, which is not the key given here")
            assert isinstance(raw, bytes)
            raw = self._seal.open(raw, _place(columns["call_id"], columns["choice"], columns["at"]))
        try:
            return CONTENT.validate_json(raw)
        except ValidationError:
            raise AuditError("an entry of the audit store is damaged") from None


def _place(call_id: str, choice: int, at: float) -> bytes:
    return json.dumps([call_id, choice, at]).encode()


def _private(path: Path) -> None:
    """Make the file private before SQLite opens it; -wal and -shm get the same permissions."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(file).st_mode & 0o077:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)
