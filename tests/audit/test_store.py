"""One file: private, versioned, bounded, encrypted where a key is given, shared by several workers."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.audit.store import STEPS, AuditStore, Seal
from aligner_proxy.errors import AuditError
from tests.audit.conftest import noted

KEY = bytes(range(32))
OTHER = bytes(32)


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(path.name + "*"))


def test_what_is_kept_comes_back_as_it_was(place: StoreLocation) -> None:
    kept = [make_entry(noted(n, at=1000.0 + n, no_store=n == 1)) for n in range(3)]
    store = open_store(place)
    for one in kept:
        store.add(one)
    assert list(store.entries()) == kept[::-1]
    assert list(store.entries(since=1001.0, until=1002.0)) == [kept[1]]
    assert list(store.entries(limit=1)) == [kept[2]]
    store.close()
    again = open_store(place)
    assert list(again.entries()) == kept[::-1]
    again.close()


def test_workers_may_make_the_same_store_at_once(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    first.executescript("PRAGMA auto_vacuum = 2; CREATE TABLE t (n); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    ends = threading.Timer(0.1, first.close)
    ends.start()
    AuditStore(path, busy_s=10.0).close()
    ends.join()


def test_only_the_owner_can_read(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    store = AuditStore(path)
    store.add(make_entry(noted()))
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(path)} == {0o600}
    assert len(files(path)) == 3
    store.close()


def test_a_link_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(OSError, match="symbolic"):
        AuditStore(path)


def test_without_a_key_an_operator_can_ask_sqlite(path: Path) -> None:
    store = AuditStore(path)
    store.add(make_entry(noted()))
    store.close()
    with sqlite3.connect(path) as asked:
        assert asked.execute("SELECT json_extract(content, '$.edited') FROM entries").fetchone() == ("It is so.",)
    asked.close()


def test_with_a_key_no_text_is_in_any_file(path: Path) -> None:
    store = AuditStore(path, Seal(KEY))
    store.add(make_entry(noted()))
    assert not [file for file in files(path) if b"fool" in file.read_bytes() or b"Is it so" in file.read_bytes()]
    assert list(store.entries()) == [make_entry(noted())]
    store.close()


@pytest.mark.parametrize("seal", [None, Seal(OTHER)])
def test_another_key_opens_nothing_and_is_named(place: StoreLocation, seal: Seal | None) -> None:
    store = open_store(place, Seal(KEY))
    store.add(make_entry(noted()))
    store.close()
    other = open_store(place, seal)
    with pytest.raises(AuditError, match=f"encrypted with key {Seal(KEY).name}"):
        list(other.entries())
    other.close()


@pytest.mark.parametrize("change", ["content = substr(content, 1, 20)", "call_id = 'another'", "at = at + 1"])
def test_what_was_changed_or_moved_does_not_open(path: Path, change: str) -> None:
    store = AuditStore(path, Seal(KEY))
    store.add(make_entry(noted()))
    store._connection.execute(f"UPDATE entries SET {change}")
    with pytest.raises(AuditError, match="changed, moved or cut off"):
        list(store.entries())
    store.close()


def test_a_damaged_block_is_named_without_its_text(path: Path) -> None:
    store = AuditStore(path)
    store.add(make_entry(noted()))
    store._connection.execute("UPDATE entries SET content = '{\"secret\": 1}'")
    with pytest.raises(AuditError) as caught:
        list(store.entries())
    assert "secret" not in str(caught.value)
    store.close()


def test_an_older_file_is_brought_up_to_date(path: Path) -> None:
    old = AuditStore(path)
    old.add(make_entry(noted()))
    old.close()
    steps = (*STEPS, "ALTER TABLE entries ADD COLUMN note TEXT; CREATE INDEX entries_note ON entries (note)")
    new = AuditStore(path, steps=steps)
    assert list(new.entries()) == [make_entry(noted())]
    assert new._connection.execute("SELECT note FROM entries").fetchall() == [(None,)]
    new.close()
    with pytest.raises(AuditError, match="newer aligner-proxy"):
        AuditStore(path)


def test_a_step_that_fails_changes_nothing(path: Path) -> None:
    AuditStore(path).close()
    with pytest.raises(sqlite3.OperationalError):
        AuditStore(path, steps=(*STEPS, "ALTER TABLE entries ADD COLUMN note TEXT; NONSENSE"))
    store = AuditStore(path)
    store.add(make_entry(noted()))
    store.close()


def test_half_a_surrogate_pair_is_kept_as_its_replacement(place: StoreLocation) -> None:
    one = noted()
    odd = replace(one, facts=replace(one.facts, model="g\ud800"), exchange=replace(one.exchange, answer="so \ud83d so"))
    store = open_store(place, Seal(KEY))
    store.add(make_entry(odd))
    (kept,) = store.entries()
    store.close()
    assert kept.content is not None
    assert (kept.model, kept.content.exchange.answer) == ("g\ufffd", "so \ufffd so")


def test_a_row_that_sqlite_cannot_hold_costs_only_itself(place: StoreLocation) -> None:
    store = open_store(place)
    good, bad = make_entry(noted(1)), replace(make_entry(noted(2)), forwards=2**70)
    assert store.insert([store.make_row(good), store.make_row(bad), store.make_row(good)]) == [1]
    assert len(list(store.entries())) == 2
    store.close()


def test_workers_that_start_together_share_the_file(path: Path) -> None:
    """Copies of a process that has imported what they need, so that they begin in the same moment."""
    script = (
        "import os, sys; from pathlib import Path; from aligner_proxy.audit.store import AuditStore;"
        "from aligner_proxy.audit.entry import make_entry; from tests.audit.conftest import noted\n"
        "workers = []\n"
        "for _ in range(3):\n"
        "    worker = os.fork()\n"
        "    if not worker:\n"
        "        store = AuditStore(Path(sys.argv[1]))\n"
        "        for n in range(50): store.add(make_entry(noted(n)))\n"
        "        sys.exit()\n"
        "    workers.append(worker)\n"
        "print([os.waitpid(worker, 0)[1] for worker in workers])\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    printed = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.PIPE, timeout=60)
    assert printed.stdout == b"[0, 0, 0]\n"
    store = AuditStore(path)
    assert len(list(store.entries())) == 150
    store.close()


def test_a_second_connection_of_a_process_leaves_the_locks_of_the_first(path: Path) -> None:
    """Otherwise another process that closes the file takes the log away from under the first."""
    script = (
        "import sys; from pathlib import Path; from aligner_proxy.audit.store import AuditStore\n"
        "store = AuditStore(Path(sys.argv[1])); print(len(list(store.entries()))); store.close()\n"
    )

    def seen_by_another() -> str:
        command = [sys.executable, "-c", script, str(path)]
        return subprocess.run(
            command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.PIPE
        ).stdout.decode()

    first = AuditStore(path)
    first.add(make_entry(noted(1)))
    AuditStore(path).close()
    assert seen_by_another() == "1\n"
    first.add(make_entry(noted(2)))
    assert seen_by_another() == "2\n"
    first.close()
