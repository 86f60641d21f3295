"""SQLite store of audit entries, with the encryption of their texts.

One file (in WAL mode), readable only by its owner. Every worker has its own connection, which belongs to the thread
that opened it. The file stores the version of its tables; the first process to open it migrates it. Deleted data is
overwritten. Blocks of text are encrypted with AES-256-GCM and bound to their row. Methods that delete take a limit of
entries or pages, so that they lock the file only briefly; retention.py decides what is too old.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ValidationError

from aligner_proxy.audit.entry import CONTENT, encode_content
from aligner_proxy.errors import AuditError
from aligner_proxy.plugins.api import Content, Entry

_NONCE_BYTES = 12
"""Bytes of the random number with which each AES-GCM message begins."""
BUSY_S = 1.0
"""Seconds to wait for another process's write."""
_RETRY_PAUSE_S = 0.005
"""Seconds between two attempts to turn on write-ahead logging."""
_CHECKPOINT_BUSY_MS = 50
"""Milliseconds that emptying the write-ahead log may wait for readers; short, because nobody can write meanwhile."""
_INCREMENTAL_VACUUM = 2
"""Value of SQLite's `auto_vacuum` for freeing pages only on request, so that `shrink` decides when."""
_MAX_ROW_ID = 2**63 - 1
"""The largest row id of SQLite; used where there is no limit."""
# Errors of a row that SQLite can never store; all other errors concern the file or the disk, and a retry may help.
_UNSTORABLE_ERRORS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)
Row = tuple[Any, ...]
"""The column values of a stored entry; its texts are encrypted if there is a key."""

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
    """
    ALTER TABLE entries ADD COLUMN aligner_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE entries ADD COLUMN judged INTEGER;
    ALTER TABLE entries ADD COLUMN changed INTEGER;
    ALTER TABLE entries ADD COLUMN margin REAL;
    CREATE INDEX entries_aligner_id ON entries (aligner_id, choice) WHERE aligner_id != '';
    CREATE INDEX entries_margin ON entries (ifnull(margin, 9e999))
        WHERE aligner_id != '' AND changed IS NOT NULL AND content IS NOT NULL;
    CREATE TABLE reviews (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        aligner_id TEXT NOT NULL,
        choice INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        at REAL NOT NULL,
        who TEXT NOT NULL,
        verdict TEXT NOT NULL,
        segment INTEGER,
        chosen TEXT NOT NULL,
        policy_hash TEXT NOT NULL,
        aligner TEXT,
        sealed_by TEXT,
        content BLOB
    );
    CREATE UNIQUE INDEX reviews_place ON reviews (aligner_id, choice, who, ifnull(segment, -1));
    CREATE TABLE review_leases (
        aligner_id TEXT NOT NULL,
        choice INTEGER NOT NULL,
        who TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (aligner_id, choice)
    );
    CREATE TRIGGER entries_deleted AFTER DELETE ON entries WHEN old.aligner_id != ''
    BEGIN
        DELETE FROM reviews WHERE aligner_id = old.aligner_id AND choice = old.choice;
        DELETE FROM review_leases WHERE aligner_id = old.aligner_id AND choice = old.choice;
    END;
    """,
)
"""Migrations from each version of the tables to the next; the file's version is the number of steps applied.

A trigger deletes reviews together with their entry. It works for every connection, whereas SQLite's foreign keys are
off unless a connection turns them on.
"""


