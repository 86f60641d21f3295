"""A PostgreSQL that several hosts share: nothing answered is lost, and while it is away nobody learns its address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.recorder import QueueLimits, Recorder
from aligner_proxy.audit.retention import RetentionLimits
from aligner_proxy.audit.store import Seal
from aligner_proxy.cli.audit import command
from aligner_proxy.errors import AuditError, NotRecorded
from aligner_proxy_fleet.database import STEPS, DatabaseLease, DatabaseStore
from aligner_proxy_fleet.errors import DatabaseAway
from aligner_proxy_fleet.location import Database
from aligner_proxy_review.cli.options import open_reviews
from aligner_proxy_review.review_queue import ReviewQueue
from tests.audit.conftest import noted
from tests.audit.test_retention import MONTH_S, NOW, filled, kept, tidy
from tests.support.postgres_server import PostgresProcess, needs_postgres, postgres_process

pytestmark = needs_postgres
ROOT = Path(__file__).parents[3]
WRITER = """
import asyncio, sys
from dataclasses import replace
from aligner_proxy_fleet.database import DatabaseStore
from aligner_proxy_fleet.location import Database
from aligner_proxy.audit.recorder import QueueLimits, Recorder
from tests.audit.conftest import noted

async def one(recorder, n):
    await recorder.write(replace(noted(n), aligner_id=f"{sys.argv[2]}-{n}"))
    print(f"{sys.argv[2]}-{n}", flush=True)

async def main():
    database = Database(sys.argv[1], "AUDIT_DATABASE")
    recorder = Recorder(lambda: DatabaseStore(database, durable=True), QueueLimits(2**26), required=True)
    async with asyncio.TaskGroup() as group:
        for n in range(int(sys.argv[3])):
            group.create_task(one(recorder, n))
            await asyncio.sleep(0.01)
    await recorder.aclose()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresProcess]:
    """A server that may be stopped."""
    with postgres_process() as made:
        yield made


@pytest.fixture
def server(own: PostgresProcess) -> PostgresProcess:
    own.run("DROP SCHEMA IF EXISTS aligner_audit CASCADE")
    return own


