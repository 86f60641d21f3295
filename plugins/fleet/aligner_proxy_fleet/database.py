"""PostgreSQL store of audit entries: it has the interface of the SQLite store, and gateways of several hosts share it.

Statements are written once, for SQLite, and translated to PostgreSQL. Every writer holds one advisory lock until its
transaction ends. So ids grow in the order of entries, and a reviewer's lease on an answer is valid on every host. Every
call has a timeout, even if the server does not respond. Errors name the kind of failure and the environment variable
that holds the address, but never the address itself, which may contain a password.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import psycopg
from pydantic import TypeAdapter, ValidationError

from aligner_proxy.audit.store import BUSY_S, INSERT, AuditStore, Row, Seal
from aligner_proxy.clock import ClockReading
from aligner_proxy.concurrency import ErrorTranslation
from aligner_proxy.errors import AuditError
from aligner_proxy.plugins.api import Entry
from aligner_proxy_fleet.errors import DatabaseAway
from aligner_proxy_fleet.location import WAIT_S, Database

_CONNECT_S = 2
"""Timeout in seconds of connecting, for each address of the server; the library's minimum."""
_CHECK_S = 0.1
"""Seconds between two checks of a waiting call's timeout."""
_FETCHED_ROWS = 100
"""Rows to read at a time."""
_WRITERS_LOCK = 6_274_101
"""Id of the writers' advisory lock; an arbitrary number that no other program is likely to use."""
_DELETION_LOCK = 6_274_102
"""Id of the advisory lock of `DatabaseLease`."""
_ROW_OVERHEAD_BYTES = 1024
"""Estimated bytes of an entry without its content, including indexes."""
# Errors of a row that PostgreSQL can never store; all other errors concern the server or the network.
_ROW_ERRORS = (psycopg.DataError, psycopg.IntegrityError, OverflowError, UnicodeError)
_CLOCK_READING: TypeAdapter[ClockReading] = TypeAdapter(ClockReading)

STEPS = (
    """
    CREATE TABLE entries (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at DOUBLE PRECISION NOT NULL,
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
        ms DOUBLE PRECISION NOT NULL,
        engine_ms DOUBLE PRECISION NOT NULL,
        forwards INTEGER NOT NULL,
        chars INTEGER NOT NULL,
        sealed_by TEXT,
        content BYTEA,
        aligner_id TEXT COLLATE "C" NOT NULL DEFAULT '',
        judged INTEGER,
        changed INTEGER,
        margin DOUBLE PRECISION
    );
    CREATE INDEX entries_at ON entries (at);
    CREATE INDEX entries_call ON entries USING hash (call_id);
    CREATE UNIQUE INDEX entries_once ON entries (aligner_id, choice, at) WHERE aligner_id != '';
    CREATE INDEX entries_margin ON entries (coalesce(margin, 'Infinity'::float8))
        WHERE aligner_id != '' AND changed IS NOT NULL AND content IS NOT NULL;
    CREATE TABLE reviews (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        aligner_id TEXT COLLATE "C" NOT NULL,
        choice INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL,
        who TEXT NOT NULL,
        verdict TEXT NOT NULL,
        segment INTEGER,
        chosen TEXT NOT NULL,
        policy_hash TEXT NOT NULL,
        aligner TEXT,
        sealed_by TEXT,
        content BYTEA
    );
    CREATE UNIQUE INDEX reviews_place ON reviews (aligner_id, choice, who, coalesce(segment, -1));
    CREATE TABLE review_leases (
        aligner_id TEXT COLLATE "C" NOT NULL,
        choice INTEGER NOT NULL,
        who TEXT NOT NULL,
        until DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (aligner_id, choice)
    );
    CREATE TABLE clocks (reading TEXT NOT NULL);
    CREATE FUNCTION entry_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM aligner_audit.reviews WHERE aligner_id = old.aligner_id AND choice = old.choice;
        DELETE FROM aligner_audit.review_leases WHERE aligner_id = old.aligner_id AND choice = old.choice;
        RETURN NULL;
    END $$;
    CREATE TRIGGER entries_deleted AFTER DELETE ON entries FOR EACH ROW WHEN (old.aligner_id != '')
        EXECUTE FUNCTION entry_deleted();
    """,
)
"""Migrations from each version of the tables to the next; the database stores the number of steps applied."""


class _Connection(psycopg.Connection[Any]):
    """A connection on which no call waits longer than `wait_s` seconds."""

    wait_s = WAIT_S

    def wait(self, gen: Any, interval: float = _CHECK_S, timeout: float | None = None) -> Any:
        """Override psycopg's wait for the end of a call; raises `ConnectionTimeout` if the call takes too long."""
        return super().wait(_limit_wait(gen, self.wait_s), min(interval, _CHECK_S), timeout)


def _limit_wait(gen: Any, wait_s: float) -> Generator[Any, Any, Any]:
    """Return a generator that does what psycopg's `gen` does, but raises `ConnectionTimeout` after `wait_s` seconds.

    `gen` yields what it waits for on the socket, is sent what the socket is ready for (0 if nothing yet), and returns
    the result of a call.
    """
    deadline = time.monotonic() + wait_s
    try:
        awaited = next(gen)
        while True:
            ready = yield awaited
            if not ready and time.monotonic() > deadline:
                raise psycopg.errors.ConnectionTimeout("no answer in time")
            awaited = gen.send(ready)
    except StopIteration as end:
        return end.value