class Seal:
    """Cipher with one key, for the texts of entries."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.name = hashlib.sha256(b"aligner-proxy audit " + key).hexdigest()[:8]
        """Identifies the key without revealing it; stored with each entry, so that the wrong key is noticed."""

    def encrypt(self, content: bytes, row: bytes) -> bytes:
        """Encrypt `content`, so that it can be decrypted only with the same `row`, the identity of its entry."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, row)

    def decrypt(self, sealed: bytes, row: bytes) -> bytes:
        """Decrypt what `encrypt` returned; raises `AuditError` if it or its row was changed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], row)
        except InvalidTag:
            raise AuditError("an entry of the audit store was changed, moved or cut off") from None


_PLAIN_COLUMNS = tuple(field.name for field in fields(Entry) if field.name != "content")
"""Columns that are never encrypted."""
_COLUMNS = (*_PLAIN_COLUMNS, "sealed_by", "content")
INSERT = f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM entries"
_SELECT_PLAIN = f"SELECT {', '.join((*_PLAIN_COLUMNS, 'NULL', 'NULL'))} FROM entries"
"""The same as `_SELECT` with NULL in place of the texts, which are then neither read nor decrypted."""
_BOOL_COLUMNS = ("cache_hit", "changed")
"""Columns in which 0, 1 and NULL stand for False, True and None."""


class AuditStore:
    """An open store. Raises `sqlite3.Error`, `OSError`, and `AuditError` for a file of a newer version.

    `seal` encrypts the texts; None leaves them readable. `steps` are the migrations that make the tables, and `busy_s`
    is how many seconds to wait for another process's write. With `durable`, entries are on the disk, and not only in
    the operating system's cache, when a call that adds them returns.
    """

    def __init__(
        self,
        path: Path,
        seal: Seal | None = None,
        *,
        steps: Sequence[str] = STEPS,
        busy_s: float = BUSY_S,
        durable: bool = False,
    ) -> None:
        _make_private(path)
        self._seal = seal
        self._connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
        synchronous = "FULL" if durable else "NORMAL"
        try:
            # set only if needed, because setting it waits for other workers' writes
            if self._pragma("auto_vacuum") != _INCREMENTAL_VACUUM:
                self._connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL_VACUUM}")
            self._turn_on_log(busy_s)
            for setting in (f"synchronous = {synchronous}", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {setting}")
            self._migrate(path, steps)
        except BaseException:
            self._connection.close()
            raise

    def _turn_on_log(self, busy_s: float) -> None:
        """Turn on write-ahead logging. Try again while another worker creates the file, since SQLite does not wait."""
        deadline = time.monotonic() + busy_s
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_PAUSE_S)
            else:
                return

    def add(self, entry: Entry) -> None:
        """Write one entry in a transaction of its own; an entry that SQLite cannot store is left out."""
        self.insert([self.make_row(entry)])

    def make_row(self, entry: Entry) -> Row:
        """The column values of an entry, with its texts encrypted if there is a key."""
        content: str | bytes | None = None
        key_name = None
        if entry.content is not None:
            row = _row_identity(entry.call_id, entry.choice, entry.at)
            key_name, content = self.seal_content(encode_content(entry.content), row)
        plain_values = [getattr(entry, name) for name in _PLAIN_COLUMNS]
        plain_values[_PLAIN_COLUMNS.index("objectives")] = json.dumps(entry.objectives)
        return (*plain_values, key_name, content)

    def seal_content(self, content: bytes, row: bytes) -> tuple[str | None, str | bytes]:
        """(name of the key, `content` encrypted and bound to `row`); without a key, (None, readable text)."""
        if self._seal is None:
            return None, content.decode()
        return self._seal.name, self._seal.encrypt(content, row)

    def unseal_content(self, content: str | bytes, sealed_by: str | None, row: bytes) -> str | bytes:
        """Decrypt a content, given the name of its key in `sealed_by`; return it as it is if that is None.

        Raises `AuditError` if this store does not have the key, or the data was changed.
        """
        if sealed_by is None:
            return content
        if self._seal is None or self._seal.name != sealed_by:
            raise AuditError(f"an entry was encrypted with key {sealed_by}, which is not the key given here")
        assert isinstance(content, bytes)
        return self._seal.decrypt(content, row)

    def insert(self, rows: Sequence[Row]) -> list[int]:
        """Add rows in one transaction; return the indexes of those rows that SQLite cannot store."""
        unstorable = []
        with self.transaction():
            for index, row in enumerate(rows):
                try:
                    self._execute(INSERT, row)
                except _UNSTORABLE_ERRORS:
                    unstorable.append(index)
        return unstorable

    def entries(self, since: float = 0.0, until: float = float("inf"), limit: int = -1) -> Iterator[Entry]:
        """Yield the entries from `since` to `until` (seconds since the epoch), newest first; a limit of -1 means all.

        Raises `AuditError` if an entry cannot be decrypted.
        """
        row_limit = _MAX_ROW_ID if limit < 0 else limit
        yield from self.select("at >= ? AND at < ? ORDER BY at DESC, id DESC LIMIT ?", (since, until, row_limit))

    def select(self, condition: str, values: Sequence[object], *, texts: bool = True) -> Iterator[Entry]:
        """Yield the entries that meet an SQL condition; without `texts`, their contents are neither read nor decrypted.

        The condition must not contain text from outside, which is passed in `values`. Raises `AuditError` as `entries`
        does.
        """
        for row in self._iter_rows(f"{_SELECT if texts else _SELECT_PLAIN} WHERE {condition}", values):
            columns = dict(zip(_COLUMNS, row, strict=True))
            sealed_by = columns.pop("sealed_by")
            stored_content = columns.pop("content")
            columns["objectives"] = tuple(json.loads(columns["objectives"]))
            columns |= {name: None if columns[name] is None else bool(columns[name]) for name in _BOOL_COLUMNS}
            content = None if stored_content is None else self._decode_content(stored_content, sealed_by, columns)
            yield Entry(**columns, content=content)

    def fetch_rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run an SQL statement and return its rows; text from outside goes into `values`, never into the statement."""
        rows: list[Row] = self._execute(statement, values).fetchall()
        return rows

    def erase(self, rows: Sequence[int]) -> int:
        """Delete the entries with these row ids, and their reviews; returns how many were deleted.

        SQLite reuses row ids, so the caller must look them up in the same transaction.
        """
        return sum(self._execute("DELETE FROM entries WHERE id = ?", (row_id,)).rowcount for row_id in rows)

    def last_expired(self, before: float, now: float) -> int | None:
        """The id of the last entry that is expired, that is, older than `before`; None if no entry is.

        Times are in seconds since the epoch. Ids grow with every entry, even if the clock jumps. So an entry behind a
        young entry is not expired, whatever its time; an entry with a time after `now` does not count as young.
        """
        # The plus keeps SQLite from using the index by time: in the order of ids the first match is found sooner.
        select_first_young = "SELECT id FROM entries WHERE +at >= ? AND +at <= ? ORDER BY id LIMIT 1"
        first_young = self._execute(select_first_young, (before, now)).fetchone()
        end_id = first_young[0] if first_young else _MAX_ROW_ID
        cursor = self._execute("SELECT max(id) FROM entries WHERE at < ? AND id < ?", (before, end_id))
        last_expired: int | None = cursor.fetchone()[0]
        return last_expired

    def newest_time(self) -> float | None:
        """Time of the entry that was added last; None if the store is empty."""
        last = self._execute("SELECT at FROM entries ORDER BY id DESC LIMIT 1").fetchone()
        return float(last[0]) if last else None

    def last_row(self) -> int:
        """The row id of the entry that was added last; 0 if the store is empty."""
        return int(self._execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()[0])

    def delete_first(self, count: int, last: int = _MAX_ROW_ID) -> int:
        """Delete the `count` entries with the lowest ids, up to the id `last`; return how many were deleted."""
        statement = "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE id <= ? ORDER BY id LIMIT ?)"
        deleted: int = self._execute(statement, (last, count)).rowcount
        return deleted

    def used_bytes(self) -> int:
        """Bytes of the file that are in use, without free pages."""
        used_pages = self._pragma("page_count") - self._pragma("freelist_count")
        return used_pages * self._pragma("page_size")

    def shrink(self, pages: int) -> int:
        """Give up to `pages` free pages of the file back to the file system; return their number."""
        free_pages = self._pragma("freelist_count")
        if free_pages:
            # `execute` would free only one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        return free_pages - self._pragma("freelist_count")

    def empty_log(self) -> None:
        """Move everything from the write-ahead log into the file, so that no deleted text stays in the log.

        A reader of the store may prevent this, silently; then the next call tries again.
        """
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        busy_ms = self._pragma("busy_timeout")
        self._connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_BUSY_MS}")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {busy_ms}")

    def close(self) -> None:
        self._connection.close()

    def _migrate(self, path: Path, steps: Sequence[str]) -> None:
        """Apply the missing migration steps; raises `AuditError` if a newer version wrote the file."""
        version = self._pragma("user_version")
        if version > len(steps):
            raise AuditError(f"{path} was written by a newer aligner-proxy; use that version, or another file")
        if version == len(steps):
            return
        with self.transaction():
            # the version is read again, because another worker may have migrated in the meantime
            for step in steps[self._pragma("user_version") :]:
                for statement in _split_statements(step):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(steps)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Context in which no other process writes; everything in it is committed, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # some errors end the transaction themselves
                self._connection.execute("ROLLBACK")
            raise

    def _execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        return self._connection.execute(statement, values)

    def _iter_rows(self, statement: str, values: Sequence[object]) -> Iterator[Row]:
        """Yield the rows of an SQL query as they are read."""
        cursor: Iterator[Row] = self._execute(statement, values)
        return cursor

    def _pragma(self, name: str) -> int:
        """The value of one of SQLite's settings or counters, such as `page_count`."""
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _decode_content(self, stored: str | bytes, sealed_by: str | None, columns: dict[str, Any]) -> Content:
        """Decrypt and parse the content of the row with these columns; raises `AuditError` if that fails."""
        row = _row_identity(columns["call_id"], columns["choice"], columns["at"])
        try:
            return CONTENT.validate_json(self.unseal_content(stored, sealed_by, row))
        except ValidationError:
            raise AuditError("an entry of the audit store is damaged") from None


def _split_statements(step: str) -> Iterator[str]:
    """Split a migration step into statements; a trigger is one statement with several semicolons."""
    statement = ""
    for part in step.split(";"):
        statement += part
        if sqlite3.complete_statement(statement + ";"):
            if statement.strip():
                yield statement
            statement = ""
        else:
            statement += ";"
    if statement.strip("; \n"):
        yield statement


def _row_identity(call_id: str, choice: int, at: float) -> bytes:
    """The identity of an entry, to which its encrypted content is bound."""
    return json.dumps([call_id, choice, at]).encode()


def _make_private(path: Path) -> None:
    """Create the file with mode 0600, or restrict its mode, before SQLite opens it; -wal and -shm inherit the mode.

    An existing file is not opened here. By POSIX rules, closing it would release the locks of this process's other
    connections to it, and another process would believe that nobody uses the file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "the audit store is a symbolic link")
    if mode & 0o077:
        path.chmod(0o600)