@pytest.mark.slow
def test_what_two_gateways_answered_is_there_also_when_one_is_killed(server: PostgresProcess) -> None:
    """Each writes 100 entries a second; what was answered, and nothing else, may count on its entry."""
    command = [sys.executable, "-c", WRITER, server.url]
    with (
        subprocess.Popen([*command, "a", "400"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen([*command, "b", "400"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert killed.stdout is not None
        assert other.stdout is not None
        answered = [killed.stdout.readline().strip() for _ in range(150)]
        killed.kill()
        answered += killed.stdout.read().split()
        answered += other.stdout.read().split()
    assert other.returncode == 0
    store = DatabaseStore(server.database)
    ids = [str(row[0]) for row in store.fetch_rows("SELECT aligner_id FROM entries")]
    store.close()
    assert 550 <= len(answered) < 800
    assert set(answered) <= set(ids)
    assert len(set(ids)) == len(ids), "none is there twice"


def test_an_entry_whose_commit_was_not_confirmed_is_there_once(server: PostgresProcess) -> None:
    store = DatabaseStore(server.database, Seal(bytes(32)))
    kept = make_entry(replace(noted(), aligner_id="one"))
    store.add(kept)
    store.add(kept)
    assert list(store.entries()) == [kept]
    store.close()


def test_a_null_character_costs_no_entry(server: PostgresProcess) -> None:
    store = DatabaseStore(server.database, Seal(bytes(32)))
    store.add(replace(make_entry(noted()), model="g\0"))
    assert [one.model for one in store.entries()] == ["g\ufffd"]
    store.close()


def test_an_answer_is_held_for_one_reviewer_on_all_hosts(server: PostgresProcess) -> None:
    first, second = DatabaseStore(server.database), DatabaseStore(server.database)
    for name in ("one", "two"):
        first.add(make_entry(replace(noted(), aligner_id=name)))
    held = [ReviewQueue(store, who).next() for store, who in ((first, "anna"), (second, "ben"), (second, "carl"))]
    assert {one[0].aligner_id for one in held[:2] if one} == {"one", "two"}
    assert held[2] is None
    first.close()
    second.close()


def test_one_host_tidies_until_its_connection_ends(server: PostgresProcess) -> None:
    first, second = DatabaseLease(server.database), DatabaseLease(server.database)
    assert (first.take(), first.take(), second.take()) == (True, True, False)
    first.close()
    until = time.monotonic() + 10
    while not second.take():
        assert time.monotonic() < until
    second.close()


async def test_a_database_that_was_away_is_written_again(
    server: PostgresProcess, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(lambda: DatabaseStore(server.database), QueueLimits(2**20))
    recorder.note(replace(noted(1), aligner_id="one"))
    while recorder._items:
        time.sleep(0.01)
    server.stop()
    recorder.note(replace(noted(2), aligner_id="two"))
    while "cannot be written" not in caplog.text:
        time.sleep(0.01)
    server.start()
    while recorder._items:
        time.sleep(0.01)
    await recorder.aclose()
    store = DatabaseStore(server.database)
    assert [one.aligner_id for one in store.entries()] == ["two", "one"]
    store.close()
    assert "the audit database in AUDIT_DATABASE fails" in caplog.text
    assert "secret-word" not in caplog.text
    assert str(server.port) not in caplog.text


def test_a_server_that_says_nothing_costs_no_more_than_the_patience(server: PostgresProcess) -> None:
    store = DatabaseStore(replace(server.database, wait_s=0.3))
    (backend,) = store.fetch_rows("SELECT pg_backend_pid()")[0]
    os.kill(backend, signal.SIGSTOP)
    try:
        with pytest.raises(DatabaseAway, match="AUDIT_DATABASE"):
            store.fetch_rows("SELECT 1")
    finally:
        os.kill(backend, signal.SIGCONT)
    store.close()


async def test_where_the_entry_is_required_an_answer_is_refused_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aligner_proxy.audit.recorder.MAX_WAIT_S", 0.0)
    nowhere = Database("postgresql://aligner:secret-word@127.0.0.1:1/none", "AUDIT_DATABASE")
    recorder = Recorder(lambda: DatabaseStore(nowhere), QueueLimits(2**20), required=True)
    with pytest.raises(NotRecorded) as refused:
        await recorder.write(noted())
    await recorder.aclose()
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize("tenant", [[], ["--tenant", "acme"]])
def test_the_commands_find_and_erase_an_answer(
    server: PostgresProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tenant: list[str]
) -> None:
    monkeypatch.setenv("AUDIT_DATABASE", server.url)
    policies = tmp_path / "policies.yaml"
    policies.write_text("objectives: {}\naudit: {enabled: true, database_env: AUDIT_DATABASE}\n")
    store = DatabaseStore(server.database)
    store.add(make_entry(replace(noted(), aligner_id="one")))
    with open_reviews(
        {"policies": policies, "path": None, "route": None, "since": "1970-01-01", "tenant": "acme"}
    ) as found:
        assert [one.aligner_id for one in found.entries()] == ["one"]
    erased = CliRunner().invoke(command, ["erase", "one", "--policy", str(policies), *tenant])
    assert erased.exit_code == 0, erased.output
    assert list(store.entries()) == []
    store.close()


def size(server: PostgresProcess) -> int:
    """Bytes that the table of entries takes on the server's disk, with what was deleted and with its texts."""
    store = DatabaseStore(server.database)
    found = int(store.fetch_rows("SELECT pg_total_relation_size('aligner_audit.entries')")[0][0])
    store.close()
    return found


def test_when_there_is_too_much_the_first_go_and_their_room_is_used_again(server: PostgresProcess) -> None:
    # Of letters without a pattern, which PostgreSQL cannot compress.
    text = Random(7).randbytes(12_000).hex()
    sizes = []
    for _ in range(4):
        filled(server.database, [NOW - n for n in range(60)], answer=text)
        sizes.append(size(server))
        store = DatabaseStore(server.database)
        used = store.used_bytes()
        store.close()
        assert used > 2**20
        gone = tidy(server.database, RetentionLimits(MONTH_S, 2**20))
        assert 0 < gone < 120
        left = kept(server.database)
        assert left == [f"call-{n}" for n in range(60 - len(left), 60)], "what was added first went first"
        assert tidy(server.database, RetentionLimits(MONTH_S, 2**20)) == 0
    # From the second round on what is kept and another sixty take the room. A table that reuses none grows to more than
    # twice that; one that does, by some pages.
    assert sizes[3] < sizes[1] * 1.5


def test_older_tables_are_brought_up_to_date_by_one_of_several_gateways(server: PostgresProcess) -> None:
    old = DatabaseStore(server.database)
    old.add(make_entry(noted()))
    old.close()
    steps = (*STEPS, "ALTER TABLE entries ADD COLUMN note TEXT; CREATE INDEX entries_note ON entries (note)")
    with ThreadPoolExecutor(4) as gateways:
        stores = list(gateways.map(lambda _: DatabaseStore(server.database, steps=steps), range(4)))
    assert list(stores[0].entries()) == [make_entry(noted())]
    assert stores[1].fetch_rows("SELECT note FROM entries") == [(None,)]
    for store in stores:
        store.close()
    with pytest.raises(AuditError, match="AUDIT_DATABASE was made by a newer aligner-proxy"):
        DatabaseStore(server.database)


def test_a_step_that_fails_changes_nothing(server: PostgresProcess) -> None:
    DatabaseStore(server.database).close()
    with pytest.raises(DatabaseAway):
        DatabaseStore(server.database, steps=(*STEPS, "ALTER TABLE entries ADD COLUMN note TEXT; NONSENSE"))
    store = DatabaseStore(server.database)
    store.add(make_entry(noted()))
    assert store.fetch_rows("SELECT count(*) FROM information_schema.columns WHERE column_name = 'note'") == [(0,)]
    store.close()


def test_older_entries_stay_readable_beside_a_gateway_that_migrates(server: PostgresProcess) -> None:
    """Hosts are upgraded one after the other: the old one goes on with the connection that it has."""
    old = DatabaseStore(server.database)
    new = DatabaseStore(server.database, steps=(*STEPS, "ALTER TABLE entries ADD COLUMN note TEXT"))
    old.add(make_entry(noted(1)))
    new.add(make_entry(noted(2)))
    assert {one.call_id for one in old.entries()} == {one.call_id for one in new.entries()} == {"call-1", "call-2"}
    old.close()
    new.close()