def _connect(database: Database) -> _Connection:
    """Open a connection in autocommit mode; raises `DatabaseAway`."""
    with _translate_errors(database):
        connection = _Connection.connect(
            database.url,
            autocommit=True,
            connect_timeout=_CONNECT_S,
            application_name="aligner-proxy",
            cursor_factory=psycopg.ClientCursor,
            prepare_threshold=None,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        connection.wait_s = database.wait_s
        return connection


def _translate_errors(database: Database) -> ErrorTranslation:
    """Return a context manager that raises `DatabaseAway` for psycopg's errors, whose messages may quote data."""
    return ErrorTranslation(psycopg.Error, lambda error: DatabaseAway(database.name, type(error).__name__))


@cache
def _translate_statement(statement: str) -> str:
    """Translate an SQLite statement to PostgreSQL's dialect."""
    # psycopg reads a single % as a placeholder; our SQLite statements write infinity as 9e999
    replacements = {"%": "%%", "?": "%s", "ifnull(": "coalesce(", "9e999": "'Infinity'::float8"}
    for sqlite_text, postgres_text in replacements.items():
        statement = statement.replace(sqlite_text, postgres_text)
    return statement


_INSERT_ONCE = f"{INSERT} ON CONFLICT (aligner_id, choice, at) WHERE aligner_id != '' DO NOTHING"
"""Insert statement that creates no duplicate if it is repeated because its commit was not confirmed."""


class DatabaseStore(AuditStore):
    """An open store. Raises `DatabaseAway`, and `AuditError` for tables of a newer version.
    `durable` says whether a call returns only when its entries are on the server's disk, even if the server's default
    is faster. `busy_s` are the seconds for which a transaction may be idle, in addition to the timeout of one call.
    `steps` are the migrations of the tables (`STEPS`).
    """

    def __init__(
        self,
        database: Database,
        seal: Seal | None = None,
        *,
        steps: Sequence[str] = STEPS,
        busy_s: float = BUSY_S,
        durable: bool = False,
    ) -> None:
        self._seal = seal
        """Encrypts texts; None to store them unencrypted."""
        self._database = database
        self._server = _connect(database)
        """The one connection of this store."""
        try:
            limit_ms = int(database.wait_s * 1000)
            # with limits on the server, because a host that loses its network must not hold the writers' lock for long
            self.fetch_rows(
                f"SET search_path = aligner_audit; SET statement_timeout = {limit_ms}; SET lock_timeout = {limit_ms}; "
                f"SET idle_in_transaction_session_timeout = {int((busy_s + database.wait_s) * 1000)}"
            )
            if durable and self.fetch_rows("SELECT current_setting('synchronous_commit')")[0][0] == "off":
                self.fetch_rows("SET synchronous_commit = on")
            self._prepare(steps)
        except BaseException:
            self._server.close()
            raise

    def make_row(self, entry: Entry) -> Row:
        """The column values of an entry; U+0000, which PostgreSQL's texts cannot contain, becomes U+FFFD."""
        texts = {name: getattr(entry, name) for name in ("call_id", "model", "endpoint", "tenant", "policy")}
        changed = {name: text.replace("\0", "\ufffd") for name, text in texts.items() if text and "\0" in text}
        *columns, sealed_by, content = super().make_row(replace(entry, **changed) if changed else entry)
        # the table holds truth values as integers and content as bytes
        values = [int(value) if isinstance(value, bool) else value for value in columns]
        if isinstance(content, str):
            content = content.encode()
        return (*values, sealed_by, content)

    def insert(self, rows: Sequence[Row]) -> list[int]:
        """Insert rows in one transaction; return the positions of rows that PostgreSQL can never store."""
        try:
            with self.transaction():
                self._insert(rows)
        except _ROW_ERRORS:
            if len(rows) == 1:
                return [0]
        else:
            return []
        # one bad row has aborted the whole transaction, so the retry uses a savepoint for each row
        bad_positions = []
        with self.transaction():
            for position, row in enumerate(rows):
                self._execute("SAVEPOINT one")
                try:
                    self._insert([row])
                except _ROW_ERRORS:
                    self._execute("ROLLBACK TO one")
                    bad_positions.append(position)
                else:
                    self._execute("RELEASE one")
        return bad_positions

    def _insert(self, rows: Sequence[Row]) -> None:
        """Send rows without waiting for each; raises one of `_ROW_ERRORS`, or `DatabaseAway`."""
        try:
            with psycopg.Cursor(self._server) as cursor:
                cursor.executemany(_translate_statement(_INSERT_ONCE), rows)
        except _ROW_ERRORS:
            raise
        except psycopg.Error as error:
            raise DatabaseAway(self._database.name, type(error).__name__) from None

    def fetch_rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        cursor = self._execute(statement, values)
        with _translate_errors(self._database):
            return [] if cursor.description is None else cursor.fetchall()

    def used_bytes(self) -> int:
        """Estimated bytes of all entries; space of deleted entries is not counted, because PostgreSQL reuses it."""
        [(count, content_bytes)] = self.fetch_rows(
            "SELECT count(*), coalesce(sum(octet_length(content)), 0) FROM entries"
        )
        return int(count) * _ROW_OVERHEAD_BYTES + int(content_bytes)

    def shrink(self, pages: int) -> int:
        """Run VACUUM, so that PostgreSQL reuses the space of deleted entries; returns 0, as no page is given back."""
        # no timeout applies, because VACUUM of large tables takes long
        self.fetch_rows("SET statement_timeout = 0")
        self._server.wait_s = float("inf")
        try:
            for table in ("entries", "reviews", "review_leases"):
                self.fetch_rows(f"VACUUM aligner_audit.{table}")
        finally:
            self._server.wait_s = self._database.wait_s
        return 0

    def empty_log(self) -> None:
        """Do nothing, because the server's log belongs to its operator, who may need it for backups."""

    def close(self) -> None:
        self._server.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Return a context manager with exclusive write access across hosts; it commits all or nothing."""
        self._execute("BEGIN")
        try:
            self._execute(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")
            yield
            self._execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):  # a broken connection ends the transaction anyway
                self._server.execute("ROLLBACK")
            raise

    def _execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        """Run a statement in SQLite's dialect and return its cursor; raises `DatabaseAway`."""
        with _translate_errors(self._database):
            # without values psycopg substitutes nothing, so percent signs must not be doubled by a translation
            if not values:
                return self._server.execute(statement.encode())
            return self._server.execute(_translate_statement(statement).encode(), values)

    def _iter_rows(self, statement: str, values: Sequence[object]) -> Iterator[Row]:
        """The rows of a query, fetched a hundred at a time, because a month of texts does not fit into memory."""
        cursor = f"reading_{time.monotonic_ns()}"
        self._execute(f"DECLARE {cursor} NO SCROLL CURSOR WITH HOLD FOR {statement}", values)
        try:
            while rows := self.fetch_rows(f"FETCH {_FETCHED_ROWS} FROM {cursor}"):
                yield from rows
        finally:
            with suppress(DatabaseAway):
                self._execute(f"CLOSE {cursor}")

    def _prepare(self, steps: Sequence[str]) -> None:
        """Migrate the tables to this version by `steps`; another gateway may migrate them at the same time."""
        # usually there is nothing to do, and so no need for the writers' lock
        if self._read_version() == len(steps):
            return
        with self.transaction():
            self.fetch_rows("CREATE SCHEMA IF NOT EXISTS aligner_audit")
            self.fetch_rows("CREATE TABLE IF NOT EXISTS versions (version INTEGER NOT NULL)")
            # read again, because another gateway may have migrated the tables before we got the lock
            version = self._read_version()
            if version > len(steps):
                name = self._database.name
                raise AuditError(
                    f"the audit database in {name} was made by a newer aligner-proxy; use that one, or another database"
                )
            for step in steps[version:]:
                self.fetch_rows(step)
            self.fetch_rows("DELETE FROM versions")
            self.fetch_rows("INSERT INTO versions VALUES (?)", (len(steps),))

    def _read_version(self) -> int:
        """The number of migration steps that were applied to the tables; 0 if there are no tables."""
        if self.fetch_rows("SELECT to_regclass('aligner_audit.versions')")[0][0] is None:
            return 0
        versions = self.fetch_rows("SELECT version FROM versions")
        return int(versions[0][0]) if versions else 0


class DatabaseLease:
    """The exclusive right to delete old entries, which one process of all hosts holds until its connection ends."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store: DatabaseStore | None = None
        """The connection that holds the lease; None while this process does not have it."""

    def take(self) -> bool:
        """Take the lease if it is free; returns whether this process holds it now. Raises `AuditError`."""
        if self._store is not None:
            try:
                # a dead connection is noticed only when it is used
                self._store.fetch_rows("SELECT 1")
            except DatabaseAway:
                self.close()  # the lease ended with the connection
        if self._store is None:
            store = DatabaseStore(self._database)
            if not store.fetch_rows(f"SELECT pg_try_advisory_lock({_DELETION_LOCK})")[0][0]:
                store.close()
                return False
            self._store = store
        return True

    def read(self) -> ClockReading | None:
        """The clock reading that any host wrote last; None if there is no valid one. Needs the lease."""
        assert self._store is not None
        try:
            return _CLOCK_READING.validate_json(self._store.fetch_rows("SELECT reading FROM clocks")[0][0])
        except (IndexError, ValidationError):
            return None

    def write(self, reading: ClockReading) -> None:
        """Store a clock reading in place of the last one. Needs the lease."""
        assert self._store is not None
        with self._store.transaction():
            self._store.fetch_rows("DELETE FROM clocks")
            self._store.fetch_rows("INSERT INTO clocks VALUES (?)", (json.dumps(asdict(reading)),))

    def close(self) -> None:
        """Release the lease by closing its connection."""
        if self._store is not None:
            self._store.close()
            self._store = None
